"""The decoder of UPerNet on the maps of a ResNet, with its auxiliary head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.errors import check_field, check_least
from prior_jax.nn.dropout import dropout, fold, training_key
from prior_jax.nn.layers import BatchNorm, Conv, kaiming_normal_fan_out, resize_align_centres
from prior_jax.nn.resnet import ResNetConfig

POOLS = (1, 2, 3, 6)
"""Sides of the grids of the pyramid pooling: PSPNet, arXiv:1612.01105, sec. 3.2."""

_classifier_init = nnx.initializers.normal(0.01)  # mmsegmentation, decode_heads/decode_head.py


@dataclasses.dataclass(frozen=True, kw_only=True)
class UPerNetConfig:
    """Sizes of the decoder of UPerNet.

    Attributes:
      channels: number of channels of all its maps, mmsegmentation 512.
      auxiliary: number of channels of the auxiliary head, mmsegmentation 256; None for no such
        head.
      dropout: share of the channels that is dropped before the logits in training, mmsegmentation
        0.1.
    """

    channels: int
    auxiliary: int | None
    dropout: float

    def __post_init__(self):
        """Refuses values that define no decoder."""
        check_least(self, channels=1)
        some = self.auxiliary is None or self.auxiliary >= 1
        check_field(self, "auxiliary", some, "None or a positive integer")
        check_field(self, "dropout", 0 <= self.dropout < 1, "at least 0 and below 1")


class ConvNorm(nnx.Module):
    """A convolution without bias, batch normalisation and ReLU."""

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
            kernel_init=kaiming_normal_fan_out,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(out_features, dtype=dtype)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, in] to [B, h, w, out]."""
        return jax.nn.relu(self.norm(self.conv(x), train=train))


