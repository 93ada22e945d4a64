"""Makes what a run lacks: a phantom data set, and a tokenizer of the set's own reports."""

import os
import pathlib
from typing import Any

from absl import logging

from data_prep import mimic_cxr, train_tokenizer
from data_prep.kit import cli, writer
from data_prep.phantom import hospital
from prior_jax import assemble
from prior_jax.data import pipeline, schema
from prior_jax.errors import ConfigError


def given_set(config: Any) -> str | None:
    """The set that `config.data.path` names, or None where it names none.

    Raises:
      ConfigError: if there is none.
    """
    path = config.data.path
    if path is not None and not (pathlib.Path(path) / schema.MANIFEST_NAME).is_file():
        raise ConfigError(
            "config.data.path",
            received=path,
            accepted=f"the folder of a prepared set, which holds {schema.MANIFEST_NAME} "
            "(docs/data.md says how to prepare one)",
        )
    return path


def check_given_set(config: Any) -> None:
    """Refuses a set, given by its path, that the run cannot be trained on, before it is begun.

    Raises:
      ConfigError: naming the path, or the validations that the set has no records for.
      DataError: for a manifest that cannot be read.
    """
    path = given_set(config)
    if path is not None:
        check_validates(config, schema.load_manifest(path))


def check_validates(config: Any, manifest: schema.Manifest) -> None:
    """Refuses validations on a set that has no records to validate on.

    Raises:
      ConfigError: saying how to train without.
    """
    held = [split for split, counts in manifest.splits.items() if counts.studies]
    if config.validate_every and "validate" not in held:
        raise ConfigError(
            "config.validate_every",
            received=config.validate_every,
            accepted="--config.validate_every=0, or a set that is prepared with a split validate: "
            f"this one has records in {', '.join(held) or 'no split'} only",
        )


def data_config(config: Any, workdir: pathlib.Path, *, make: bool) -> pipeline.DataConfig:
    """The section `config.data`, after making what it needs under the workdir.

    Args:
      config: the whole config.
      workdir: gets `data/raw`, `data/set` (if `config.data.path` is None) and
        `tokenizer/tokenizer.model` (if `config.data.tokenizer.path` is None).
      make: whether this process makes what is absent; the others only name it.

    Returns:
      The section, with the paths filled in.

    Raises:
      ConfigError: if there is no data and no phantom to draw, or the path given holds no set.
      DataError: if a part of it is there, but damaged or made with other settings.
    """
    wanted = assemble.prepare_config(config)
    path, (made_set, made_tokenizer) = given_set(config), assemble.made_in(workdir)
    if path is None:
        if wanted.phantom is None:
            raise ConfigError(
                "config.data.path", received=None, accepted="--config.data.path=DIR, a prepared set"
            )
        path = made_set
        if make:
            _phantom_set(wanted.phantom, workdir / "data")
    tokenizer = config.data.tokenizer.path
    if tokenizer is None:
        if config.data.tokenizer.kind != "sentencepiece":
            raise ConfigError(
                "config.data.tokenizer.path",
                received=None,
                accepted="--config.data.tokenizer.path=FILE, a vocab.txt or tokenizer.json",
            )
        tokenizer = made_tokenizer
        if make and not pathlib.Path(tokenizer).exists():
            logging.info("training a tokenizer on the training reports of %s", path)
            train_tokenizer.train(
                train_tokenizer.Settings(
                    path=path,
                    out=tokenizer,
                    vocab_size=wanted.vocab_size,
                    lower_case=config.data.tokenizer.lower_case,
                    label_sentences="labels" in config.data.text_sources,
                )
            )
    return assemble.data_config(config, path=path, tokenizer=tokenizer)


def _phantom_set(wanted: assemble.PhantomConfig, folder: pathlib.Path) -> None:
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
