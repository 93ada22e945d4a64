"""Makes the missing inputs of a run: a phantom data set, and a tokenizer of its reports."""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import types
from collections.abc import Iterator

from absl import logging

from data_prep import drawn_regions, mimic_cxr, train_tokenizer
from data_prep.kit import begun, cli, writer
from data_prep.phantom import hospital
from prior_jax.data import manifest as manifest_lib
from prior_jax.errors import ConfigError, DataError, PriorJaxError, first_line
from prior_jax.processes import distributed
from prior_jax.run_config import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Missing:
    """The inputs that a run makes for itself, because its config does not name them.

    Attributes:
      phantom: settings of the phantom that is drawn and prepared, or None for a given set.
      tokenizer: settings of the tokenizer that is trained, or None for a given tokenizer.
    """

    phantom: hospital.Settings | None
    tokenizer: train_tokenizer.Settings | None


def missing(config: RunConfig) -> Missing:
    """Returns the inputs that a config does not name; nothing is made.

    Raises:
      ConfigError: if an input is neither named nor can be made, or if a setting prevents it from
        being made; the message names the flag or setting.
    """
    config.check_data()
    tokenizer, phantom = None, None
    if config.makes_tokenizer:
        with _named("config.prepare"):
            tokenizer = train_tokenizer.Settings(
                path=config.data.path,
                out=config.data.tokenizer.path,
                vocab_size=config.prepare.vocab_size,
                lower_case=config.data.tokenizer.lower_case,
                label_sentences="labels" in config.data.text_sources,
            )
    if config.makes_set and config.prepare.phantom is not None:
        wanted = config.prepare.phantom
        with _named("config.prepare.phantom"):
            phantom = hospital.Settings(
                studies=wanted.studies,
                seed=wanted.seed,
                size=wanted.size,
                train=1.0 - wanted.validate - wanted.test,
                validate=wanted.validate,
                test=wanted.test,
                zip_reports=False,
            )
    return Missing(phantom=phantom, tokenizer=tokenizer)


@contextlib.contextmanager
def _named(section: str) -> Iterator[None]:
    """Gives a flag that a preparing program refuses the name of its setting in the config."""
    try:
        yield
    except PriorJaxError as error:
        field = error.where.replace("--", "")
        # Several fields, such as the shares of the splits, are told by the problem.
        where = section if "," in field else f"{section}.{field}"
        raise ConfigError(error.problem, error.remedy, where=where) from error


@contextlib.contextmanager
def _of_this_program(where: str, remedy: str) -> Iterator[None]:
    """Gives an error about a flag of a preparing program a setting and a remedy of this one."""
    try:
        yield
    except writer.ProgramChanged:
        raise
    except PriorJaxError as error:
        if not error.where.startswith("--"):
            raise
        problem = error.problem.replace(" --", " ")  # its settings have the names of those flags
        raise type(error)(problem, remedy, where=where) from error


def check_set(config: RunConfig) -> None:
    """Refuses a given set that the run cannot use, before the run begins.

    Raises:
      ConfigError: if there is no set, if it has no records for the validations, or if it was
        prepared with another parser than the run needs; the message names the setting.
      DataError: if the manifest cannot be read.
    """
    if config.makes_set:
        return
    path = config.data.path
    if not (pathlib.Path(path) / manifest_lib.MANIFEST_NAME).is_file():
        raise ConfigError(
            f"{path} is not a prepared set: it holds no {manifest_lib.MANIFEST_NAME}.",
            "Give the folder of a prepared set; docs/data.md says how to prepare one.",
            where="config.data.path",
        )
    manifest = manifest_lib.load_manifest(path)
    check_validates(config.train.validate_every, manifest)
    check_evaluates(config, manifest)
    if config.repeats_release:
        _check_parser(path, manifest)


def check_validates(validate_every: int, manifest: manifest_lib.Manifest) -> None:
    """Refuses validations on a set that has no validation records.

    Args:
      validate_every: the setting `config.validate_every`; 0 asks for no validation.
      manifest: manifest of the set.

    Raises:
      ConfigError: if there are no such records; the message says how to train without validations.
    """
    held = _held(manifest)
    if validate_every and "validate" not in held:
        raise ConfigError(
            f"The value is {validate_every}, but the set has no records to validate on: it has "
            f"records in {', '.join(held) or 'no split'} only.",
            "Set --config.validate_every=0, or prepare the set with a split validate.",
            where="config.validate_every",
        )


def check_evaluates(config: RunConfig, manifest: manifest_lib.Manifest) -> None:
    """Refuses evaluations while training on a split of the set that has no records.

    Raises:
      ConfigError: if there are no such records; the message says how to train without.
    """
    held = _held(manifest)
    if config.train.evaluate_every and config.evaluate and config.evaluate.split not in held:
        raise ConfigError(
            f"The split is {config.evaluate.split!r}, but the set has no records in it to evaluate "
            f"on: it has records in {', '.join(held) or 'no split'} only.",
            "Name another split, or set --config.evaluate_every=0.",
            where="config.evaluate.split",
        )


def _held(manifest: manifest_lib.Manifest) -> list[str]:
    return [split for split, counts in manifest.splits.items() if counts.studies]


