"""YOLOv3's detection head on three maps of an encoder, and the boxes that it predicts."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_choice, check_field
from prior_jax.nn.layers import BatchNorm, Conv, torch_uniform, upsample_nearest_double
from prior_jax.types import Anchors

SCALES = 3
"""Number of maps that the head reads, from coarse to fine."""
BOX_NUMBERS = 5
"""Numbers of a box before those of the classes: x, y, width, height, objectness."""

ANCHORS: Mapping[str, tuple[int, Anchors]] = {
    "coco": (
        416,
        (
            ((116, 90), (156, 198), (373, 326)),
            ((30, 61), (62, 45), (59, 119)),
            ((10, 13), (16, 30), (33, 23)),
        ),
    ),
    "lovt": (
        224,
        (
            ((64.64, 48.6), (84.24, 106.92), (201.42, 176.04)),
            ((16.2, 32.94), (33.48, 24.3), (31.86, 64.26)),
            ((5.4, 7.02), (8.64, 16.2), (17.82, 12.42)),
        ),
    ),
}
"""Side of the images that the anchors are made for, and the anchors, by their name.

"coco" are those of YOLOv3 (arXiv:1804.02767, sec. 2.3), which MGCA scales by 224 / 416
(mgca/models/ssl_detector.py). "lovt" are those of LoVT's release
(configs/evaluation_model/rsna_frozen.yaml): COCO's times 0.54, but for one width, which would be
62.64.
"""

_SLOPE = 0.1  # of the leaky ReLU, in both releases
_BRANCH = 4  # block behind which the branch to the finer scale leaves


@dataclasses.dataclass(frozen=True, kw_only=True)
class YoloConfig:
    """Shape of the head.

    Attributes:
      anchors: name of anchors, a key of `ANCHORS`; or width and height in pixels of the anchors of
        each scale, from the coarse map to the fine one, for images of `anchor_size` pixels.
      anchor_size: side in pixels of the images that given anchors are made for; None with a name.
        The anchors are scaled to the side of the images that the model sees.
      width: number of channels of the narrow convolutions at the coarsest scale, halved at each
        finer one; release 512. The wide ones have twice as many. None for a quarter of those of the
        encoder's last map, which for a ResNet-50 is the same.
    """

    anchors: str | Anchors
    anchor_size: int | None
    width: int | None

    def __post_init__(self):
        """Refuses shapes that do not define a head."""
        if isinstance(self.anchors, str):
            check_choice(self, "anchors", tuple(ANCHORS))
            absent = self.anchor_size is None
            check_field(self, "anchor_size", absent, "None, for anchors with a name have their own")
        else:
            self._check_given(self.anchors)
        even = self.width is None or (self.width >= 4 and self.width % 4 == 0)
        check_field(self, "width", even, "None or a multiple of 4")

    def _check_given(self, anchors: Anchors) -> None:
        boxes = [box for scale in anchors for box in scale]
        same = len(anchors) == SCALES and len({len(scale) for scale in anchors}) == 1
        fits = same and bool(boxes) and all(len(box) == 2 and min(box) > 0 for box in boxes)
        check_field(
            self,
            "anchors",
            fits,
            f"one of {', '.join(ANCHORS)}, or {SCALES} scales from coarse to fine, each with the "
            "same number of (width, height) above 0",
        )
        made_for = self.anchor_size is not None and self.anchor_size >= 1
        check_field(self, "anchor_size", made_for, "at least 1 where the anchors are given")

    @property
    def _made(self) -> tuple[int, Anchors]:
        """Returns the side of the images that the anchors are made for, and the anchors."""
        if isinstance(self.anchors, str):
            return ANCHORS[self.anchors]
        return self.anchor_size or 1, self.anchors

    @property
    def per_cell(self) -> int:
        """Returns the number of anchors of each cell of a map."""
        return len(self._made[1][0])

    def width_on(self, features: int) -> int:
        """Returns the width of the head on an encoder whose last map has so many channels."""
        return features // 4 if self.width is None else self.width

    def scaled_anchors(self, image_size: int) -> Anchors:
        """Returns the anchors in pixels of images with a side of `image_size` pixels."""
        made_for, anchors = self._made
        factor = image_size / made_for
        return tuple(
            tuple((width * factor, height * factor) for width, height in scale) for scale in anchors
        )


class LeakyConv(nnx.Module):
    """A convolution without bias, batch normalisation and a leaky ReLU."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel_size: int,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the convolution and the normalisation."""
        self.conv = Conv(
            in_features,
            out_features,
            kernel_size=kernel_size,
            use_bias=False,
            kernel_init=torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(out_features, dtype=dtype)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, in] to [B, h, w, out]."""
        return jax.nn.leaky_relu(self.norm(self.conv(x), train=train), _SLOPE)


class ScaleHead(nnx.Module):
    """Six convolutions, narrow and wide in turn, and the output layer of one scale."""

    def __init__(
        self,
        in_features: int,
        width: int,
        outputs: int,
        *,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the layers.

        Args:
          in_features: number of input channels.
          width: number of channels of the narrow convolutions.
          outputs: number of output channels.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        blocks, features = {}, in_features
        for index in range(6):
            wide = index % 2
            out = 2 * width if wide else width
            blocks[f"block{index}"] = LeakyConv(
                features, out, kernel_size=3 if wide else 1, dtype=dtype, rngs=rngs
            )
            features = out
        self.blocks = nnx.Dict(blocks)
        self.output = Conv(
            features,
            outputs,
            kernel_size=1,
            use_bias=True,
            kernel_init=torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the outputs float32[B, h, w, outputs] and the branch dtype[B, h, w, width]."""
        branch = x
        for index in range(6):
            x = self.blocks[f"block{index}"](x, train=train)
            if index == _BRANCH:
                branch = x
        return self.output(x).astype(jnp.float32), branch


