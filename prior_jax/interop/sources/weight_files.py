"""Reads weights from a file or a directory of any origin, without torch and without trusting it.

    file = read_weights("chexpert_resnet50.ckpt")
    file.tensors["gloria.img_encoder.model.conv1.weight"].shape
    file.nested                                            # "state_dict": a Lightning checkpoint

A file's format is recognised by its first bytes, not by its ending: safetensors, or torch's `.pt`,
`.pth`, `.ckpt` and `.bin` of any age since 2017. Pickles are read by `torch.pickle_reader`, which
cannot run code. Arrays view the mapped file, so that memory use stays near
the file's size.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.huggingface.safetensors_file import is_safetensors, read_safetensors
from prior_jax.interop.mapped_file import MappedFile, open_mapped
from prior_jax.interop.printable import printable
from prior_jax.interop.sources.saved_entries import GIVE_STATE_DICT, Entry, find_entry
from prior_jax.interop.torch.legacy_files import read_torch_legacy
from prior_jax.interop.torch.tensors import BFLOAT16, arrays_of
from prior_jax.interop.torch.zip_files import read_torch_zip

# Files to look for in a directory; the first that exists is read. The order is transformers'.
DIRECTORY_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_MAX_INDEX = 2**26
_CHUNK = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFile:
    """Named tensors of a file.

    Attributes:
      tensors: name -> read-only array, in the file's order, of the file's dtype (bfloat16 is that
        of ml_dtypes), with its strides. The array views the mapped file: do not overwrite the file
        in place while arrays are in use.
      format: format in which the tensors were stored.
      nested: keys under which the state dict was found, joined by "/"; None if it was the whole
        object.
      left: key -> number of tensors, for other entries of the file that hold tensors.
      path: path of the file that was read; of a sharded set, of its index.
      sha256: sha256 of that file, in hexadecimal. Of a sharded set: of the lines `SHA256  NAME` of
        its files in order of name, as the program `sha256sum` writes them.
    """

    tensors: dict[str, np.ndarray]
    format: Literal["safetensors", "torch"]
    nested: str | None
    path: pathlib.Path
    sha256: str
    left: Mapping[str, int] = dataclasses.field(default_factory=dict)


def read_weights(
    path: str | os.PathLike[str], *, entry: str | None = None, check_finite: bool = True
) -> WeightFile:
    """Reads every tensor of a checkpoint's state dict.

    All other content of a checkpoint (epoch, optimizer, configs, callbacks, a second model) is
    not read; other entries with tensors are counted. Names are not changed: prefixes that
    wrappers add are kept.

    Args:
      path: path of a file, or of a directory with one of `DIRECTORY_FILES`.
      entry: keys of the state dict in a file of torch, joined by "/"; by default it is found
        under one of `saved_entries.ENTRIES`, or is the whole object.
      check_finite: whether NaN and infinite numbers are refused. False is for inspecting the
        file of a failed run; weights to be imported are always checked.

    Returns:
      the tensors and their origin.

    Raises:
      WeightsError: in one line that names the file: it is absent, damaged, truncated, of another
        format, asks for code to be run, states wrong sizes, holds no tensor, or numbers that are
        not finite. No code in it has been run.
      ConfigError: if the file has no such entry.
    """
    path = pathlib.Path(path)
    if os.path.isdir(path):
        path = _file_in(path)
    if path.name.endswith(".index.json"):
        found = _read_shards(path, entry)
    else:
        found = _read_file(path, entry)
    _check_values(found.tensors, path=found.path, check_finite=check_finite)
    return found


def _read_file(path: pathlib.Path, entry: str | None) -> WeightFile:
    file = open_mapped(path)
    nested, left = None, {}
    if is_safetensors(file.data):
        if entry is not None:
            raise ConfigError(
                f"The entry {entry!r} is asked for, but {file.field} is a safetensors file, which "
                "has no entries.",
                "Leave out --entry.",
                where="--entry",
            )
        kind, tensors = "safetensors", read_safetensors(file)
    elif bytes(file.data[:2]) == b"PK" or file.data[0] == 0x80:
        kind, (tensors, found) = "torch", _read_torch(file, entry)
        nested, left = found.key, found.left
    else:
        raise WeightsError(
            f"The file is {_describe(file.data)}.", GIVE_STATE_DICT, where=file.field
        )
    if not tensors:
        raise WeightsError("The file has no tensors.", GIVE_STATE_DICT, where=file.field)
    return WeightFile(
        tensors=tensors, format=kind, nested=nested, path=path, sha256=file.sha256(), left=left
    )


def _read_torch(file: MappedFile, entry: str | None) -> tuple[dict[str, np.ndarray], Entry]:
    saved = read_torch_legacy(file) if file.data[0] == 0x80 else read_torch_zip(file)
    found = find_entry(saved.value, field=file.field, wanted=entry)
    arrays = arrays_of(
        found.tensors,
        saved.fetch,
        swap_bytes=saved.swap_bytes,
        file_size=len(file.data),
        field=file.field,
    )
    return arrays, found


def _describe(data: memoryview) -> str:
    """Returns a description of a file of unsupported format, from its first bytes."""
    head = bytes(data[:300])
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer: the file itself has not been fetched (git lfs pull fetches it)"
    if head[257:262] == b"ustar":
        return "a tar file, as torch wrote before 0.2, which a later torch can save again"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "a compressed file, which must be unpacked first"
    try:
        # The last character may be truncated.
        text = head[:40].decode("utf-8", "ignore" if len(data) > 40 else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if text and all(character.isprintable() or character.isspace() for character in text):
        return f"a text file that begins {text!r}"
    return f"a file that begins with the bytes {head[:8].hex(' ')}"


def _file_in(directory: pathlib.Path) -> pathlib.Path:
    for name in DIRECTORY_FILES:
        if os.path.lexists(directory / name):
            return directory / name
    raise WeightsError(
        "This is a directory without weights.",
        f"Give a file, or a directory with {' or '.join(DIRECTORY_FILES)}.",
        where=str(directory),
    )


def _read_shards(path: pathlib.Path, entry: str | None) -> WeightFile:
    """Reads the shards that an index lists; every tensor must be in the shard the index gives."""
    places = _weight_map(path)
    files = {name: _read_file(path.parent / name, entry) for name in sorted(set(places.values()))}
    formats = sorted({file.format for file in files.values()})
    if len(formats) > 1:
        raise WeightsError(
            f"The index lists files of several formats, {' and '.join(formats)}.",
            "Give a set whose files all have the same format.",
            where=str(path),
        )
    for name, file in files.items():
        said = {tensor for tensor, place in places.items() if place == name}
        wrong = sorted(said ^ set(file.tensors))
        if wrong:
            raise WeightsError(
                f"The index does not fit {name}: only one of the two has {_few(wrong)}.",
                "Copy or download the index and all of its files again.",
                where=str(path),
            )
    lines = "".join(f"{file.sha256}  {name}\n" for name, file in files.items())
    return WeightFile(
        tensors={tensor: files[place].tensors[tensor] for tensor, place in places.items()},
        format=files[next(iter(files))].format,
        nested=None,
        path=path,
        sha256=hashlib.sha256(lines.encode()).hexdigest(),
    )


def _weight_map(path: pathlib.Path) -> Mapping[str, str]:
    """Returns the index's table of tensor name -> file name, for files beside the index."""
    file = open_mapped(path)

    def refusal(problem: str) -> WeightsError:
        remedy = 'Give an index of the form {"weight_map": {NAME: FILE}}, with the files beside it.'
        return WeightsError(problem, remedy, where=str(path))

    if len(file.data) > _MAX_INDEX:
        raise refusal(f"The index has {len(file.data)} bytes; at most {_MAX_INDEX} are read.")
    try:
        index = json.loads(bytes(file.data))
    except (ValueError, RecursionError):
        raise refusal("The index is no JSON.") from None
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise refusal("The index has no weight_map.")
    for place in places.values():
        plain = isinstance(place, str) and place.isprintable() and place not in ("", ".", "..")
        if not plain or any(separator in place for separator in "/\\:"):
            raise refusal(f"The index names {str(place)[:200]!r}, which is no name of a file.")
    return places


