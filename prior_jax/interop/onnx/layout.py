"""Reshapes, transposes and converts the values of an ONNX graph.

A constant is changed while the graph is made; for any other value a node is added that changes it
when the graph is run.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.errors import ExportError
from prior_jax.interop.onnx.builder import (
    INSTEAD,
    Graph,
    Tensor,
    Value,
    element_type,
    integers,
    widened,
)


@dataclasses.dataclass(frozen=True)
class Op:
    """One equation of a traced program, as passed to its emitter.

    Attributes:
      graph: graph to append nodes to.
      name: name of the primitive.
      params: parameters of the primitive.
      shape: shape of the first output.
      dtype: jax's dtype of the first output.
      inline: function that appends a whole program: (closed jaxpr, values) -> values.
    """

    graph: Graph
    name: str
    params: Mapping[str, Any]
    shape: tuple[Any, ...]
    dtype: Any
    inline: Callable[..., list[Value]]

    def emit(self, op: str, *inputs: Value, **options: Any) -> Tensor:
        """Appends a node; `shape` and `dtype` are the equation's unless given."""
        return self.graph.add(op, *inputs, **({"shape": self.shape, "dtype": self.dtype} | options))

    def refuse(self, what: str, value: Any, supported: str) -> ExportError:
        """Returns the error for a form of the primitive that has no emitter.

        Args:
          what: parameter or operand of the primitive.
          value: its value.
          supported: completes "ONNX export supports only ...".
        """
        return ExportError(
            f"The model uses the operation {self.name} with {what} {value}, and ONNX export "
            f"supports only {supported}.",
            INSTEAD,
        )


def reshape(graph: Graph, x: Value, shape: Sequence[Any]) -> Value:
    """Returns the same numbers, in the same order, in another shape."""
    shape = tuple(shape)
    if tuple(x.shape) == shape:
        return x
    if not isinstance(x, Tensor):
        return np.asarray(x).reshape(shape)
    opened = [place for place, size in enumerate(shape) if not isinstance(size, int)]
    if len(opened) == 1 and 0 not in shape:
        # Reshape infers the one symbolic dimension, so it need not be computed.
        sizes = integers(*(-1 if place in opened else size for place, size in enumerate(shape)))
    else:
        sizes = graph.shape(shape)
    return graph.add("Reshape", x, sizes, shape=shape, dtype=x.dtype, allowzero=1)


def transpose(graph: Graph, x: Value, order: Sequence[int]) -> Value:
    """Permutes the dimensions: dimension i of the result is dimension order[i] of x."""
    order = [int(place) for place in order]
    if order == list(range(len(order))):
        return x
    if not isinstance(x, Tensor):
        return np.asarray(x).transpose(order)
    shape = tuple(x.shape[place] for place in order)
    return graph.add("Transpose", x, shape=shape, dtype=x.dtype, perm=order)


def expand(graph: Graph, x: Value, shape: Sequence[Any]) -> Value:
    """Repeats dimensions of size 1; x has as many dimensions as the result."""
    shape = tuple(shape)
    if tuple(x.shape) == shape:
        return x
    if not isinstance(x, Tensor) and all(isinstance(size, int) for size in shape):
        return np.broadcast_to(np.asarray(x), shape)
    return graph.add("Expand", x, graph.shape(shape), shape=shape, dtype=x.dtype)


def cut(
    graph: Graph,
    x: Value,
    starts: Sequence[Any],
    limits: Sequence[Any],
    strides: Sequence[int] | None = None,
) -> Value:
    """Slices from start to limit (exclusive) in steps of stride, in every dimension.

    Raises:
      ExportError: for a part of the batch.
    """
    strides = [1] * len(starts) if strides is None else [int(stride) for stride in strides]
    shape, axes = [], []
    for axis, (start, limit, stride) in enumerate(zip(starts, limits, strides, strict=True)):
        whole = isinstance(start, int) and start == 0 and limit == x.shape[axis] and stride == 1
        if not whole:
            axes.append(axis)
            if not (isinstance(start, int) and isinstance(limit, int)):
                raise ExportError(
                    f"The model takes the slice {start} to {limit} of {x.shape[axis]}, and ONNX "
                    "export supports only the whole batch.",
                    INSTEAD,
                )
        shape.append(x.shape[axis] if whole else max(0, -(-(limit - start) // stride)))
    if not axes:
        return x
    if not isinstance(x, Tensor):
        return np.asarray(x)[tuple(map(slice, starts, limits, strides))]
    bounds = [integers(*(of[axis] for axis in axes)) for of in (starts, limits)]
    last = integers(*axes), integers(*(strides[axis] for axis in axes))
    return graph.add("Slice", x, *bounds, *last, shape=shape, dtype=x.dtype)


def convert(graph: Graph, x: Value, dtype: Any) -> Value:
    """Returns the same numbers in another dtype of jax; uint32 is taken modulo 2**32."""
    if not isinstance(x, Tensor):
        return np.asarray(x).astype(widened(dtype))
    dtype = np.dtype(dtype)
    if dtype == np.uint32 and x.dtype != np.uint32:
        wide = convert(graph, x, np.int64)
        low = np.asarray(2**32 - 1, np.int64)
        return graph.add("BitwiseAnd", wide, low, shape=x.shape, dtype=dtype)
    if element_type(dtype) == element_type(x.dtype):
        return dataclasses.replace(x, dtype=dtype)
    return graph.add("Cast", x, shape=x.shape, dtype=dtype, to=element_type(dtype))


def stack(graph: Graph, values: Sequence[Value], axis: int) -> Value:
    """Stacks values of one shape along a new axis, which is `axis` in the result."""
    parts = [unit_axes(graph, value, [axis]) for value in values]
    shape = [*values[0].shape[:axis], len(values), *values[0].shape[axis:]]
    return graph.add("Concat", *parts, shape=shape, dtype=values[0].dtype, axis=axis)


def where(op: Op, mask: Value, yes: Value, no: Value) -> Value:
    """Returns the equation's output: `yes` where the mask is True, `no` elsewhere."""
    if op.dtype != np.bool_:
        return op.emit("Where", mask, yes, no)
    # onnxruntime's Where supports numbers only.
    numbers = (convert(op.graph, value, np.int32) for value in (yes, no))
    return convert(op.graph, op.emit("Where", mask, *numbers, dtype=np.int32), np.bool_)


def unit_axes(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    """Inserts dimensions of size 1; the axes are counted in the result."""
    sizes = iter(x.shape)
    shape = [1 if place in axes else next(sizes) for place in range(len(x.shape) + len(axes))]
    return reshape(graph, x, shape)
