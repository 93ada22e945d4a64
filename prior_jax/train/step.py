"""One optimizer step, compiled once for each stage and each shape of batch."""

import dataclasses
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
from prior_jax.train.optimizer import OptimizerConfig, apply_updates, make_optimizer
from prior_jax.train.stages import Stage, learning_rate
from prior_jax.train.state import ModelDefinition, TrainState, shardings_of
from prior_jax.types import Batch


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
    optimizer: OptimizerConfig,
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
      optimizer: optimizer settings that the stages share.
      abstract: state from `abstract_state`, for this stage.
      gathered: paths of the parameters that are sharded, and gathered before use.
      batch_sharding: sharding of every array of the batch.
      metrics_sharding: sharding of the metrics (replicated).

    Returns:
      A jitted function (state, batch, factor) -> (state, StepMetrics); factor is float32[], by
      which the schedule's learning rate is multiplied, with the metrics' sharding.

    Raises:
      ConfigError: while it is traced, for a batch that does not divide into the parts of
        `optimizer.accumulate_steps`.
    """
    transformation = make_optimizer(optimizer, stage)
    trained = tuple(names)
    factors = _rate_factors(objective, stage.name, trained)
    places = shardings_of(abstract)
    accumulated = Accumulation(
        steps=optimizer.accumulate_steps,
        batch=batch_sharding,
        gradients={name: places.params[name] for name in trained},
    )

    def whole(parameters):
        # Weights are gathered once per step: without this constraint the compiler gathers them at
        # each use, or moves activations, which are many times larger than these weights.
        return {
            name: jax.lax.with_sharding_constraint(v, metrics_sharding) if name in gathered else v
            for name, v in parameters.items()
        }

    def step(state: TrainState, batch: Batch, factor: jax.Array) -> tuple[TrainState, StepMetrics]:
        rate = learning_rate(stage, state.step - stage_start, past_end=optimizer.past_end) * factor
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        active = {name: state.params[name] for name in trained}
        frozen = {name: v for name, v in state.params.items() if name not in active}

        def loss(active, rest, rows, key):
            module = model.merge({**active, **whole(frozen)}, rest)
            terms = objective.loss_terms(
                module, rows, stage=stage.name, step=state.step, key=key, train=True
            )
            total = weighted_sum(terms.terms, objective.weights(stage.name))
            return total, (terms, model.split(module)[1])

        def part(active, rest, rows, key):
            gradient = jax.value_and_grad(loss, has_aux=True)
            (total, (terms, rest)), gradients = gradient(active, rest, rows, key)
            return gradients, (total, terms), rest

        gradients, (total, terms), rest = accumulated(
            part, whole(active), rest=state.rest, batch=batch, key=key
        )
        gradients = jax.lax.with_sharding_constraint(gradients, dict(accumulated.gradients))
        norm = optax.tree.norm(gradients)
        active, optimizer_state = apply_updates(
            transformation,
            gradients=gradients,
            state=state.optimizer,
            parameters=active,
            learning_rate=rate,
            factors=factors,
        )
        metrics = StepMetrics(
            terms=dict(terms.terms),
            metrics=dict(terms.metrics),
            total=total,
            gradient_norm=norm,
            learning_rate=rate,
            pairs=jnp.sum(batch.weight),
            batch=batch_sums(batch),
            finite=jnp.isfinite(total) & jnp.isfinite(norm),
        )
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params={**frozen, **active},
            rest=rest,
            optimizer=optimizer_state,
        )
        return state, metrics

    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(places, batch_sharding, metrics_sharding),
        out_shardings=(places, metrics_sharding),
    )


def _rate_factors(objective: TrainObjective, stage: str, names: Sequence[str]) -> dict[str, float]:
    """Returns path -> factor on the learning rate, of the parameters for which it is not 1."""
    if not isinstance(objective, HasRates):
        return {}
    found = {name: objective.rate(stage, tuple(name.split("/"))) for name in names}
    return {name: factor for name, factor in found.items() if factor != 1}
