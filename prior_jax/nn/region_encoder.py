"""GLoRIA's image encoder: a ResNet whose next to last map gives regions, its last one vector."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn.layers import Conv, resize_align_corners, torch_linear, torch_uniform
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.resnet import ResNet, ResNetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionEncoderConfig:
    """A ResNet and the size at which it sees images.

    Attributes:
      resnet: shape of the ResNet; release ResNet-50 of 3 channels.
      image_size: side of the square images handed over, in pixels; release 224.
      upsample: side to which they are resized first, in pixels, corners aligned; release 299,
        None leaves them as they are.
    """

    resnet: ResNetConfig
    image_size: int
    upsample: int | None

    def __post_init__(self):
        """Refuses sizes that no image has."""
        if self.image_size < 1:
            raise _config_error("image_size", self.image_size, "a positive number of pixels")
        if self.upsample is not None and self.upsample < 1:
            raise _config_error("upsample", self.upsample, "a positive number of pixels, or None")

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the regions; 19 x 19 with four stages at 299 pixels."""
        side = self.image_size if self.upsample is None else self.upsample
        side = -(-side // (self.resnet.stride // 2))  # the last stage halves the map
        return side, side

    @property
    def spacing(self) -> float:
        """Pixels of the image between the centres of regions; the first is centred on pixel 0.

        11.97 for 224 pixels enlarged to 299, whose corners are aligned.
        """
        stride = self.resnet.stride // 2
        if self.upsample is None:
            return float(stride)
        return stride * (self.image_size - 1) / max(self.upsample - 1, 1)

    @property
    def region_features(self) -> int:
        """Channels of a region before its projection; ResNet-50 1024."""
        return self.resnet.stage_features[-2]


def _config_error(field: str, received: object, accepted: str) -> ConfigError:
    return ConfigError(f"config.model.image.{field}", received=received, accepted=accepted)


@flax.struct.dataclass
class RegionFeatures:
    """What the encoder gives.

    Attributes:
      regions: dtype[B, P, D], projected, row-major over the grid.
      global_: dtype[B, D], projected.
      region_map: dtype[B, h, w, F'], the next to last stage's map.
      pooled: dtype[B, F], the mean of the last stage's map.
    """

    regions: jax.Array
    global_: jax.Array
    region_map: jax.Array
    pooled: jax.Array


class RegionEncoder(nnx.Module):
    """The release's ImageEncoder (gloria/models/vision_model.py, quirk G13).

    Images are enlarged, the next to last stage's map is projected without bias, the mean of the
    last one with bias. GLoRIA, ICCV 2021, section 3.2.
    """

    def __init__(
        self,
        config: RegionEncoderConfig,
        embed_dim: int,
        *,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the ResNet and the two projections, initialised as torch's.

        Args:
          config: shape.
          embed_dim: D of both projections.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        self.resnet = ResNet(config.resnet, dtype=dtype, rngs=rngs)
        self.global_embedder = torch_linear(
            config.resnet.features, embed_dim, dtype=dtype, rngs=rngs
        )
        self.local_embedder = Conv(
            config.region_features,
            embed_dim,
            kernel_size=1,
            use_bias=False,
            kernel_init=torch_uniform,
            dtype=dtype,
            rngs=rngs,
        )
        self.upsample = config.upsample

    def __call__(self, image: jax.Array, *, train: bool) -> RegionFeatures:
        """Encodes images.

        Args:
          image: float32[B, H, W, C], normalised.
          train: whether batch norm uses, and gathers, the batch's statistics.

        Returns:
          Features in the compute dtype.
        """
        if self.upsample is not None:
            image = resize_align_corners(image, size=(self.upsample, self.upsample))
        last, maps = self.resnet(image, train=train)
        pooled = jnp.mean(last, axis=(1, 2), dtype=jnp.float32).astype(last.dtype)
        return RegionFeatures(
            regions=spatial_patches(self.local_embedder(maps[-2])),
            global_=self.global_embedder(pooled),
            region_map=maps[-2],
            pooled=pooled,
        )
