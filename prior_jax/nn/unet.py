"""U-Nets for segmentation: a ResNet and a decoder that joins its maps, from coarse to fine."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_choice, check_field, check_least
from prior_jax.nn.decoder_block import ConvPair, DecoderBlock
from prior_jax.nn.layers import Conv, torch_uniform
from prior_jax.nn.resnet import ResNet, ResNetConfig

Form = Literal["nearest", "transposed"]

# segmentation_models_pytorch 0.2.0, base/initialization.py: He et al., arXiv:1502.01852, and
# Glorot and Bengio, AISTATS 2010, both uniform.
_kaiming_uniform = nnx.initializers.variance_scaling(2.0, "fan_in", "uniform")
_xavier_uniform = nnx.initializers.variance_scaling(1.0, "fan_avg", "uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a U-Net.

    Attributes:
      resnet: configuration of the encoder.
      channels: number of channels of each decoder block, from coarse to fine, one block per
        doubling from the last map to the image; segmentation_models_pytorch 256, 128, 64, 32, 16,
        GLoRIA's own U-Net 1024, 512, 256, 128, 64.
      classes: number of masks to predict; release 1.
      form: architecture: "nearest" repeats pixels and joins the maps of the ResNet, as the Unet of
        segmentation_models_pytorch 0.2.0 does, which the release uses for segmentation.
        "transposed" learns the doubling, has a bridge of two convolutions below, and joins the
        image as well, as in gloria/models/unet.py, which the release never uses (quirk G63).
    """

    resnet: ResNetConfig
    channels: tuple[int, ...]
    classes: int
    form: Form

    def __post_init__(self):
        """Refuses sizes that do not lead back to the size of the image."""
        check_choice(self, "form", get_args(Form))
        check_least(self, classes=1)
        doublings = len(self.skip_features)
        fits = len(self.channels) == doublings and min(self.channels, default=0) >= 1
        check_field(self, "channels", fits, f"{doublings} positive integers")

    @property
    def skip_features(self) -> tuple[int, ...]:
        """Returns the number of channels that each block joins, from coarse to fine.

        It is 0 where a block joins nothing.
        """
        features = self.resnet.stage_features[-2::-1]
        if self.resnet.stem_pool:  # otherwise the stem's map is no finer than stage 1's
            features += (self.resnet.width,)
        return (*features, self.resnet.in_channels if self.form == "transposed" else 0)


class UNet(nnx.Module):
    """An encoder and a decoder to the full size of the image.

    Source: U-Net, arXiv:1505.04597; segmentation_models_pytorch 0.2.0, unet/decoder.py; GLoRIA's
    release, gloria/models/unet.py.
    """

    def __init__(self, config: UNetConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the encoder, the bridge if the form has one, the blocks and the output layer.

        Args:
          config: configuration with the sizes.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        learned = config.form == "transposed"
        self.resnet = ResNet(config.resnet, dtype=dtype, rngs=rngs)
        features = config.resnet.features
        if learned:
            self.bridge = ConvPair(features, features, use_bias=True, dtype=dtype, rngs=rngs)
        else:
            self.bridge = None
        blocks = {}
        for index, (out, skip) in enumerate(
            zip(config.channels, config.skip_features, strict=True)
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
        self.output = Conv(
            features,
            config.classes,
            kernel_size=1 if learned else 3,
            use_bias=True,
            kernel_init=torch_uniform if learned else _xavier_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        if not learned:
            self.output.bias = nnx.Param(jnp.zeros((config.classes,), jnp.float32))
        self.config = config

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Predicts masks.

        Args:
          image: normalised images, float32[B, H, W, in_channels]; H and W are multiples of the
            ResNet's stride.
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          Logits, float32[B, H, W, classes], and the last map, dtype[B, H, W, channels[-1]].

        Raises:
          ValueError: during tracing, if the image has another shape.
        """
        resnet = self.config.resnet
        if (
            image.ndim != 4
            or image.shape[3] != resnet.in_channels
            or image.shape[1] % resnet.stride
            or image.shape[2] % resnet.stride
        ):
            raise ValueError(
                f"UNet takes images [B, H, W, {resnet.in_channels}] with H and W multiples of "
                f"{resnet.stride}, got {image.shape}"
            )
        x, maps = self.resnet(image, train=train)
        if self.bridge is not None:
            x = self.bridge(x, train=train)
        finer = (*maps[-2::-1], image)  # the skip maps from coarse to fine, as in `skip_features`
        if not resnet.stem_pool:
            finer = (*maps[-2:0:-1], image)
        for index, features in enumerate(self.config.skip_features):
            skip = finer[index] if features else None
            x = self.blocks[f"block{index}"](x, skip, train=train)
        return self.output(x).astype(jnp.float32), x
