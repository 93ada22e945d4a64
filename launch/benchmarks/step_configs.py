"""The configs of the training steps that are timed: real ones, cut to a stage and a batch."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Literal

import jax
from ml_collections import ConfigDict

from configs import debug
from launch.benchmarks.request import Request
from prior_jax.config import read_config
from prior_jax.run_config import RunConfig

CPU_BATCH = 8
"""Pairs of a batch on a CPU, where a step of a larger one takes minutes."""
_TINY_BATCH = 4
_TINY_LENGTH = 32
Text = Literal["full", "lengths"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig:
    """A training step of the catalogue.

    Attributes:
      config: returns the config of a run, e.g. `configs.prior.paper.get_config`.
      stage: name of the stage.
      batch: pairs of a batch on an accelerator.
      text: "full" for reports all of whose tokens are real and as many as the config allows;
        "lengths" for reports as long as real ones, padded as training pads them.
    """

    config: Callable[[], ConfigDict]
    stage: str
    batch: int
    text: Text


def read(step: StepConfig, request: Request, workdir: pathlib.Path) -> RunConfig:
    """Returns the config of a run of one stage, as the request asks for it.

    Args:
      step: the step.
      request: batch, dtype, set and size that are asked for.
      workdir: folder that a run would have; nothing is written to it.
    """
    config = step.config().copy_and_resolve_references()
    with config.unlocked():
        config.stages = ConfigDict({step.stage: config.stages[step.stage]})
        config.model.dtype = dtype_of(request)
        config.data.batch_size = batch_of(step.batch, request)
        if request.tiny:
            _shrink(config)
        if request.data is not None:
            config.data.path = request.data
            config.data.tokenizer.kind = "sentencepiece"
            config.data.tokenizer.path = str(pathlib.Path(request.data) / "tokenizer.model")
        config.data.workers = workers()
    return read_config(config, workdir=workdir)


def on_accelerator() -> bool:
    """Returns whether the process computes on an accelerator."""
    return jax.devices()[0].platform != "cpu"


def dtype_of(request: Request) -> str:
    """Returns the dtype to compute in; bfloat16 is emulated on most CPUs."""
    return request.dtype or ("bfloat16" if on_accelerator() else "float32")


def batch_of(on_card: int, request: Request) -> int:
    """Returns the pairs of a batch.

    Args:
      on_card: pairs of a batch on an accelerator.
      request: its `batch` comes first.
    """
    if request.batch is not None:
        return request.batch
    wanted = _TINY_BATCH if request.tiny else (on_card if on_accelerator() else CPU_BATCH)
    devices = jax.device_count()
    return -(-wanted // devices) * devices


def workers() -> int:
    """Returns the processes that read data: none on a small machine, whose threads do as well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(12, cores - 2) if cores and cores >= 8 else 0


def _shrink(config: ConfigDict) -> None:
    """Gives the model the size of `configs/debug.py`, and the data a small image and text."""
    model = config.model
    debug.shrink(model)
    model.text.heads = 4
    if "pool_heads" in model.image:
        model.image.pool_heads = 4
    if model.image.get("upsample") is not None:
        model.image.upsample = 64
    if "sentence_decoder" in model:
        model.sentence_decoder.heads = 4
    if "sentence_heads" in model:
        model.sentence_heads = 4
    if "pool_heads" in model:
        model.pool_heads = 4
    if "last_layers" in model:
        model.last_layers = 1
    config.data.image.size = 32
    config.data.update(dict(max_tokens=_TINY_LENGTH, buckets=(_TINY_LENGTH,), max_sentences=8))
