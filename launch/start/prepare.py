"""Makes what a run lacks: a phantom data set, and a tokenizer of the set's own reports."""

import os
import pathlib

from absl import logging

from data_prep import mimic_cxr, train_tokenizer
from data_prep.kit import cli, writer
from data_prep.phantom import hospital
from prior_jax.config import PhantomConfig, RunConfig
from prior_jax.data import schema
from prior_jax.errors import ConfigError


def check_data(config: RunConfig) -> None:
    """Refuses data that are not there and cannot be made, before a run is begun.

    Raises:
      ConfigError: naming the flag to give, or the validations that the set has no records for.
      DataError: for a manifest that cannot be read.
    """
    config.check_data()
    if config.makes_set:
        return
    path = config.data.path
    if not (pathlib.Path(path) / schema.MANIFEST_NAME).is_file():
        raise ConfigError(
            "config.data.path",
            received=path,
            accepted=f"the folder of a prepared set, which holds {schema.MANIFEST_NAME} "
            "(docs/data.md says how to prepare one)",
        )
    check_validates(config, schema.load_manifest(path))


def check_validates(config: RunConfig, manifest: schema.Manifest) -> None:
    """Refuses validations on a set that has no records to validate on.

    Raises:
      ConfigError: saying how to train without.
    """
    held = [split for split, counts in manifest.splits.items() if counts.studies]
    if config.train.validate_every and "validate" not in held:
        raise ConfigError(
            "config.validate_every",
            received=config.train.validate_every,
            accepted="--config.validate_every=0, or a set that is prepared with a split validate: "
            f"this one has records in {', '.join(held) or 'no split'} only",
        )


def make_absent(config: RunConfig, workdir: pathlib.Path) -> None:
    """Makes the prepared set and the tokenizer that a config does not name, where absent.

    Args:
      config: all sections.
      workdir: gets `data/raw`, `data/set` and `tokenizer/tokenizer.model`.

    Raises:
      DataError: if a part of it is there, but damaged or made with other settings.
    """
    if config.prepare.phantom is not None and config.makes_set:
        _phantom_set(config.prepare.phantom, workdir / "data")
    words = config.data.tokenizer
    if config.makes_tokenizer and not pathlib.Path(words.path).exists():
        logging.info("training a tokenizer on the training reports of %s", config.data.path)
        train_tokenizer.train(
            train_tokenizer.Settings(
                path=config.data.path,
                out=words.path,
                vocab_size=config.prepare.vocab_size,
                lower_case=words.lower_case,
                label_sentences="labels" in config.data.text_sources,
            )
        )


def _phantom_set(wanted: PhantomConfig, folder: pathlib.Path) -> None:
    """Draws the phantom and prepares it as MIMIC-CXR is prepared; goes on where it was stopped."""
    # A worker takes longer to start than to draw a few hundred studies.
    workers = min(os.cpu_count() or 1, 1 + wanted.studies // 500)
    raw = folder / "raw"
    logging.info("drawing %d phantom studies in %s", wanted.studies, raw)
    settings = hospital.Settings(
        studies=wanted.studies,
        seed=wanted.seed,
        size=wanted.size,
        train=1.0 - wanted.validate - wanted.test,
        validate=wanted.validate,
        test=wanted.test,
        zip_reports=False,
    )
    hospital.draw_phantom(raw, settings, workers=workers)
    logging.info("preparing them in %s", folder / "set")
    try:
        mimic_cxr.prepare(
            mimic_cxr.Paths(images_dir=str(raw), reports=str(raw / "reports")),
            mimic_cxr.Settings(short_side=wanted.size),
            cli.RunOptions(out=str(folder / "set"), workers=workers),
        )
    except writer.ProgramChanged:
        # A run goes on with the records that it began with, or its checkpoints would be refused.
        logging.info("they are there as another version of the program has prepared them")
