"""Makes what a run lacks: a phantom data set, and a tokenizer of the set's own reports."""

import os
import pathlib

from absl import logging

from data_prep import mimic_cxr, train_tokenizer
from data_prep.kit import cli
from data_prep.phantom import hospital
from prior_jax.config import PhantomConfig, RunConfig


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
    mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(raw), reports=str(raw / "reports")),
        mimic_cxr.Settings(short_side=wanted.size),
        cli.RunOptions(out=str(folder / "set"), workers=workers),
    )
