"""Decoders of segmentation on the maps of a ResNet, and U-Nets that they make together."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_choice, check_field
from prior_jax.nn.decoder_block import ConvPair, DecoderBlock
from prior_jax.nn.layers import Conv, resize_align_centres, torch_uniform
from prior_jax.nn.resnet import ResNet, ResNetConfig

Form = Literal["nearest", "transposed"]

# segmentation_models_pytorch 0.2.0, base/initialization.py: He et al., arXiv:1502.01852, and
# Glorot and Bengio, AISTATS 2010, both uniform.
_kaiming_uniform = nnx.initializers.variance_scaling(2.0, "fan_in", "uniform")
_xavier_uniform = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetDecoderConfig:
    """Sizes of the decoder of a U-Net.

    Attributes:
      channels: number of channels of each block, from coarse to fine, one block per doubling from
        the last map to the image; segmentation_models_pytorch 256, 128, 64, 32, 16, GLoRIA's own
        U-Net and LoVT's 1024, 512, 256, 128, 64.
      form: architecture: "nearest" repeats pixels and joins the maps of the ResNet, as the Unet of
        segmentation_models_pytorch 0.2.0 does, which GLoRIA and MGCA use for segmentation.
        "transposed" learns the doubling, has a bridge of two convolutions below, and joins the
        image as well, as LoVT's does and gloria/models/unet.py, which GLoRIA's release never uses
        (quirk G63).
      bridge: number of channels of the bridge, release 2048; None for as many as the last map has.
    """

    channels: tuple[int, ...]
    form: Form
    bridge: int | None = None

    def __post_init__(self):
        """Refuses values that define no decoder."""
        check_choice(self, "form", get_args(Form))
        check_field(self, "channels", min(self.channels, default=0) >= 1, "positive integers")
        learned = self.bridge is None or (self.form == "transposed" and self.bridge >= 1)
        check_field(self, "bridge", learned, "None, or with form 'transposed' a positive integer")

    def skip_features(self, resnet: ResNetConfig) -> tuple[int, ...]:
        """Returns the number of channels that each block joins, from coarse to fine.

        It is 0 where a block joins nothing.
        """
        features = resnet.stage_features[-2::-1]
        if resnet.stem_pool:  # otherwise the stem's map is no finer than stage 1's
            features += (resnet.width,)
        return (*features, resnet.in_channels if self.form == "transposed" else 0)

    def check_fits(self, resnet: ResNetConfig) -> None:
        """Refuses a decoder that does not lead back to the size of the image."""
        doublings = len(self.skip_features(resnet))
        must_be = f"{doublings} numbers, one for each doubling of the ResNet's last map"
        check_field(self, "channels", len(self.channels) == doublings, must_be)


class UNetDecoder(nnx.Module):
    """Blocks that double the last map of a ResNet up to the image, and the output layer.

    Source: U-Net, arXiv:1505.04597; segmentation_models_pytorch 0.2.0, unet/decoder.py; GLoRIA's
    release, gloria/models/unet.py; LoVT's release, src/models/image/resunet.py.
    """

    def __init__(
        self,
        config: UNetDecoderConfig,
        *,
        resnet: ResNetConfig,
        classes: int,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the bridge if the form has one, the blocks and the output layer.

        Args:
          config: sizes of the decoder.
          resnet: configuration of the encoder.
          classes: number of masks to predict.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        config.check_fits(resnet)
        learned = config.form == "transposed"
        features = resnet.features
        if learned:
            bridge = config.bridge or features
            self.bridge = ConvPair(features, bridge, use_bias=True, dtype=dtype, rngs=rngs)
            features = bridge
        else:
            self.bridge = None
        blocks = {}
        for index, (out, skip) in enumerate(
            zip(config.channels, config.skip_features(resnet), strict=True)
        ):
            blocks[f"block{index}"] = DecoderBlock(
                features,
                out,
                skip_features=skip,
                learned=learned,
                kernel_init=torch_uniform if learned else _kaiming_uniform,
                dtype=dtype,
                rngs=rngs,
            )
            features = out
        self.blocks = nnx.Dict(blocks)
        self.output = _output_layer(features, classes, learned=learned, dtype=dtype, rngs=rngs)
        self.config = config
        self.resnet_config = resnet

    def __call__(
        self, image: jax.Array, maps: tuple[jax.Array, ...], *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Predicts masks.

        Args:
          image: normalised images, float32[B, H, W, in_channels]; H and W are multiples of the
            ResNet's stride.
          maps: maps of the ResNet from fine to coarse, as `ResNet` returns them.
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          Logits, float32[B, H, W, classes], and the last map, dtype[B, H, W, channels[-1]].

        Raises:
          ValueError: during tracing, if the image has another shape.
        """
        resnet = self.resnet_config
        check_shape(image, resnet)
        x = maps[-1]
        if self.bridge is not None:
            x = self.bridge(x, train=train)
        # Without its pool the stem's map, the first one, is no finer than the next and joins none.
        finer = (*maps[-2::-1], image) if resnet.stem_pool else (*maps[-2:0:-1], image)
        for index, features in enumerate(self.config.skip_features(resnet)):
            skip = finer[index] if features else None
            x = self.blocks[f"block{index}"](x, skip, train=train)
        return self.output(x).astype(jnp.float32), x


