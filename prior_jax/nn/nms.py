"""Non-maximum suppression: of boxes that overlap, the one with the highest score is kept."""

import jax
import jax.numpy as jnp


def corners_of(boxes: jax.Array) -> jax.Array:
    """Returns x1, y1, x2, y2 of boxes given by centre, width and height, float32[..., 4]."""
    half = boxes[..., 2:4] / 2
    return jnp.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def non_maximum_suppression(
    boxes: jax.Array,
    scores: jax.Array,
    classes: jax.Array,
    *,
    least_score: float,
    overlap: float,
    extra_pixel: bool = False,
) -> jax.Array:
    """Finds the boxes to keep in each image, class by class.

    The box with the highest score is kept, and the boxes of its class that overlap it are removed;
    then the same with the rest. Of boxes with equal scores the first comes first (the releases
    leave the order to an unstable sort, quirk L28). Runs under `jax.jit`.

    Args:
      boxes: x1, y1, x2, y2 in pixels, float32[B, N, 4].
      scores: scores, float32[B, N].
      classes: class of each box, int32[B, N].
      least_score: score below which a box is removed; LoVT 0.2, MGCA 0.5.
      overlap: intersection over union from which on a box is removed; LoVT 0.4, MGCA 0.5.
      extra_pixel: whether a box from x1 to x2 is x2 - x1 + 1 wide, as in both releases (quirk
        L21).

    Returns:
      bool[B, N], whether each box is kept.

    Source: LoVT's release, src/models/downstream/detection.py, non_max_suppression; the same in
      MGCA's release, mgca/utils/yolo_loss.py.
    """
    return jax.vmap(
        lambda *rows: _suppress(*rows, least=least_score, overlap=overlap, extra=float(extra_pixel))
    )(boxes.astype(jnp.float32), scores.astype(jnp.float32), classes)


def _suppress(
    boxes: jax.Array,
    scores: jax.Array,
    classes: jax.Array,
    *,
    least: float,
    overlap: float,
    extra: float,
) -> jax.Array:
    """Returns bool[N] for one image."""
    # Highest score first: boxes that are removed already come last, and the loop ends before them.
    order = jnp.argsort(jnp.where(scores >= least, -scores, jnp.inf))  # stable
    ranked, ranked_classes = boxes[order], classes[order]
    count = jnp.sum(scores >= least)

    def visit(state):
        rank, left = state
        near = _overlaps(ranked[rank], ranked, extra=extra) >= overlap
        later = jnp.arange(len(ranked)) > rank
        removed = left[rank] & later & near & (ranked_classes == ranked_classes[rank])
        return rank + 1, left & ~removed

    start = jnp.arange(len(ranked)) < count
    _, kept = jax.lax.while_loop(lambda state: state[0] < count, visit, (0, start))
    return jnp.zeros_like(kept).at[order].set(kept)


def _overlaps(box: jax.Array, others: jax.Array, *, extra: float) -> jax.Array:
    """Returns the intersection over union of one box [4] with others [N, 4], float32[N]."""
    low = jnp.maximum(box[None, :2], others[:, :2])
    high = jnp.minimum(box[None, 2:], others[:, 2:])
    both = jnp.prod(jnp.maximum(high - low + extra, 0), axis=-1)
    area = jnp.prod(box[2:] - box[:2] + extra)
    areas = jnp.prod(others[:, 2:] - others[:, :2] + extra, axis=-1)
    return both / (area + areas - both + 1e-16)
