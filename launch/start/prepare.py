"""Makes the missing inputs of a run: a phantom data set, and a tokenizer of its reports."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator

from absl import logging

from data_prep import mimic_cxr, train_tokenizer
from data_prep.kit import cli, writer
from data_prep.phantom import hospital
from prior_jax.config import PhantomConfig, RunConfig
from prior_jax.data import manifest as manifest_lib
from prior_jax.errors import ConfigError, DataError, PriorJaxError, first_line


def check_data(config: RunConfig) -> None:
    """Refuses missing data that cannot be made, before a run begins.

    Raises:
      ConfigError: if a flag is missing, if a setting prevents the data from being made, if the set
        has no records for the validations, or if it was prepared with another parser than the run
        needs; the message names the flag or setting.
      DataError: if the manifest cannot be read.
    """
    config.check_data()
    if config.makes_tokenizer:
        with _named("config.prepare"):
            _tokenizer_settings(config)
    if config.makes_set:
        with _named("config.prepare.phantom"):
            _phantom_settings(config.prepare.phantom)
        return
    path = config.data.path
    if not (pathlib.Path(path) / manifest_lib.MANIFEST_NAME).is_file():
        raise ConfigError(
            "config.data.path",
            received=path,
            accepted=f"the folder of a prepared set, which holds {manifest_lib.MANIFEST_NAME} "
            "(docs/data.md says how to prepare one)",
        )
    manifest = manifest_lib.load_manifest(path)
    check_validates(config, manifest)
    check_parser(config, manifest)


def check_validates(config: RunConfig, manifest: manifest_lib.Manifest) -> None:
    """Refuses validations on a set that has no validation records.

    Raises:
      ConfigError: if there are no such records; the message says how to train without validations.
    """
    held = [split for split, counts in manifest.splits.items() if counts.studies]
    if config.train.validate_every and "validate" not in held:
        raise ConfigError(
            "config.validate_every",
            received=config.train.validate_every,
            accepted="--config.validate_every=0, or a set that is prepared with a split validate: "
            f"this one has records in {', '.join(held) or 'no split'} only",
        )


def check_parser(config: RunConfig, manifest: manifest_lib.Manifest) -> None:
    """Refuses a set whose reports were not read as the authors' release of PRIOR reads them.

    That is asked of a run that repeats the release throughout: model, text and tokenizer. One that
    departs from it in any of these, as the arm of `configs/sweeps/objectives.py` does, compares
    fidelities on one set, and is let through. So is a set whose preparer has no choice of parser.

    Raises:
      ConfigError: naming the parser that the set was prepared with, and the one that is needed.
    """
    if (
        config.objective != "prior"
        or config.model.fidelity != "release"
        or config.data.text_mode != "release"
        or config.data.tokenizer.kind != "wordpiece"
    ):
        return
    parser = manifest.settings.get("parser", "release")
    if parser != "release":
        raise ConfigError(
            "config.data.path",
            received=f"{config.data.path}, prepared with --parser={parser}",
            accepted="a set prepared with --parser=release, which config.model.fidelity 'release' "
            "is to repeat (or --config=configs/prior/paper.py for this set)",
        )


def check_made(config: RunConfig) -> None:
    """Refuses to continue with a tokenizer that this workdir's run made with other settings.

    An existing tokenizer is not made anew, so the saved config would state settings that it does
    not have. A tokenizer without a record of its settings is accepted.

    Raises:
      ConfigError: if a setting differs; the message names the setting, with both values.
      DataError: if the record of settings is damaged.
    """
    out = pathlib.Path(config.data.tokenizer.path)
    record = out.with_name(out.stem + train_tokenizer.SETTINGS_SUFFIX)
    if not config.makes_tokenizer or not record.is_file():
        return
    try:
        made = json.loads(record.read_text())["settings"]
    except (ValueError, TypeError, KeyError) as error:
        accepted = "what data_prep.train_tokenizer wrote"
        raise DataError(str(record), received=first_line(error), accepted=accepted) from error
    ours = _tokenizer_settings(config)
    fields = {
        "config.prepare.vocab_size": "vocab_size",
        "config.data.tokenizer.lower_case": "lower_case",
    }
    for field, name in fields.items():
        now, then = getattr(ours, name), made.get(name)
        if now != then:
            accepted = f"{then!r}, as {out} was made with, or a new workdir"
            raise ConfigError(field, received=now, accepted=accepted)


def make_absent(config: RunConfig, workdir: pathlib.Path) -> None:
    """Makes the prepared set and the tokenizer that a config does not name, if they are missing.

    Args:
      config: config with all sections.
      workdir: folder for `data/raw`, `data/set` and `tokenizer/tokenizer.model`.

    Raises:
      DataError: if one of them exists, but is damaged or was made with other settings.
    """
    if config.makes_set:
        _phantom_set(config.prepare.phantom, workdir / "data")
    if config.makes_tokenizer and not pathlib.Path(config.data.tokenizer.path).exists():
        logging.info("training a tokenizer on the training reports of %s", config.data.path)
        train_tokenizer.train(_tokenizer_settings(config))


def _tokenizer_settings(config: RunConfig) -> train_tokenizer.Settings:
    return train_tokenizer.Settings(
        path=config.data.path,
        out=config.data.tokenizer.path,
        vocab_size=config.prepare.vocab_size,
        lower_case=config.data.tokenizer.lower_case,
        label_sentences="labels" in config.data.text_sources,
    )


def _phantom_settings(wanted: PhantomConfig | None) -> hospital.Settings:
    if wanted is None:
        raise ConfigError("config.prepare.phantom", received=None, accepted="a phantom to draw")
    return hospital.Settings(
        studies=wanted.studies,
        seed=wanted.seed,
        size=wanted.size,
        train=1.0 - wanted.validate - wanted.test,
        validate=wanted.validate,
        test=wanted.test,
        zip_reports=False,
    )


@contextlib.contextmanager
def _named(section: str) -> Iterator[None]:
    """Renames a setting that a preparing program refuses to its name in the config."""
    try:
        yield
    except PriorJaxError as error:
        field = f"{section}.{error.field.removeprefix('--')}"
        raise ConfigError(field, received=error.received, accepted=error.accepted) from error


def _phantom_set(wanted: PhantomConfig | None, folder: pathlib.Path) -> None:
    """Draws the phantom and prepares it like MIMIC-CXR; continues what was interrupted."""
    settings, raw = _phantom_settings(wanted), folder / "raw"
    # Starting a worker takes longer than drawing a few hundred studies.
    workers = min(os.cpu_count() or 1, 1 + settings.studies // 500)
    logging.info("drawing %d phantom studies in %s", settings.studies, raw)
    hospital.draw_phantom(raw, settings, workers=workers)
    logging.info("preparing them in %s", folder / "set")
    try:
        mimic_cxr.prepare(
            mimic_cxr.Paths(images_dir=str(raw), reports=str(raw / "reports")),
            mimic_cxr.Settings(short_side=settings.size),
            cli.RunOptions(out=str(folder / "set"), workers=workers),
        )
    except writer.ProgramChanged:
        # A run continues with the records that it began with; otherwise its checkpoints would be
        # refused.
        logging.info("they are there as another version of the program has prepared them")
