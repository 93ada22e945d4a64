"""The weights that a run starts from: a folder of weights, or the checkpoint of another run."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prior_jax.config import CONFIG_NAME, read_kept_config
from prior_jax.errors import CheckpointError, WeightsError
from prior_jax.interop import initial
from prior_jax.interop.adaptations import Encoder
from prior_jax.interop.initial import EncoderInit, Opened
from prior_jax.interop.weights_folder import Document, is_weights_folder
from prior_jax.train import checkpoint_read
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.measured_step import measured_step

_PARAMS, _REST = "model:params:", "model:rest:"


def find(given: EncoderInit) -> Opened:
    """Finds the weights that a section of `config.init` names; no array is read.

    Raises:
      WeightsError: if a folder of weights is damaged, or the folder is neither weights nor a run.
      CheckpointError: if the run has no checkpoint, or none of the step.
    """
    folder = pathlib.Path(str(given.path))
    if is_weights_folder(folder) or not (folder / CONFIG_NAME).is_file():
        return initial.open_folder(given)
    config = read_kept_config(folder)
    checkpoints = config.train.checkpoint.folder(folder)
    step = _step(given.step, folder, config.train.checkpoint)
    path = checkpoints / str(step)
    try:
        kept = checkpoint_read.read_document(path)
    except checkpoint_read.DamagedCheckpoint as error:
        raise WeightsError(
            f"The checkpoint is damaged ({error}).",
            "Name the step of another checkpoint.",
            where=str(path),
        ) from error
    document = Document(
        part="model",
        objective=config.objective,
        model=config.given["model"],
        data={},
        origin={"source": "launch.train", "run": config.name, "step": step},
        arrays=_table(kept["arrays"]),
        kept={},
        tokenizer={},
    )
    fingerprint = kept["host"]["identity"]["tokenizer"]
    return Opened(
        document=document,
        read=functools.partial(_read, checkpoints, kept["arrays"], step=step),
        tokenizer=lambda: (fingerprint, f"that of {folder}"),
    )


def _step(given: int | None, folder: pathlib.Path, options: CheckpointConfig) -> int:
    """Returns the step that is given, or that was measured, or else the newest of a run."""
    steps = checkpoint_read.list_steps(options.folder(folder))
    step = given
    if step is None:
        step = measured_step(folder, options)
    if step is None:
        step = max(steps, default=None)
    if step is None or step not in steps:
        raise CheckpointError(
            f"The run has no checkpoint of step {step}; it has those of {steps}."
            if steps
            else "The run has no checkpoint to start from.",
            "Name the step of one of its checkpoints, or train it first.",
            where=str(folder),
        )
    return step


def identity(starts: Mapping[Encoder, EncoderInit]) -> dict[str, Any]:
    """Returns the settings that must be the same when a run is resumed; see `interop.initial`."""
    return initial.identity(starts, find=find)


def initial_values(
    starts: Mapping[Encoder, EncoderInit],
    shapes: Mapping[str, Any],
    *,
    model: Mapping[str, Any],
    tokenizer: str,
) -> dict[str, np.ndarray]:
    """Returns the arrays that a run starts from; see `interop.initial.initial_values`."""
    return initial.initial_values(starts, shapes, model=model, tokenizer=tokenizer, find=find)


def _table(arrays: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Returns path -> [shape, dtype, checksum] of the arrays of the model."""
    found = {}
    for start in (_PARAMS, _REST):
        found |= {n.removeprefix(start): x for n, x in arrays.items() if n.startswith(start)}
    return found


def _read(checkpoints: Any, arrays: Mapping[str, list[Any]], *, step: int) -> dict[str, np.ndarray]:
    """Reads the model of a checkpoint onto the host, the same in every process."""
    everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec())

    def wanted(start: str) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name.removeprefix(start): jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)
            for name, (shape, dtype, _) in arrays.items()
            if name.startswith(start)
        }

    params, rest, _ = checkpoint_read.restore_model(
        checkpoints, params=wanted(_PARAMS), rest=wanted(_REST), step=step
    )
    return {name: np.asarray(value) for name, value in {**params, **rest}.items()}