class Classifier(nnx.Module):
    """Drops whole channels in training, and computes logits of each pixel."""

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        rate: float,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the layer."""
        self.output = Conv(
            features,
            classes,
            kernel_size=1,
            use_bias=True,
            kernel_init=_classifier_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.output.bias = nnx.Param(jnp.zeros((classes,), jnp.float32))
        self.rate = rate

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """Maps [B, h, w, features] to float32[B, h, w, classes]."""
        key = training_key(key, train=train, rate=self.rate, module="UPerNet")
        shape = (x.shape[0], 1, 1, x.shape[3])
        return self.output(dropout(x, rate=self.rate, key=key, shape=shape)).astype(jnp.float32)


class UPerNetDecoder(nnx.Module):
    """Pyramid pooling of the last map, a feature pyramid over all of them, and their fusion.

    Source: arXiv:1807.10221, sec. 3.1; mmsegmentation 1.2.2, decode_heads/uper_head.py, psp_head.py
    and fcn_head.py with configs/_base_/models/upernet_r50.py, which BenchX uses.
    """

    def __init__(
        self,
        config: UPerNetConfig,
        *,
        resnet: ResNetConfig,
        classes: int,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the layers.

        Args:
          config: sizes of the decoder.
          resnet: configuration of the encoder.
          classes: number of logits of each pixel.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        width, features = config.channels, resnet.stage_features

        def layer(inputs, outputs, size):
            return ConvNorm(inputs, outputs, kernel_size=size, dtype=dtype, rngs=rngs)

        def classifier(inputs):
            return Classifier(inputs, classes, rate=config.dropout, dtype=dtype, rngs=rngs)

        last = features[-1]
        self.pools = nnx.Dict({f"pool{side}": layer(last, width, 1) for side in POOLS})
        self.bottleneck = layer(last + len(POOLS) * width, width, 3)
        self.laterals = nnx.Dict(
            {f"stage{n}": layer(each, width, 1) for n, each in enumerate(features[:-1], start=1)}
        )
        self.smooth = nnx.Dict(
            {f"stage{n}": layer(width, width, 3) for n in range(1, len(features))}
        )
        self.fusion = layer(len(features) * width, width, 3)
        self.classifier = classifier(width)
        if config.auxiliary is None:
            self.auxiliary = self.auxiliary_classifier = None
        else:
            self.auxiliary = layer(features[-2], config.auxiliary, 3)
            self.auxiliary_classifier = classifier(config.auxiliary)

    def __call__(
        self,
        maps: tuple[jax.Array, ...],
        *,
        size: tuple[int, int],
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Predicts masks.

        Args:
          maps: maps of the ResNet from fine to coarse, as `ResNet` returns them.
          size: height and width of the image in pixels.
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones, and channels are dropped.
          key: random key of the dropped channels.

        Returns:
          Logits, float32[B, *size, classes], and those of the auxiliary head on the map before the
          last, the third of a ResNet of four stages; None without such a head.

        Raises:
          ValueError: during tracing, in training without a key, or with one image whose last map
            is pooled to one value of each channel.
        """
        stages = maps[1:]  # the first map is the stem's
        levels = [
            self.laterals[f"stage{n}"](each, train=train)
            for n, each in enumerate(stages[:-1], start=1)
        ]
        levels.append(self._pyramid(stages[-1], train=train))
        for index in reversed(range(len(levels) - 1)):
            finer = _size(levels[index])
            levels[index] = levels[index] + resize_align_centres(levels[index + 1], size=finer)
        smooth = [
            self.smooth[f"stage{n}"](each, train=train)
            for n, each in enumerate(levels[:-1], start=1)
        ]
        finest = _size(smooth[0])
        every = [resize_align_centres(each, size=finest) for each in (*smooth[1:], levels[-1])]
        fused = self.fusion(jnp.concatenate([smooth[0], *every], axis=-1), train=train)
        logits = self.classifier(fused, train=train, key=fold(key, 0))
        return resize_align_centres(logits, size=size), self._beside(
            stages[-2], size=size, train=train, key=fold(key, 1)
        )

    def _pyramid(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Joins the last map with its means over grids of cells, [B, h, w, channels]."""
        parts = [x]
        for side in POOLS:
            pooled = self.pools[f"pool{side}"](adaptive_mean(x, side=side), train=train)
            parts.append(resize_align_centres(pooled, size=_size(x)))
        return self.bottleneck(jnp.concatenate(parts, axis=-1), train=train)

    def _beside(
        self, x: jax.Array, *, size: tuple[int, int], train: bool, key: jax.Array | None
    ) -> jax.Array | None:
        """Returns the logits of the auxiliary head."""
        if self.auxiliary is None or self.auxiliary_classifier is None:
            return None
        logits = self.auxiliary_classifier(self.auxiliary(x, train=train), train=train, key=key)
        return resize_align_centres(logits, size=size)


def _size(x: jax.Array) -> tuple[int, int]:
    """Returns the height and the width of maps [B, h, w, C]."""
    return x.shape[1], x.shape[2]


def adaptive_mean(x: jax.Array, *, side: int) -> jax.Array:
    """Computes means over a grid of cells, which overlap where the sizes do not divide.

    Args:
      x: maps, [B, h, w, C].
      side: number of cells in each direction.

    Returns:
      Maps [B, side, side, C] in the dtype of x.

    Source: torch's AdaptiveAvgPool2d: cell i reaches from floor(i h / side) to
      ceil((i + 1) h / side).
    """
    rows, columns = (_cells(length, side) for length in x.shape[1:3])
    pooled = jnp.einsum("yh,bhwc,xw->byxc", rows, x.astype(jnp.float32), columns)
    return pooled.astype(x.dtype)


def _cells(length: int, side: int) -> np.ndarray:
    """Returns the matrix of the means, float32[side, length]."""
    found = np.zeros((side, length), np.float32)
    for cell in range(side):
        start, stop = cell * length // side, -(-(cell + 1) * length // side)
        found[cell, start:stop] = 1 / (stop - start)
    return found
