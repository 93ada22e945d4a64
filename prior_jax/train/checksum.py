"""Checksums of sharded arrays, independent of the sharding.

Checkpoint formats detect truncation, but load nearly all files with a single flipped byte in the
stored parameters without complaint, so the state carries checksums of its own.

Each element is mixed with its position in the whole array by a bijection on 32-bit words, and the
words are summed modulo 2^32 in two ways. The sum of integers does not depend on the order or on
the sharding; a change of any one element always changes it, and other damage is missed with a
probability of about 2^-64.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prior_jax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """What one pass over named arrays finds.

    Attributes:
      checksums: name -> 16 hexadecimal digits, see `checksums`.
      not_finite: names of the arrays that hold a NaN or an infinity, sorted.
    """

    checksums: dict[str, str]
    not_finite: tuple[str, ...]


_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def checksums(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
    """Returns one checksum for each array.

    Every process has to call it with the same global arrays, in the same order.

    Args:
      arrays: name -> array of 1, 2 or 4 bytes an element, on any devices.

    Returns:
      name -> 16 hexadecimal digits, the same in every process.
    """
    return survey(arrays).checksums


def survey(arrays: Mapping[str, jax.Array]) -> Survey:
    """Returns the checksums of arrays, and which of them are not finite, in one pass over each.

    Args:
      arrays: see `checksums`, as for the processes.
    """
    sums, bad = {}, []
    for name in sorted(arrays):
        # Each result is read immediately: collectives of simulated devices must not queue up.
        found = np.asarray(_summing(_mesh_of(arrays[name]))(arrays[name]))
        sums[name] = as_text(found[:2])
        if found[2]:
            bad.append(name)
    return Survey(checksums=sums, not_finite=tuple(bad))


def compile_checksums(arrays: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    """Compiles the programs of `survey`; nothing is computed.

    Args:
      arrays: name -> shape, dtype and sharding of an array.
    """
    for array in {(one.shape, one.dtype, one.sharding): one for one in arrays.values()}.values():
        _summing(_mesh_of(array)).lower(array).compile()


def batch_sums(batch: Batch) -> jax.Array:
    """Returns a checksum of a global batch, the same on any devices and processes; traced.

    Args:
      batch: global arrays.

    Returns:
      uint32[2].
    """
    sums = [_sums(array) for array in jax.tree.leaves(batch)]
    return _sums(jnp.stack(sums))


def as_text(sums: jax.Array | np.ndarray) -> str:
    """Returns sums, uint32[2], as 16 hexadecimal digits."""
    return "".join(f"{int(word):08x}" for word in np.asarray(sums))


def _mesh_of(array: jax.Array | jax.ShapeDtypeStruct) -> Mesh | None:
    sharding = array.sharding
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh
    return None


@functools.lru_cache(maxsize=8)
def _summing(mesh: Mesh | None) -> Any:
    """Returns the jitted `_surveyed`, whose result is replicated on the mesh."""
    if mesh is None:
        return jax.jit(_surveyed)
    return jax.jit(_surveyed, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _surveyed(array: jax.Array) -> jax.Array:
    """Returns uint32[3]: the checksum, and 1 if a value is not finite, else 0; traced."""
    finite = jnp.bool_(True)
    if jnp.issubdtype(array.dtype, jnp.floating):
        finite = jnp.all(jnp.isfinite(array))
    return jnp.concatenate([_sums(array), (~finite).astype(jnp.uint32)[None]])


def _sums(array: jax.Array) -> jax.Array:
    """Returns uint32[2], the checksum of an array; traced."""
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize]).astype(jnp.uint32)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        here = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position = position * jnp.uint32(size) + here
    sums = []
    for salt in (0x9E3779B9, 0x85EBCA77):
        mixed = _mix(words ^ _mix(position + jnp.uint32(salt)))
        sums.append(jnp.sum(mixed, dtype=jnp.uint32))
    return jnp.stack(sums)


def _mix(word: jax.Array) -> jax.Array:
    """Returns the finaliser of MurmurHash3, a bijection of 32-bit words."""
    word = (word ^ (word >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> jnp.uint32(16))
