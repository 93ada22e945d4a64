"""The parameters that each stage of a run trains, its state's shardings, and its compiled step."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from prior_jax.errors import ConfigError
from prior_jax.objectives.base import TrainObjective
from prior_jax.sharding.mesh import batch_sharding, is_simulated, replicated
from prior_jax.sharding.rules import Rule, gathered_names
from prior_jax.train.optimizer import OptimizerConfig, make_optimizer
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import (
    TrainState,
    abstract_state,
    compile_quickly,
    define_model,
    fresh_optimizer,
    initial_state,
    shardings_of,
    trainable_names,
)
from prior_jax.train.step import make_train_step


class Program:
    """Objective, schedule, optimizer and mesh together; jitted functions are made on first use."""

    def __init__(
        self,
        *,
        objective: TrainObjective,
        stages: Sequence[Stage],
        optimizer: OptimizerConfig,
        mesh: Mesh,
        rules: Sequence[Rule],
        data_axes: Sequence[str],
    ):
        """Traces the model; no array is made and no program is compiled.

        Args:
          objective: model and losses to train.
          stages: stages in order.
          optimizer: optimizer settings that the stages share.
          mesh: mesh of the devices.
          rules: sharding rules of the arrays.
          data_axes: axes that a batch's rows are split over.

        Raises:
          ConfigError: for a stage that the objective does not know, one that trains no parameter,
            or rules that do not match every array.
        """
        self.objective, self.mesh, self.simulated = objective, mesh, is_simulated(mesh)
        self.rules, self.data_axes = tuple(rules), tuple(data_axes)
        self.schedule = Schedule(stages)
        for stage in self.schedule.stages:
            if stage.name not in objective.stages:
                raise ConfigError(
                    f"The objective has no stage {stage.name!r}.",
                    f"Choose from its stages: {', '.join(map(repr, objective.stages))}.",
                    where="config.stages",
                )
        self.model = define_model(objective.init)
        self.batch_sharding = batch_sharding(mesh, data_axes)
        self._past_end, self._accumulate = optimizer.past_end, optimizer.accumulate_steps
        self._transformations = {s: make_optimizer(optimizer, s) for s in self.schedule.stages}
        self._names = {stage: self._find_names(stage) for stage in self.schedule.stages}
        self._abstract = {stage: self._make_abstract(stage) for stage in self.schedule.stages}
        # Jitted functions, made when they are first used.
        self._steps: dict[Stage, Any] = {}
        self._fresh: dict[Stage, Any] = {}

    def names(self, stage: Stage) -> tuple[str, ...]:
        """Returns the paths of the parameters that the stage trains."""
        return self._names[stage]

    def abstract(self, stage: Stage) -> TrainState:
        """Returns shapes, dtypes and shardings of the state in the stage."""
        return self._abstract[stage]

    def step(self, stage: Stage) -> Any:
        """Returns the stage's jitted step: (state, batch, factor) -> (state, StepMetrics)."""
        if stage not in self._steps:
            self._steps[stage] = self._make_step(stage)
        return self._steps[stage]

    def _find_names(self, stage: Stage) -> tuple[str, ...]:
        found = trainable_names(self.model, lambda path: self.objective.trainable(stage.name, path))
        if not found:
            raise ConfigError(
                f"The objective trains no parameter in the stage {stage.name!r}.",
                "Remove the stage, or let the objective train a parameter in it.",
                where="config.stages",
            )
        return found

    def _make_abstract(self, stage: Stage) -> TrainState:
        return abstract_state(
            self.model,
            names=self.names(stage),
            transformation=self._transformations[stage],
            rules=self.rules,
            mesh=self.mesh,
        )

    def abstract_after(self, done: int) -> TrainState:
        """Returns shapes, dtypes and shardings of the state after this many steps of the run."""
        return self.abstract(self.schedule.at(max(done - 1, 0)))

    def _make_step(self, stage: Stage) -> Any:
        return make_train_step(
            objective=self.objective,
            model=self.model,
            stage=stage,
            stage_start=self.schedule.start(stage),
            names=self.names(stage),
            transformation=self._transformations[stage],
            past_end=self._past_end,
            accumulate_steps=self._accumulate,
            abstract=self.abstract(stage),
            gathered=gathered_names(self.model.params, rules=self.rules),
            batch_sharding=self.batch_sharding,
            metrics_sharding=replicated(self.mesh),
        )

    def initial(self, *, seed: int, values: Mapping[str, np.ndarray] | None) -> TrainState:
        """Returns the state before the first step; see `state.initial_state`."""
        stage = self.schedule.stages[0]
        return initial_state(
            self.objective.init,
            model=self.model,
            abstract=self.abstract(stage),
            names=self.names(stage),
            transformation=self._transformations[stage],
            seed=seed,
            values=values,
        )

    def _make_fresh(self, stage: Stage) -> Any:
        return jax.jit(
            functools.partial(
                fresh_optimizer,
                names=self.names(stage),
                transformation=self._transformations[stage],
            ),
            out_shardings=shardings_of(self.abstract(stage).optimizer),
            compiler_options=compile_quickly(self.abstract(stage)),
        )

    def begin(self, state: TrainState, stage: Stage) -> TrainState:
        """Returns the state before the stage's first step, with a fresh optimizer (quirk P14)."""
        if stage not in self._fresh:
            self._fresh[stage] = self._make_fresh(stage)
        return dataclasses.replace(
            state,
            # This differs from `state.step` if the previous stage was ended early.
            step=self.scalar(np.int32(self.schedule.start(stage))),
            optimizer=self._fresh[stage](state.params),
        )

    def scalar(self, value: np.int32 | np.float32) -> jax.Array:
        """Returns a number of the host, the same in every process, replicated on all devices."""
        return jax.make_array_from_callback((), replicated(self.mesh), lambda _: np.asarray(value))
