"""Makes what a run lacks: a phantom data set, and a tokenizer of the set's own reports."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import logging

from data_prep import mimic_cxr, train_tokenizer
from data_prep.kit import cli
from data_prep.phantom import hospital
from prior_jax import assemble
from prior_jax.data import pipeline
from prior_jax.errors import ConfigError, DataError, PriorJaxError, first_line


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
            train_tokenizer.train(_tokenizer_settings(config, path=path, out=tokenizer))
    return assemble.data_config(config, path=path, tokenizer=tokenizer)


def check_settings(config: Any) -> None:
    """Refuses what no phantom can be drawn and no tokenizer trained with; nothing is made.

    Raises:
      ConfigError: naming the setting.
    """
    wanted = assemble.prepare_config(config)
    if config.data.path is None and wanted.phantom is not None:
        with _named("config.prepare.phantom"):
            _phantom_settings(wanted.phantom)
    if config.data.tokenizer.path is None:
        with _named("config.prepare"):
            _tokenizer_settings(config, path="set", out="tokenizer")


def check_made(config: Any, workdir: pathlib.Path) -> None:
    """Refuses to go on with a tokenizer that this workdir's run made with other settings.

    It is not made anew, so that the config that is kept would say what is not so. A tokenizer
    that lacks its record of settings is taken as it is.

    Raises:
      ConfigError: naming the setting that differs, with both values.
      DataError: if the record is damaged.
    """
    out = pathlib.Path(assemble.made_in(workdir)[1])
    record = out.with_name(out.stem + train_tokenizer.SETTINGS_SUFFIX)
    sentencepiece = config.data.tokenizer.kind == "sentencepiece"
    if config.data.tokenizer.path is not None or not sentencepiece or not record.is_file():
        return
    try:
        made = json.loads(record.read_text())["settings"]
    except (ValueError, TypeError, KeyError) as error:
        accepted = "what data_prep.train_tokenizer wrote"
        raise DataError(str(record), received=first_line(error), accepted=accepted) from error
    ours = _tokenizer_settings(config, path="set", out=str(out))
    fields = {
        "config.prepare.vocab_size": "vocab_size",
        "config.data.tokenizer.lower_case": "lower_case",
    }
    for field, name in fields.items():
        now, then = getattr(ours, name), made.get(name)
        if now != then:
            accepted = f"{then!r}, as {out} was made with, or a new workdir"
            raise ConfigError(field, received=now, accepted=accepted)


def _tokenizer_settings(config: Any, *, path: str, out: str) -> train_tokenizer.Settings:
    return train_tokenizer.Settings(
        path=path,
        out=out,
        vocab_size=assemble.prepare_config(config).vocab_size,
        lower_case=config.data.tokenizer.lower_case,
        label_sentences="labels" in config.data.text_sources,
    )


def _phantom_settings(wanted: assemble.PhantomConfig) -> hospital.Settings:
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
    """Names a setting that a preparing program refuses as the config does."""
    try:
        yield
    except PriorJaxError as error:
        field = f"{section}.{error.field.removeprefix('--')}"
        raise ConfigError(field, received=error.received, accepted=error.accepted) from error


def _phantom_set(wanted: assemble.PhantomConfig, folder: pathlib.Path) -> None:
    """Draws the phantom and prepares it as MIMIC-CXR is prepared; goes on where it was stopped."""
    # A worker takes longer to start than to draw a few hundred studies.
    workers = min(os.cpu_count() or 1, 1 + wanted.studies // 500)
    raw = folder / "raw"
    logging.info("drawing %d phantom studies in %s", wanted.studies, raw)
    hospital.draw_phantom(raw, _phantom_settings(wanted), workers=workers)
    logging.info("preparing them in %s", folder / "set")
    mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(raw), reports=str(raw / "reports")),
        mimic_cxr.Settings(short_side=wanted.size),
        cli.RunOptions(out=str(folder / "set"), workers=workers),
    )
