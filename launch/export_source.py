"""Reads the weights to export from a run's checkpoint or from a folder of weights."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import nnx, traverse_util

import prior_jax
from prior_jax.config import CONFIG_NAME, read_kept_config
from prior_jax.data.manifest import MANIFEST_NAME, load_manifest
from prior_jax.data.pipeline import DataConfig
from prior_jax.data.tokenizer import Tokenizer, TokenizerConfig, open_tokenizer
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.results import read_results
from prior_jax.interface import Model
from prior_jax.interface.image_model import ImageModel, open_image_model
from prior_jax.interface.trained import schedule_of
from prior_jax.interop.export.model_card import DataFacts, Facts, licence_of_run
from prior_jax.interop.export.parts import sha256
from prior_jax.interop.weights_folder import Weights, is_weights_folder, load_weights
from prior_jax.interop.weights_input import tokenizer_config
from prior_jax.objectives.kinds import KINDS
from prior_jax.train import checkpoint_read
from prior_jax.train.measured_step import FINETUNE_MARK, measured_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Weights to export, with their description.

    Attributes:
      path: path of the run or of the weights.
      weights: arrays of the weights, with their description.
      facts: facts for the model card.
      tokenizer: tokenizer of the text encoder, or None.
      tokenizer_config: settings that the tokenizer was opened with, or None.
    """

    path: pathlib.Path
    weights: Weights
    facts: Facts
    tokenizer: Tokenizer | None
    tokenizer_config: TokenizerConfig | None

    @functools.cached_property
    def model(self) -> Model | ImageModel:
        """Returns the whole model of a run, or of weights of the part "model"."""
        step = None if is_weights_folder(self.path) else self.facts.step
        return _model(self.path, self.weights.objective, step=step)

    @property
    def reads_reports(self) -> bool:
        """Tells whether the weights are of a text encoder, or of a model that has one."""
        kind = KINDS.get(self.weights.objective or "")
        return self.weights.part != "image" and (kind is None or kind.reads_reports)


def open_source(workdir: str | os.PathLike[str], *, step: int | None) -> Source:
    """Reads a run's checkpoint, or a folder of weights.

    Args:
      workdir: folder of the run or of the weights.
      step: step of the run's checkpoint. None is the newest, or of a fine-tuning of an evaluation
        the one that its results were measured on. Weights have no step.

    Raises:
      DataError: if the folder holds neither a run nor weights, or if the run's data or tokenizer
        cannot be read.
      CheckpointError: if there is no sound checkpoint of that step, or the run's prepared set or
        tokenizer is not the one that it was trained with.
      WeightsError: if the weights are damaged.
    """
    folder = pathlib.Path(workdir)
    if is_weights_folder(folder):
        return _weights(folder, step=step)
    if not (folder / CONFIG_NAME).is_file():
        raise DataError(
            f"{folder} holds neither a run nor weights.",
            "Give the folder of a run of launch.train, or one that launch.import_weights or "
            "launch.export --format=nnx wrote.",
            where="--workdir",
        )
    return _run(folder, step=step)


def _weights(folder: pathlib.Path, *, step: int | None) -> Source:
    if step is not None:
        raise ConfigError(
            f"Step {step} is asked for, but {folder} holds weights, which have no steps.",
            "Leave out --step.",
            where="--step",
        )
    weights, config = load_weights(folder), tokenizer_config(folder)
    tokenizer = None if config is None else open_tokenizer(config)
    origin = weights.origin
    return Source(
        path=folder,
        weights=weights,
        facts=Facts(
            name=str(origin.get("run") or origin.get("source") or folder.name),
            step=origin.get("step"),
            config=None,
            data=None,
            tokenizer=None if tokenizer is None else tokenizer.fingerprint,
            results=(),
        ),
        tokenizer=tokenizer,
        tokenizer_config=config,
    )


def _run(folder: pathlib.Path, *, step: int | None) -> Source:
    config = read_kept_config(folder)
    if step is None:
        # The step is named explicitly, so that the model card states it, and so that a damaged
        # checkpoint is refused instead of skipped.
        step = measured_step(folder, config.train.checkpoint)
    if step is None:
        step = max(checkpoint_read.list_steps(config.train.checkpoint.folder(folder)), default=None)
    model = _model(folder, config.objective, step=step)
    words = model.tokenizer if isinstance(model, Model) else None
    data = _data(config.data.path, phantom=config.makes_set)
    return Source(
        path=folder,
        weights=Weights(
            part="model",
            objective=config.objective,
            model=config.given["model"],
            data=_preprocessing(model, config.data),
            origin={
                "source": "launch.train",
                "run": config.name,
                "step": step,
                "stage": _stage(config.train.checkpoint.folder(folder), step),
                "data": data.sha256,
                "licence": licence_of_run(config.given, data),
            },
            arrays=_arrays(model),
        ),
        facts=Facts(
            name=config.name,
            step=step,
            config=config.given,
            data=data,
            tokenizer=None if words is None else words.fingerprint,
            results=results_of(folder),
        ),
        tokenizer=words,
        tokenizer_config=None if words is None else config.data.tokenizer,
    )


def _stage(checkpoints: epath.Path, step: int | None) -> str:
    """Returns the name of the stage that a checkpoint's last step belongs to."""
    host = checkpoint_read.read_document(checkpoints / str(step))["host"]
    return schedule_of(host).before(host["step"]).name


def _model(folder: pathlib.Path, objective: str | None, *, step: int | None) -> Model | ImageModel:
    kind = KINDS.get(objective or "")
    if kind is not None and not kind.reads_reports:
        return open_image_model(folder, step=step)
    return prior_jax.load(folder, step=step)


def results_of(folder: pathlib.Path) -> Sequence[Mapping[str, Any]]:
    """Returns the results of a run, or those of the fine-tuning that trained the folder's model."""
    if not (folder / FINETUNE_MARK).is_file():
        return read_results(folder)
    if folder.name != "model":  # the training from random weights, whose column is not the model's
        return ()
    found = read_results(folder.parents[2])
    return tuple(result for result in found if result["task"] == folder.parent.name)


def _preprocessing(model: Model | ImageModel, settings: DataConfig) -> dict[str, Any]:
    """Returns the section `data` of `weights.json`, with which `prior_jax.load` reads inputs."""
    if isinstance(model, ImageModel):
        return {"image": dataclasses.asdict(model.image)}
    splitter = load_manifest(settings.path).settings.get("splitter")
    tokenizer = settings.tokenizer
    return {
        "image": dataclasses.asdict(model.image),
        "text_mode": model.text.mode,
        "max_tokens": model.text.max_tokens,
        "max_sentences": model.text.max_sentences,
        "tokenizer": {"kind": tokenizer.kind, "lower_case": tokenizer.lower_case},
        **({} if splitter is None else {"splitter": splitter}),
    }


def _data(path: str, *, phantom: bool) -> DataFacts:
    manifest = load_manifest(path)
    return DataFacts(
        path=path,
        program=manifest.program,
        sha256=sha256((pathlib.Path(path) / MANIFEST_NAME).read_bytes()),
        splits={split: dataclasses.asdict(counts) for split, counts in manifest.splits.items()},
        phantom=phantom,
    )


def _arrays(model: Model | ImageModel) -> dict[str, np.ndarray]:
    state = nnx.as_pure(nnx.state(model.module, nnx.Any(nnx.Param, nnx.BatchStat)))
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")
    return {name: np.asarray(jax.device_get(value)) for name, value in flat.items()}
