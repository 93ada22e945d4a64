"""An ONNX graph under construction: nodes, constants, and shapes with a symbolic batch size."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import ExportError

OPSET = 18
"""Version of the operator set: the first with bitwise operators; onnxruntime 1.14 and newer."""

INSTEAD = "Export it with --format=stablehlo, which can express every model."
"""Remedy for a model that ONNX export cannot express."""

_IR_VERSION = 8  # version of the file format that belongs to opset 18

# A protobuf has at most 2 GiB, of which everything but the weights takes a little.
_MOST_WEIGHTS = 2**31 - 2**24

# jax's dtype -> the graph's. onnxruntime has no arithmetic on bfloat16 and uint32:
# bfloat16 is computed in float32, and uint32 kept in int64, modulo 2**32.
_CARRIED = {
    np.dtype(jnp.bfloat16): np.dtype(np.float32),
    np.dtype(np.uint32): np.dtype(np.int64),
    **{np.dtype(kind): np.dtype(kind) for kind in (np.float32, np.bool_, np.int32, np.int64)},
}

# The graph's dtype -> its number in TensorProto.
_ELEMENT_TYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9}


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A value that is known only when the graph runs.

    Attributes:
      name: name of the value in the graph.
      shape: sizes, each an integer or a multiple of the symbolic batch dimension.
      dtype: dtype in jax; see `carried` for the graph's dtype.
    """

    name: str
    shape: tuple[Any, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Returns the number of dimensions."""
        return len(self.shape)


Value = Tensor | np.ndarray | np.generic | jax.Array
"""A tensor of the graph, or a value known at export time: an array, or random keys."""


def carried(dtype: Any) -> np.dtype:
    """Returns the graph's dtype for values of jax's `dtype`, or raises ExportError if none fits."""
    found = None if jnp.issubdtype(dtype, jax.dtypes.extended) else _CARRIED.get(np.dtype(dtype))
    if found is None:
        known = ", ".join(sorted(kind.name for kind in _CARRIED))
        raise ExportError(
            f"The model computes in dtype {dtype}, and ONNX export supports only {known}.", INSTEAD
        )
    return found


def widened(dtype: Any) -> np.dtype:
    """Returns the dtype of a constant: float32 for bfloat16, which would round, else `dtype`."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype == jnp.bfloat16 else dtype


def element_type(dtype: Any) -> int:
    """Returns ONNX's number of the graph's dtype for values of jax's `dtype`."""
    return _ELEMENT_TYPES[carried(dtype).name]


def integers(*values: int) -> np.ndarray:
    """Returns int64[n], the type in which ONNX takes axes, starts and sizes."""
    return np.asarray(values, np.int64)


@dataclasses.dataclass(frozen=True)
class _Node:
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


class Graph:
    """The nodes of a graph in the order in which they run."""

    def __init__(self, inputs: Mapping[str, jax.ShapeDtypeStruct]):
        """Starts a graph.

        Args:
          inputs: name -> shape and dtype. Leading dimensions may be symbolic; all symbolic ones
            must be the same dimension: the batch.

        Raises:
          ExportError: for another symbolic dimension, or a dtype that ONNX lacks.
        """
        leading = [spec.shape[0] for spec in inputs.values() if spec.shape]
        self.batch = next((size for size in leading if not isinstance(size, int)), None)
        self.inputs: dict[str, Tensor] = {}
        for name, spec in inputs.items():
            if carried(spec.dtype) != spec.dtype:
                raise ExportError.of_value(
                    f"dtype of {name}", str(spec.dtype), "float32, int32, int64 or bool"
                )
            for place, size in enumerate(spec.shape):
                if not isinstance(size, int) and (place or size != self.batch):
                    raise ExportError.of_value(
                        f"shape of {name}",
                        spec.shape,
                        f"known sizes, of which only the first may be the batch {self.batch}",
                    )
            self.inputs[name] = Tensor(name, tuple(spec.shape), np.dtype(spec.dtype))
        self._nodes: list[_Node] = []
        self._constants: dict[str, np.ndarray] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._sizes: dict[int, Tensor] = {}

    def add(
        self, op: str, *inputs: Value, shape: Sequence[Any], dtype: Any, **attributes: Any
    ) -> Tensor:
        """Appends a node with one output.

        Args:
          op: name of the ONNX operator.
          *inputs: inputs of the node; those known at export time become constants of the graph.
          shape: shape of the output.
          dtype: jax's dtype of the output.
          **attributes: attributes of the node.
        """
        names = tuple(x.name if isinstance(x, Tensor) else self._constant(x) for x in inputs)
        output = Tensor(f"{op}_{len(self._nodes)}", tuple(shape), np.dtype(dtype))
        carried(output.dtype)
        self._nodes.append(_Node(op, names, output.name, attributes))
        return output

    def multiple(self, size: Any) -> int:
        """Returns the multiple of the batch that a symbolic size is, or raises ExportError."""
        batch: Any = self.batch
        times = size // batch
        if not isinstance(times, int) or times * batch != size:
            raise ExportError(
                f"The model makes an array with a dimension of size {size}, and ONNX export "
                f"supports only known sizes and multiples of the batch {batch}.",
                INSTEAD,
            )
        return times

    def shape(self, sizes: Sequence[Any]) -> np.ndarray | Tensor:
        """Returns int64[n] of sizes, computed when the graph runs if one depends on the batch."""
        if all(isinstance(size, int) for size in sizes):
            return integers(*sizes)
        parts = [integers(size) if isinstance(size, int) else self._size(size) for size in sizes]
        return self.add("Concat", *parts, shape=(len(parts),), dtype=np.int64, axis=0)

    def _size(self, size: Any) -> Tensor:
        """Returns int64[1], a size that is a multiple of the batch."""
        times = self.multiple(size)
        if times not in self._sizes:
            first = next(x for x in self.inputs.values() if x.shape and x.shape[0] == self.batch)
            one = {"shape": (1,), "dtype": np.int64}
            batch = self.add("Shape", first, start=0, end=1, **one)
            self._sizes[times] = self.add("Mul", batch, integers(times), **one)
        return self._sizes[times]

    def _constant(self, value: np.ndarray | np.generic | jax.Array) -> str:
        array = np.asarray(value)
        array = np.ascontiguousarray(array, carried(array.dtype)).reshape(array.shape)
        digest = hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest()
        key = (array.dtype.name, array.shape, digest)
        if key not in self._names:
            self._names[key] = f"constant_{len(self._names)}"
            self._constants[self._names[key]] = array
        return self._names[key]

    def model(self, outputs: Mapping[str, Value]) -> Any:
        """Returns the finished graph, without nodes that no output needs.

        Args:
          outputs: name -> value.

        Returns:
          onnx.ModelProto, checked.

        Raises:
          ExportError: if onnx is not installed, or for 2 GiB of weights or more.
        """
        onnx = _import_onnx()
        helper = onnx.helper
        nodes = self._needed([self._output(name, value) for name, value in outputs.items()])
        constants = self._weights_of(nodes)

        def described(name: str, value: Value) -> Any:
            sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
            return helper.make_tensor_value_info(name, element_type(value.dtype), sizes)

        graph = helper.make_graph(
            [
                helper.make_node(
                    node.op, node.inputs, [node.output], node.output, **node.attributes
                )
                for node in nodes
            ],
            "tower",
            [described(name, tensor) for name, tensor in self.inputs.items()],
            [described(name, value) for name, value in outputs.items()],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="prior_jax"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _output(self, name: str, value: Value) -> _Node:
        source = value.name if isinstance(value, Tensor) else self._constant(value)
        return _Node("Identity", (source,), name, {})

    def _needed(self, ends: Sequence[_Node]) -> list[_Node]:
        kept, needed = [], {name for node in ends for name in node.inputs}
        for node in reversed(self._nodes):
            if node.output in needed:
                kept.append(node)
                needed.update(node.inputs)
        return [*reversed(kept), *ends]

    def _weights_of(self, nodes: Sequence[_Node]) -> dict[str, np.ndarray]:
        """Returns the constants that the nodes read, which must fit into one file."""
        used = {name for node in nodes for name in node.inputs}
        constants = {name: array for name, array in self._constants.items() if name in used}
        size = sum(array.nbytes for array in constants.values())
        if size > _MOST_WEIGHTS:
            raise ExportError(
                f"The weights have {size} bytes, and at most {_MOST_WEIGHTS} fit into one ONNX "
                "file.",
                "Export the weights instead, with --format=nnx or --format=image_safetensors.",
            )
        return constants


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ExportError(
            "The package onnx is not installed.",
            "Run `pip install -e '.[export]'` in the project's folder.",
        ) from error
    return onnx  # without a type, since a type checker without the package finds this folder
