"""GLoRIA's image encoder: a ResNet with regions from its next to last map and a pooled vector."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_field
from prior_jax.nn.layers import Conv, resize_align_corners, torch_linear, torch_uniform
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.resnet import ResNet, ResNetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionEncoderConfig:
    """A ResNet and the size of its input images.

    Attributes:
      resnet: configuration of the ResNet; release ResNet-50 of 3 channels.
      image_size: side of the square input images in pixels; release 224.
      upsample: side in pixels to which the images are first resized, with corners aligned; release
        299, None does not resize them.
    """

    resnet: ResNetConfig
    image_size: int
    upsample: int | None

    def __post_init__(self):
        """Refuses sizes that no image can have."""
        check_field(self, "image_size", self.image_size >= 1, "a positive number of pixels")
        fits = self.upsample is None or self.upsample >= 1
        check_field(self, "upsample", fits, "a positive number of pixels, or None")

    @property
    def grid(self) -> tuple[int, int]:
        """Returns the size (h, w) of the region grid; 19 x 19 with four stages at 299 pixels."""
        side = self.image_size if self.upsample is None else self.upsample
        side = -(-side // (self.resnet.stride // 2))  # the last stage halves the map
        return side, side

    @property
    def spacing(self) -> float:
        """Returns the spacing of region centres, in pixels of the input image.

        The first region is centred on pixel 0.

        The spacing is 11.97 for 224 pixels enlarged to 299 with aligned corners.
        """
        stride = self.resnet.stride // 2
        if self.upsample is None:
            return float(stride)
        return stride * (self.image_size - 1) / max(self.upsample - 1, 1)

    @property
    def region_features(self) -> int:
        """Returns the number of channels of a region before projection; ResNet-50 1024."""
        return self.resnet.stage_features[-2]


@flax.struct.dataclass
class RegionFeatures:
    """Output of the encoder.

    Attributes:
      regions: projected regions, dtype[B, P, D], row-major over the grid.
      global_: projected image embeddings, dtype[B, D].
      region_map: feature map of the next to last stage, dtype[B, h, w, F'].
      pooled: mean of the last stage's map, dtype[B, F].
    """

    regions: jax.Array
    global_: jax.Array
    region_map: jax.Array
    pooled: jax.Array


class RegionEncoder(nnx.Module):
    """The ImageEncoder of the release (gloria/models/vision_model.py, quirk G13).

    Images are enlarged; the map of the next to last stage is projected without bias, the mean of
    the last map with bias. GLoRIA, ICCV 2021, section 3.2.
    """

    def __init__(
        self,
        config: RegionEncoderConfig,
        embed_dim: int,
        *,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the ResNet and the two projections, initialised as in torch.

        Args:
          config: configuration of the encoder.
          embed_dim: output size D of both projections.
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
          image: normalised images, float32[B, H, W, C].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

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
