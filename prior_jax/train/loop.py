"""The training loop of every objective: starts or resumes, steps, logs, saves, stops."""

import concurrent.futures
import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from prior_jax.errors import CheckpointError
from prior_jax.objectives.base import TrainObjective
from prior_jax.processes import activities
from prior_jax.processes.distributed import is_primary, peers
from prior_jax.processes.preemption import Preempted, PreemptionGuard
from prior_jax.processes.watchdog import Watchdog
from prior_jax.sharding.rules import Rule
from prior_jax.storage_errors import OUT_OF_SPACE, is_out_of_space
from prior_jax.train.boundaries import Boundaries, snapshot_of
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.feed import Feed, TrainingData
from prior_jax.train.metrics import check_installed, open_writers
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.options import Evaluate, Snapshot, TrainOptions
from prior_jax.train.patience import Patience
from prior_jax.train.program import Program
from prior_jax.train.resume import check_same, settings_of
from prior_jax.train.run_log import Pending, RunLog
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import TrainState
from prior_jax.train.watched import EVALUATE, VALIDATE, check_computed, waits

InitialValues = Callable[[Mapping[str, Any]], Mapping[str, np.ndarray]]
"""Function from path -> anything with a shape, for every leaf of a model, to path -> array."""


def train(
    *,
    objective: TrainObjective,
    data: TrainingData,
    stages: Sequence[Stage],
    optimizer: OptimizerConfig,
    options: TrainOptions,
    mesh: Mesh,
    rules: Sequence[Rule],
    data_axes: Sequence[str],
    workdir: str | pathlib.Path,
    validate: Evaluate | None = None,
    evaluate: Evaluate | None = None,
    initial_values: InitialValues | None = None,
) -> Snapshot:
    """Trains through all stages, from the newest intact checkpoint in `workdir` or from scratch.

    If `options.early_stopping` ends a stage early, the next stage starts at its own first step.

    A run that is killed at any moment and called again ends with the same parameters and the same
    metrics.jsonl (but for timings) as if it had never been stopped.

    Args:
      objective: model, terms, weights, and the parameters that each stage trains.
      data: batches as a function of the step, e.g. `data.pipeline.Split`.
      stages: stages in order; the objective must know their names.
      optimizer: optimizer settings that the stages share.
      options: seed, logging, checkpoints.
      mesh: mesh of the devices; may differ from that of an earlier part of the run.
      rules: sharding rules of the arrays.
      data_axes: axes that a batch's rows are split over.
      workdir: folder for metrics.jsonl, tensorboard/, nonfinite.json and, unless the options name
        another folder, checkpoints/.
      validate: function that returns name -> number for the model after a step, the same in every
        process, added to the step's line in metrics.jsonl; called every `options.validate_every`
        steps and after the last. None for a run without validation.
      evaluate: the same for `options.evaluate_every`, with names that begin with
        `watched.EVALUATED`; also called before the first step, which makes a line of step 0.
      initial_values: function from the shapes of the model's arrays to path -> array, imported
        weights that replace initial ones; called when the run starts, not when it resumes.

    Returns:
      The final model.

    Raises:
      ConfigError: for settings that do not fit each other or the devices, or a metric that neither
        validation nor evaluation returns.
      CheckpointError: if no checkpoint can be used, the run is of another config, or no space
        is left.
      DataError: if the data ends or is damaged.
      NonFiniteLossError: if a loss, a gradient or a state to be saved is NaN or infinite; nothing
        of that step is saved.
      Preempted: after SIGTERM or SIGINT, once the state is saved; exit with
        `preemption.EXIT_CODE`.
    """
    folder = pathlib.Path(workdir)
    check_installed(options.log)
    hooks = {VALIDATE: validate, EVALUATE: evaluate}
    check_computed(
        waits(stages, options.early_stopping),
        every={name: steps if hooks[name] else 0 for name, steps in options.every.items()},
    )
    guard, watchdog = PreemptionGuard(), Watchdog(options.watchdog, peers=peers())
    with _space_errors(folder), watchdog, guard, contextlib.ExitStack() as opened:
        folder.mkdir(parents=True, exist_ok=True)
        program = Program(
            objective=objective, stages=stages, optimizer=optimizer,
            mesh=mesh, rules=rules, data_axes=data_axes,
        )  # fmt: skip
        schedule, settings = program.schedule, settings_of(options, program.schedule)
        total = schedule.total_steps
        checkpoints = Checkpoints(
            options.checkpoint.folder(folder), options.checkpoint, evaluation=options.evaluation
        )
        state, patience = _resume_or_begin(
            program, checkpoints, seed=options.seed, initial_values=initial_values,
            check=lambda host: check_same(settings, host, schedule=schedule, workdir=folder),
        )  # fmt: skip
        done = int(state.step)
        start = schedule.end(schedule.at(done - 1)) if patience.ended else done
        writers = open_writers(
            options.log, workdir=folder, total=total, done=done, primary=is_primary()
        )
        opened.callback(writers.close)
        if start < total:
            feed = Feed(data, start=start, stop=total, mesh=mesh, data_axes=data_axes)
            opened.callback(feed.close)
            opened.enter_context(_finishing_save(checkpoints))
            log = RunLog(writers, feed=feed, data=data, workdir=folder)
            boundaries = Boundaries(
                options=options, schedule=schedule, settings=settings, model=program.model,
                validate=validate, evaluate=evaluate, checkpoints=checkpoints, log=log,
            )  # fmt: skip
            if not done:
                boundaries.log_untrained(state, schedule.stages[0])
            state = _run_steps(
                state, patience, start=start, program=program, feed=feed, log=log,
                boundaries=boundaries, guard=guard,
            )  # fmt: skip
        elif guard.requested():
            raise Preempted(done)
        return snapshot_of(state, schedule.stages[-1], program.model)


