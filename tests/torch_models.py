"""Fills nnx models with tensors under torch's names, and reads them back."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from prior_jax.interop.torch.names import Table, to_nnx, to_torch


def load_torch(model: nnx.Module, state_dict: Mapping[str, Any], table: Table) -> None:
    """Overwrites a model's parameters and batch statistics, in place, if every name fits."""
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    filled = to_nnx(state_dict, table, nnx.as_pure(state))
    # The arrays are copied so that the model does not share memory with the caller's.
    nnx.update(model, jax.tree.map(lambda array: jax.numpy.asarray(np.array(array)), filled))


def dump_torch(model: nnx.Module, table: Table) -> dict[str, np.ndarray]:
    """Returns a model's parameters and batch statistics under torch's names."""
    return to_torch(nnx.as_pure(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))), table)
