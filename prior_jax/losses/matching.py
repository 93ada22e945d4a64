"""Which predicted prototype stands for which sentence: optimal assignment inside jit."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from prior_jax.losses.normalize import unit

TIE_BREAK = 1e-5
"""A share of the costs' scale that is ten times what rounding moves them by: see `break_ties`."""

# Replaces a cost that is not finite: the solver hangs or errs silently on NaN and infinity.
_WORST = 1e9


def pairwise_cost(
    predicted: jax.Array, targets: jax.Array, *, metric: str, normalize: bool
) -> jax.Array:
    """Cost of every prediction standing for every target, a constant for the gradient.

    Args:
      predicted: [B, Q, D].
      targets: [B, T, D].
      metric: "l1", "l2" (both summed over features) or "cosine" (negative).
      normalize: whether predictions are scaled to unit norm first (the targets are not).

    Returns:
      float32[B, Q, T].

    Raises:
      ValueError: for another metric, or if the shapes do not fit together.

    Source: release, codes/prior/models/prior.py, `matching_label` (l1, not normalised, by
      default: quirk P5).
    """
    if predicted.ndim != 3 or predicted.shape[::2] != targets.shape[::2]:
        raise ValueError(
            f"predicted {predicted.shape} and targets {targets.shape}: "
            "accepted [B, Q, D] and [B, T, D]"
        )
    predicted = jax.lax.stop_gradient(predicted).astype(jnp.float32)
    targets = jax.lax.stop_gradient(targets).astype(jnp.float32)
    if normalize:
        predicted = unit(predicted)
    if metric == "cosine":
        return -jnp.einsum("bqd,btd->bqt", unit(predicted, eps=1e-8), unit(targets, eps=1e-8))
    difference = predicted[:, :, None, :] - targets[:, None, :, :]
    if metric == "l1":
        return jnp.sum(jnp.abs(difference), axis=-1)
    if metric == "l2":
        return jnp.sqrt(jnp.sum(difference * difference, axis=-1))
    raise ValueError(f"metric {metric!r}: accepted 'l1', 'l2', 'cosine'")


def ignore_absent_targets(cost: jax.Array, mask: jax.Array) -> jax.Array:
    """Makes targets that do not exist cost nothing, so that they decide nothing.

    Args:
      cost: float32[B, Q, T].
      mask: bool[B, T], True on real targets.

    Returns:
      float32[B, Q, T], 0 in the columns of absent targets.
    """
    return jnp.where(mask[:, None, :], cost, jnp.float32(0))


def break_ties(cost: jax.Array, *, share: float = TIE_BREAK) -> jax.Array:
    """Makes the choice between equally good assignments that nearest to the identity.

    Adds u (q - t)^2 / 2 to the cost of prediction q standing for target t, where u is `share` of
    the largest cost of the report. Where all assignments are tied, one that displaces k
    predictions then costs at least k u / 2 more than the identity, while errors of e in every
    cost tell the two apart by at most 2 k e: costs known to within u / 4 always give the same
    assignment, on any layout of devices. Where some are tied (sentences that are alike), the one
    that keeps the order is ahead in the same way. With 16 queries the total cost of what is
    chosen exceeds the least by at most 680 u, 4e-4 of 16 times the largest cost.

    What remains: tied assignments equally far from the identity, and true differences that the
    added ones cancel to within rounding. There rounding still chooses.

    Args:
      cost: float32[B, Q, Q].
      share: of the scale, much larger than the costs' relative errors and much smaller than 1.

    Returns:
      float32[B, Q, Q].

    Source: ours; the release leaves the choice to scipy's solver.
    """
    size = jnp.where(jnp.isfinite(cost), jnp.abs(cost), jnp.float32(0))
    unit_cost = jnp.float32(share) * jnp.max(size, axis=(1, 2), keepdims=True)
    place = jnp.arange(cost.shape[-1], dtype=jnp.float32)
    away = jnp.square(place[:, None] - place[None, :]) / jnp.float32(2)
    return cost + unit_cost * away[None]


def assign(cost: jax.Array, *, axis: str | tuple[str, ...] | None = None) -> jax.Array:
    """The assignment of least total cost, for each report.

    Args:
      cost: float32[B, Q, Q]. Entries that are not finite count as 1e9.
      axis: mesh axis over which B is split: each device then solves its own reports (B must be a
        multiple of it, under `jax.set_mesh`). None: all are solved together.

    Returns:
      int32[B, Q]: col_ind, the target of each prediction. Among equally good assignments, any:
      rounding chooses (see `break_ties`).

    Source: optax.assignment.hungarian_algorithm; the release calls scipy's
      `linear_sum_assignment` on the host for each report.
    """
    if cost.ndim != 3 or cost.shape[1] != cost.shape[2]:
        raise ValueError(f"cost {cost.shape}: accepted [B, Q, Q]")
    cost = jax.lax.stop_gradient(cost)
    cost = jnp.where(jnp.isfinite(cost), cost, jnp.float32(_WORST))
    solve = jax.vmap(_assign_one)
    if axis is None:
        return solve(cost)
    spec = PartitionSpec(axis)
    return jax.shard_map(solve, in_specs=spec, out_specs=spec, check_vma=False)(cost)


def _assign_one(cost: jax.Array) -> jax.Array:
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    # The solver returns rows out of order.
    return jnp.zeros(cost.shape[:1], jnp.int32).at[rows].set(columns.astype(jnp.int32))


def arrange(predicted: jax.Array, col_ind: jax.Array, *, inverse: bool) -> jax.Array:
    """Puts predictions into the order of their targets.

    Args:
      predicted: [B, Q, D].
      col_ind: int32[B, Q], the target of each prediction.
      inverse: True puts at place j the prediction whose target is j. False takes
        `predicted[col_ind]` as the release does, which is the permutation in the wrong direction
        (quirk P3).

    Returns:
      [B, Q, D].
    """
    if col_ind.shape != predicted.shape[:2]:
        raise ValueError(f"col_ind {col_ind.shape}: accepted {predicted.shape[:2]}")
    places = jnp.arange(predicted.shape[1], dtype=col_ind.dtype)
    chosen = places[None, :, None] == col_ind[:, None, :]  # [b, j, k]: k's target is j
    if not inverse:
        chosen = chosen.swapaxes(1, 2)
    # A product with ones and zeros, exact: gathers and scatters of rows cost TPUs more.
    return jnp.einsum(
        "bjk,bkd->bjd",
        chosen.astype(predicted.dtype),
        predicted,
        precision=jax.lax.Precision.HIGHEST,
    )
