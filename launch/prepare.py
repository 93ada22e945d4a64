"""Makes what a run lacks: a phantom data set, and a tokenizer of the set's own reports."""

import os
import pathlib
from typing import Any

from absl import logging

from data_prep import mimic_cxr, train_tokenizer
from data_prep.kit import cli, writer
from data_prep.phantom import hospital
from prior_jax import assemble
from prior_jax.data import pipeline
from prior_jax.errors import ConfigError


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
      ConfigError: if there is no data and no phantom to draw.
      DataError: if a part of it is there, but damaged or made with other settings.
    """
    wanted = assemble.prepare_config(config)
    path, (made_set, made_tokenizer) = config.data.path, assemble.made_in(workdir)
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
