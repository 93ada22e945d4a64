"""Saves the checkpoints of a run, decides which to keep, and resumes from the newest intact one.

Layout: `<steps done>/` in `CheckpointConfig.folder` holds three parts, `model` (parameters and the
rest), `optimizer` (with step and key) and `host` (JSON: a table of every array with its shape,
dtype and checksum, and values that the run keeps on the host), and a marker that is written last.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from prior_jax import storage_errors
from prior_jax.errors import CheckpointError, NonFiniteLossError
from prior_jax.processes import activities, interrupts
from prior_jax.processes.distributed import barrier, is_primary
from prior_jax.train import checkpoint_storage as storage
from prior_jax.train.checkpoint_read import (
    FORMAT,
    DamagedCheckpoint,
    list_steps,
    marked_context,
    read_document,
    restore_state,
    scan,
    score_of,
)
from prior_jax.train.checkpoint_table import (
    CheckpointConfig,
    array_table,
    flat_names,
    pack,
    state_parts,
)
from prior_jax.train.checksum import compile_checksums, survey
from prior_jax.train.state import TrainState


class Checkpoints:
    """The checkpoints of one run: saves in the background, restores the newest intact one.

    All processes have to call every method but `settle` at the same point.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        config: CheckpointConfig,
        *,
        evaluation: Mapping[str, Any] | None = None,
    ):
        """Opens the folder and removes the remains of interrupted saves and deletions.

        Args:
          directory: folder that all processes share; a local one is created, a bucket is not.
          config: schedule of saves, and number of checkpoints to keep.
          evaluation: settings of the run's evaluations; scores that are numbers of evaluations with
            other settings do not count. None for any.

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
        self._scores = {
            step: score_of(
                self.directory / str(step), metric=config.best_metric, evaluation=evaluation
            )
            for step in self.steps()
        }

    def steps(self) -> list[int]:
        """Returns steps of complete checkpoints, oldest first; the same list in every process."""
        return list_steps(self.directory)

    def among_best(self, score: float | None) -> bool:
        """Returns whether a checkpoint of this score would be one of the best, which are kept."""
        if not self.config.keep_best:
            return False
        best = self._best(self._scores)
        full = len(best) == self.config.keep_best
        return self.config.better(score, self._scores[best[-1]] if full else None)

    def _best(self, steps: Iterable[int]) -> list[int]:
        """Returns those of the steps whose checkpoints are the best, the best first."""
        sign = 1.0 if self.config.best_is == "lowest" else -1.0
        scores = {step: self._scores.get(step) for step in steps}
        scored = sorted((sign * score, step) for step, score in scores.items() if score is not None)
        return [step for _, step in scored[: self.config.keep_best]]

    def get_ready(self, abstract: TrainState) -> None:
        """Compiles the checksums that a save of such a state computes; nothing is computed.

        A scheduler sends its signal to all processes of a job, including a compiler that XLA has
        started: the save that the signal asks for must not have to compile.

        Args:
          abstract: state whose leaves are `jax.ShapeDtypeStruct`s with shardings.
        """
        compile_checksums(flat_names(state_parts(abstract)))

    @activities.doing(activities.SAVE)
    def save(self, state: TrainState, *, host: Mapping[str, Any], score: float | None) -> None:
        """Starts a save; returns once the arrays are copied, after which they may be donated.

        Args:
          state: the whole state; its step names the checkpoint.
          host: JSON values to store with the state.
          score: finite score of this step's evaluation, which decides whether the checkpoint is
            kept, or None.

        Raises:
          CheckpointError: if this save, or the previous one, found no space or could not write.
          NonFiniteLossError: if a value of the state is NaN or infinite; nothing is saved.
        """
        self.wait()
        step = int(state.step)
        target = self.directory / str(step)
        if step in self.steps():
            return
        written = state_parts(state)
        found = survey(flat_names(written))
        if found.not_finite:
            raise _not_finite(found.not_finite, step=step)
        self._make_way(target)
        table = array_table(written, sums=found.checksums)
        document = {"format": FORMAT, "step": step, "score": score, "arrays": table}
        document |= {"metric": self.config.best_metric, "host": dict(host)}
        try:
            with interrupts.held(f"copying the state for {target}"), marked_context():
                response = ocp.save_checkpointables_async(
                    target, {**written, "host": pack(document)}
                )
                self._pending = (step, response)
                self._scores[step] = score
        except Exception as error:  # orbax passes on the errors of every library it uses
            raise storage.storage_error(target, error) from error

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
        step = self.settle()
        if step is None:
            return
        try:
            read_document(self.directory / str(step))
        except DamagedCheckpoint as error:
            raise CheckpointError(
                f"The checkpoint that was just saved cannot be read again: {error}. Those before "
                "it are kept.",
                "Check the storage, or set --config.checkpoint.directory to another one, and run "
                "the same command again.",
                where=str(self.directory / str(step)),
            ) from error
        self._delete_old()

    @activities.doing(activities.SAVE)
    def settle(self) -> int | None:
        """Waits until the save in progress is written, and neither reads nor deletes anything.

        It waits for no other process's main thread, so that a process which ends with an error of
        its own may call it alone.

        Returns:
          The step of the save, or None if there was none in progress.

        Raises:
          CheckpointError: if the save failed.
        """
        if self._pending is None:
            return None
        step, response = self._pending
        self._pending = None
        try:
            response.result()
        except Exception as error:  # orbax passes on the errors of every library it uses
            raise storage.storage_error(self.directory / str(step), error) from error
        return step

    def _delete_old(self) -> None:
        steps = self.steps()
        keep = set(steps[-self.config.keep_last :])
        keep.update(self._best(steps))
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
        steps, damaged = scan(self.directory)
        for step in damaged:
            logging.warning("passing over %s, marked as damaged", self.directory / str(step))
        for step in reversed(steps):
            path = self.directory / str(step)
            try:
                document = read_document(path)
                check(document["host"])
                state = restore_state(path, document, abstract(step))
            except DamagedCheckpoint as error:
                logging.error("checkpoint %s is damaged: %s; trying the one before", path, error)
                self._set_aside(path, reason=str(error))
                damaged = sorted([*damaged, step])
                continue
            logging.info("restored %s", path)
            return state, document["host"]
        if damaged:
            raise CheckpointError(
                f"The checkpoints at steps {damaged} are damaged, and there is no intact one to "
                "resume from.",
                "Restore a checkpoint from a backup, or empty the folder to start from the "
                "beginning.",
                where=str(self.directory),
            )
        return None

    def _set_aside(self, path: epath.Path, *, reason: str) -> None:
        self._scores.pop(int(path.name), None)
        if is_primary():
            storage.mark_damaged(path, reason)
        barrier(f"set aside {path.name}")


def _not_finite(names: Sequence[str], *, step: int) -> NonFiniteLossError:
    """Returns the error for a state that is not worth saving."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return NonFiniteLossError(
        "The loss is finite, but after the step these arrays of the state are not: "
        f"{', '.join(names[:3])}{more}. The state is not saved.",
        "Train in a new --workdir with a lower learning rate; --config.init.image.path and "
        "--config.init.image.step can name an earlier checkpoint of this run to start from.",
        where=f"step {step}",
    )
