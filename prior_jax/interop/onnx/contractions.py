"""Emitters of matrix products, convolutions and pooling in ONNX."""

import string
from collections.abc import Callable, Mapping

import numpy as np

from prior_jax.interop.onnx.builder import Value
from prior_jax.interop.onnx.layout import Op, convert, transpose


def _dot_general(op: Op, left: Value, right: Value) -> Value:
    """Emits a matrix product, transposing the operands if needed; where impossible, an Einsum."""
    (left_sum, right_sum), (left_batch, right_batch) = op.params["dimension_numbers"]
    left, right = (convert(op.graph, x, op.dtype) for x in (left, right))
    left_free = _others(left, left_sum, left_batch)
    right_free = _others(right, right_sum, right_batch)
    flat = len(left_sum) == len(right_free) == 1 and len(right.shape) - len(right_batch) == 2
    if flat and (not left_batch or len(left_free) == 1):
        left = transpose(op.graph, left, [*left_batch, *left_free, *left_sum])
        right = transpose(op.graph, right, [*right_batch, *right_sum, *right_free])
        return op.emit("MatMul", left, right)
    letters = iter(string.ascii_letters)
    left_names = {place: next(letters) for place in range(len(left.shape))}
    right_names = {
        **dict(zip(right_sum, (left_names[place] for place in left_sum), strict=True)),
        **dict(zip(right_batch, (left_names[place] for place in left_batch), strict=True)),
        **{place: next(letters) for place in right_free},
    }
    result = [left_names[place] for place in (*left_batch, *left_free)]
    result += [right_names[place] for place in right_free]
    operands = (
        "".join(names[place] for place in range(len(names))) for names in (left_names, right_names)
    )
    return op.emit("Einsum", left, right, equation=f"{','.join(operands)}->{''.join(result)}")


def _others(x: Value, *taken: tuple[int, ...]) -> list[int]:
    gone = {place for places in taken for place in places}
    return [place for place in range(len(x.shape)) if place not in gone]


def _conv(op: Op, x: Value, kernel: Value) -> Value:
    """Transposes to ONNX's [N, C, spatial] and [O, I, spatial], convolves, and transposes back."""
    params = op.params
    if params["batch_group_count"] != 1:
        raise op.refuse("batch_group_count", params["batch_group_count"], "1")
    if any(step != 1 for step in params["lhs_dilation"]):
        raise op.refuse("lhs_dilation", params["lhs_dilation"], "1 (no transposed convolution)")
    padding = params["padding"]
    if any(size < 0 for sizes in padding for size in sizes):
        raise op.refuse("padding", padding, "sizes of 0 or more")
    spec = params["dimension_numbers"]
    x, kernel = (convert(op.graph, value, op.dtype) for value in (x, kernel))
    found = op.emit(
        "Conv",
        transpose(op.graph, x, spec.lhs_spec),
        transpose(op.graph, kernel, spec.rhs_spec),
        shape=[op.shape[place] for place in spec.out_spec],
        strides=list(params["window_strides"]),
        pads=[low for low, _ in padding] + [high for _, high in padding],
        dilations=list(params["rhs_dilation"]),
        group=int(params["feature_group_count"]),
    )
    return transpose(op.graph, found, np.argsort(spec.out_spec).tolist())


def _max_pool(op: Op, x: Value) -> Value:
    """Emits the maximum over windows that move along all but two dimensions."""
    params = op.params
    if any(step != 1 for step in params["base_dilation"]):
        raise op.refuse("base_dilation", params["base_dilation"], "1")
    names = ("window_dimensions", "window_strides", "padding", "window_dilation")
    forms = list(zip(*(params[name] for name in names), strict=True))
    still = [place for place, form in enumerate(forms) if form[:3] == (1, 1, (0, 0))]
    if len(still) < 2:
        raise op.refuse("window_dimensions", params["window_dimensions"], "two of size 1")
    # The two fixed dimensions are batch and channels; windows of size 1 may be among the moving.
    order = [still[0], still[-1]]
    order += [place for place in range(len(forms)) if place not in order]
    moving = [forms[place] for place in order[2:]]
    found = op.emit(
        "MaxPool",
        transpose(op.graph, x, order),
        shape=[op.shape[place] for place in order],
        kernel_shape=[window for window, *_ in moving],
        strides=[stride for _, stride, *_ in moving],
        pads=[low for _, _, (low, _), _ in moving] + [high for _, _, (_, high), _ in moving],
        dilations=[step for *_, step in moving],
    )
    return transpose(op.graph, found, np.argsort(order).tolist())


CONTRACTIONS: Mapping[str, Callable[..., Value]] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "reduce_window_max": _max_pool,
}
"""Name of a jax primitive -> emitter."""