class YoloHead(nnx.Module):
    """YOLOv3's head (arXiv:1804.02767) as LoVT and MGCA put it on a ResNet-50.

    Sources: LoVT's release, src/models/downstream/detection.py, YOLOv3WithResNetBackbone; MGCA's
    release, mgca/models/ssl_detector.py, ModelMain. Both are the same network.
    """

    def __init__(
        self,
        config: YoloConfig,
        *,
        features: tuple[int, int, int],
        classes: int,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the heads of the scales and the branches between them.

        Args:
          config: shape of the head.
          features: number of channels of the three maps, from fine to coarse.
          classes: number of classes.
          dtype: compute dtype; parameters, batch statistics and outputs are float32.
          rngs: source of the initial parameters.
        """
        outputs = config.per_cell * (BOX_NUMBERS + classes)
        heads, branches, joined = {}, {}, 0
        widest = config.width_on(features[-1])
        for scale, inputs in enumerate(reversed(features)):
            width = widest // 2**scale
            if scale:
                branches[f"branch{scale}"] = LeakyConv(
                    2 * width, width, kernel_size=1, dtype=dtype, rngs=rngs
                )
                joined = width
            heads[f"head{scale}"] = ScaleHead(
                inputs + joined, width, outputs, dtype=dtype, rngs=rngs
            )
        self.heads = nnx.Dict(heads)
        self.branches = nnx.Dict(branches)
        self.per_cell = config.per_cell

    def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> tuple[jax.Array, ...]:
        """Predicts raw numbers for each anchor of each cell.

        Args:
          maps: three maps of the encoder from fine to coarse, [B, 4 h, 4 w, C3], [B, 2 h, 2 w, C4]
            and [B, h, w, C5].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          One array for each scale, from coarse to fine: float32[B, h, w, A, 5 + classes] with A
          anchors, in the order of `BOX_NUMBERS` and the classes, as logits and log ratios.

        Raises:
          ValueError: during tracing, if a map does not have twice the size of the coarser one.
        """
        found, branch = [], None
        for scale, x in enumerate(reversed(maps)):
            if branch is not None:
                up = upsample_nearest_double(self.branches[f"branch{scale}"](branch, train=train))
                if up.shape[:3] != x.shape[:3]:
                    raise ValueError(
                        f"each map must have twice the size of the next coarser one, got "
                        f"{[one.shape for one in maps]}"
                    )
                x = jnp.concatenate([up, x.astype(up.dtype)], axis=-1)
            raw, branch = self.heads[f"head{scale}"](x, train=train)
            found.append(raw.reshape(*raw.shape[:3], self.per_cell, -1))
        return tuple(found)


def decode(
    raw: tuple[jax.Array, ...], *, anchors: Anchors, image_size: tuple[int, int]
) -> jax.Array:
    """Turns the raw numbers of the head into boxes.

    Args:
      raw: output of `YoloHead`, float32[B, h, w, A, 5 + K] for each scale.
      anchors: anchors of each scale in pixels of these images.
      image_size: height and width of the images in pixels.

    Returns:
      float32[B, N, 5 + K]: x and y of the centre, width and height in pixels, probability that
      there is an object, and probability of each class. N counts scales, anchors, rows and
      columns, in this order from the outside to the inside.

    Source: LoVT's release, src/models/downstream/detection.py, YOLOv3Loss.forward. It needs square
      maps (quirk L27); this function does not.
    """
    found = []
    for numbers, boxes in zip(raw, anchors, strict=True):
        batch, height, width, per_cell, _ = numbers.shape
        columns = jnp.arange(width, dtype=jnp.float32).reshape(1, 1, -1, 1)
        rows = jnp.arange(height, dtype=jnp.float32).reshape(1, -1, 1, 1)
        across = (jax.nn.sigmoid(numbers[..., 0]) + columns) * (image_size[1] / width)
        down = (jax.nn.sigmoid(numbers[..., 1]) + rows) * (image_size[0] / height)
        centre = jnp.stack([across, down], axis=-1)
        anchor = jnp.asarray(boxes, jnp.float32).reshape(1, 1, 1, per_cell, 2)
        size = jnp.exp(numbers[..., 2:4]) * anchor
        rest = jax.nn.sigmoid(numbers[..., 4:])
        decoded = jnp.concatenate([centre, size, rest], axis=-1)
        found.append(jnp.moveaxis(decoded, 3, 1).reshape(batch, per_cell * height * width, -1))
    return jnp.concatenate(found, axis=1)
