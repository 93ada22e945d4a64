"""Checkpoints of a run; all reading and writing of them with orbax is in this module.

Layout: `<steps done>/` in `CheckpointConfig.folder` holds three parts, `model` (parameters and the
rest), `optimizer` (with step and key) and `host` (JSON: a table of every array with its shape,
dtype and checksum, and values that the run keeps on the host), and a marker that is written last.
"""

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
from prior_jax.processes import activities
from prior_jax.processes.distributed import agree, barrier, is_primary
from prior_jax.train import checkpoint_storage as storage
from prior_jax.train.checkpoint_table import (
    CheckpointConfig,
    array_table,
    check_fits,
    flat_names,
    pack,
    state_parts,
    unpack,
)
from prior_jax.train.checksum import checksums
from prior_jax.train.state import TrainState

FORMAT = 1
_MOST_CHECKPOINTS = 1024


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read as it was written."""


class Checkpoints:
    """The checkpoints of one run: saves in the background, restores the newest intact one.

    All processes have to call every method at the same point.
    """

    def __init__(self, directory: epath.PathLike, config: CheckpointConfig):
        """Opens the folder and removes the remains of interrupted saves and deletions.

        Args:
          directory: folder that all processes share; a local one is created, a bucket is not.
          config: schedule of saves, and number of checkpoints to keep.

        Raises:
          CheckpointError: if the folder cannot be created, listed or written to.
        """
        self.directory = storage.open_path(directory)
        self.config = config
        self._pending: tuple[int, Any] | None = None
        storage_errors.hide_traces()
        if is_primary():
            storage.prepare(self.directory)
        barrier("checkpoints opened")
        self._scores = {step: _score(self.directory / str(step)) for step in self.steps()}

    def steps(self) -> list[int]:
        """Returns steps of complete checkpoints, oldest first; the same list in every process."""
        return list_steps(self.directory)

    def best_score(self) -> float | None:
        """Returns the best score among the checkpoints that are kept, or None."""
        best = None
        for score in self._scores.values():
            best = score if self.config.better(score, best) else best
        return best

    @activities.doing(activities.SAVE)
    def get_ready(self, state: TrainState) -> None:
        """Compiles the checksums that a save of such a state computes.

        A scheduler sends its signal to all processes of a job, including a compiler that XLA has
        started: the save that the signal asks for must not have to compile.
        """
        checksums(flat_names(state_parts(state)))

    @activities.doing(activities.SAVE)
    def save(self, state: TrainState, *, host: Mapping[str, Any], score: float | None) -> None:
        """Starts a save; returns once the arrays are copied, after which they may be donated.

        Args:
          state: the whole state; its step names the checkpoint.
          host: JSON values to store with the state.
          score: score of this step's evaluation, which decides whether the checkpoint is kept.

        Raises:
          CheckpointError: if this save, or the previous one, found no space or could not write.
        """
        self.wait()
        step = int(state.step)
        target = self.directory / str(step)
        if step in self.steps():
            return
        self._make_way(target)
        written = state_parts(state)
        table = array_table(written, sums=checksums(flat_names(written)))
        document = {"format": FORMAT, "step": step, "score": score, "arrays": table}
        document["host"] = dict(host)
        try:
            with _context():
                response = ocp.save_checkpointables_async(
                    target, {**written, "host": pack(document)}
                )
        except Exception as error:  # orbax passes on the errors of every library it uses
            raise storage.storage_error(target, error) from error
        self._pending = (step, response)
        self._scores[step] = score

    def _make_way(self, target: epath.Path) -> None:
        """Removes an unusable checkpoint at the path of the new one."""
        if is_primary():
            try:
                if target.exists():
                    logging.warning("replacing %s, which is damaged", target)
                    storage.remove(target)
            except Exception as error:  # each storage's library has error types of its own
                raise storage.storage_error(target, error) from error
        barrier(f"room for {target.name}")

    @activities.doing(activities.SAVE)
    def wait(self) -> None:
        """Waits for the save in progress, then deletes checkpoints that need not be kept.

        Raises:
          CheckpointError: if the save failed.
        """
        if self._pending is None:
            return
        step, response = self._pending
        self._pending = None
        try:
            response.result()
        except Exception as error:  # orbax passes on the errors of every library it uses
            raise storage.storage_error(self.directory / str(step), error) from error
        try:
            read_document(self.directory / str(step))
        except DamagedCheckpoint as error:
            raise CheckpointError(
                str(self.directory / str(step)),
                received=f"a checkpoint that cannot be read again: {error}",
                accepted="a folder whose checkpoints can be read; those before this one are kept",
            ) from error
        self._delete_old()

    def _delete_old(self) -> None:
        steps = self.steps()
        keep = set(steps[-self.config.keep_last :])
        scored = [s for s in steps if self.config.better(self._scores.get(s), None)]
        sign = 1.0 if self.config.best_is == "lowest" else -1.0
        scored.sort(key=lambda s: sign * float(self._scores[s] or 0.0))
        keep.update(scored[: self.config.keep_best])
        for step in steps:
            if step in keep:
                continue
            self._scores.pop(step, None)
            if is_primary():
                doomed = self.directory / str(step)
                try:
                    storage.remove(doomed)
                except Exception as error:  # storages' libraries have error types of their own
                    raise storage.storage_error(doomed, error) from error

    @activities.doing(activities.RESTORE)
    def restore_newest(
        self, abstract: Callable[[int], TrainState], *, check: Callable[[Mapping[str, Any]], None]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Restores the newest intact checkpoint; returns None if there never was a checkpoint.

        A damaged checkpoint is logged and marked, and the previous one is tried.

        Args:
          abstract: function from steps done to the shapes, dtypes and shardings to restore to.
          check: function that gets the host values first, and raises if the run differs.

        Returns:
          The state, on the mesh of `abstract`'s shardings, and the host values.

        Raises:
          CheckpointError: if the newest readable checkpoint is of another model, naming the
            array and both shapes; if there are checkpoints but none is intact; or if the storage
            cannot be reached.
        """
        steps, damaged = _scan(self.directory)
        for step in damaged:
            logging.warning("passing over %s, marked as damaged", self.directory / str(step))
        for step in reversed(steps):
            path = self.directory / str(step)
            try:
                document = read_document(path)
                check(document["host"])
                state = _restore_state(path, document, abstract(step))
            except DamagedCheckpoint as error:
                logging.error("checkpoint %s is damaged: %s; trying the one before", path, error)
                self._set_aside(path, reason=str(error))
                damaged = sorted([*damaged, step])
                continue
            logging.info("restored %s", path)
            return state, document["host"]
        if damaged:
            raise CheckpointError(
                str(self.directory),
                received=f"damaged checkpoints at steps {damaged}, and no sound one",
                accepted="at least one sound checkpoint, or an empty folder to start anew",
            )
        return None

    def _set_aside(self, path: epath.Path, *, reason: str) -> None:
        self._scores.pop(int(path.name), None)
        if is_primary():
            storage.mark_damaged(path, reason)
        barrier(f"set aside {path.name}")