def _resume_or_begin(
    program: Program,
    checkpoints: Checkpoints,
    *,
    check: Callable[[Mapping[str, Any]], None],
    seed: int,
    initial_values: InitialValues | None,
) -> tuple[TrainState, Patience]:
    """Returns the state of the newest intact checkpoint, or the state before the first step."""
    restored = checkpoints.restore_newest(program.abstract_after, check=check)
    if restored is not None:
        return restored[0], Patience.from_json(restored[1]["patience"])
    shapes = {**program.model.params, **program.model.rest}
    values = None if initial_values is None else initial_values(shapes)
    abstract = program.abstract(program.schedule.stages[0])
    mesh = jax.sharding.get_mesh()

    def get_ready() -> None:
        # A thread has a context of its own, and a program compiled in another one is not found.
        with contextlib.nullcontext() if mesh.empty else jax.set_mesh(mesh):
            checkpoints.get_ready(abstract)

    # Both compile. A run that is restored has compiled the checksums already.
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        ready = beside.submit(get_ready)
        state = program.initial(seed=seed, values=values)
        ready.result()
    return state, Patience()


def _run_steps(
    state: TrainState,
    patience: Patience,
    *,
    start: int,
    program: Program,
    feed: Feed,
    log: RunLog,
    boundaries: Boundaries,
    guard: PreemptionGuard,
) -> TrainState:
    """Runs the remaining steps, in the order in which everything happens.

    Raises:
      Preempted: after a request to stop, also one that comes while the last state is evaluated or
        saved, once the state is saved.
    """
    schedule, step, pending = program.schedule, start, None
    while step < schedule.total_steps:
        activities.reach(step)
        stage = schedule.at(step)
        if step == schedule.start(stage):
            logging.info("%s begins at step %d", stage.name, step)
            patience = Patience()
            state = program.begin(state, stage) if step else state  # a new run has begun the first

        # A step is started, and the metrics of the previous step are read while it runs, so that
        # the device is never idle.
        state, begun = _start_step(
            state, step, factor=patience.factor, program=program, feed=feed, log=log
        )
        boundaries.log_step(pending)
        step, pending = step + 1, begun

        # A boundary is a step after which the state is evaluated or saved. The first step after a
        # start is one too: the rates of the next steps are measured from its end.
        stop = guard.requested()
        if stop or step == start + 1 or boundaries.is_at(step):
            patience = boundaries.cross(state, pending, patience, stop=stop)
            pending = None
        if stop:
            _stop(step, boundaries, guard)

        if patience.ended:
            step = _skip_rest(stage, step, schedule=schedule, feed=feed)
    boundaries.wait_for_save()
    if guard.requested():
        _stop(int(state.step), boundaries, guard)
    return state


def _start_step(
    state: TrainState, step: int, *, factor: float, program: Program, feed: Feed, log: RunLog
) -> tuple[TrainState, Pending]:
    """Starts a step on the next batch, and fetches the batch of the step that follows.

    Args:
      state: state before the step; its arrays must not be used again.
      step: index of the step.
      factor: factor on the schedule's learning rate.
      program: compiled steps of the stages.
      feed: batches.
      log: log of the run.

    Returns:
      The state after the step, and the step, both of which the devices may still be computing.
    """
    stage, fed = program.schedule.at(step), feed.take()
    scalar = program.scalar(np.float32(factor))
    with activities.doing(activities.STEP):
        with log.compiling(stage, fed.batch):
            state, metrics = program.step(stage)(state, fed.batch, scalar)
        pending = log.started(step + 1, stage, metrics, fed.records)
        feed.prefetch(computing=metrics)
        # Simulated devices can deadlock when the collectives of two steps are in flight.
        if program.simulated:
            jax.block_until_ready(metrics)
    return state, pending


def _stop(step: int, boundaries: Boundaries, guard: PreemptionGuard) -> NoReturn:
    """Ends a run that was asked to stop after this many steps, once its state is saved."""
    boundaries.wait_for_save()
    guard.log_saved(step)
    raise Preempted(step)


def _skip_rest(stage: Stage, step: int, *, schedule: Schedule, feed: Feed) -> int:
    """Skips the remaining steps of a stage that ends early, and returns the next stage's first."""
    end = schedule.end(stage)
    logging.info("%s ends early, after step %d of %d", stage.name, step, end)
    if step < end < schedule.total_steps:
        feed.skip_to(end)
    return end


@contextlib.contextmanager
def _finishing_save(checkpoints: Checkpoints) -> Iterator[None]:
    """Lets a save in progress end before an error ends the run, which it must not hide.

    An error may have come in this process alone, so nothing is done that needs the others. A
    KeyboardInterrupt, of users who cannot wait for the save, is passed on at once.
    """
    try:
        yield
    except Exception:
        try:
            checkpoints.settle()
        except CheckpointError as error:
            logging.error("the save in progress failed: %s", error)
        raise


@contextlib.contextmanager
def _space_errors(workdir: pathlib.Path) -> Iterator[None]:
    """Turns a full disk into an error of one line, wherever in the run it occurs."""
    try:
        yield
    except OSError as error:
        if not is_out_of_space(error):
            raise
        raise CheckpointError(*OUT_OF_SPACE, where=str(workdir)) from error
