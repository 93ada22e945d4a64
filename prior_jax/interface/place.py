"""Placement of the interface's models on devices."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np
from flax import nnx

from prior_jax.interop.adaptations import check_fits
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import Placement, placement
from prior_jax.train.state import ModelDefinition


def one_device() -> Placement:
    """Returns a placement of every array on the first device of this process."""
    config = MeshConfig(axes={"data": 1}, data_axes=("data",))
    # JAX gives its devices no types.
    devices = cast(list[Any], jax.local_devices())  # pyright: ignore[reportUnknownMemberType]
    return placement(config, devices=devices[:1])


def filled(
    definition: ModelDefinition,
    arrays: Mapping[str, np.ndarray],
    *,
    place: Placement,
    field: str,
) -> nnx.Module:
    """Builds a model from the arrays of a folder of weights.

    Args:
      definition: the model without its arrays.
      arrays: path -> array, parameters and other state together; each is converted to the dtype
        that the model has.
      place: devices that hold the model, each of them the whole of it.
      field: source of the arrays, for the message.

    Returns:
      The model with the arrays.

    Raises:
      WeightsError: if the paths or shapes are not exactly those of the model.
    """
    check_fits(arrays, {**definition.params, **definition.rest}, field=field)

    def placed(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        return {
            name: place.put_whole(arrays[name].astype(shape.dtype, copy=False))
            for name, shape in shapes.items()
        }

    return definition.merge(placed(definition.params), placed(definition.rest))
