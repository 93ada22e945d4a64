"""Emitters of jax's primitives in ONNX: arithmetic, reductions, and rearrangement of values.

An emitter takes the equation and its inputs, and returns the outputs; `onnx.graph` inlines
programs within programs. Every primitive of this table is computed in the dtype that
`onnx.builder.carried` returns.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np
from jax.lax import RoundingMethod

from prior_jax.interop.onnx.builder import Tensor, Value, integers
from prior_jax.interop.onnx.contractions import CONTRACTIONS
from prior_jax.interop.onnx.indexing import INDEXING
from prior_jax.interop.onnx.layout import (
    Op,
    convert,
    cut,
    expand,
    reshape,
    stack,
    transpose,
    unit_axes,
    where,
)
from prior_jax.interop.onnx.random_bits import RANDOM

_Single = Callable[..., Value]
Emitter = Callable[..., Value | tuple[Value, ...]]


def _direct(name: str) -> _Single:
    """Returns the emitter of a primitive that is one operator of ONNX.

    Args:
      name: name of the operator, e.g. "Add"; it broadcasts as numpy does.
    """

    def emit(op: Op, *values: Value) -> Value:
        return op.emit(name, *values)

    return emit


def _arithmetic(name: str) -> _Single:
    """Returns an emitter as `_direct` does, for an operator of arithmetic.

    A uint32 is kept as an int64 in the graph, so its results are taken modulo 2**32.
    """

    def emit(op: Op, *values: Value) -> Value:
        kind = np.int64 if op.dtype == np.uint32 else op.dtype
        return convert(op.graph, op.emit(name, *values, dtype=kind), op.dtype)

    return emit


def _logical(on_bools: str, on_integers: str) -> _Single:
    def emit(op: Op, *values: Value) -> Value:
        return _arithmetic(on_bools if op.dtype == np.bool_ else on_integers)(op, *values)

    return emit


def _same(op: Op, x: Value, *rest: Value) -> Value:
    del op, rest
    return x


def _square(op: Op, x: Value) -> Value:
    return _arithmetic("Mul")(op, x, x)


def _rsqrt(op: Op, x: Value) -> Value:
    return op.emit("Reciprocal", op.emit("Sqrt", x))


def _erfc(op: Op, x: Value) -> Value:
    """Computes 1 - erf with an absolute error of 1e-7: small values for large x are inaccurate."""
    return op.emit("Sub", np.float32(1), op.emit("Erf", x))


def _integer_pow(op: Op, x: Value) -> Value:
    return op.emit("Pow", x, np.asarray(op.params["y"], x.dtype))


def _rem(op: Op, x: Value, y: Value) -> Value:
    """Computes the remainder with the sign of x."""
    return op.emit("Mod", x, y, fmod=1)


def _round(op: Op, x: Value) -> Value:
    method = op.params["rounding_method"]
    if method != RoundingMethod.TO_NEAREST_EVEN:
        raise op.refuse("rounding_method", method.name, "TO_NEAREST_EVEN")
    return op.emit("Round", x)


def _not_equal(op: Op, x: Value, y: Value) -> Value:
    return op.emit("Not", op.emit("Equal", x, y))


def _is_finite(op: Op, x: Value) -> Value:
    """Compares with the largest number, which neither infinity nor NaN is at most."""
    largest = np.asarray(np.finfo(np.float32).max, np.float32)
    return op.emit("LessOrEqual", op.emit("Abs", x, dtype=np.float32), largest)


def _clamp(op: Op, low: Value, x: Value, high: Value) -> Value:
    return op.emit("Min", op.emit("Max", x, low), high)


def _select(op: Op, which: Value, *cases: Value) -> Value:
    if len(cases) != 2:
        raise op.refuse("a number of cases of", len(cases), "2")
    no, yes = cases
    return where(op, convert(op.graph, which, np.bool_), yes, no)


def _convert(op: Op, x: Value) -> Value:
    return convert(op.graph, x, op.dtype)


def _bits_as_float(op: Op, x: Value) -> Value:
    """Computes the float32 of 32 bits by arithmetic: exact for normal numbers, wrong for others."""
    if not (x.dtype == np.uint32 and op.dtype == np.float32):
        found = f"{np.dtype(x.dtype).name} to {np.dtype(op.dtype).name}"
        raise op.refuse("dtypes", found, "uint32 to float32")
    whole = functools.partial(op.emit, dtype=np.int64)
    exponent = whole("BitwiseAnd", whole("Div", x, np.int64(2**23)), np.int64(255))
    negative = whole("BitwiseAnd", whole("Div", x, np.int64(2**30)), np.int64(2))
    sign, exponent, mantissa = (
        convert(op.graph, value, np.float32)
        for value in (
            whole("Sub", np.int64(1), negative),
            whole("Sub", exponent, np.int64(127)),
            whole("BitwiseAnd", x, np.int64(2**23 - 1)),
        )
    )
    fraction = op.emit("Add", op.emit("Mul", mantissa, np.float32(2.0**-23)), np.float32(1))
    power = op.emit("Pow", np.float32(2), exponent)
    return op.emit("Mul", sign, op.emit("Mul", fraction, power))


def _shift(left: bool) -> _Single:
    """Shifts uint32 values, in int64 by multiplication or division."""

    def emit(op: Op, x: Value, places: Value) -> Value:
        if isinstance(places, Tensor) or op.dtype != np.uint32:
            found = f"{op.dtype} by {'a tensor' if isinstance(places, Tensor) else 'a constant'}"
            raise op.refuse("operands", found, "uint32 by a constant")
        # A shift by 32 or more gives 0.
        factor = np.int64(2) ** np.minimum(np.asarray(places, np.int64), 32)
        found = op.emit("Mul" if left else "Div", x, factor, dtype=np.int64)
        return convert(op.graph, found, np.uint32)

    return emit


def _reduce(name: str) -> _Single:
    def emit(op: Op, x: Value) -> Value:
        axes = integers(*op.params["axes"])
        if not len(axes):
            return x
        return op.emit(name, x, axes, keepdims=0)

    return emit


def _reduce_bool(name: str) -> _Single:
    """Reduces bools by converting them to integers, since onnxruntime reduces only numbers."""

    def emit(op: Op, x: Value) -> Value:
        numbers = dataclasses.replace(op, dtype=np.int32)
        found = _reduce(name)(numbers, convert(op.graph, x, np.int32))
        return convert(op.graph, found, np.bool_)

    return emit


def _arg_reduce(name: str) -> _Single:
    def emit(op: Op, x: Value) -> Value:
        (axis,) = op.params["axes"]
        found = op.emit(name, x, dtype=np.int64, axis=int(axis), keepdims=0)
        return convert(op.graph, found, op.dtype)

    return emit


def _cumsum(op: Op, x: Value) -> Value:
    axis = np.asarray(op.params["axis"], np.int64)
    return op.emit("CumSum", x, axis, reverse=int(op.params["reverse"]))


def _iota(op: Op) -> Value:
    """Counts along one dimension and repeats along the others; used only if one is the batch."""
    dimension = op.params["dimension"]
    size = op.shape[dimension]
    if isinstance(size, int):
        row: Value = np.arange(size).astype(op.dtype)
    else:
        sizes = op.graph.shape((size,))
        end = reshape(op.graph, sizes, ())
        bounds = np.asarray(0, np.int64), end, np.asarray(1, np.int64)
        row = convert(op.graph, op.emit("Range", *bounds, shape=(size,), dtype=np.int64), op.dtype)
    row = unit_axes(op.graph, row, [axis for axis in range(len(op.shape)) if axis != dimension])
    return expand(op.graph, row, op.shape)


def _dim_as_value(op: Op) -> Value:
    size = reshape(op.graph, op.graph.shape((op.params["dim"],)), ())
    return convert(op.graph, size, op.dtype)


def _broadcast_in_dim(op: Op, x: Value) -> Value:
    places = [int(place) for place in op.params["broadcast_dimensions"]]
    added = [place for place in range(len(op.shape)) if place not in places]
    return expand(op.graph, unit_axes(op.graph, x, added), op.shape)


def _reshape(op: Op, x: Value) -> Value:
    return reshape(op.graph, x, op.shape)


def _transpose(op: Op, x: Value) -> Value:
    return transpose(op.graph, x, op.params["permutation"])


def _concatenate(op: Op, *values: Value) -> Value:
    return op.emit("Concat", *values, axis=int(op.params["dimension"]))


def _stack(op: Op, *values: Value) -> Value:
    return stack(op.graph, values, int(op.params["axis"]))


def _split(op: Op, x: Value) -> tuple[Value, ...]:
    axis, sizes = int(op.params["axis"]), [int(size) for size in op.params["sizes"]]
    parts, start = [], 0
    for size in sizes:
        starts, limits = [0] * len(x.shape), list(x.shape)
        starts[axis], limits[axis] = start, start + size
        parts.append(cut(op.graph, x, starts, limits))
        start += size
    return tuple(parts)


def _pad(op: Op, x: Value, fill: Value) -> Value:
    config = op.params["padding_config"]
    if any(between for _, _, between in config):
        raise op.refuse("padding_config", config, "padding outside the elements")
    # Negative padding removes elements.
    starts = [max(0, -low) for low, _, _ in config]
    limits = [
        size + high if high < 0 else size
        for size, (_, high, _) in zip(x.shape, config, strict=True)
    ]
    x = cut(op.graph, x, starts, limits)
    pads = [max(0, low) for low, _, _ in config] + [max(0, high) for _, high, _ in config]
    return op.emit("Pad", x, integers(*pads), fill, mode="constant")


def _slice(op: Op, x: Value) -> Value:
    params = op.params
    return cut(op.graph, x, params["start_indices"], params["limit_indices"], params["strides"])


def _rev(op: Op, x: Value) -> Value:
    axes = [int(axis) for axis in op.params["dimensions"]]
    first, beyond, back = -1, np.iinfo(np.int64).min, -1
    count = len(axes)
    bounds = [integers(*[value] * count) for value in (first, beyond)]
    return op.emit("Slice", x, *bounds, integers(*axes), integers(*[back] * count))


EMITTERS: Mapping[str, Emitter] = {
    **{
        name: _direct(operator)
        for name, operator in {
            "abs": "Abs",
            "ceil": "Ceil",
            "cos": "Cos",
            "div": "Div",
            "eq": "Equal",
            "erf": "Erf",
            "exp": "Exp",
            "floor": "Floor",
            "ge": "GreaterOrEqual",
            "gt": "Greater",
            "le": "LessOrEqual",
            "log": "Log",
            "logistic": "Sigmoid",
            "lt": "Less",
            "max": "Max",
            "min": "Min",
            "pow": "Pow",
            "sign": "Sign",
            "sin": "Sin",
            "sqrt": "Sqrt",
            "tanh": "Tanh",
        }.items()
    },
    **{
        name: _arithmetic(operator)
        for name, operator in {"add": "Add", "mul": "Mul", "neg": "Neg", "sub": "Sub"}.items()
    },
    **{name: _same for name in ("copy", "name", "sharding_constraint", "stop_gradient")},
    "and": _logical("And", "BitwiseAnd"),
    "argmax": _arg_reduce("ArgMax"),
    "argmin": _arg_reduce("ArgMin"),
    "bitcast_convert_type": _bits_as_float,
    "broadcast_in_dim": _broadcast_in_dim,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "convert_element_type": _convert,
    "cumsum": _cumsum,
    "dim_as_value": _dim_as_value,
    "erfc": _erfc,
    "integer_pow": _integer_pow,
    "iota": _iota,
    "is_finite": _is_finite,
    "ne": _not_equal,
    "not": _logical("Not", "BitwiseNot"),
    "or": _logical("Or", "BitwiseOr"),
    "pad": _pad,
    "reduce_and": _reduce_bool("ReduceMin"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_or": _reduce_bool("ReduceMax"),
    "reduce_prod": _reduce("ReduceProd"),
    "reduce_sum": _reduce("ReduceSum"),
    "rem": _rem,
    "reshape": _reshape,
    "rev": _rev,
    "round": _round,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "shift_left": _shift(left=True),
    "shift_right_logical": _shift(left=False),
    "slice": _slice,
    "split": _split,
    "square": _square,
    "stack": _stack,
    "squeeze": _reshape,
    "transpose": _transpose,
    "xor": _logical("Xor", "BitwiseXor"),
    **CONTRACTIONS,
    **INDEXING,
    **RANDOM,
}
"""Name of a jax primitive -> emitter. Export fails for any other primitive, naming it."""
