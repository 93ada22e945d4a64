"""Training steps: a real config with one stage, compiled and ready to be repeated."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from launch.benchmarks import counted, synthetic, usage
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import StepConfig, dtype_of, on_accelerator, read
from launch.start.run import check_fits
from launch.start.without_data import LABELS, program_of
from prior_jax.data import pipeline, tokenizer
from prior_jax.run_config import RunConfig
from prior_jax.sharding.mesh import is_simulated
from prior_jax.sharding.placement import placement
from prior_jax.train.feed import Feed
from prior_jax.train.program import Program
from prior_jax.train.state import TrainState, shardings_of
from prior_jax.train.step import StepMetrics
from prior_jax.types import Batch
from prior_jax.vocabulary import Vocabulary

VOCABULARY = 28996
"""Vocabulary size where no tokenizer is given: that of Bio_ClinicalBERT."""
_ENDLESS = 2**30  # steps


class ReadyStep:
    """A compiled training step with its state and a batch that stays on the devices.

    Attributes:
      program: program of one stage.
      batch: batch that stays on the devices.
      state: state after the steps that have been done.
      compiled: compiled step: (state, batch, factor) -> (state, StepMetrics).
      counts: operations and bytes of a step.
      facts: seconds to trace and to compile, and the memory that the compiler plans.
    """

    def __init__(self, program: Program, batch: Batch, *, state: TrainState):
        """Compiles the program's only stage.

        Args:
          program: program of one stage.
          batch: batch on the host.
          state: state before the first step; it is given away.
        """
        (stage,) = program.schedule.stages
        self.program = program
        self.batch = jax.device_put(batch, program.batch_sharding)
        self._factor = program.scalar(np.float32(1))
        self._blocking = is_simulated(program.mesh)
        began = time.perf_counter()
        lowered = program.step(stage).lower(program.abstract(stage), self.batch, self._factor)
        traced = time.perf_counter()
        self.compiled: Any = lowered.compile()
        ended = time.perf_counter()
        self.counts = counted.counts_of(lowered, self.compiled)
        self.state = state
        self._metrics: Any = None
        self.facts: dict[str, Any] = {
            "trace_seconds": round(traced - began, 2),
            "compile_seconds": round(ended - traced, 2),
            "batch_bytes": counted.bytes_of(batch),
            "device_limit_bytes": usage.device_limit_bytes(),
            **self.counts.facts,
        }

    def start(self, batch: Batch) -> StepMetrics:
        """Starts a step without waiting for it, and returns its metrics."""
        self.state, self._metrics = self.compiled(self.state, batch, self._factor)
        if self._blocking:
            self.wait()
        return self._metrics

    def wait(self) -> None:
        """Waits for the last step that was started."""
        jax.block_until_ready(self._metrics.total)

    def run(self, count: int) -> None:
        """Does a number of steps with the batch that stays on the devices."""
        for _ in range(count):
            self.start(self.batch)
        self.wait()

    def loss(self) -> float:
        """Returns the loss of the last step."""
        return float(self._metrics.total)


@contextlib.contextmanager
def ready_step(
    step: StepConfig, request: Request, folder: pathlib.Path
) -> Iterator[tuple[ReadyStep, RunConfig]]:
    """Opens a step whose mesh is that of the context; see `train_step`."""
    config = read(step, request, folder)
    place = placement(config.mesh)
    check_fits(config, place)
    split = _split(config, request, folder)
    known = tokenizer.unknown_vocabulary(VOCABULARY)
    vocabulary = known if split is None else tokenizer.vocabulary(split.tokenizer)
    lengths = synthetic.full_lengths if step.text == "full" else synthetic.real_lengths
    found = lengths(config.data)
    batch = synthetic.batch_of(
        config.data,
        found,
        vocabulary=vocabulary,
        labels=LABELS if split is None else len(split.label_names),
    )
    with jax.set_mesh(place.mesh):
        program = program_of(config, place, vocabulary=vocabulary)
        ready = ReadyStep(program, batch, state=drawn(config, program, vocabulary=vocabulary))
        ready.facts["tokens"] = found.padded
        ready.facts["real_tokens"] = round(float(found.tokens.mean()), 1)
        yield ready, config


@contextlib.contextmanager
def train_step(step: StepConfig, request: Request, folder: pathlib.Path) -> Iterator[Repeated]:
    """Opens a training step of the catalogue.

    Args:
      step: the step.
      request: batch, dtype and size; with `data` the step is also run with batches that are read.
      folder: folder for measurements of the set.

    Yields:
      A step of one batch; its unit is the pair.
    """
    with ready_step(step, request, folder) as (ready, config), contextlib.ExitStack() as opened:
        fast = on_accelerator() or request.tiny
        yield Repeated(
            run=ready.run,
            unit="pairs",
            count=config.data.batch_size,
            batch=config.data.batch_size,
            steps=request.steps or (5 if on_accelerator() else 1),
            blocks=request.blocks or (10 if fast else 6),
            dtype=dtype_of(request),
            flops=ready.counts.flops,
            bytes_moved=ready.counts.bytes_moved,
            with_input=_fed(ready, config, request, folder, opened),
            facts=ready.facts,
            after=lambda: {"loss": ready.loss()},
            trace=True,
        )


def drawn(config: RunConfig, program: Program, *, vocabulary: Vocabulary) -> TrainState:
    """Returns the state before the first step, in the shardings of a program of one stage.

    The weights are drawn on the CPU, if JAX has it beside the accelerator: compiling the draw takes
    seconds there, and most of a minute on a GPU.

    Args:
      config: config of the run.
      program: program that the state is for.
      vocabulary: vocabulary of the tokenizer.
    """
    try:
        device = jax.devices("cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
        device = None
    if device is None or program.mesh.devices.flat[0].platform == "cpu":
        return program.initial(seed=config.train.seed, values=None)
    return drawn_on(device, config, program, vocabulary=vocabulary)


def drawn_on(
    device: jax.Device, config: RunConfig, program: Program, *, vocabulary: Vocabulary
) -> TrainState:
    """Returns the same as `drawn`, drawn on one device and brought to those of the program."""
    (stage,) = program.schedule.stages
    place = placement(config.mesh, devices=[device])
    with jax.set_mesh(place.mesh):
        drawing = program_of(config, place, vocabulary=vocabulary)
        state = jax.device_get(drawing.initial(seed=config.train.seed, values=None))
    return jax.device_put(state, shardings_of(program.abstract(stage)))


def _split(config: RunConfig, request: Request, folder: pathlib.Path) -> pipeline.Split | None:
    if request.data is None:
        return None
    return pipeline.open_split(config.data, "train", cache_dir=folder / "cache")


def _fed(
    ready: ReadyStep,
    config: RunConfig,
    request: Request,
    folder: pathlib.Path,
    opened: contextlib.ExitStack,
) -> Callable[[int], float] | None:
    """Returns the function that does steps with batches of the set; None without a set.

    Every report is padded to the length of the batch that stays, so that nothing compiles anew.
    """
    if request.data is None:
        return None
    length = ready.batch.tokens.shape[1]
    data = dataclasses.replace(config.data, max_tokens=length, buckets=(length,))
    split = pipeline.open_split(data, "train", cache_dir=folder / "cache")
    feed: list[Feed] = []

    def run(count: int) -> float:
        if not feed:  # its workers start with the first step that needs them
            mesh, axes = ready.program.mesh, ready.program.data_axes
            feed.append(Feed(split, start=0, stop=_ENDLESS, mesh=mesh, data_axes=axes))
            opened.callback(feed[0].close)
        waited = feed[0].waited_seconds
        for _ in range(count):
            feed[0].prefetch(computing=ready.start(feed[0].take().batch))
        ready.wait()
        return feed[0].waited_seconds - waited

    return run