def _output_layer(
    features: int, classes: int, *, learned: bool, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
) -> Conv:
    """Returns the layer from the last block to the masks.

    It looks at single pixels in the form that learns to double, else at 3 x 3 of them.
    """
    output = Conv(
        features,
        classes,
        kernel_size=1 if learned else 3,
        use_bias=True,
        kernel_init=torch_uniform if learned else _xavier_uniform,
        dtype=dtype,
        rngs=rngs,
    )
    if not learned:
        output.bias = nnx.Param(jnp.zeros((classes,), jnp.float32))
    return output


def check_shape(image: jax.Array, resnet: ResNetConfig) -> None:
    """Refuses images that a decoder of this ResNet does not lead back to.

    Raises:
      ValueError: during tracing, if the image is not [B, H, W, in_channels] with sides that are
        multiples of the ResNet's stride.
    """
    if (
        image.ndim != 4
        or image.shape[3] != resnet.in_channels
        or image.shape[1] % resnet.stride
        or image.shape[2] % resnet.stride
    ):
        raise ValueError(
            f"the decoder takes images [B, H, W, {resnet.in_channels}] with H and W multiples of "
            f"{resnet.stride}, got {image.shape}"
        )


class LinearDecoder(nnx.Module):
    """One linear layer on each cell of the last map, resized to the image.

    Source: LoVT's release, src/models/downstream/segmentation.py, LinearSegmentation.
    """

    def __init__(self, *, features: int, classes: int, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the layer.

        Args:
          features: number of channels of the last map.
          classes: number of masks to predict.
          dtype: compute dtype; parameters are float32.
          rngs: source of the initial parameters.
        """
        self.output = Conv(
            features,
            classes,
            kernel_size=1,
            use_bias=True,
            kernel_init=torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, last_map: jax.Array, *, size: tuple[int, int]) -> jax.Array:
        """Predicts masks.

        Args:
          last_map: the encoder's last map, [B, h, w, features].
          size: height and width of the masks in pixels, at least those of the map.

        Returns:
          Logits, float32[B, *size, classes], resized bilinearly with the centres of pixels aligned.
        """
        logits = self.output(last_map).astype(jnp.float32)
        return resize_align_centres(logits, size=size)


class UNet(nnx.Module):
    """A ResNet and the decoder of a U-Net."""

    def __init__(
        self,
        config: UNetDecoderConfig,
        *,
        resnet: ResNetConfig,
        classes: int,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the encoder and the decoder; see `UNetDecoder`."""
        self.resnet = ResNet(resnet, dtype=dtype, rngs=rngs)
        self.decoder = UNetDecoder(config, resnet=resnet, classes=classes, dtype=dtype, rngs=rngs)

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Predicts masks and returns the last map; see `UNetDecoder`."""
        check_shape(image, self.resnet.config)
        _, maps = self.resnet(image, train=train)
        return self.decoder(image, maps, train=train)
