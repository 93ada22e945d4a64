"""Tensors as torch's pickles describe them, and their arrays as views of the file.

A checkpoint describes a tensor by its storage (a flat run of numbers), offset, sizes and strides.
All of these may be damaged or forged, so they are checked here with integers of arbitrary
precision before any byte of the storage is read.

Source: torch/_utils.py `_rebuild_tensor*` and torch/serialization.py of PyTorch 2.13 for the
meaning of the arguments.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from prior_jax.errors import WeightsError
from prior_jax.interop.printable import printable

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Storage class in torch -> dtype of its numbers. Any other class is refused by name.
STORAGE_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
# A limit above the number of elements that any file could hold.
MAX_ELEMENTS = 2**48

_MAX_RANK = 32
# Tied and expanded tensors are larger as arrays than in the file, but at most by this factor.
_MAX_GROWTH = 4
_SMALL = 2**24

SAVE_AGAIN = (
    "Copy or download the file again; if that does not help, load it with torch and save its state "
    "dict alone with torch.save."
)
"""Remedy for a file that is damaged or holds more than tensors and plain data."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Storage:
    """A flat run of numbers of a checkpoint.

    Attributes:
      key: name of the storage within the checkpoint.
      dtype: dtype of the numbers.
      count: number of elements according to the checkpoint.
    """

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TorchTensor:
    """A tensor, known to lie within its storage, whose numbers have not been read yet.

    Attributes:
      storage: storage of its numbers; several tensors may share one.
      offset: offset of its first number, in elements.
      shape: sizes of the dimensions.
      strides: strides in elements, of the same length; 0 along expanded axes.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Returns the size of a contiguous copy in bytes, with expanded axes counted in full."""
        return math.prod(self.shape) * self.storage.dtype.itemsize


def rebuild_tensor(arguments: tuple, *, field: str) -> TorchTensor:
    """Implements `torch._utils._rebuild_tensor` and `_v2`: storage, offset, sizes, strides, ...

    Args:
      arguments: unpickled arguments; `requires_grad`, hooks and metadata at the end are not used.
      field: the file's name for errors.

    Returns:
      the tensor, known to lie within its storage.

    Raises:
      WeightsError: if the arguments are of other kinds, negative, too large, or reach outside.
    """
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise WeightsError(
            "The file has a tensor that is not made of a storage.", SAVE_AGAIN, where=field
        )
    storage, offset, shape, strides = arguments[:4]
    if not (_are_counts(shape) and _are_counts(strides) and _are_counts((offset,))):
        raise WeightsError(
            f"The file has a tensor of storage {printable(storage.key, 40)} with a size, stride or "
            "offset that is negative or no whole number.",
            SAVE_AGAIN,
            where=field,
        )
    said = f"{_brief(shape)}, strides {_brief(strides)}, offset {_brief((offset,))}"
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=False))
    empty = 0 in shape
    if (
        len(shape) != len(strides)
        or len(shape) > _MAX_RANK
        or math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS
        or offset > storage.count
        or (not empty and last >= storage.count)
    ):
        raise WeightsError(
            f"The file has a tensor of sizes {said}, which does not fit into its storage "
            f"{printable(storage.key, 40)} of {storage.count} elements.",
            SAVE_AGAIN,
            where=field,
        )
    return TorchTensor(storage=storage, offset=offset, shape=tuple(shape), strides=tuple(strides))


def rebuild_parameter(arguments: tuple, *, field: str) -> Any:
    """Implements `torch._utils._rebuild_parameter` and `_with_state`, which take a tensor first."""
    if not arguments or not isinstance(arguments[0], TorchTensor):
        raise WeightsError(
            "The file has a parameter that is not made of a tensor.", SAVE_AGAIN, where=field
        )
    return arguments[0]


def arrays_of(
    tensors: Mapping[str, TorchTensor],
    fetch: Callable[[Storage], memoryview],
    *,
    swap_bytes: bool,
    file_size: int,
    field: str,
) -> dict[str, np.ndarray]:
    """Returns tensors as read-only arrays that view the file.

    Args:
      tensors: name -> tensor.
      fetch: function that returns a storage's bytes, of exactly the length that the storage states.
      swap_bytes: whether the file has the other byte order than this machine; its storages are
        then copied.
      file_size: size of the file in bytes, from which the limit on the arrays' size is derived.
      field: the file's name for errors.

    Returns:
      name -> array of the tensor's dtype and shape, with its strides. Tensors that share a
      storage share memory.

    Raises:
      WeightsError: if expanded or repeated tensors come to many times the file's size.
    """
    total, limit = 0, _MAX_GROWTH * file_size + _SMALL
    for name, tensor in tensors.items():
        total += tensor.nbytes
        if total > limit:
            raise WeightsError(
                f"With {name[:200]!r} of shape {_brief(tensor.shape)} the tensors come to {total} "
                f"bytes in a file of {file_size}; at most {limit} bytes are read.",
                "Save the tensors without expanded or repeated copies (tensor.contiguous(), "
                "tensor.clone()).",
                where=field,
            )
    bytes_of: dict[str, memoryview] = {}
    arrays = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key
        if key not in bytes_of:
            raw = fetch(tensor.storage)
            bytes_of[key] = _swapped(raw, tensor.storage.dtype) if swap_bytes else raw
        arrays[name] = _view(tensor, bytes_of[key])
    return arrays


def _view(tensor: TorchTensor, raw: memoryview) -> np.ndarray:
    dtype = tensor.storage.dtype
    if 0 in tensor.shape:
        empty = np.empty(tensor.shape, dtype)
        empty.setflags(write=False)
        return empty
    # The stride of an axis of one element has no meaning and may be any number.
    strides = (
        stride * dtype.itemsize if size > 1 else dtype.itemsize
        for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    return np.ndarray(
        tensor.shape,
        dtype=dtype,
        buffer=raw,
        offset=tensor.offset * dtype.itemsize,
        strides=tuple(strides),
    )


def _swapped(raw: memoryview, dtype: np.dtype) -> memoryview:
    words = np.frombuffer(raw, np.dtype(f"u{dtype.itemsize}")).byteswap()
    return memoryview(words.tobytes())


def _are_counts(values: Any) -> bool:
    return isinstance(values, tuple | list) and all(
        type(value) is int and value >= 0 for value in values
    )


def _brief(numbers: tuple[int, ...] | list[int]) -> str:
    """Returns at most 8 numbers in words, none with more than 20 digits."""
    shown = [str(number) if number < 10**20 else "over 1e20" for number in numbers[:8]]
    return f"({', '.join(shown)}{', ...' if len(numbers) > 8 else ''})"
