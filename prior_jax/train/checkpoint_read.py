"""Reads checkpoints: which there are, what each says of itself, and its arrays.

`train.checkpoint` saves them and describes their layout. Reading for evaluation or export needs
only the functions of this module.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from prior_jax import storage_errors
from prior_jax.errors import CheckpointError, first_line
from prior_jax.processes import interrupts
from prior_jax.processes.distributed import agree
from prior_jax.train import checkpoint_storage as storage
from prior_jax.train.checkpoint_table import check_fits, flat_names, state_parts, unpack
from prior_jax.train.checksum import checksums
from prior_jax.train.state import TrainState
from prior_jax.train.watched import EVALUATE, interval_of

FORMAT = 1
"""Version of the layout; a checkpoint of another one is refused."""

_MOST_CHECKPOINTS = 1024


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read as it was written."""


def list_steps(directory: epath.PathLike) -> list[int]:
    """Returns steps of the complete checkpoints in a folder, oldest first, agreed by all processes.

    Raises:
      CheckpointError: if the folder cannot be listed.
    """
    return scan(storage.open_path(directory))[0]


def scan(directory: epath.Path) -> tuple[list[int], list[int]]:
    """Returns steps of the complete and of the damaged checkpoints, agreed by all processes."""
    found = storage.scan(directory)
    if jax.process_count() == 1:
        return found
    # A file may be visible to one process before it is to another, so process 0 decides.
    rows = np.full((2, _MOST_CHECKPOINTS), -1, np.int32)
    for row, steps in zip(rows, found, strict=True):
        row[: len(steps)] = steps[-_MOST_CHECKPOINTS:]
    rows = multihost_utils.broadcast_one_to_all(rows)
    whole, damaged = ([int(step) for step in row if step >= 0] for row in rows)
    return whole, damaged


def restore_model(
    directory: epath.PathLike, *, params: Any, rest: Any, step: int | None
) -> tuple[dict[str, jax.Array], dict[str, jax.Array], int]:
    """Restores the model without the optimizer, for evaluation or export.

    Args:
      directory: folder of the run's checkpoints, `CheckpointConfig.folder`; it is not changed.
      params: path -> `jax.ShapeDtypeStruct` with sharding.
      rest: the same for the rest of the model's state.
      step: step of the checkpoint, or None for the newest intact one.

    Returns:
      params, rest and the step.

    Raises:
      CheckpointError: if there is no intact one, it is of another model (naming the array), or the
        storage cannot be reached.
    """
    steps = list_steps(directory)
    if step is not None and step not in steps:
        raise CheckpointError(
            f"There is no checkpoint at step {step}.",
            f"Choose one of the steps that were saved: {steps}."
            if steps
            else "Train the model first, or give the folder of another run.",
            where=str(directory),
        )
    wanted = {"model": {"params": dict(params), "rest": dict(rest)}}
    for candidate in [step] if step is not None else reversed(steps):
        path = epath.Path(directory) / str(candidate)
        try:
            parts = _restore_parts(path, read_document(path), wanted)
        except DamagedCheckpoint as error:
            logging.error("checkpoint %s is damaged: %s", path, error)
            continue
        return parts["model"]["params"], parts["model"]["rest"], candidate
    found = f"Every checkpoint is damaged: steps {steps}." if steps else "There is no checkpoint."
    raise CheckpointError(
        found,
        "Restore a checkpoint from a backup, or run launch.train again."
        if steps
        else "Train the model with launch.train first, or give the folder of another run.",
        where=str(directory),
    )


def best_step(
    directory: epath.PathLike,
    *,
    best_is: str,
    metric: str | None,
    evaluation: Mapping[str, Any] | None = None,
) -> int | None:
    """Returns the step of the best-scored checkpoint, or None if none has a score.

    Args:
      directory: folder of the run's checkpoints, `CheckpointConfig.folder`.
      best_is: "lowest" or "highest" score.
      metric: name of the number that the scores have to be; others do not count.
      evaluation: settings of the evaluations that the scores have to come from, as in `score_of`.
    """
    sign = 1.0 if best_is == "lowest" else -1.0
    scores = {
        step: score_of(epath.Path(directory) / str(step), metric=metric, evaluation=evaluation)
        for step in list_steps(directory)
    }
    scored = [(sign * score, s) for s, score in scores.items() if score is not None]
    return min(scored)[1] if scored else None


def newest_host(directory: epath.PathLike) -> dict[str, Any] | None:
    """Returns the host values of the newest readable checkpoint, or None.

    Args:
      directory: folder of the run's checkpoints, which may be absent; it is not changed.

    Raises:
      CheckpointError: if the folder cannot be listed, or another version of this package wrote it.
    """
    folder = storage.open_path(directory)
    if not agree(storage.may_hold_checkpoints(folder)):
        return None
    for step in reversed(list_steps(folder)):
        try:
            return read_document(folder / str(step))["host"]
        except DamagedCheckpoint:
            continue  # the damage is logged when the run is restored
    return None