def list_steps(directory: epath.PathLike) -> list[int]:
    """Returns steps of the complete checkpoints in a folder, oldest first, agreed by all processes.

    Raises:
      CheckpointError: if the folder cannot be listed.
    """
    return _scan(storage.open_path(directory))[0]


def _scan(directory: epath.Path) -> tuple[list[int], list[int]]:
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
            str(directory), received=f"step {step}", accepted=f"one of the steps saved: {steps}"
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
    raise CheckpointError(
        str(directory),
        received=f"checkpoints at steps {steps}" if steps else "no checkpoint",
        accepted="at least one sound checkpoint",
    )


def best_step(directory: epath.PathLike, *, best_is: str) -> int | None:
    """Returns the step of the best-scored checkpoint ("lowest" or "highest" score), or None."""
    sign = 1.0 if best_is == "lowest" else -1.0
    scores = {s: _score(epath.Path(directory) / str(s)) for s in list_steps(directory)}
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
      "step", "score", "host" (the host values) and "arrays": name -> [shape, dtype, checksum].

    Raises:
      DamagedCheckpoint: if the description cannot be read as it was written.
      CheckpointError: if another version of this package wrote it, or the storage cannot be
        reached.
    """
    path = storage.open_path(path)
    document = _read(path, {"host": None}, then=lambda parts: unpack(parts["host"]))
    if document["format"] != FORMAT:
        raise CheckpointError(
            str(path), received=f"format {document['format']}", accepted=f"format {FORMAT}"
        )
    return document


def _score(path: epath.Path) -> float | None:
    """Returns a checkpoint's score; None if it is damaged, which is handled when it is restored."""
    try:
        return read_document(path)["score"]
    except DamagedCheckpoint as error:
        logging.error("checkpoint %s is damaged: %s", path, error)
        return None


def _restore_state(
    path: epath.Path, document: Mapping[str, Any], abstract: TrainState
) -> TrainState:
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
    """
    found, problem = None, None
    try:
        with _context():
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
        str(path), received="no answer in another process", accepted="a storage that all can read"
    )


def _context() -> ocp.Context:
    """Returns a context for writing in place with an end marker: buckets cannot rename a folder."""
    context = ocp.Context()
    context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
    return context
