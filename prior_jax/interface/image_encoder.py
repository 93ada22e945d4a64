"""Opens the image encoder in a folder of weights, alone or as part of a whole model."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.data.image import ImageConfig
from prior_jax.errors import WeightsError
from prior_jax.interface.place import filled, one_device
from prior_jax.interop.weights_folder import DOCUMENT, load_weights
from prior_jax.nn.layers import resize_align_corners
from prior_jax.nn.region_encoder import RegionEncoder, RegionEncoderConfig
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig
from prior_jax.strict import build
from prior_jax.train.state import define_model

_EMBEDDER = "global_embedder/kernel"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedEncoder:
    """An image encoder with its weights.

    Attributes:
      make: function that builds the encoder with random weights.
      module: the encoder with the weights of the folder.
      image: settings of its images; mean and std are None where the folder does not tell them.
      features: number of features of its pooled vector.
    """

    make: Callable[[nnx.Rngs], nnx.Module]
    module: nnx.Module
    image: ImageConfig
    features: int


class EnlargingEncoder(ImageEncoder):
    """An image encoder that first resizes its images, corners aligned, as MGCA's does."""

    def __init__(self, config: ImageEncoderConfig, *, upsample: int, rngs: nnx.Rngs):
        """Creates the encoder, in float32.

        Args:
          config: configuration of the encoder.
          upsample: side in pixels to which images are resized.
          rngs: source of the initial parameters.
        """
        super().__init__(config, dtype=jnp.float32, rngs=rngs)
        self.upsample = upsample

    def encode(self, image: jax.Array, *, train: bool) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Encodes images as `ImageEncoder.encode` does, once they are resized."""
        image = resize_align_corners(image, size=(self.upsample, self.upsample))
        return super().encode(image, train=train)


def open_image_encoder(folder: pathlib.Path) -> OpenedEncoder:
    """Reads the image encoder of a folder of weights, without the rest of a whole model.

    Args:
      folder: folder of weights of an image encoder, or of a whole model.

    Raises:
      WeightsError: if the folder is damaged, or has no image encoder.
      ConfigError: if it lacks a setting of the encoder or its images.
    """
    weights = load_weights(folder)
    where, section, arrays = f"{folder / DOCUMENT}: data.image", weights.model, weights.arrays
    if weights.part == "model":
        section, prefix = section["image"], "image_encoder/"
        arrays = {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}
    elif weights.part != "image":
        raise WeightsError(
            f"These are weights of the part {weights.part!r}, without an image encoder.",
            "Name weights of an image encoder or of a whole model.",
            where=os.fspath(folder),
        )
    image = {"mean": None, "std": None, **weights.data["image"]}
    config = build(ImageConfig, image, name=where)
    make, features = _maker(section, arrays, image=config, where=f"{folder / DOCUMENT}: model")
    definition = define_model(make)
    module = filled(definition, arrays, place=one_device(), field=os.fspath(folder))
    return OpenedEncoder(make=make, module=module, image=config, features=features)


def _maker(
    section: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    image: ImageConfig,
    where: str,
) -> tuple[Callable[[nnx.Rngs], nnx.Module], int]:
    """Returns the function that builds an encoder, GLoRIA's or another, and its features."""
    resnet = {"remat": "none", **section["resnet"], "in_channels": image.channels}
    if _EMBEDDER in arrays:
        given = {"resnet": resnet, "image_size": image.size, "upsample": section.get("upsample")}
        regions = build(RegionEncoderConfig, given, name=where)
        width = arrays[_EMBEDDER].shape[-1]

        def make_regions(rngs: nnx.Rngs) -> nnx.Module:
            return RegionEncoder(regions, width, dtype=jnp.float32, rngs=rngs)

        return make_regions, regions.resnet.features
    pooled = any(name.startswith("pool/") for name in arrays)
    given = {
        "resnet": resnet,
        "pool": "attention" if pooled else "mean",
        "pool_heads": section.get("pool_heads", 1),
        "image_size": image.size,
    }
    plain, upsample = build(ImageEncoderConfig, given, name=where), section.get("upsample")

    def make(rngs: nnx.Rngs) -> nnx.Module:
        if upsample is not None:
            return EnlargingEncoder(plain, upsample=upsample, rngs=rngs)
        return ImageEncoder(plain, dtype=jnp.float32, rngs=rngs)

    return make, plain.resnet.features
