"""ResNet image encoders of any depth and width."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_choice, check_field, check_least
from prior_jax.nn.attention_pool import AttentionPool2d
from prior_jax.nn.layers import CONVOLUTION, MOMENTS, BatchNorm, Conv, kaiming_normal_fan_out
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.pooling import max_pool_stem

Block = Literal["bottleneck", "basic"]
Pool = Literal["attention", "mean"]
Remat = Literal["none", "elementwise", "block"]

# What each setting of `remat` keeps beside the inputs.
_KEPT = {
    "elementwise": jax.checkpoint_policies.save_only_these_names(CONVOLUTION, MOMENTS),
    "block": jax.checkpoint_policies.nothing_saveable,
}

# Ratio of a block's output width to its inner width: He et al., arXiv:1512.03385, table 1.
EXPANSION = {"bottleneck": 4, "basic": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Shape of a ResNet.

    Attributes:
      depths: number of blocks in each stage, 2 to 4 stages; ResNet-50 is (3, 4, 6, 3).
      width: number of channels of the stem, doubled by each stage after the first; ResNet-50 64.
      in_channels: number of channels of the image; release 1, ImageNet weights 3.
      block: type of block: "bottleneck" (ResNet-50 and deeper) or "basic" (ResNet-18, 34).
      stem_pool: whether a 3x3 maximum halves the map after the stem; torchvision True, False keeps
        twice the resolution for small images.
      remat: "block" rematerialises blocks: only each block's input is kept for the backward pass,
        and blocks of one shape are compiled once, as a loop. "elementwise" also keeps the outputs
        of the convolutions, so that only normalisations and ReLUs are rematerialised. "none" keeps
        all activations.
    """

    depths: tuple[int, ...]
    width: int
    in_channels: int
    block: Block
    stem_pool: bool
    remat: Remat

    def __post_init__(self):
        """Refuses shapes that do not define a network."""
        stages = 2 <= len(self.depths) <= 4 and all(depth >= 1 for depth in self.depths)
        check_field(self, "depths", stages, "2 to 4 positive integers")
        check_least(self, width=1)
        check_choice(self, "in_channels", (1, 3))
        check_choice(self, "block", get_args(Block))
        check_choice(self, "remat", get_args(Remat))

    @property
    def features(self) -> int:
        """Returns the number of channels of the last map; ResNet-50 2048."""
        return self.stage_features[-1]

    @property
    def stage_features(self) -> tuple[int, ...]:
        """Returns the number of channels of each stage's map."""
        expansion = EXPANSION[self.block]
        return tuple(self.width * 2**stage * expansion for stage in range(len(self.depths)))

    @property
    def stride(self) -> int:
        """Returns the image pixels per pixel of the last map.

        It is 32 with four stages and stem_pool.
        """
        return (4 if self.stem_pool else 2) * 2 ** (len(self.depths) - 1)

    def grid(self, image_size: int, *, stages_back: int = 0) -> int:
        """Returns the side of a stage's map for square images of `image_size` pixels.

        The last stage's is 7 for 224 pixels and a stride of 32.

        Args:
          image_size: side of the images in pixels.
          stages_back: number of stages between that stage and the end.
        """
        return -(-image_size // (self.stride // 2**stages_back))


class ResidualBlock(nnx.Module):
    """One residual block; the bottleneck has its stride in the 3x3 convolution (v1.5)."""

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        block: Block,
        stride: int,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the convolutions, and a projection of the shortcut where shapes change."""
        out_features = width * EXPANSION[block]

        def conv(inputs, outputs, size, stride):
            return Conv(
                inputs,
                outputs,
                kernel_size=size,
                stride=stride,
                use_bias=False,
                kernel_init=kaiming_normal_fan_out,
                dtype=dtype,
                rngs=rngs,
            )

        if block == "bottleneck":
            self.conv1 = conv(in_features, width, 1, 1)
            self.conv2 = conv(width, width, 3, stride)
            self.conv3 = conv(width, out_features, 1, 1)
            self.norm3 = BatchNorm(out_features, dtype=dtype)
        else:
            self.conv1 = conv(in_features, width, 3, stride)
            self.conv2 = conv(width, width, 3, 1)
            self.conv3 = self.norm3 = None
        self.norm1 = BatchNorm(width, dtype=dtype)
        self.norm2 = BatchNorm(width, dtype=dtype)
        if stride != 1 or in_features != out_features:
            self.shortcut_conv = conv(in_features, out_features, 1, stride)
            self.shortcut_norm = BatchNorm(out_features, dtype=dtype)
        else:
            self.shortcut_conv = self.shortcut_norm = None

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, H, W, in] to [B, ceil(H / stride), ceil(W / stride), out]."""
        y = jax.nn.relu(self.norm1(self.conv1(x), train=train))
        y = self.norm2(self.conv2(y), train=train)
        if self.conv3 is not None and self.norm3 is not None:
            y = self.norm3(self.conv3(jax.nn.relu(y)), train=train)
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut_conv(x), train=train)
        return jax.nn.relu(y + x)


