"""Random bits in ONNX: the threefry generator, computed when the graph runs.

The text tower of PRIOR in fidelity "release" needs it: like the published code it draws Gumbel
noise at inference (quirk P8, `nn.prototype_bank`) with one key per report of the batch, and the
size of the batch is not known at export time. No other export draws numbers.

A key is uint32[..., 2]. Only the hash itself is written by hand; the rest is jax's own program,
traced anew.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_prng_impl

from prior_jax.interop.onnx.builder import Value
from prior_jax.interop.onnx.layout import Op, convert

# Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: Threefry-2x32-20.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_GROUPS = 5


def _key_data(op: Op, key: Value) -> Value:
    """Returns the uint32[..., 2] data of a key."""
    if not isinstance(key, jax.Array):
        return key
    if jax.random.key_impl(key) != "threefry2x32":
        raise op.refuse("kind of key", jax.random.key_impl(key), "threefry2x32")
    return np.asarray(jax.random.key_data(key))


def _fold_in(op: Op, key: Value, number: Value) -> Value:
    data = _key_data(op, key)
    many, one = len(number.shape), len(data.shape) - 1
    if one not in (0, many):
        raise op.refuse("keys", data.shape, "one key, or as many as there are numbers")
    program = threefry_prng_impl.fold_in
    for _ in range(many):
        program = jax.vmap(program, in_axes=(0 if one else None, 0))
    return _run(op, program, data, number)


def _bits(op: Op, key: Value) -> Value:
    data = _key_data(op, key)
    program: Callable[..., Any] = functools.partial(
        threefry_prng_impl.random_bits,
        bit_width=op.params["bit_width"],
        shape=op.params["shape"],
    )
    for _ in range(len(data.shape) - 1):
        program = jax.vmap(program)
    return _run(op, program, data)


def _run(op: Op, program: Callable[..., Any], *values: Value) -> Value:
    shapes = [jax.ShapeDtypeStruct(value.shape, jnp.uint32) for value in values]
    (found,) = op.inline(jax.make_jaxpr(program)(*shapes), values)
    return found


def _threefry(op: Op, *values: Value) -> tuple[Value, Value]:
    """Mixes two words and two key words in 20 rounds of addition, rotation and exclusive or."""
    key0, key1, x0, x1 = (convert(op.graph, value, np.int64) for value in values)
    whole = functools.partial(op.emit, dtype=np.int64)

    def low(x: Value) -> Value:
        return whole("BitwiseAnd", x, np.int64(2**32 - 1))

    def plus(x: Value, y: Value) -> Value:
        return low(whole("Add", x, y))

    def rotated(x: Value, places: int) -> Value:
        high = whole("Mul", x, np.int64(2**places))
        return whole("Add", low(high), whole("Div", high, np.int64(2**32)))

    last = whole("BitwiseXor", whole("BitwiseXor", key0, key1), np.int64(_PARITY))
    schedule = key0, key1, last
    x0, x1 = plus(x0, key0), plus(x1, key1)
    for group in range(_GROUPS):
        for places in _ROTATIONS[group % 2]:
            x0 = plus(x0, x1)
            x1 = whole("BitwiseXor", x0, rotated(x1, places))
        x0 = plus(x0, schedule[(group + 1) % 3])
        x1 = plus(plus(x1, schedule[(group + 2) % 3]), np.int64(group + 1))
    return convert(op.graph, x0, np.uint32), convert(op.graph, x1, np.uint32)


RANDOM: Mapping[str, Callable[..., Any]] = {
    "random_bits": _bits,
    "random_fold_in": _fold_in,
    "random_unwrap": _key_data,
    "random_wrap": _key_data,
    "threefry2x32": _threefry,
}
"""Name of a jax primitive -> emitter."""
