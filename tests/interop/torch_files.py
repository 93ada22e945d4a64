"""Writes files of torch without torch, opcode by opcode, so that they may also be wrong."""

import dataclasses
import io
import struct
import zipfile
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclasses.dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """`function(*arguments)`, then attributes or a state if there are any."""

    function: Any
    arguments: Any = ()
    state: Any = None
    items: Any = None
    opcode: bytes = b"R"


@dataclasses.dataclass(frozen=True)
class Persistent:
    said: Any


@dataclasses.dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    opcodes: bytes


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def encode(value: Any) -> bytes:
    """The opcodes of protocol 2 that push a value."""
    if isinstance(value, Raw):
        return value.opcodes
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        code = encode(value.function) + encode(value.arguments) + value.opcode
        if value.items is not None:
            code += encode_items(value.items)
        return code + (encode(value.state) + b"b" if value.state is not None else b"")
    if isinstance(value, Persistent):
        return encode(value.said) + b"Q"
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(encode, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(encode, value)) + b"e"
    if isinstance(value, dict):
        return b"}" + encode_items(value)
    raise TypeError(type(value))


def encode_items(items: dict) -> bytes:
    return b"(" + b"".join(encode(key) + encode(items[key]) for key in items) + b"u"


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + encode(value) + b"."


def storage(key: str, *, dtype: str, count: int, legacy: bool = False) -> Persistent:
    said = ("storage", Global("torch", STORAGES[dtype]), key, "cpu", count)
    return Persistent((*said, None) if legacy else said)


def tensor(
    key: str,
    *,
    shape: tuple,
    dtype: str = "float32",
    count: int | None = None,
    offset: int = 0,
    strides: tuple | None = None,
    legacy: bool = False,
) -> Call:
    """A tensor of a storage; contiguous unless strides are given."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    count = int(np.prod(shape)) if count is None else count
    return Call(
        Global("torch._utils", "_rebuild_tensor_v2"),
        (
            storage(key, dtype=dtype, count=count, legacy=legacy),
            offset,
            shape,
            strides,
            False,
            Call(Global("collections", "OrderedDict")),
        ),
    )


def parameter(value: Call) -> Call:
    hooks = Call(Global("collections", "OrderedDict"))
    return Call(Global("torch._utils", "_rebuild_parameter"), (value, True, hooks))


def state_dict(tensors: dict) -> Call:
    """An OrderedDict with torch's `_metadata` attribute."""
    metadata = Call(Global("collections", "OrderedDict"), items={"": {"version": 1}})
    return Call(Global("collections", "OrderedDict"), items=tensors, state={"_metadata": metadata})


def of_arrays(arrays: dict[str, np.ndarray], *, legacy: bool = False) -> tuple[Call, dict]:
    """A state dict of contiguous arrays, and its storages."""
    tensors = {
        name: tensor(str(index), shape=array.shape, dtype=array.dtype.name, legacy=legacy)
        for index, (name, array) in enumerate(arrays.items())
    }
    data = {str(index): array.tobytes() for index, array in enumerate(arrays.values())}
    return state_dict(tensors), data


def zip_records(value: Any, storages: dict[str, bytes], *, byteorder: str = "little") -> dict:
    """Record name -> bytes; what torch writes."""
    pickle = value if isinstance(value, bytes) else pickled(value)
    return {
        "archive/data.pkl": pickle,
        "archive/byteorder": byteorder.encode(),
        **{f"archive/data/{key}": raw for key, raw in storages.items()},
        "archive/version": b"3\n",
    }


def as_zip(records: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, raw in records.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            # As torch does: bytes begin at a multiple of 64.
            padding = -(file.tell() + 30 + len(name.encode()) + 4) % 64
            info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
            archive.writestr(info, raw)
    return file.getvalue()


def torch_zip(value: Any, storages: dict[str, bytes], *, byteorder: str = "little") -> bytes:
    return as_zip(zip_records(value, storages, byteorder=byteorder))


def torch_legacy(value: Any, storages: dict[str, tuple[int, bytes]], *, magic: int = MAGIC):
    """Storages are key -> (count, bytes)."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickled(magic), pickled(1001), pickled(machine)]
    parts.append(value if isinstance(value, bytes) else pickled(value))
    parts.append(pickled(list(storages)))
    parts += [struct.pack("<q", count) + raw for count, raw in storages.values()]
    return b"".join(parts)