def _check_values(
    tensors: Mapping[str, np.ndarray], *, path: pathlib.Path, check_finite: bool
) -> None:
    broken, infinite = [], []
    for name, array in tensors.items():
        if array.dtype == np.bool_:
            bad, kept = (lambda part: part.view(np.uint8) > 1), broken
        elif check_finite and (array.dtype == BFLOAT16 or array.dtype.kind == "f"):
            bad, kept = (lambda part: ~np.isfinite(part)), infinite
        else:
            continue
        # Tensors are checked in parts: the mask of a whole tensor would take a quarter of its size.
        parts = np.nditer(
            array, flags=["external_loop", "buffered", "zerosize_ok"], buffersize=_CHUNK
        )
        if any(bad(part).any() for part in parts):
            kept.append(name)
    if broken:
        raise WeightsError(
            f"The file has booleans other than 0 and 1 in {_few(broken)}.",
            "Copy or download the file again, or give another one.",
            where=str(path),
        )
    if infinite:
        raise WeightsError(
            f"The file has NaN or infinite numbers in {_few(infinite)}.",
            "Give an earlier checkpoint, from before the training failed.",
            where=str(path),
        )


def _few(names: list[str]) -> str:
    """Returns at most three names, and the number of the others."""
    shown = ", ".join(printable(name, 100) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
