"""Emitters that take and set elements by index in ONNX.

Indices outside an array are treated as XLA treats them: clipped to its bounds, or, where the
program asks for it, replaced by a fill value. Only dimensions whose size does not depend on the
batch can be indexed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from prior_jax.interop.onnx.builder import Tensor, Value, integers
from prior_jax.interop.onnx.layout import Op, convert, cut, reshape, transpose, unit_axes, where


def _gather(op: Op, x: Value, indices: Value) -> Value:
    numbers, sizes = op.params["dimension_numbers"], op.params["slice_sizes"]
    if numbers.operand_batching_dims or numbers.start_indices_batching_dims:
        raise op.refuse(
            "dimension_numbers", numbers, "dimension numbers without batching dimensions"
        )
    axes = tuple(int(axis) for axis in numbers.start_index_map)
    known, filling = not isinstance(indices, Tensor), _fills(op)
    if known and len(indices.shape) == 1 and not filling:
        starts = dict.fromkeys(range(len(sizes)), 0)
        starts.update(zip(axes, np.asarray(indices).tolist(), strict=True))
        return reshape(op.graph, _known_part(x, op, starts), op.shape)
    for axis, size in enumerate(sizes):
        if size != (1 if axis in axes else x.shape[axis]):
            raise op.refuse("slice_sizes", sizes, f"1 in dimensions {axes}, all of the others")
    limits = _sizes(op, x, axes)
    index = _kept_inside(op, indices, limits)
    collapsed = set(numbers.collapsed_slice_dims) == set(axes)
    if known and not filling and collapsed and _is_grid(np.asarray(index)):
        return _grid(op, x, axes, np.asarray(index))
    found = _ordered(op, x, axes, index)
    return _filled(op, found, indices, limits) if filling else found


def _fills(op: Op) -> bool:
    return op.params["mode"] == GatherScatterMode.FILL_OR_DROP


def _sizes(op: Op, x: Value, axes: Sequence[int]) -> np.ndarray:
    sizes = [x.shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        raise op.refuse(
            "indexed dimensions", tuple(map(str, sizes)), "dimensions other than the batch"
        )
    return np.asarray(sizes, np.int64)


def _kept_inside(op: Op, indices: Value, sizes: np.ndarray) -> Value:
    """Returns int64 indices [..., n], each clipped to its dimension."""
    index = convert(op.graph, indices, np.int64)
    if not isinstance(index, Tensor):
        return np.clip(index, 0, sizes - 1)
    same = {"shape": index.shape, "dtype": np.int64}
    index = op.emit("Min", index, sizes - 1, **same)
    return op.emit("Max", index, np.int64(0), **same)


def _known_part(x: Value, op: Op, starts: Mapping[int, int]) -> Value:
    """Slices at known starts of some dimensions, each clipped so that the slice is in the array."""
    sizes = op.params["slice_sizes"]
    lows, limits = [0] * len(x.shape), list(x.shape)
    for axis, start in starts.items():
        size, whole = sizes[axis], x.shape[axis]
        if size == whole or start <= 0:
            start = 0
        elif not isinstance(whole, int):
            raise op.refuse("start in the batch", start, "0 (the size of the batch is not known)")
        else:
            start = min(start, whole - size)
        lows[axis], limits[axis] = start, size if start == 0 else start + size
    return cut(op.graph, x, lows, limits)


def _is_grid(index: np.ndarray) -> bool:
    """Returns whether indices [n1, ..., nk, k] are all combinations of k rows of positions."""
    count = index.shape[-1]
    if index.ndim != count + 1 or not index.size:
        return False
    rows = np.meshgrid(*_rows(index), indexing="ij")
    return bool(np.array_equal(np.stack(rows, axis=-1), index))


def _rows(index: np.ndarray) -> list[np.ndarray]:
    count = index.shape[-1]
    return [
        index[(*(slice(None) if place == axis else 0 for place in range(count)), axis)]
        for axis in range(count)
    ]


def _grid(op: Op, x: Value, axes: Sequence[int], index: np.ndarray) -> Value:
    """Takes rows and columns: by a slice where evenly spaced, as in a strided 1x1 convolution."""
    for axis, row in zip(axes, _rows(index), strict=True):
        steps = np.unique(np.diff(row))
        shape = [len(row) if place == axis else size for place, size in enumerate(x.shape)]
        if len(steps) <= 1 and (len(row) == 1 or steps[0] > 0):
            starts, limits, strides = [0] * len(shape), list(x.shape), [1] * len(shape)
            starts[axis], limits[axis] = int(row[0]), int(row[-1]) + 1
            strides[axis] = int(steps[0]) if len(steps) else 1
            x = cut(op.graph, x, starts, limits, strides)
        else:
            x = op.emit("Gather", x, row, shape=shape, axis=axis)
    window = set(op.params["dimension_numbers"].offset_dims)
    free = iter(axis for axis in range(len(x.shape)) if axis not in axes)
    rows = iter(axes)
    order = [next(free) if place in window else next(rows) for place in range(len(op.shape))]
    return transpose(op.graph, x, order)


def _ordered(op: Op, x: Value, axes: Sequence[int], index: Value) -> Value:
    """Takes arbitrary positions: the indexed dimensions are replaced by those of the indices."""
    numbers, places = op.params["dimension_numbers"], tuple(index.shape[:-1])
    free = [axis for axis in range(len(x.shape)) if axis not in axes]
    shape = [*places, *(x.shape[axis] for axis in free)]
    turned = transpose(op.graph, x, [*axes, *free])
    if len(axes) == 1:
        found = op.emit("Gather", turned, reshape(op.graph, index, places), shape=shape, axis=0)
    else:
        found = op.emit("GatherND", turned, index, shape=shape)
    # The window has the dimensions that were not indexed, and indexed ones kept with size 1.
    collapsed = set(numbers.collapsed_slice_dims)
    window = [axis for axis in range(len(x.shape)) if axis not in collapsed]
    shape = [*places, *(1 if axis in axes else x.shape[axis] for axis in window)]
    found = reshape(op.graph, found, shape)
    order = _result_order(numbers.offset_dims, len(places), len(window))
    return transpose(op.graph, found, order)


def _result_order(offset: Sequence[int], places: int, window: int) -> list[int]:
    """Returns the permutation from [places, window] to the order of XLA's result."""
    first, then = iter(range(places)), iter(range(places, places + window))
    return [next(then) if axis in offset else next(first) for axis in range(places + window)]


