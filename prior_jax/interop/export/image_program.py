"""A fine-tuned model as one plain function of images, ready for export."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from prior_jax.interop.export.towers import BATCH, Tower
from prior_jax.objectives.base import Classifies, Segments
from prior_jax.objectives.boxes import finite_corners
from prior_jax.objectives.detection import DetectionObjective

SCORES = ("log_odds", "probabilities")
"""Outputs of a classifier, [b, K], and of a segmentation, [b, H, W, K], float32."""

BOXES = ("boxes", "scores", "classes")
"""Outputs of a detector, float32[b, N, 4], [b, N] and [b, N, K], before any box is left out."""


def image_program(
    objective: Classifies | Segments | DetectionObjective,
    model: nnx.Module,
    *,
    image_shape: Sequence[int],
) -> Tower:
    """Returns a fine-tuned model as a function, in inference mode, weights included.

    Args:
      objective: objective of the model.
      model: the model with its weights.
      image_shape: (H, W, C) of an image.

    Returns:
      A function of `image`, float32[b, H, W, C], normalised. A classifier and a segmentation give
      the `log_odds` and the `probabilities` of their K classes, for each image or each pixel. A
      detector gives all N boxes that its head predicts: `boxes` are x1, y1, x2, y2 in pixels of
      `image`, `scores` the probability that there is an object, and `classes` the probability of
      each class. Those with low scores, and those that overlap a better one, are still there.

    Raises:
      ValueError: for a size that is not positive.
    """
    shape = tuple(image_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape is {shape}. It must be 3 positive integers (H, W, C).")
    graph, state = nnx.split(model)
    state = nnx.as_pure(state)
    outputs, run = _outputs(objective)

    def whole(image: jax.Array) -> dict[str, jax.Array]:
        return run(nnx.merge(graph, state, copy=True), image)

    (batch,) = export.symbolic_shape(BATCH)
    inputs = {"image": jax.ShapeDtypeStruct((batch, *shape), jnp.float32)}
    return Tower(function=whole, inputs=inputs, outputs=outputs)


def _outputs(
    objective: Classifies | Segments | DetectionObjective,
) -> tuple[tuple[str, ...], Callable[..., dict[str, jax.Array]]]:
    if isinstance(objective, DetectionObjective):

        def boxes(model, image):
            decoded = objective.decoded(model, image)
            return {
                "boxes": finite_corners(decoded),
                "scores": decoded[..., 4],
                "classes": decoded[..., 5:],
            }

        return BOXES, boxes
    odds = objective.segment if isinstance(objective, Segments) else objective.classify

    def scores(model, image):
        found = odds(model, image).astype(jnp.float32)
        return {"log_odds": found, "probabilities": jax.nn.sigmoid(found)}

    return SCORES, scores


def program_notes(
    objective: Classifies | Segments | DetectionObjective,
) -> tuple[str, ...]:
    """Returns what the inputs and outputs of `image_program` are, as paragraphs of a model card."""
    classes = ", ".join(objective.classes)
    given = "The input `image` is [b, H, W, C], normalised as below."
    if isinstance(objective, DetectionObjective):
        post = objective.config.post
        return (
            f"{given} The outputs are **all boxes that the head predicts, before non-maximum "
            "suppression**: `boxes` [b, N, 4] are x1, y1, x2, y2 in pixels of the input, `scores` "
            "[b, N] the probability that there is an object, `classes` [b, N, K] that of each of "
            f"{classes}.",
            f"The model was measured with the boxes whose score is at least "
            f"{post.conf_threshold:g}, of the most probable class, without those whose "
            f"intersection over union with a better box of the same class is at least "
            f"{post.nms_threshold:g}"
            + (", cut off at the edges of the image." if post.clip else ".")
            + (" A box was one pixel wider and higher there." if post.extra_pixel else ""),
        )
    shape = "[b, H, W, K]" if isinstance(objective, Segments) else "[b, K]"
    return (f"{given} The outputs `log_odds` and `probabilities` {shape} are those of {classes}.",)
