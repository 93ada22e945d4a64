"""Gradient accumulation: one optimizer step over a batch that is processed in parts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from prior_jax.errors import ConfigError
from prior_jax.train.state import Arrays
from prior_jax.types import Batch

Part = Callable[[Arrays, Arrays, Batch, jax.Array], tuple[Arrays, Any, Arrays]]
"""(parameters, other model state, rows, key) -> (gradients, tree of float32[], other model state
after these rows)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accumulation:
    """Splits a batch into parts, and averages their gradients.

    The gradient is the mean of the parts' gradients, weighted by their real pairs, in one compiled
    step that holds the activations of one part. Batch statistics are updated part by part in order.

    Where rows depend on each other it is not the gradient of the whole batch: a contrastive loss is
    over the pairs of one part, with 1 / `steps` of the batch's negatives, and batch norm is over
    one part. Neither is it where a loss is a mean over something else than pairs, such as sentences
    or known labels, of which the parts may have different numbers.

    Attributes:
      steps: number of parts; 1 leaves the batch whole.
      batch: sharding of every array of a batch.
      gradients: path -> sharding of each gradient.
    """

    steps: int
    batch: NamedSharding
    gradients: Mapping[str, NamedSharding]

    def __call__(
        self, part: Part, parameters: Arrays, *, rest: Arrays, batch: Batch, key: jax.Array
    ) -> tuple[Arrays, Any, Arrays]:
        """Processes the parts one after the other.

        Args:
          part: function to call for each part.
          parameters: path -> parameter that is differentiated.
          rest: other state of the model, before the first part.
          batch: the global batch; part j of k has its rows j, j + k, ..., which stay on their
            devices, and are the same on any number of devices.
          key: key of the step; part j gets `fold_in(key, j)`, a whole batch the key itself.

        Returns:
          Mean gradients, mean numbers (0 without a real pair) and the rest after the last part, as
          `part` returns them.

        Raises:
          ConfigError: while tracing, if a device's rows do not divide.
        """
        if self.steps == 1:
            return part(parameters, rest, batch, key)
        check_accumulation(batch.weight.shape[0], steps=self.steps, sharding=self.batch)
        total = jnp.sum(batch.weight)
        total = jnp.where(total > 0, total, jnp.float32(1))

        def one(carry, given):
            sums, rest = carry
            index, rows = given
            found, numbers, rest = part(parameters, rest, rows, jax.random.fold_in(key, index))
            share = jnp.sum(rows.weight) / total
            sums = jax.tree.map(lambda old, new: old + share * new, sums, found)
            # Without this constraint the compiler may replicate gradients that are to be sharded.
            sums = jax.lax.with_sharding_constraint(sums, dict(self.gradients))
            return (sums, rest), jax.tree.map(lambda x: share * x, numbers)

        carry = jax.tree.map(jnp.zeros_like, parameters), rest
        given = jnp.arange(self.steps, dtype=jnp.uint32), jax.tree.map(self._cut, batch)
        (sums, rest), numbers = jax.lax.scan(one, carry, given)
        return sums, jax.tree.map(lambda x: jnp.sum(x, axis=0), numbers), rest

    def _cut(self, x: jax.Array) -> jax.Array:
        """Reshapes [B, ...] to [steps, B / steps, ...] without moving a row to another device."""
        x = x.reshape(x.shape[0] // self.steps, self.steps, *x.shape[1:])
        place = NamedSharding(self.batch.mesh, PartitionSpec(None, *self.batch.spec))
        return jax.lax.with_sharding_constraint(jnp.swapaxes(x, 0, 1), place)


def check_accumulation(batch_size: int, *, steps: int, sharding: NamedSharding) -> None:
    """Refuses parts that would not be of equal size on every device.

    Args:
      batch_size: rows of the global batch, a multiple of the devices that it is split over.
      steps: number of parts of a batch.
      sharding: sharding of every array of a batch.

    Raises:
      ConfigError: if the rows of one device do not divide into the parts.
    """
    (rows,) = sharding.shard_shape((batch_size,))
    if rows % steps:
        raise ConfigError(
            f"A batch of {batch_size} has {rows} rows on one device, which cannot be divided into "
            f"{steps} equal parts.",
            f"Choose a divisor of {rows}, or change --config.data.batch_size.",
            where="config.optimizer.accumulate_steps",
        )
