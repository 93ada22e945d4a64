"""Passes texts round the ring, so that every image is paired with every text, block by block.

Each device keeps its images and passes its texts to the next device: after n hops every image has
been paired with every text, and the texts are back on their first device. With one device the ring
is a loop over blocks.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

Axis = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The order in which the pairs are processed.

    Attributes:
      axis: mesh axis (or axes) over which the batch is split; every call must then run under
        `jax.jit` and `jax.set_mesh`. None if one device holds the whole batch.
      rows: largest number of images in a block.
      columns: largest number of texts in a block.
    """

    axis: Axis | None
    rows: int
    columns: int

    def __post_init__(self):
        """Refuses blocks without a pair."""
        for name in ("rows", "columns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}. It must be at least 1.")

    @property
    def devices(self) -> int:
        """Returns the number of devices in the ring."""
        if self.axis is None:
            return 1
        names = (self.axis,) if isinstance(self.axis, str) else self.axis
        sizes = jax.sharding.get_abstract_mesh().shape
        if any(name not in sizes for name in names):
            raise ValueError(
                f"The mesh of jax.set_mesh has no axis {self.axis!r}. Choose from {tuple(sizes)}."
            )
        return math.prod(sizes[name] for name in names)


def fill(x: jax.Array, missing: int) -> jax.Array:
    """Appends `missing` rows of zeros."""
    return jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)]) if missing else x


def walk(visit, start, plan: Plan, parameters, images, texts):
    """Visits every pair of image and text, block by block.

    Args:
      visit: function (parameters, r images, c texts, (rows, columns, total)) -> the triple
        including this block, where the triple holds what was accumulated for the images, for the
        texts and for all together.
      start: function (parameters, images, texts) -> the triple before the first block.
      plan: block sizes and ring axis.
      parameters: tree of arrays that are the same on all devices.
      images: tree of image arrays [B, ...].
      texts: tree of text arrays [B, ...].

    Returns:
      What was accumulated for the images [B, ...] and the texts [B, ...], and the total over all
      devices.
    """

    def on_device(parameters, images, texts):
        image_count, text_count = (jax.tree.leaves(side)[0].shape[0] for side in (images, texts))
        images, texts = _cut(images, plan.rows), _cut(texts, plan.columns)
        rows, columns, total = start(parameters, images, texts)

        def hop(_, carry):
            rows, columns, total, texts = carry
            rows, columns, total = _meet(visit, parameters, images, texts, (rows, columns, total))
            columns, texts = _pass_on((columns, texts), plan)
            return rows, columns, total, texts

        carry = rows, columns, total, texts
        rows, columns, total, _ = jax.lax.fori_loop(0, plan.devices, hop, carry)
        if plan.axis is not None:
            total = jax.tree.map(lambda x: jax.lax.psum(x, plan.axis), total)
        return _joined(rows, image_count), _joined(columns, text_count), total

    if plan.axis is None:
        return on_device(parameters, images, texts)
    split, whole = PartitionSpec(plan.axis), PartitionSpec()
    return jax.shard_map(
        on_device,
        in_specs=(whole, split, split),
        out_specs=(split, split, whole),
        check_vma=False,
    )(parameters, images, texts)


def _meet(visit, parameters, images, texts, kept):
    """Visits all blocks of one device's images and texts: trees of [blocks, size, ...]."""

    def with_texts(carry, text):
        rows, total = carry
        text, columns = text

        def with_images(carry, image):
            columns, total = carry
            image, rows = image
            rows, columns, total = visit(parameters, image, text, (rows, columns, total))
            return (columns, total), rows

        (columns, total), rows = jax.lax.scan(with_images, (columns, total), (images, rows))
        return (rows, total), columns

    rows, columns, total = kept
    (rows, total), columns = jax.lax.scan(with_texts, (rows, total), (texts, columns))
    return rows, columns, total


def _pass_on(tree, plan: Plan):
    """Sends the tree to the next device of the ring."""
    devices = plan.devices
    if devices == 1:
        return tree
    ring = [(device, (device + 1) % devices) for device in range(devices)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, plan.axis, ring), tree)


def _cut(tree, size: int):
    """Cuts [b, ...] into [blocks, at most `size`, ...].

    Blocks have nearly equal sizes; the last rows are filled up.
    """

    def cut(x):
        blocks = max(1, -(-x.shape[0] // size))
        each = -(-x.shape[0] // blocks)
        return fill(x, blocks * each - x.shape[0]).reshape(blocks, each, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _joined(tree, count: int):
    """Reverses `_cut`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], tree)