def read_document(path: epath.PathLike) -> dict[str, Any]:
    """Reads a checkpoint's description of itself, without reading any array.

    Args:
      path: path of one checkpoint.

    Returns:
      "step", "score", "metric" (name of the number that the score is; absent in checkpoints of
      earlier versions), "host" (the host values) and "arrays": name -> [shape, dtype, checksum].

    Raises:
      DamagedCheckpoint: if the description cannot be read as it was written.
      CheckpointError: if another version of this package wrote it, or the storage cannot be
        reached.
    """
    path = storage.open_path(path)
    document = _read(path, {"host": None}, then=lambda parts: unpack(parts["host"]))
    if document["format"] != FORMAT:
        raise CheckpointError(
            f"The checkpoint has format {document['format']}, but this version of prior_jax reads "
            f"format {FORMAT} only.",
            "Use the version of prior_jax that wrote it, or start a new run in another folder.",
            where=str(path),
        )
    return document


def score_of(
    path: epath.Path, *, metric: str | None, evaluation: Mapping[str, Any] | None = None
) -> float | None:
    """Returns a checkpoint's score, or None if it has none that can be compared.

    A damaged checkpoint has none; the damage is handled when it is restored.

    Args:
      path: path of the checkpoint.
      metric: name of the number that the score has to be.
      evaluation: settings of the evaluations that it has to come from, `TrainOptions.evaluation`,
        if it is a number of evaluations; None for any.
    """
    try:
        document = read_document(path)
    except DamagedCheckpoint as error:
        logging.error("checkpoint %s is damaged: %s", path, error)
        return None
    if document.get("metric", metric) != metric:
        return None
    if evaluation is not None and metric is not None and interval_of(metric) == EVALUATE:
        ours = json.loads(json.dumps(dict(evaluation)))
        if document["host"].get("evaluate", ours) != ours:
            return None
    return document["score"]


def restore_state(
    path: epath.Path, document: Mapping[str, Any], abstract: TrainState
) -> TrainState:
    """Returns the whole state of a checkpoint.

    Args:
      path: path of the checkpoint.
      document: its description, from `read_document`.
      abstract: shapes, dtypes and shardings to restore to.

    Raises:
      DamagedCheckpoint: if an array cannot be read, or its checksum differs.
      CheckpointError: if it is of another model, or the storage cannot be reached.
    """
    parts = _restore_parts(path, document, state_parts(abstract))
    _, structure = jax.tree_util.tree_flatten_with_path(abstract.optimizer)
    order = list(state_parts(abstract)["optimizer"]["arrays"])
    arrays = parts["optimizer"]["arrays"]
    return TrainState(
        step=parts["optimizer"]["step"],
        params=parts["model"]["params"],
        rest=parts["model"]["rest"],
        optimizer=jax.tree_util.tree_unflatten(structure, [arrays[name] for name in order]),
        key=parts["optimizer"]["key"],
    )


def _restore_parts(
    path: epath.Path, document: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """Reads the wanted parts and checks that their checksums equal the saved ones."""
    table = {n: row for n, row in document["arrays"].items() if n.split(":")[0] in wanted}
    check_fits(path, table, wanted)
    parts = _read(path, wanted, then=lambda parts: parts)
    sums = checksums(flat_names(parts))
    changed = [name for name, row in table.items() if sums[name] != row[2]]
    if changed:
        raise DamagedCheckpoint(f"checksum differs in {', '.join(changed[:5])}")
    return parts


def _read(path: epath.Path, wanted: Mapping[str, Any], *, then: Callable[[Any], Any]) -> Any:
    """Reads parts; either all processes succeed, or the same kind of error is raised in all.

    Raises:
      DamagedCheckpoint: if the stored parts cannot be read in some process.
      CheckpointError: if some process cannot reach the storage: the parts may then be intact.
      KeyboardInterrupt: after the read, if SIGINT came meanwhile: it is no damage.
    """
    found, problem = None, None
    try:
        with interrupts.held(f"reading {path}"), marked_context():
            found = then(ocp.load_checkpointables(path, dict(wanted)))
    except Exception as error:  # a damaged file can raise any error of the reading libraries
        problem = error
    if agree(problem is None):
        return found
    unreachable = problem is not None and storage_errors.is_out_of_reach(problem)
    if agree(not unreachable):
        raise DamagedCheckpoint(
            first_line(problem) if problem else "another process cannot read it"
        )
    if problem is not None and unreachable:
        raise storage.storage_error(path, problem) from problem
    raise CheckpointError(
        "Another process cannot reach the storage of the checkpoints.",
        "Give every process access to the same storage, and run the same command again.",
        where=str(path),
    )


def marked_context() -> ocp.Context:
    """Returns a context for writing in place with an end marker: buckets cannot rename a folder."""
    context = ocp.Context()
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    return context
