"""Reads safetensors files as views of the mapped file.

The safetensors library checks the header (lengths, overlaps, holes); the arrays are then made
here, since the library's own reader copies every tensor.

Source: the format at https://github.com/huggingface/safetensors.
"""

import json
from typing import Any, NoReturn

import numpy as np
import safetensors

from prior_jax.errors import WeightsError
from prior_jax.interop.mapped_file import MappedFile
from prior_jax.interop.torch.tensors import BFLOAT16

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype(np.bool_),
}
_LENGTH = 8


def is_safetensors(data: memoryview) -> bool:
    """Returns whether a file begins like a safetensors file: a length, then a JSON object."""
    return bytes(data[_LENGTH : _LENGTH + 1]) == b"{"


def read_safetensors(file: MappedFile) -> dict[str, np.ndarray]:
    """Reads all tensors of a file.

    Args:
      file: mapped file for which `is_safetensors` holds.

    Returns:
      name -> read-only array that views the file.

    Raises:
      WeightsError: if the library refuses the header, if a name stands in it twice, or if a tensor
        has a dtype that we do not read.
    """

    def refuse(problem: str, remedy: str = "Copy or download the file again.") -> NoReturn:
        raise WeightsError(problem, remedy, where=file.field)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            refuse("The safetensors header has a name in it twice.")
        return dict(pairs)

    try:
        with safetensors.safe_open(file.path, framework="np"):
            pass
    except (safetensors.SafetensorError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        refuse(f"The file is a safetensors file that is damaged or cut short ({why}).")
    # The library has checked that offsets lie in the file and fit the shape and dtype.
    begin = _LENGTH + int.from_bytes(file.data[:_LENGTH], "little")
    header = json.loads(bytes(file.data[_LENGTH:begin]), object_pairs_hook=once)
    header.pop("__metadata__", None)
    arrays = {}
    for name, said in header.items():
        if said["dtype"] not in _DTYPES:
            refuse(
                f"The tensor {name[:200]!r} has the dtype {said['dtype']}, which is not read.",
                f"Convert it to one of {', '.join(_DTYPES)}.",
            )
        dtype, shape = _DTYPES[said["dtype"]], tuple(said["shape"])
        start, stop = said["data_offsets"]
        raw = file.data[begin + start : begin + stop]
        arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
    return arrays
