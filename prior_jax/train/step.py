"""One optimizer step, compiled once for each stage and each shape of batch."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from prior_jax.objectives.base import HasRates, TrainObjective, weighted_sum
from prior_jax.train.accumulate import Accumulation
from prior_jax.train.checksum import batch_sums
from prior_jax.train.optimizer import apply_updates
from prior_jax.train.stages import Stage, learning_rate
from prior_jax.train.state import Arrays, ModelDefinition, TrainState, shardings_of
from prior_jax.types import Batch, LossTerms


@flax.struct.dataclass
class StepMetrics:
    """Metrics of one step, replicated on all devices; arrays are float32[] unless said otherwise.

    With `OptimizerConfig.accumulate_steps`, terms, metrics and total are means over the parts of
    the batch, weighted by their real pairs.

    Attributes:
      terms: name -> unweighted loss term.
      metrics: name -> further number that the objective reports.
      total: weighted sum that was minimised.
      gradient_norm: L2 norm of the update's gradient over all trained parameters, before clipping.
      learning_rate: learning rate of this step.
      pairs: number of real image-report pairs in the global batch.
      batch: uint32[2], see `checksum.batch_sums`.
      finite: bool[], True if the total and the gradient norm are finite; if it is False, the
        parameters after this step must not be used.
    """

    terms: Mapping[str, jax.Array]
    metrics: Mapping[str, jax.Array]
    total: jax.Array
    gradient_norm: jax.Array
    learning_rate: jax.Array
    pairs: jax.Array
    batch: jax.Array
    finite: jax.Array


def make_train_step(
    *,
    objective: TrainObjective,
    model: ModelDefinition,
    stage: Stage,
    stage_start: int,
    names: Sequence[str],
    transformation: optax.GradientTransformation,
    past_end: str,
    accumulate_steps: int,
    abstract: TrainState,
    gathered: Collection[str],
    batch_sharding: NamedSharding,
    metrics_sharding: NamedSharding,
) -> Any:
    """Returns the jitted step of one stage.

    Its first argument is donated: the caller must not use the old state again. It compiles anew
    for each shape of batch (padded report length).

    Args:
      objective: objective that gives terms, weights and the trained parameters.
      model: definition from `define_model(objective.init)`.
      stage: lengths, rates and weight decay.
      stage_start: index of the stage's first step.
      names: paths of the parameters that the stage trains.
      transformation: the stage's optimizer, from `make_optimizer`.
      past_end: rate after the end of the schedule, see `stages.learning_rate`.
      accumulate_steps: number of parts of a batch, see `OptimizerConfig`.
      abstract: state from `abstract_state`, for this stage.
      gathered: paths of the parameters that are sharded, and gathered before use.
      batch_sharding: sharding of every array of the batch.
      metrics_sharding: sharding of the metrics (replicated).

    Returns:
      A jitted function (state, batch, factor) -> (state, StepMetrics); factor is float32[], by
      which the schedule's learning rate is multiplied, with the metrics' sharding.

    Raises:
      ConfigError: while it is traced, for a batch that does not divide into the parts of
        `accumulate_steps`.
    """
    places = shardings_of(abstract)
    body = _Step(
        objective=objective,
        model=model,
        stage=stage,
        stage_start=stage_start,
        past_end=past_end,
        transformation=transformation,
        factors=_rate_factors(objective, stage.name, tuple(names)),
        accumulated=Accumulation(
            steps=accumulate_steps,
            batch=batch_sharding,
            gradients={name: places.params[name] for name in names},
        ),
        gathered=gathered,
        replicated=metrics_sharding,
    )

    def step(state: TrainState, batch: Batch, factor: jax.Array) -> tuple[TrainState, StepMetrics]:
        return body(state, batch, factor)

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(places, batch_sharding, metrics_sharding),
        out_shardings=(places, metrics_sharding),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Step:
    """The step of one stage, to be traced.

    Attributes:
      objective: objective that gives terms and weights.
      model: definition of the objective's model.
      stage: lengths, rates and weight decay.
      stage_start: index of the stage's first step.
      past_end: rate after the end of the schedule, see `stages.learning_rate`.
      transformation: the stage's optimizer.
      factors: path -> factor on the learning rate, of the parameters for which it is not 1.
      accumulated: parts of a batch, and shardings of the gradients of the trained parameters.
      gathered: paths of the parameters that are sharded, and gathered before use.
      replicated: sharding of gathered parameters.
    """

    objective: TrainObjective
    model: ModelDefinition
    stage: Stage
    stage_start: int
    past_end: str
    transformation: optax.GradientTransformation
    factors: Mapping[str, float]
    accumulated: Accumulation
    gathered: Collection[str]
    replicated: NamedSharding

    def __call__(
        self, state: TrainState, batch: Batch, factor: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        """Returns the state after the step, and its metrics; see `make_train_step`."""
        rate = learning_rate(self.stage, state.step - self.stage_start, past_end=self.past_end)
        rate = rate * factor
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        active = {name: state.params[name] for name in self.accumulated.gradients}
        frozen = {name: v for name, v in state.params.items() if name not in active}

        def part(active, rest, rows, key):
            loss = functools.partial(self._loss, frozen=frozen, step=state.step)
            gradient = jax.value_and_grad(loss, has_aux=True)
            (total, (terms, rest)), gradients = gradient(active, rest, rows, key)
            return gradients, (total, terms), rest

        gradients, (total, terms), rest = self.accumulated(
            part, self._gather(active), rest=state.rest, batch=batch, key=key
        )
        gradients = jax.lax.with_sharding_constraint(gradients, dict(self.accumulated.gradients))
        norm = optax.tree.norm(gradients)
        active, optimizer_state = apply_updates(
            self.transformation,
            gradients=gradients,
            state=state.optimizer,
            parameters=active,
            learning_rate=rate,
            factors=self.factors,
        )
        metrics = _metrics(terms, total=total, norm=norm, rate=rate, batch=batch)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params={**frozen, **active},
            rest=rest,
            optimizer=optimizer_state,
        )
        return state, metrics

    def _loss(
        self, active: Arrays, rest: Arrays, rows: Batch, key: jax.Array, *, frozen: Arrays, step
    ) -> tuple[jax.Array, tuple[LossTerms, Arrays]]:
        """Returns the weighted sum of the terms; and the terms and the model's state after it."""
        module = self.model.merge({**active, **self._gather(frozen)}, rest)
        terms = self.objective.loss_terms(
            module, rows, stage=self.stage.name, step=step, key=key, train=True
        )
        total = weighted_sum(terms.terms, self.objective.weights(self.stage.name))
        return total, (terms, self.model.split(module)[1])

    def _gather(self, parameters: Arrays) -> Arrays:
        # Weights are gathered once per step: without this constraint the compiler gathers them at
        # each use, or moves activations, which are many times larger than these weights.
        return {
            name: jax.lax.with_sharding_constraint(v, self.replicated)
            if name in self.gathered
            else v
            for name, v in parameters.items()
        }


def _metrics(
    terms: LossTerms, *, total: jax.Array, norm: jax.Array, rate: jax.Array, batch: Batch
) -> StepMetrics:
    return StepMetrics(
        terms=dict(terms.terms),
        metrics=dict(terms.metrics),
        total=total,
        gradient_norm=norm,
        learning_rate=rate,
        pairs=jnp.sum(batch.weight),
        batch=batch_sums(batch),
        finite=jnp.isfinite(total) & jnp.isfinite(norm),
    )


def _rate_factors(objective: TrainObjective, stage: str, names: Sequence[str]) -> dict[str, float]:
    """Returns path -> factor on the learning rate, of the parameters for which it is not 1."""
    if not isinstance(objective, HasRates):
        return {}
    found = {name: objective.rate(stage, tuple(name.split("/"))) for name in names}
    return {name: factor for name, factor in found.items() if factor != 1}
