"""The boxes of a detector: which of those that it predicts on an image are kept."""

import dataclasses

import jax
import jax.numpy as jnp

from prior_jax.errors import check_field
from prior_jax.nn.nms import corners_of, non_maximum_suppression
from prior_jax.types import Detections

_FAR = 1e6  # pixels; a width beyond it is the exponential of a number that has no meaning


@dataclasses.dataclass(frozen=True, kw_only=True)
class PostConfig:
    """Rules by which the boxes of an image are chosen; the section `config.model.post`.

    Attributes:
      conf_threshold: objectness below which a box is left out; LoVT 0.2, MGCA 0.5.
      nms_threshold: intersection over union from which on a box gives way to one of its class with
        a higher score; LoVT 0.4, MGCA 0.5.
      most_boxes: number of boxes for which the arrays have room, those with the highest scores;
        None for as many as the head predicts. Validation and evaluation refuse to go on where an
        image has more, so that none is left out unseen.
      clip: whether boxes are cut off at the edges of the image, as true boxes are; neither release
        does it.
      extra_pixel: whether a box from x1 to x2 is x2 - x1 + 1 wide where boxes are compared, as in
        both releases (quirk L21).
    """

    conf_threshold: float
    nms_threshold: float
    most_boxes: int | None
    clip: bool
    extra_pixel: bool

    def __post_init__(self):
        """Refuses values that are out of range."""
        for name in ("conf_threshold", "nms_threshold"):
            check_field(self, name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        some = self.most_boxes is None or self.most_boxes >= 1
        check_field(self, "most_boxes", some, "None or at least 1")


def chosen(decoded: jax.Array, *, image_size: tuple[int, int], config: PostConfig) -> Detections:
    """Chooses the boxes of each image. Runs under `jax.jit`.

    Args:
      decoded: all boxes that the head predicts, float32[B, N, 5 + K], as `yolo_head.decode` gives
        them.
      image_size: height and width of the images in pixels.
      config: rules.

    Returns:
      The boxes of each image from the highest score on; of equal scores the first comes first. The
      score is the objectness, and the class the most probable one. An image of which a number is
      NaN has NaN as its scores, so that such weights do not pass for ones that find nothing.

    Source: LoVT's release, src/models/downstream/detection.py, non_max_suppression; MGCA's
      release, mgca/utils/detection_utils.py.
    """
    corners = finite_corners(decoded)
    if config.clip:
        height, width = image_size
        edge = jnp.asarray([width, height, width, height], jnp.float32)
        corners = jnp.clip(corners, 0, edge.reshape(1, 1, 4))
    scores = decoded[..., 4]
    classes = jnp.argmax(decoded[..., 5:], axis=-1).astype(jnp.int32)
    kept = non_maximum_suppression(
        corners,
        scores,
        classes,
        least_score=config.conf_threshold,
        overlap=config.nms_threshold,
        extra_pixel=config.extra_pixel,
    )
    room = min(config.most_boxes or scores.shape[1], scores.shape[1])
    best, place = jax.lax.top_k(jnp.where(kept, scores, -1.0), room)
    real = best >= 0
    damaged = jnp.isnan(decoded).any(axis=(1, 2))[:, None]
    picked = jnp.take_along_axis(corners, place[..., None], axis=1)
    return Detections(
        corners=jnp.where(real[..., None], picked, 0),
        classes=jnp.where(real, jnp.take_along_axis(classes, place, axis=1), 0),
        scores=jnp.where(damaged, jnp.nan, jnp.where(real, best, 0)),
        real=real | damaged,
        found=kept.sum(axis=1, dtype=jnp.int32),
    )


def finite_corners(decoded: jax.Array) -> jax.Array:
    """Returns the corners of predicted boxes, cut off a million pixels away, float32[B, N, 4].

    Args:
      decoded: boxes as `yolo_head.decode` gives them, float32[B, N, 5 + K].
    """
    return jnp.clip(corners_of(decoded[..., :4]), -_FAR, _FAR)
