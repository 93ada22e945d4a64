"""A reader of pickles that cannot run code.

Python's `pickle` imports and calls whatever the file names. Here the standard library only decodes
the opcodes (`pickletools.genops`), and this module acts on them: it makes numbers, text, lists and
dictionaries, and looks every name up in the table of `torch.pickle_names`. It never imports or
calls a named object, so no name can make it run code. It does not recurse, and the amounts that it
reads and creates are bounded.

A `pickle.Unpickler` with an allow-list in `find_class` would not do, since damage or intent in
what remains allowed defeats it (measured with Python 3.11):

  - It hashes every key. A tuple of n shared levels takes 2^n steps, and one nested a million deep
    overflows the stack of C, which ends the process without an exception.
  - Its memo is an array: five bytes (LONG_BINPUT with index 2^28) make it fill 4 GiB.
  - BUILD writes into the `__dict__` of any object on the stack, such as a storage that has been
    checked already.

Python's own subclassable version of it, `pickle._Unpickler`, is private.

Source: the opcodes' meanings are those of Python's `pickletools`.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, NoReturn

from prior_jax.errors import WeightsError
from prior_jax.interop.printable import printable
from prior_jax.interop.torch.pickle_names import Inert, Name, find_name, find_storage
from prior_jax.interop.torch.tensors import SAVE_AGAIN, Storage, TorchTensor

# For comparison: a state dict with optimizer state of 10,000 tensors takes 2 MB and half a
# million steps.
MAX_BYTES = 64 * 2**20
MAX_STEPS = 5_000_000

_PROTOCOLS = range(2, 6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pickled:
    """Content of a pickle.

    Attributes:
      value: the object; its tensors are `TorchTensor`; objects of the table that we do not use are
        `Inert`; all else is plain Python.
      end: offset of the end of the pickle.
      storages: key -> every storage that the pickle refers to.
    """

    value: Any
    end: int
    storages: dict[str, Storage]


def read_pickle(data: memoryview, *, start: int = 0, field: str) -> Pickled:
    """Reads one pickle.

    Args:
      data: bytes that hold the pickle, and anything after it.
      start: offset of the beginning of the pickle.
      field: the file's name for errors.

    Returns:
      the content of the pickle.

    Raises:
      WeightsError: on names that are not in the table, opcodes that torch does not write, and any
        damage. No code has been run.
    """
    machine = _Machine(field)
    size = machine.run(bytes(data[start : start + MAX_BYTES]))
    return Pickled(value=machine.stack.pop(), end=start + size, storages=machine.storages)


class _Machine:
    """The stack and memo of a pickle, and the opcodes' actions on them."""

    def __init__(self, field: str):
        self.field = field
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, data: bytes) -> int:
        """Builds the object that a pickle describes, as the last entry of the stack.

        Args:
          data: the pickle, and anything after it.

        Returns:
          Number of bytes that belong to the pickle.
        """
        size = 0
        try:
            for step, (opcode, argument, position) in enumerate(pickletools.genops(data)):
                if step >= MAX_STEPS:
                    self.refuse(f"The file has a pickle of more than {MAX_STEPS} steps.")
                act = _ACTIONS.get(opcode.name)
                if act is None:
                    self.refuse(f"The file has a pickle with opcode {opcode.name}.")
                act(self, argument)
                size = (position or 0) + 1
            self.stack[-1]
        except (IndexError, KeyError):
            self.refuse("The file has a damaged pickle, which takes what it never stored.")
        # pickletools warns of a name with an odd escape, which is an error under -W error.
        except (ValueError, DeprecationWarning) as error:
            if len(data) >= MAX_BYTES:
                self.refuse(f"The file has a pickle of over {MAX_BYTES} bytes.")
            reason = " ".join(str(error).split())[:120]
            self.refuse(f"The file has a pickle that is damaged or cut short ({reason}).")
        return size

    def refuse(self, problem: str) -> NoReturn:
        raise WeightsError(problem, SAVE_AGAIN, where=self.field)

    # The stack and the memo.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_text(self, text: str) -> None:
        if not text.isascii():
            text.encode()  # pickletools lets lone surrogates pass; here they are a ValueError.
        self.stack.append(text)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self, _: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def pop_or_mark(self, _: None) -> None:
        """Drops one item, or the mark if there is no item above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def push_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # Names and objects.

    def name_of_lines(self, lines: str) -> None:
        module, name = lines.split(" ", 1)
        self.push(find_name(module, name, field=self.field))

    def name_of_stack(self, _: None) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            self.refuse("The file has a pickle with a name that is no text.")
        self.push(find_name(module, name, field=self.field))

    def instance(self, lines: str) -> NoReturn:
        self.name_of_lines(lines)
        self.refuse(f"The file has a pickle that makes {self.pop().name} by opcode INST.")

    def call(self, _: None) -> None:
        arguments, name = self.pop(), self.pop()
        if not isinstance(arguments, tuple):
            self.refuse("The file has a pickle that calls with something else than arguments.")
        if not isinstance(name, Name):
            self.refuse("The file has a pickle that calls something that is not a known name.")
        self.push(name.call(arguments, field=self.field))

    def call_with_keywords(self, _: None) -> None:
        keywords, name = self.pop(), self.stack[-2]
        ignored = isinstance(name, Name) and name.build is None
        if not isinstance(keywords, dict) or (keywords and not ignored):
            self.refuse("The file has a pickle that calls with keywords.")
        self.call(None)

    def persistent(self, _: None) -> None:
        storage = find_storage(self.pop(), field=self.field)
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            self.refuse(
                f"The file has a storage {printable(storage.key, 40)} of two kinds or sizes."
            )
        self.push(known)

    def state(self, _: None) -> None:
        """Ignores attributes set on an object: those of tensors and dictionaries are not needed."""
        self.pop()
        if not isinstance(self.stack[-1], Inert | TorchTensor | dict):
            self.refuse("The file has a pickle that sets attributes on an object without any.")

    # Containers being filled.

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            self.refuse("The file has a pickle that appends to an object that is no list.")

    def add(self, _: None) -> None:
        self.pop_mark()
        if not isinstance(self.stack[-1], Inert):
            self.refuse("The file has a pickle that adds to an object that is no set.")

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            self.refuse("The file has a pickle with a key that has no value.")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_key_of(key)] = value
        elif not isinstance(target, Inert):
            self.refuse("The file has a pickle that sets items of an object that is no dictionary.")

    def set_item(self, _: None) -> None:
        value, key = self.pop(), self.pop()
        self.update([key, value])

    def protocol(self, version: int) -> None:
        if version not in _PROTOCOLS:
            self.refuse(f"The file has a pickle of protocol {version}.")


def _key_of(key: Any) -> Any:
    """Returns the key itself if it is plain, else an object that equals no other.

    Hashing a tuple takes time proportional to the tree under it, so only flat tuples are hashed.
    """
    plain = str | int | float | bytes | None | Name | Inert
    if isinstance(key, plain):
        return key
    if isinstance(key, tuple) and all(isinstance(part, plain) for part in key):
        return key
    return Inert()


# Name of an opcode in `pickletools` -> its action on the machine, given the opcode's argument. Any
# other opcode is refused by name.
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": _Machine.protocol,
    "FRAME": lambda machine, size: None,
    "STOP": lambda machine, _: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop_or_mark,
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(
        "NONE BININT BININT1 BININT2 BINFLOAT LONG1 "
        "SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8".split(),
        _Machine.push,
    ),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Machine.push_text),
    # Text of Python 2, which pickletools decodes as latin-1.
    **dict.fromkeys(
        ("SHORT_BINSTRING", "BINSTRING"),
        lambda machine, text: machine.push(text.encode("latin-1").decode()),
    ),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.update(machine.pop_mark()),
    "EMPTY_SET": lambda machine, _: machine.push(Inert()),
    "ADDITEMS": _Machine.add,
    "FROZENSET": lambda machine, _: (machine.pop_mark(), machine.push(Inert())),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])
    ),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GLOBAL": _Machine.name_of_lines,
    "STACK_GLOBAL": _Machine.name_of_stack,
    "INST": _Machine.instance,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "BINPERSID": _Machine.persistent,
    "BUILD": _Machine.state,
}
