"""The decoder that reconstructs the image from its masked features and the report's context."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_field, check_least
from prior_jax.nn.decoder_block import DecoderBlock
from prior_jax.nn.dropout import dropout, training_key
from prior_jax.nn.layers import Conv, torch_uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDecoderConfig:
    """Sizes of the image decoder.

    Attributes:
      features: number of channels of each of the two input maps; release 768.
      grid: side of the input maps, in patches; release 7.
      image_size: side of the reconstruction in pixels: grid times a power of two; release 224.
      channels: number of channels of the reconstruction; release 1.
      dropout: share of the image map's channels masked in training; release 0.5.
    """

    features: int
    grid: int
    image_size: int
    channels: int
    dropout: float

    def __post_init__(self):
        """Refuses sizes that doubling the grid cannot reach."""
        check_least(self, features=1, grid=1, channels=1)
        ratio = self.image_size // self.grid
        doubles = ratio >= 2 and ratio * self.grid == self.image_size and not ratio & (ratio - 1)
        check_field(self, "image_size", doubles, f"the grid {self.grid} times 2, 4, 8, ...")
        least = f"at least {ratio // 2}, because {self.blocks} blocks halve it"
        check_field(self, "features", 2 * self.features >= ratio, least)
        check_field(self, "dropout", 0 <= self.dropout < 1, "a rate in [0, 1)")

    @property
    def blocks(self) -> int:
        """Returns the number of doublings from the grid to the image; release 5."""
        return (self.image_size // self.grid).bit_length() - 1


class ImageDecoder(nnx.Module):
    """Reconstructs the image; every doubling of the map halves its 2 * features channels.

    Source: PRIOR, arXiv:2307.12577, sec. 3.4; release, codes/prior/decoders/image.py. Differs: the
    number of blocks follows from the image's size instead of being five.
    """

    def __init__(self, config: ImageDecoderConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the blocks and the output convolution.

        Args:
          config: configuration with the sizes.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        blocks = {}
        features = 2 * config.features
        for index in range(config.blocks):
            blocks[f"block{index}"] = DecoderBlock(features, features // 2, dtype=dtype, rngs=rngs)
            features //= 2
        self.blocks = nnx.Dict(blocks)
        self.output = Conv(
            features,
            config.channels,
            kernel_size=3,
            use_bias=True,
            kernel_init=torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        self.config = config
        self.dtype = dtype

    def __call__(
        self,
        image_map: jax.Array,
        text_map: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Reconstructs images.

        Args:
          image_map: features of the image itself, [B, grid, grid, features]; whole channels of them
            are masked in training, so that the decoder must use the report.
          text_map: context that the patches gathered from the report, [B, grid, grid, features].
          train: whether channels are masked, and batch normalisation uses the batch's statistics
            and updates the running ones.
          key: random key of the masking; required in training unless the masking rate is 0.

        Returns:
          Images, float32[B, image_size, image_size, channels], in the normalised scale of the input
          images.

        Raises:
          ValueError: during tracing, if the maps have the wrong shape or the key is missing.
        """
        config = self.config
        expected = (config.grid, config.grid, config.features)
        if image_map.shape[1:] != expected or text_map.shape != image_map.shape:
            raise ValueError(
                f"ImageDecoder takes two maps [B, {', '.join(map(str, expected))}], "
                f"got {image_map.shape} and {text_map.shape}"
            )
        key = training_key(key, train=train, rate=config.dropout, module="ImageDecoder")
        image_map = dropout(
            image_map,
            rate=config.dropout,
            key=key,
            shape=(image_map.shape[0], 1, 1, config.features),
        )
        x = jnp.concatenate([image_map.astype(self.dtype), text_map.astype(self.dtype)], axis=-1)
        for index in range(config.blocks):
            x = self.blocks[f"block{index}"](x, train=train)
        return self.output(x).astype(jnp.float32)
