"""Reads the files that torch wrote before 1.6.

Such a file holds four pickles one after the other (a magic number, a protocol, facts on the
machine, the object), then the list of storage keys, then every storage in that order: its count as
int64 and its numbers, little-endian.

Source: torch/serialization.py `_legacy_load` of PyTorch 2.13.
"""

import struct
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from prior_jax.errors import WeightsError
from prior_jax.interop.mapped_file import MappedFile
from prior_jax.interop.printable import printable
from prior_jax.interop.torch.pickle_reader import Pickled, read_pickle
from prior_jax.interop.torch.tensors import SAVE_AGAIN, Storage
from prior_jax.interop.torch.zip_files import TorchFile

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_torch_legacy(file: MappedFile) -> TorchFile:
    """Reads the object, and the position of each storage.

    Args:
      file: mapped file that begins with a pickle.

    Returns:
      the object and storages of the file.

    Raises:
      WeightsError: if the file is a pickle that torch did not write, is damaged, or is refused by
        `read_pickle`.
    """

    def refuse(problem: str) -> NoReturn:
        raise WeightsError(problem, SAVE_AGAIN, where=file.field)

    def following(before: Pickled) -> Pickled:
        return read_pickle(file.data, start=before.end, field=file.field)

    magic = read_pickle(file.data, field=file.field)
    if type(magic.value) is not int or magic.value != _MAGIC:
        refuse("The file is a pickle that does not begin with torch's magic number.")
    protocol = following(magic)
    if type(protocol.value) is not int or protocol.value != _PROTOCOL:
        refuse("The file was written by torch with an unknown protocol.")
    machine = following(protocol)
    if not isinstance(machine.value, dict) or machine.value.get("little_endian") is not True:
        refuse("The file was written by torch on a big-endian machine, which is not read.")
    saved = following(machine)
    keys = following(saved)
    if not isinstance(keys.value, list) or not all(isinstance(key, str) for key in keys.value):
        refuse("The file's list of storages is no list of names.")
    if sorted(keys.value) != sorted(saved.storages):
        refuse("The file's list of storages is not that of its tensors.")
    places = _places(file.data, keys, saved.storages, refuse)
    return TorchFile(
        value=saved.value,
        fetch=lambda storage: places[storage.key],
        swap_bytes=sys.byteorder != "little",
    )


def _places(
    data: memoryview,
    keys: Pickled,
    storages: Mapping[str, Storage],
    refuse: Callable[[str], NoReturn],
) -> dict[str, memoryview]:
    """Returns the bytes of each storage; together they must fill the rest of the file."""
    position = keys.end
    places = {}
    for key in keys.value:
        storage = storages[key]
        size = storage.count * storage.dtype.itemsize
        if position + 8 + size > len(data):
            refuse(
                f"The file is cut short: storage {printable(key, 40)} of {size} bytes is not all "
                "there."
            )
        (count,) = struct.unpack_from("<q", data, position)
        if count != storage.count:
            refuse(
                f"The file has a storage {printable(key, 40)} of {count} elements, not the "
                f"{storage.count} of its tensors."
            )
        places[key] = data[position + 8 : position + 8 + size]
        position += 8 + size
    if position != len(data):
        refuse(f"The file has {len(data) - position} bytes after the last storage.")
    return places
