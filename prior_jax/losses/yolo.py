"""YOLOv3's targets and loss, as LoVT and MGCA train detection.

Every box is a positive at each of the three scales: in the cell that its centre lies in, at the
anchor of that scale whose shape fits best. Boxes are padded to a common number for each image, and
a mask says which are real.
"""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import check_choice, check_field
from prior_jax.losses.limits import LARGEST
from prior_jax.types import Anchors

Matching = Literal["shape", "release"]
CrossEntropy = Literal["logits", "release"]
_UNIT = np.array([0, 0, 1, 1], np.float32).reshape(1, 1, 4)
TERMS = ("x", "y", "width", "height", "object", "class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class YoloLossConfig:
    """Weights and rules of the loss.

    Attributes:
      matching: "shape" compares a box with an anchor by the overlap of their shapes, and its best
        anchor is no negative. "release" adds one cell to every side before it compares (quirk
        L21), and keeps the best anchor among the negatives where the overlap is at most
        `ignore_above`, so that a positive is also pulled towards "no object" (quirk L22).
      ignore_above: overlap above which an anchor in the box's own cell is no negative; release 0.5.
      position: weight of the losses of x, y, width and height; release 2.5.
      negative: weight of the negatives within the loss of objectness; release 0.5.
      single_class: whether a single class has a class loss too; MGCA True, LoVT False (quirk L25).
      cross_entropy: "logits" computes cross-entropies from the logits; "release" from float32
        sigmoids, where a wrong prediction that is exactly 0 or 1 costs 100 nats and has no
        gradient (quirk L24).
    """

    matching: Matching
    cross_entropy: CrossEntropy
    ignore_above: float
    position: float
    negative: float
    single_class: bool

    def __post_init__(self):
        """Refuses values that are out of range."""
        check_choice(self, "matching", get_args(Matching))
        check_choice(self, "cross_entropy", get_args(CrossEntropy))
        inside = 0 <= self.ignore_above <= 1
        check_field(self, "ignore_above", inside, "from 0 to 1")
        for name in ("position", "negative"):
            check_field(self, name, 0 <= getattr(self, name) <= LARGEST, f"from 0 to {LARGEST:g}")


@dataclasses.dataclass(frozen=True)
class Targets:
    """Targets of one scale.

    Attributes:
      positive: whether a box belongs to the anchor of a cell, float32[B, h, w, A].
      negative: whether the anchor of a cell should say that there is no object, float32[B, h, w,
        A].
      numbers: place of the centre within the cell, 0 to 1, and logarithms of the ratios to the
        anchor: x, y, width, height, float32[B, h, w, A, 4].
      classes: float32[B, h, w, A, K], 1 for each class of the boxes of the anchor and cell.
    """

    positive: jax.Array
    negative: jax.Array
    numbers: jax.Array
    classes: jax.Array


def targets(
    boxes: jax.Array,
    real: jax.Array,
    classes: jax.Array,
    *,
    anchors: jax.Array,
    grid: tuple[int, int],
    image_size: tuple[int, int],
    num_classes: int,
    config: YoloLossConfig,
) -> Targets:
    """Builds the targets of one scale.

    Args:
      boxes: x1, y1, x2, y2 in pixels, float32[B, N, 4]; rows that are not real may hold NaN.
      real: whether a row is a box, bool[B, N]; a box without a positive width and height is none.
      classes: class of each box, int32[B, N], from 0.
      anchors: width and height of the scale's anchors in pixels, float32[A, 2].
      grid: height and width of the map, in cells.
      image_size: height and width of the images, in pixels.
      num_classes: number K of classes.
      config: rules.

    Returns:
      The targets. Of several boxes in one cell and anchor the last one gives the numbers, and all
      give their classes (quirk L23). A centre outside of the image is put into the nearest cell,
      and its place is clipped to 0 to 1 (the releases raise, quirk L26).
    """
    if not boxes.shape[1]:  # one empty row, for there is nothing to choose among none
        boxes, real, classes = (_one_row(part) for part in (boxes, real, classes))
    found = _assign(boxes, real, anchors=anchors, grid=grid, image_size=image_size, config=config)
    count, where, chosen = boxes.shape[1], found.where, found.chosen
    empty = jnp.zeros((len(boxes), *grid, len(anchors)), jnp.float32)
    # The index of the last box of each cell and anchor, counted from 1; 0 for none.
    order = jnp.arange(1, count + 1, dtype=jnp.float32)[None, :, None]
    last = empty.at[where].max(chosen * order).astype(jnp.int32)
    kept = jax.vmap(lambda rows, index: rows[index])(found.numbers, jnp.maximum(last - 1, 0))
    names = jax.nn.one_hot(classes, num_classes)[:, :, None, :] * chosen[..., None]
    return Targets(
        positive=(last > 0).astype(jnp.float32),
        negative=1 - empty.at[where].max(found.ignored.astype(jnp.float32)),
        numbers=jnp.where((last > 0)[..., None], kept, 0),
        classes=jnp.zeros((*empty.shape, num_classes), jnp.float32).at[where].max(names),
    )


@dataclasses.dataclass(frozen=True)
class _Assignment:
    """The cell and the anchor of each box.

    Attributes:
      where: image, row and column of the box's cell, int32[B, N] each.
      numbers: numbers of `Targets` for the best anchor, float32[B, N, 4].
      chosen: one-hot over anchors, the best one, float32[B, N, A]; 0 for a row that is no box.
      ignored: whether an anchor of the cell is no negative, bool[B, N, A].
    """

    where: tuple[jax.Array, jax.Array, jax.Array]
    numbers: jax.Array
    chosen: jax.Array
    ignored: jax.Array


def _assign(
    boxes: jax.Array,
    real: jax.Array,
    *,
    anchors: jax.Array,
    grid: tuple[int, int],
    image_size: tuple[int, int],
    config: YoloLossConfig,
) -> _Assignment:
    """Finds the cell of each box's centre and the anchor of the best shape; see `targets`."""
    height, width = grid
    sides = (image_size[1] / width, image_size[0] / height)
    cell = jnp.asarray(sides, jnp.float32).reshape(1, 1, 2)
    real = real & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    boxes = jnp.where(real[..., None], boxes.astype(jnp.float32), _UNIT)
    size = (boxes[..., 2:] - boxes[..., :2]) / cell
    centre = boxes[..., :2] / cell + size / 2
    limit = jnp.asarray([width - 1, height - 1]).reshape(1, 1, 2)
    place = jnp.clip(centre.astype(jnp.int32), 0, limit)
    inside = jnp.clip(centre - place.astype(jnp.float32), 0, 1)
    shapes = anchors / cell[0]
    overlap = _shape_overlap(size, shapes, extra=1.0 if config.matching == "release" else 0.0)
    best = jnp.argmax(overlap, axis=-1)
    numbers = jnp.concatenate([inside, jnp.log(size / shapes[best] + 1e-16)], axis=-1)

    batch, count = real.shape
    row = jnp.broadcast_to(jnp.arange(batch)[:, None], (batch, count))
    chosen = jax.nn.one_hot(best, len(anchors)) * real[..., None].astype(jnp.float32)
    ignored = (overlap > config.ignore_above) & real[..., None]
    if config.matching == "shape":
        ignored = ignored | (chosen > 0)
    where = (row, place[..., 1], place[..., 0])
    return _Assignment(where=where, numbers=numbers, chosen=chosen, ignored=ignored)


def loss_terms(
    raw: jax.Array, target: Targets, *, weight: jax.Array, config: YoloLossConfig
) -> dict[str, jax.Array]:
    """Computes the loss of one scale, by its terms.

    Args:
      raw: output of the head, float32[B, h, w, A, 5 + K].
      target: targets of the scale.
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.
      config: weights of the terms.

    Returns:
      The weighted terms, float32[] for each name of TERMS; the loss is their sum. Each is a mean
      over all cells and anchors of the real images, in nats or, for width and height, in squared
      logarithms.

    Source: LoVT's release, src/models/downstream/detection.py, YOLOv3Loss; MGCA's release,
      mgca/utils/yolo_loss.py.
    """
    raw = raw.astype(jnp.float32)
    positive, negative = target.positive, target.negative
    entropy = _cross_entropy if config.cross_entropy == "logits" else _cross_entropy_of_sigmoid

    def mean(values: jax.Array) -> jax.Array:
        per_image = values.reshape(values.shape[0], -1).mean(axis=1)
        return jnp.sum(per_image * weight) / jnp.maximum(jnp.sum(weight), 1)

    found = {}
    for index, name in enumerate(("x", "y")):
        losses = entropy(raw[..., index], target.numbers[..., index])
        found[name] = config.position * mean(losses * positive)
    for index, name in enumerate(("width", "height"), start=2):
        errors = jnp.square(raw[..., index] - target.numbers[..., index])
        found[name] = config.position * mean(errors * positive)
    there = entropy(raw[..., 4], jnp.float32(1)) * positive
    absent = entropy(raw[..., 4], jnp.float32(0)) * negative
    found["object"] = mean(there) + config.negative * mean(absent)
    if raw.shape[-1] == 6 and not config.single_class:
        found["class"] = jnp.float32(0)
    else:
        losses = entropy(raw[..., 5:], target.classes)
        found["class"] = mean(losses * positive[..., None])
    return found


def total_terms(
    raw: tuple[jax.Array, ...],
    boxes: jax.Array,
    real: jax.Array,
    classes: jax.Array,
    *,
    weight: jax.Array,
    anchors: Anchors,
    image_size: tuple[int, int],
    config: YoloLossConfig,
) -> dict[str, jax.Array]:
    """Adds the terms of all scales.

    Args:
      raw: output of the head for each scale, float32[B, h, w, A, 5 + K].
      boxes: x1, y1, x2, y2 in pixels, float32[B, N, 4].
      real: whether a row is a box, bool[B, N].
      classes: class of each box, int32[B, N].
      weight: weight of each image, float32[B].
      anchors: anchors of each scale, in pixels of these images.
      image_size: height and width of the images, in pixels.
      config: weights and rules.

    Returns:
      float32[] for each name of TERMS, weighted; the loss is their sum.
    """
    found = {name: jnp.float32(0) for name in TERMS}
    for numbers, scale in zip(raw, anchors, strict=True):
        target = targets(
            boxes,
            real,
            classes,
            anchors=jnp.asarray(scale, jnp.float32),
            grid=(numbers.shape[1], numbers.shape[2]),
            image_size=image_size,
            num_classes=numbers.shape[-1] - 5,
            config=config,
        )
        for name, value in loss_terms(numbers, target, weight=weight, config=config).items():
            found[name] += value
    return found


def _one_row(part: jax.Array) -> jax.Array:
    """Returns zeros of the shape [B, 1, ...] for an array of no boxes, [B, 0, ...]."""
    return jnp.zeros((part.shape[0], 1, *part.shape[2:]), part.dtype)


def _shape_overlap(size: jax.Array, shapes: jax.Array, *, extra: float) -> jax.Array:
    """Returns the intersection over union of boxes and anchors laid corner on corner.

    Args:
      size: width and height of the boxes, float32[B, N, 2].
      shapes: width and height of the anchors, float32[A, 2].
      extra: number that is added to every side.

    Returns:
      float32[B, N, A].
    """
    ours, theirs = size[:, :, None, :] + extra, shapes[None, None] + extra
    both = jnp.prod(jnp.minimum(ours, theirs), axis=-1)
    return both / (jnp.prod(ours, axis=-1) + jnp.prod(theirs, axis=-1) - both + 1e-16)


def _cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the binary cross-entropy of logits, in nats."""
    return -(target * jax.nn.log_sigmoid(logits) + (1 - target) * jax.nn.log_sigmoid(-logits))


def _cross_entropy_of_sigmoid(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the binary cross-entropy as torch.nn.BCELoss computes it from a float32 sigmoid.

    Its logarithms are at least -100, and its gradient divides by at least 1e-12.
    """
    chance = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
    yes = jnp.maximum(jnp.log(chance), -100.0)
    no = jnp.maximum(jnp.log1p(-chance), -100.0)
    slope = chance * (1 - chance)
    gradient = (chance - target) * slope / jnp.maximum(slope, 1e-12)
    linear = logits * gradient
    return -(target * yes + (1 - target) * no) + linear - jax.lax.stop_gradient(linear)
