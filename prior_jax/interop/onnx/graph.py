"""Writes towers, and other functions of arrays, as ONNX graphs.

A function is traced by jax, and each primitive of its program becomes a few nodes. A value that
depends on no input is computed at export time and becomes a constant: weights after reshaping,
masks, scales of normalisations. Loops are unrolled, and programs within programs inlined.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export
from jax.extend.core import Literal

from prior_jax.errors import ExportError
from prior_jax.interop.export.towers import towers
from prior_jax.interop.onnx.builder import INSTEAD, Graph, Tensor, Value, widened
from prior_jax.interop.onnx.layout import Op, cut, reshape, stack
from prior_jax.interop.onnx.primitives import EMITTERS
from prior_jax.objectives.base import Objective

# Primitives that run a nested program: name -> parameter that holds the program.
_CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "remat2": "jaxpr",
}

# Parameters of primitives whose value is a dtype.
_DTYPES = ("new_dtype", "dtype", "preferred_element_type")


def export_towers(
    objective: Objective,
    model: nnx.Module,
    *,
    image_shape: Sequence[int],
    max_tokens: int,
    max_sentences: int,
) -> dict[str, Any]:
    """Exports both encoders with their projections, in inference mode, for any batch size.

    Args:
      objective: the model's objective, without mesh axes.
      model: the model with its weights; fewer than 2 GiB a tower.
      image_shape: (H, W, C) of an image.
      max_tokens: number of tokens L of a report.
      max_sentences: number of sentences S of a report.

    Returns:
      "image" and "text", each an onnx.ModelProto, computed in float32 whatever the model's dtype.
      Inputs and outputs have the names, shapes and dtypes of `towers.towers`.

    Raises:
      ValueError: for a size that is not positive.
      ExportError: if onnx is not installed, for a primitive without an emitter, or for more
        weights than fit into one file.
    """
    found = towers(
        objective,
        model,
        image_shape=image_shape,
        max_tokens=max_tokens,
        max_sentences=max_sentences,
    )
    return {
        name: export_onnx(tower.function, tower.inputs, tower.outputs)
        for name, tower in found.items()
    }


def export_onnx(
    function: Callable[..., Any],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    output_names: Sequence[str],
) -> Any:
    """Exports a function as an ONNX graph of operator set 18.

    Args:
      function: function that takes one array per input, in their order, and returns a mapping of
        outputs, or as many outputs as there are names. Arrays that it closes over become constants
        of the graph.
      inputs: name -> shape and dtype: float32, int32 or bool. Leading dimensions may be symbolic
        (`jax.export.symbolic_shape`); all symbolic ones must be the same, and it stays symbolic.
      output_names: names of the outputs.

    Returns:
      onnx.ModelProto, checked by onnx. bfloat16 is computed in float32.

    Raises:
      ExportError: naming the primitive, or the form of a primitive, that has no emitter; if onnx is
        not installed; for other symbolic dimensions; for 2 GiB of weights or more.
    """

    def flat(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        found = function(*arrays)
        if isinstance(found, Mapping):
            return tuple(found[name] for name in output_names)
        return tuple(found)

    graph = Graph(inputs)
    closed = jax.make_jaxpr(flat)(*inputs.values())
    # Constants are computed on the CPU: an accelerator may multiply matrices in bfloat16.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        outputs = _run(graph, closed.jaxpr, closed.consts, list(graph.inputs.values()))
    return graph.model(dict(zip(output_names, outputs, strict=True)))


def _run(graph: Graph, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    """Appends a program and returns its outputs."""
    values = dict(zip(jaxpr.constvars, map(_known, consts), strict=True))
    values.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Value:
        if not isinstance(atom, Literal):
            return values[atom]
        kind: Any = atom.aval
        return _known(np.asarray(atom.val, kind.dtype))

    for equation in jaxpr.eqns:
        outputs = _equation(graph, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _known(value: Any) -> Value:
    """Returns a constant as an array, with bfloat16 widened; random keys are returned unchanged."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return value
    array = np.asarray(value)
    return array.astype(widened(array.dtype), copy=False)


def _equation(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return _inline(graph, params[_CALLS[name]], inputs)
    if name == "scan":
        return _scan(graph, params, inputs)
    if name == "cond" and not isinstance(inputs[0], Tensor):
        # Known at export time, such as the choice of a form by the platform, the CPU's here.
        return _inline(graph, params["branches"][int(inputs[0])], inputs[1:])
    shapes = [out.aval.shape for out in equation.outvars]
    sizes = [size for shape in shapes for size in shape] + list(params.values())
    still = not any(export.is_symbolic_dim(size) for size in sizes)
    if still and not any(isinstance(value, Tensor) for value in inputs):
        return _compute(equation, inputs)
    if name not in EMITTERS:
        known = ", ".join(sorted([*EMITTERS, *_CALLS, "scan"]))
        raise ExportError(
            f"The model uses the operation {name!r}, which ONNX export lacks; it has {known}.",
            INSTEAD,
        )
    op = Op(
        graph, name, params, shapes[0], equation.outvars[0].aval.dtype,
        functools.partial(_inline, graph),
    )  # fmt: skip
    found = EMITTERS[name](op, *inputs)
    return list(found) if isinstance(found, tuple) else [found]


def _inline(graph: Graph, program: Any, inputs: Sequence[Value]) -> list[Value]:
    """Appends a program within a program, which may close over constants."""
    return _run(graph, getattr(program, "jaxpr", program), getattr(program, "consts", ()), inputs)


def _compute(equation: Any, inputs: Sequence[Value]) -> list[Value]:
    """Runs one primitive on values known at export time."""
    params = {
        name: widened(value) if name in _DTYPES and value is not None else value
        for name, value in equation.params.items()
    }
    found = equation.primitive.bind(*inputs, **params)
    found = found if equation.primitive.multiple_results else [found]
    return [_known(value) for value in found]


def _scan(graph: Graph, params: Mapping[str, Any], inputs: Sequence[Value]) -> list[Value]:
    """Unrolls a loop of known length: each iteration has its own slice of the stacked weights."""
    consts, carried = params["num_consts"], params["num_carry"]
    fixed, carry = inputs[:consts], list(inputs[consts : consts + carried])
    stacked = inputs[consts + carried :]
    turns = range(params["length"])
    rows: dict[int, list[Value]] = {}
    for turn in reversed(turns) if params["reverse"] else turns:
        slices = [_row(graph, value, turn) for value in stacked]
        found = _inline(graph, params["jaxpr"], [*fixed, *carry, *slices])
        carry, rows[turn] = found[:carried], found[carried:]
    columns = zip(*(rows[turn] for turn in turns), strict=True)
    return [*carry, *(_stack(graph, column) for column in columns)]


def _row(graph: Graph, x: Value, index: int) -> Value:
    """Returns row `index` of the first dimension."""
    starts = [index] + [0] * (len(x.shape) - 1)
    return reshape(graph, cut(graph, x, starts, [index + 1, *x.shape[1:]]), x.shape[1:])


def _stack(graph: Graph, rows: Sequence[Value]) -> Value:
    """Stacks rows along a new first dimension."""
    if not any(isinstance(row, Tensor) for row in rows):
        return np.stack([np.asarray(row) for row in rows])
    return stack(graph, rows, 0)