def _check_parser(path: str, manifest: manifest_lib.Manifest) -> None:
    """Refuses a set whose reports were not read as the authors' release of PRIOR reads them.

    A set whose preparer has no choice of parser is accepted.
    """
    parser = manifest.settings.get("parser", "release")
    if parser != "release":
        raise ConfigError(
            f"The set {path} was prepared with --parser={parser}, and config.model.fidelity "
            "'release' repeats a release that reads reports with another parser.",
            "Give a set prepared with --parser=release, or train on this set with "
            "--config=configs/prior/paper.py.",
            where="config.data.path",
        )


def check_made(made: Missing) -> None:
    """Refuses to continue with a tokenizer that this workdir's run made with other settings.

    An existing tokenizer is not made anew, so the saved config would state settings that it does
    not have. A tokenizer without a record of its settings is accepted.

    Args:
      made: inputs that the run makes, or has made when it was started before.

    Raises:
      ConfigError: if a setting differs; the message names the setting, with both values.
      DataError: if the record of settings is damaged.
    """
    if made.tokenizer is None:
        return
    out = pathlib.Path(made.tokenizer.out)
    record = out.with_name(out.stem + train_tokenizer.SETTINGS_SUFFIX)
    if not record.is_file():
        return
    try:
        then = json.loads(record.read_text())["settings"]
        before = {name: then.get(name) for name in ("vocab_size", "lower_case")}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"The record of the tokenizer's settings is damaged ({first_line(error)}).",
            "Train in a new workdir, which makes the tokenizer anew.",
            where=str(record),
        ) from error
    fields = {
        "config.prepare.vocab_size": "vocab_size",
        "config.data.tokenizer.lower_case": "lower_case",
    }
    for field, name in fields.items():
        now = getattr(made.tokenizer, name)
        if now != before[name]:
            raise ConfigError(
                f"The value is {now!r}, but the tokenizer {out} was made with {before[name]!r}.",
                f"Set it to {before[name]!r}, or give a new workdir.",
                where=field,
            )


def make_in_one_process(wanted: Missing, workdir: pathlib.Path) -> None:
    """Makes the missing inputs in process 0, while the other processes of the run wait."""
    if distributed.is_primary():
        make_absent(wanted, workdir)
    distributed.barrier("data prepared")


def make_absent(wanted: Missing, workdir: pathlib.Path) -> None:
    """Makes the prepared set and the tokenizer that a config does not name, if they are missing.

    Args:
      wanted: inputs from `missing`.
      workdir: folder for `data/raw`, `data/set` and `tokenizer/tokenizer.model`.

    Raises:
      DataError: if one of them exists, but is damaged or was made with other settings.
    """
    if wanted.phantom is not None:
        with _of_this_program(
            "config.prepare.phantom",
            f"Give the settings of the phantom that {workdir} holds, or use another --workdir.",
        ):
            with light_workers():
                _phantom_set(wanted.phantom, workdir / "data")
    if wanted.tokenizer is not None and not pathlib.Path(wanted.tokenizer.out).exists():
        logging.info("training a tokenizer on the training reports of %s", wanted.tokenizer.path)
        with _of_this_program(
            "config.prepare.vocab_size", "Change it, or train on a set with more reports."
        ):
            train_tokenizer.train(wanted.tokenizer)


@contextlib.contextmanager
def light_workers() -> Iterator[None]:
    """Keeps processes that are spawned within from importing the program that is running.

    A spawned process first imports the main module of its parent, in case a function that it is to
    run is defined there. Those of `data_prep` are not, and the programs import JAX, which takes
    each worker seconds.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def _phantom_set(settings: hospital.Settings, folder: pathlib.Path) -> None:
    """Draws the phantom and prepares it like MIMIC-CXR; continues what was interrupted.

    The set has what MIMIC-CXR lacks as well: the box and the mask of each drawn finding.
    """
    raw = folder / "raw"
    # Starting a worker takes longer than drawing a few hundred studies.
    workers = min(os.cpu_count() or 1, 1 + settings.studies // 500)
    if not hospital.is_drawn(raw):
        logging.info("drawing %d phantom studies in %s", settings.studies, raw)
    hospital.draw_phantom(raw, settings, workers=workers)
    if not (folder / "set" / manifest_lib.MANIFEST_NAME).is_file():
        logging.info("preparing %s in %s", raw, folder / "set")
    findings = raw / drawn_regions.FINDINGS
    # A set that was begun before sets of a phantom had boxes and masks stays without them: other
    # records would be another set, on which the run could not go on.
    there = begun.inputs_there(folder / "set")
    drawn = str(findings) if there is None or findings.name in there else ""
    try:
        mimic_cxr.prepare(
            mimic_cxr.Paths(images_dir=str(raw), reports=str(raw / "reports"), findings=drawn),
            mimic_cxr.Settings(short_side=settings.size),
            cli.RunOptions(out=str(folder / "set"), workers=workers),
        )
    except writer.ProgramChanged:
        # A run continues with the records that it began with; otherwise its checkpoints would be
        # refused.
        logging.info("the set was prepared by another version of the program, and is used as it is")
