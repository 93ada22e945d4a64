"""Local contrast within a pair: LoVT's losses between regions and sentences."""

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.losses.contrastive import ABSENT
from prior_jax.losses.normalize import unit, weighted_mean


def spatial_positiveness(grid: tuple[int, int], *, threshold: float, decay: float) -> np.ndarray:
    """Computes how far an image's regions count as positives of each other, by distance.

    Args:
      grid: size (h, w) of the feature map; P = h w.
      threshold: largest distance of a positive, in diagonals of the map; LoVT 0.5. With 0, a region
        is positive only to itself.
      decay: distance (beta) at which positiveness falls to 1 / e, in diagonals; LoVT 1.

    Returns:
      Positiveness, float32[P, P], row-major over the grid; rows sum to 1.

    Source: LoVT, arXiv:2112.02889, section 3.4; its release, configs/objective/
      scan_local_intra_contrastive.yaml and src/models/objectives/local_alignment.py.
    """
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, 2)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) / np.hypot(*grid)
    share = np.where(distance <= threshold, np.exp(-distance / decay), 0.0)
    return (share / share.sum(axis=1, keepdims=True)).astype(np.float32)


def local_contrast(
    local: jax.Array,
    context: jax.Array,
    *,
    scale: jax.Array,
    mask: jax.Array,
    row_weight: jax.Array,
    weight: jax.Array,
    positiveness: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Contrasts each local feature with its context in the other modality, in both directions.

    The negatives are the other rows of the same pair.

    Args:
      local: embeddings of regions, sentences or words, [B, N, D]; scaled to unit norm here.
      context: context that `local[:, n]` attends to, in row n, [B, N, D]; scaled to unit norm here.
      scale: inverse temperature, float32[], > 0.
      mask: mask of the real rows, bool[B, N].
      row_weight: weight of each row in its pair's mean, float32[B, N], >= 0, in any scale. Weights
        of masked rows are ignored.
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      positiveness: weights with which row m is a positive of row n, float32[N, N], >= 0. None means
        that only row n itself is.

    Returns:
      Loss, float32[], nats: the weighted mean over a pair's rows of both directions' mean, then the
      mean over real pairs. Pairs whose rows have no weight add 0 and count in the mean.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: LoVT, arXiv:2112.02889, section 3.4; MGCA, arXiv:2210.06044, section 3.3 (without
      positiveness).
    """
    _check(local, context, mask, row_weight, weight)
    here = jnp.where(mask[..., None], local, jnp.zeros((), local.dtype))
    there = jnp.where(mask[..., None], context, jnp.zeros((), context.dtype))
    logits = scale * jnp.einsum("bnd,bmd->bnm", unit(here), unit(there))
    if positiveness is None:
        positiveness = np.eye(mask.shape[1], dtype=np.float32)
    target = jnp.asarray(positiveness)[None] * mask[:, None, :].astype(jnp.float32)
    total = jnp.sum(target, axis=2, keepdims=True)
    target = target / jnp.where(total > 0, total, 1)
    loss = _cross_entropy(logits, target, mask)
    loss = (loss + _cross_entropy(jnp.swapaxes(logits, 1, 2), target, mask)) / 2
    row_weight = jnp.where(mask, row_weight, jnp.float32(0))
    return weighted_mean(jax.vmap(weighted_mean)(loss, row_weight), weight)


def _cross_entropy(logits: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """Computes float32[B, N] from logits and targets [B, N, N], whose rows sum to 1."""
    present = jnp.where(mask[:, None, :], logits, jnp.float32(ABSENT))
    return jax.nn.logsumexp(present, axis=2) - jnp.sum(target * logits, axis=2)


def _check(local, context, mask, row_weight, weight) -> None:
    if local.ndim != 3 or local.shape != context.shape:
        raise ValueError(
            f"local {local.shape} and context {context.shape} must have the same shape [B, N, D]."
        )
    rows = local.shape[:2]
    if mask.shape != rows or row_weight.shape != rows or weight.shape != rows[:1]:
        raise ValueError(
            f"mask {mask.shape}, row_weight {row_weight.shape} and weight {weight.shape} must have "
            f"the shapes {rows}, {rows} and {rows[:1]}."
        )