def _filled(op: Op, found: Value, indices: Value, sizes: np.ndarray) -> Value:
    """Replaces the results of positions outside the array by the fill value."""
    index = convert(op.graph, indices, np.int64)
    if isinstance(index, Tensor):
        same = {"shape": index.shape, "dtype": np.bool_}
        low = op.emit("GreaterOrEqual", index, np.int64(0), **same)
        each = op.emit("And", low, op.emit("Less", index, sizes, **same), **same)
        every = {"shape": index.shape[:-1], "dtype": np.int32, "keepdims": 0}
        least = op.emit("ReduceMin", convert(op.graph, each, np.int32), integers(-1), **every)
        inside = convert(op.graph, least, np.bool_)
    else:
        index = np.asarray(index)
        inside = np.all((index >= 0) & (index < sizes), axis=-1)
        if inside.all():
            return found
    mask = unit_axes(op.graph, inside, op.params["dimension_numbers"].offset_dims)
    return where(op, mask, found, _filling(op.params["fill_value"], op.dtype))


def _filling(value: Any, dtype: Any) -> np.ndarray:
    """Returns the fill value, by default the one that `jax.lax.GatherScatterMode` documents."""
    if value is None:
        if jnp.issubdtype(dtype, jnp.inexact):
            value = np.nan
        elif dtype == np.bool_:
            value = True
        else:
            info = np.iinfo(dtype)
            value = info.max if info.min == 0 else info.min
    return np.asarray(value, np.float32 if jnp.issubdtype(dtype, jnp.inexact) else dtype)


def _dynamic_slice(op: Op, x: Value, *starts: Value) -> Value:
    """Slices at starts that may be known only when the graph runs, clipped to the array."""
    sizes = op.params["slice_sizes"]
    known = [axis for axis, start in enumerate(starts) if not isinstance(start, Tensor)]
    x = _known_part(x, op, {axis: int(np.asarray(starts[axis])) for axis in known})
    moving = [axis for axis, size in enumerate(sizes) if size != x.shape[axis]]
    if not moving:
        return x
    one = {"shape": (len(moving),), "dtype": np.int64}
    taken = integers(*(sizes[axis] for axis in moving))
    limits = op.emit("Sub", op.graph.shape([x.shape[axis] for axis in moving]), taken, **one)
    parts = [reshape(op.graph, convert(op.graph, starts[axis], np.int64), (1,)) for axis in moving]
    start = op.emit("Concat", *parts, axis=0, **one)
    start = op.emit("Max", op.emit("Min", start, limits, **one), np.int64(0), **one)
    end = op.emit("Add", start, taken, **one)
    return op.emit("Slice", x, start, end, integers(*moving))


def _scatter(op: Op, x: Value, indices: Value, updates: Value) -> Value:
    """Sets the whole of one known row, column, ... of an array: `x.at[:, 0].set(y)`."""
    numbers = op.params["dimension_numbers"]
    axes = tuple(numbers.scatter_dims_to_operand_dims)
    plain = (
        not isinstance(indices, Tensor)
        and tuple(indices.shape) == (1,)
        and tuple(numbers.inserted_window_dims) == axes
        and not numbers.operand_batching_dims
    )
    if not plain:
        raise op.refuse("dimension_numbers", numbers, "one known place of one dimension")
    (axis,) = axes
    (size,) = _sizes(op, x, axes)
    shape = [1 if place == axis else length for place, length in enumerate(x.shape)]
    updates = reshape(op.graph, updates, shape)
    chosen = np.arange(size) == np.asarray(indices)  # all False for a position outside the array
    chosen = chosen.reshape([size if place == axis else 1 for place in range(len(x.shape))])
    return where(op, chosen, updates, x)


INDEXING: Mapping[str, Callable[..., Value]] = {
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "scatter": _scatter,
}
"""Name of a jax primitive -> emitter."""