class ResNet(nnx.Module):
    """ResNet as torchvision 0.11 builds it, without its classifier.

    Source: arXiv:1512.03385; the release wraps torchvision's resnet50
    (codes/prior/encoders/image/resnet.py). As in torchvision, the last normalisation of a block is
    not zero-initialised.
    """

    def __init__(self, config: ResNetConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the stem and the stages.

        Args:
          config: configuration of the ResNet.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        self.stem_conv = Conv(
            config.in_channels,
            config.width,
            kernel_size=7,
            stride=2,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            dtype=dtype,
            rngs=rngs,
        )
        self.stem_norm = BatchNorm(config.width, dtype=dtype)
        stages = {}
        features = config.width
        for stage, depth in enumerate(config.depths):
            blocks = {}
            for index in range(depth):
                blocks[f"block{index}"] = ResidualBlock(
                    features,
                    config.width * 2**stage,
                    block=config.block,
                    stride=2 if stage > 0 and index == 0 else 1,
                    dtype=dtype,
                    rngs=rngs,
                )
                features = config.stage_features[stage]
            stages[f"stage{stage + 1}"] = nnx.Dict(blocks)
        self.stages = nnx.Dict(stages)
        self.config = config
        self.dtype = dtype

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Encodes images.

        Args:
          image: normalised images, float32[B, H, W, in_channels].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          The last map, dtype[B, ceil(H / stride), ceil(W / stride), features], and all maps from
          fine to coarse: the stem before its pooling, then each stage (the last one included).
        """
        x = jax.nn.relu(self.stem_norm(self.stem_conv(image.astype(self.dtype)), train=train))
        maps = [x]
        if self.config.stem_pool:
            x = max_pool_stem(x)
        for stage, depth in enumerate(self.config.depths):
            blocks = self.stages[f"stage{stage + 1}"]
            stage_blocks = [blocks[f"block{index}"] for index in range(depth)]
            if train and self.config.remat != "none":
                x = _train_again(stage_blocks, x, kept=_KEPT[self.config.remat])
            else:
                for block in stage_blocks:
                    x = block(x, train=train)
            maps.append(x)
        return x, tuple(maps)


def _train_again(
    blocks: Sequence[ResidualBlock], x: jax.Array, *, kept: Callable[..., bool]
) -> jax.Array:
    """Runs a stage in training with blocks that are rematerialised but for what is `kept`.

    All blocks but the first have the same shape: the loop over them is compiled as one block.
    """
    x = nnx.remat(lambda block, x: block(x, train=True), policy=kept)(blocks[0], x)
    if len(blocks) == 1:
        return x
    parts = [nnx.split(block, nnx.Param, nnx.BatchStat) for block in blocks[1:]]
    graphdef = parts[0][0]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(nnx.as_pure(part[1:]) for part in parts))

    def body(x, state):
        block = nnx.merge(graphdef, *state)
        x = block(x, train=True)
        return x, nnx.as_pure(nnx.state(block, nnx.BatchStat))

    body = jax.checkpoint(body, prevent_cse=False, policy=kept)
    x, found = jax.lax.scan(body, x, stacked)
    for index, block in enumerate(blocks[1:]):
        nnx.update(block, jax.tree.map(lambda leaf, i=index: leaf[i], found))
    return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """A ResNet and the pooling of its last map.

    Attributes:
      resnet: configuration of the ResNet.
      pool: pooling operation, "attention" (release) or "mean".
      pool_heads: number of heads of the attention pool, a divisor of the ResNet's features; release
        8.
      image_size: side of the square images in pixels; release 224.
    """

    resnet: ResNetConfig
    pool: Pool
    pool_heads: int
    image_size: int

    def __post_init__(self):
        """Refuses a pool that is incompatible with the ResNet."""
        check_choice(self, "pool", get_args(Pool))
        check_field(self, "image_size", self.image_size >= 1, "a positive number of pixels")
        features = self.resnet.features
        divides = self.pool_heads >= 1 and features % self.pool_heads == 0
        check_field(self, "pool_heads", divides, f"a divisor of the last map's {features} channels")

    @property
    def grid(self) -> tuple[int, int]:
        """Returns the size (h, w) of the last map."""
        side = self.resnet.grid(self.image_size)
        return side, side


class ImageEncoder(nnx.Module):
    """A ResNet with a global pool: the release's image encoder without its local `view`.

    Source: release, codes/prior/encoders/image/resnet.py, ResNet. Local features are computed by
    `patches.spatial_patches` (or by the release's `scrambled_patches`) from the returned map.
    """

    def __init__(self, config: ImageEncoderConfig, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the ResNet and the pool.

        Args:
          config: configuration of the encoder.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        self.resnet = ResNet(config.resnet, dtype=dtype, rngs=rngs)
        if config.pool == "mean":
            self.pool = None
        else:
            self.pool = AttentionPool2d(
                config.resnet.features,
                out_features=config.resnet.features,
                heads=config.pool_heads,
                grid=config.grid,
                dtype=dtype,
                rngs=rngs,
            )
        self.config = config

    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Encodes images.

        Args:
          image: normalised images, float32[B, image_size, image_size, in_channels].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          The last map, dtype[B, h, w, features], and one pooled vector per image, dtype[B,
          features].

        Raises:
          ValueError: during tracing, if the attention pool was created for another image size.
        """
        maps, pooled = self.encode(image, train=train)
        return maps[-1], pooled

    def encode(self, image: jax.Array, *, train: bool) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Encodes images as `__call__` does, and returns all maps from fine to coarse."""
        last, maps = self.resnet(image, train=train)
        if self.pool is None:
            pooled = last.mean(axis=(1, 2), dtype="float32").astype(last.dtype)
        else:
            pooled = self.pool(last)
        return maps, pooled

    def embed_locations(self, image: jax.Array) -> jax.Array:
        """Returns each location of the last map in the space of the pooled vectors.

        Args:
          image: normalised images as for `__call__`, in inference mode.

        Returns:
          dtype[B, h * w, features], row-major: with an attention pool what it would return if it
          attended to the location alone, and otherwise the location as it is.
        """
        last, _ = self.resnet(image, train=False)
        if self.pool is None:
            return spatial_patches(last)
        return self.pool.each(last)
