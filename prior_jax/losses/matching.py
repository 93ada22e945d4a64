"""Assigns predicted prototypes to sentences: an optimal assignment that runs inside jit."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from prior_jax.losses.normalize import unit

TIE_BREAK = 1e-5
"""Share of the largest cost that is ten times the rounding error of the costs; see `break_ties`."""

# Replaces a cost that is not finite: on NaN and infinity the solver hangs or fails silently.
_WORST = 1e9


def pairwise_cost(
    predicted: jax.Array, targets: jax.Array, *, metric: str, normalize: bool
) -> jax.Array:
    """Computes the cost of assigning each prediction to each target, without gradient.

    Args:
      predicted: predicted prototypes, [B, Q, D].
      targets: target prototypes, [B, T, D].
      metric: cost function: "l1", "l2" (both summed over features) or "cosine" (negative).
      normalize: whether predictions are first scaled to unit norm (the targets are not).

    Returns:
      Costs, float32[B, Q, T].

    Raises:
      ValueError: for another metric, or if the shapes are inconsistent.

    Source: release, codes/prior/models/prior.py, `matching_label` (l1, not normalised, by
      default: quirk P5).
    """
    if predicted.ndim != 3 or predicted.shape[::2] != targets.shape[::2]:
        raise ValueError(
            f"predicted {predicted.shape} and targets {targets.shape} must have the shapes "
            "[B, Q, D] and [B, T, D]."
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
    raise ValueError(f"metric {metric!r} is unknown. Choose 'l1', 'l2' or 'cosine'.")


def ignore_absent_targets(cost: jax.Array, mask: jax.Array) -> jax.Array:
    """Sets the cost of absent targets to 0, so that they do not influence the assignment.

    Args:
      cost: assignment costs, float32[B, Q, T].
      mask: mask of the real targets, bool[B, T].

    Returns:
      Costs, float32[B, Q, T], 0 in the columns of absent targets.
    """
    return jnp.where(mask[:, None, :], cost, jnp.float32(0))


def break_ties(cost: jax.Array, *, share: float = TIE_BREAK) -> jax.Array:
    """Makes the solver choose, among equally good assignments, the one nearest the identity.

    Adds u (q - t)^2 / 2 to the cost of assigning prediction q to target t, where u is `share` of
    the largest cost of the report. Where all assignments are tied, one that displaces k predictions
    then costs at least k u / 2 more than the identity, while errors of e in every cost change the
    difference by at most 2 k e: costs known to within u / 4 always give the same assignment, on any
    layout of devices. Where only some assignments are tied (similar sentences), the one that keeps
    the order is preferred in the same way. With 16 queries the total cost of the chosen assignment
    exceeds the least total by at most 680 u, 4e-4 of 16 times the largest cost.

    Two cases are not resolved: tied assignments equally far from the identity, and true differences
    that the added costs cancel to within rounding. In these cases rounding still decides.

    Args:
      cost: assignment costs, float32[B, Q, Q].
      share: share of the largest cost; must be much larger than the costs' relative errors and much
        smaller than 1.

    Returns:
      Adjusted costs, float32[B, Q, Q].

    Source: this project; the release leaves the choice to scipy's solver.
    """
    size = jnp.where(jnp.isfinite(cost), jnp.abs(cost), jnp.float32(0))
    unit_cost = jnp.float32(share) * jnp.max(size, axis=(1, 2), keepdims=True)
    place = jnp.arange(cost.shape[-1], dtype=jnp.float32)
    away = jnp.square(place[:, None] - place[None, :]) / jnp.float32(2)
    return cost + unit_cost * away[None]


def assign(cost: jax.Array, *, axis: str | tuple[str, ...] | None = None) -> jax.Array:
    """Solves for the assignment of least total cost of each report.

    Args:
      cost: assignment costs, float32[B, Q, Q]. Entries that are not finite are replaced by 1e9.
      axis: mesh axis over which B is split: each device then solves its own reports (B must be a
        multiple of the axis size, under `jax.set_mesh`). None solves all reports together.

    Returns:
      Target of each prediction (col_ind), int32[B, Q]. Among equally good assignments, rounding
      decides (see `break_ties`).

    Source: optax.assignment.hungarian_algorithm; the release calls scipy's
      `linear_sum_assignment` on the host for each report.
    """
    if cost.ndim != 3 or cost.shape[1] != cost.shape[2]:
        raise ValueError(f"cost {cost.shape} must have the shape [B, Q, Q].")
    cost = jax.lax.stop_gradient(cost)
    cost = jnp.where(jnp.isfinite(cost), cost, jnp.float32(_WORST))
    solve = jax.vmap(_assign_one)
    if axis is None:
        return solve(cost)
    spec = PartitionSpec(axis)
    return jax.shard_map(solve, in_specs=spec, out_specs=spec, check_vma=False)(cost)


def _assign_one(cost: jax.Array) -> jax.Array:
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    # The solver returns the rows out of order.
    return jnp.zeros(cost.shape[:1], jnp.int32).at[rows].set(columns.astype(jnp.int32))


def arrange(predicted: jax.Array, col_ind: jax.Array, *, inverse: bool) -> jax.Array:
    """Reorders predictions into the order of their targets.

    Args:
      predicted: predicted prototypes, [B, Q, D].
      col_ind: target of each prediction, int32[B, Q].
      inverse: True puts the prediction whose target is j at position j. False takes
        `predicted[col_ind]` as the release does, which is the permutation in the wrong direction
        (quirk P3).

    Returns:
      Reordered predictions, [B, Q, D].
    """
    if col_ind.shape != predicted.shape[:2]:
        raise ValueError(f"col_ind {col_ind.shape} must have the shape {predicted.shape[:2]}.")
    places = jnp.arange(predicted.shape[1], dtype=col_ind.dtype)
    chosen = places[None, :, None] == col_ind[:, None, :]  # [b, j, k]: the target of k is j
    if not inverse:
        chosen = chosen.swapaxes(1, 2)
    # An exact product with ones and zeros: gathers and scatters of rows cost more on TPUs.
    return jnp.einsum(
        "bjk,bkd->bjd",
        chosen.astype(predicted.dtype),
        predicted,
        precision=jax.lax.Precision.HIGHEST,
    )
