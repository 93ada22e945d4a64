"""A reader of pickles that cannot run code.

Python's `pickle` imports and calls whatever the file names. This reader is a small interpreter of
its own instead: it knows the opcodes that picklers of protocol 2 to 5 write, makes numbers, text,
lists and dictionaries of them, and looks every name up in the table of `torch.pickle_names`. It
never imports or calls a named object, so no name can make it run code. It does not recurse, and
the amounts that it reads and creates are bounded.

Source: the opcodes' meanings are those of Python's `pickletools`.
"""

import dataclasses
import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from prior_jax.errors import WeightsError
from prior_jax.interop.torch.pickle_names import Inert, Name, find_name, find_storage
from prior_jax.interop.torch.tensors import Storage, TorchTensor

# For comparison: a state dict with optimizer state of 10,000 tensors takes 2 MB and half a
# million steps.
MAX_BYTES = 64 * 2**20
MAX_STEPS = 5_000_000

_PROTOCOLS = range(2, 6)
_ACCEPTED = "a pickle of tensors and plain data as torch.save writes it"


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
    machine = _Machine(data[start : start + MAX_BYTES], field)
    value = machine.run()
    return Pickled(value=value, end=start + machine.position, storages=machine.storages)


class _Machine:
    """The interpreter's stack and memo, and one method for each kind of opcode."""

    def __init__(self, data: memoryview, field: str):
        self.data = data
        self.field = field
        self.position = 0
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            code = self.take(1)
            if code == pickle.STOP:
                return self.pop()
            act = _OPCODES.get(code)
            if act is None:
                self.refuse(f"a pickle with opcode {_opcode_name(code)}")
            act(self)
        self.refuse(f"a pickle of more than {MAX_STEPS} steps")

    def refuse(self, received: str) -> NoReturn:
        raise WeightsError(self.field, received=received, accepted=_ACCEPTED)

    # Reading bytes.

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            much = len(self.data) >= MAX_BYTES
            self.refuse(f"a pickle of over {MAX_BYTES} bytes" if much else "a pickle cut short")
        piece = bytes(self.data[self.position : end])
        self.position = end
        return piece

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        window = bytes(self.data[self.position : self.position + 1000])
        length = window.find(b"\n")
        if length < 0:
            self.refuse("a pickle with a name that does not end")
        return self.text(self.take(length + 1)[:-1])

    def text(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.refuse("a pickle with text that is not UTF-8")

    # The stack.

    def push(self, value: Any):
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            self.refuse("a pickle that takes from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            self.refuse("a pickle that looks at an empty stack")
        return self.stack[-1]

    def mark(self):
        self.marked.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.marked:
            self.refuse("a pickle that returns to a mark it never set")
        items, self.stack = self.stack, self.marked.pop()
        return items

    def pop_or_mark(self):
        """Drops one item, or the mark if there is no item above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def pop_tuple(self) -> tuple:
        value = self.pop()
        if not isinstance(value, tuple):
            self.refuse("a pickle that calls with something else than arguments")
        return value

    def pop_name(self) -> Name:
        value = self.pop()
        if not isinstance(value, Name):
            self.refuse("a pickle that calls what is no name of the table")
        return value

    def tuple_of(self, count: int):
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    # The memo.

    def put(self, index: int):
        self.memo[index] = self.top()

    def get(self, index: int):
        if index not in self.memo:
            self.refuse("a pickle that recalls what it never stored")
        self.push(self.memo[index])

    # Names and objects.

    def name_of_lines(self):
        self.push(find_name(self.line(), self.line(), field=self.field))

    def name_of_stack(self):
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            self.refuse("a pickle with a name that is no text")
        self.push(find_name(module, name, field=self.field))

    def instance(self):
        module, name = self.line(), self.line()
        find_name(module, name, field=self.field)
        self.refuse(f"a pickle that makes {module}.{name} by opcode INST")

    def call(self):
        arguments = self.pop_tuple()
        self.push(self.pop_name().call(arguments, field=self.field))

    def call_with_keywords(self):
        keywords, arguments, name = self.pop(), self.pop_tuple(), self.pop_name()
        if not isinstance(keywords, dict) or (name.build and keywords):
            self.refuse("a pickle that calls with keywords")
        self.push(name.call(arguments, field=self.field))

    def persistent(self):
        storage = find_storage(self.pop(), field=self.field)
        known = self.storages.setdefault(storage.key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            self.refuse(f"storage {storage.key[:40]} of two kinds or sizes")
        self.push(known)

    def state(self):
        """Ignores attributes set on an object: those of tensors and dictionaries are not needed."""
        self.pop()
        if not isinstance(self.top(), Inert | TorchTensor | dict):
            self.refuse("a pickle that sets attributes on what has none")

    # Containers being filled.

    def extend(self, items: list[Any]):
        target = self.top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            self.refuse("a pickle that appends to what is no list")

    def append(self):
        self.extend([self.pop()])

    def add(self, items: list[Any]):
        if not isinstance(self.top(), Inert):
            self.refuse("a pickle that adds to what is no set")

    def update(self, items: list[Any]):
        target = self.top()
        if len(items) % 2:
            self.refuse("a pickle with a key that has no value")
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_key_of(key)] = value
        elif not isinstance(target, Inert):
            self.refuse("a pickle that sets items of what is no dictionary")

    def set_item(self):
        value, key = self.pop(), self.pop()
        self.update([key, value])

    def protocol(self):
        version = self.number("<B")
        if version not in _PROTOCOLS:
            self.refuse(f"a pickle of protocol {version}")


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


def _opcode_name(code: bytes) -> str:
    names = (name for name, value in vars(pickle).items() if name.isupper() and value == code)
    return next(names, f"0x{code.hex()}")


def _opcodes() -> Iterator[tuple[bytes, Callable[[_Machine], Any]]]:
    """Yields the action of each supported opcode; all others are refused by name."""
    p, M = pickle, _Machine
    yield p.PROTO, M.protocol
    yield p.FRAME, lambda m: m.number("<Q")
    yield p.MARK, M.mark
    yield p.POP, M.pop_or_mark
    yield p.POP_MARK, M.pop_mark
    yield p.NONE, lambda m: m.push(None)
    yield p.NEWTRUE, lambda m: m.push(True)
    yield p.NEWFALSE, lambda m: m.push(False)
    for code, layout in (
        (p.BININT, "<i"),
        (p.BININT1, "<B"),
        (p.BININT2, "<H"),
        (p.BINFLOAT, ">d"),
    ):
        yield code, lambda m, layout=layout: m.push(m.number(layout))
    yield p.LONG1, lambda m: m.push(int.from_bytes(m.take(m.number("<B")), "little", signed=True))
    # A length, then text; the last two opcodes are Python 2's.
    for code, layout in (
        (p.SHORT_BINUNICODE, "<B"),
        (p.BINUNICODE, "<I"),
        (p.BINUNICODE8, "<Q"),
        (p.SHORT_BINSTRING, "<B"),
        (p.BINSTRING, "<I"),
    ):
        yield code, lambda m, layout=layout: m.push(m.text(m.take(m.number(layout))))
    for code, layout in (
        (p.SHORT_BINBYTES, "<B"),
        (p.BINBYTES, "<I"),
        (p.BINBYTES8, "<Q"),
        (p.BYTEARRAY8, "<Q"),
    ):
        yield code, lambda m, layout=layout: m.push(m.take(m.number(layout)))
    yield p.EMPTY_TUPLE, lambda m: m.push(())
    yield p.TUPLE, lambda m: m.push(tuple(m.pop_mark()))
    for count, code in enumerate((p.TUPLE1, p.TUPLE2, p.TUPLE3), start=1):
        yield code, lambda m, count=count: m.tuple_of(count)
    yield p.EMPTY_LIST, lambda m: m.push([])
    yield p.APPEND, M.append
    yield p.APPENDS, lambda m: m.extend(m.pop_mark())
    yield p.EMPTY_DICT, lambda m: m.push({})
    yield p.SETITEM, M.set_item
    yield p.SETITEMS, lambda m: m.update(m.pop_mark())
    yield p.EMPTY_SET, lambda m: m.push(Inert())
    yield p.ADDITEMS, lambda m: m.add(m.pop_mark())
    yield p.FROZENSET, lambda m: (m.pop_mark(), m.push(Inert()))
    yield p.BINGET, lambda m: m.get(m.number("<B"))
    yield p.LONG_BINGET, lambda m: m.get(m.number("<I"))
    yield p.BINPUT, lambda m: m.put(m.number("<B"))
    yield p.LONG_BINPUT, lambda m: m.put(m.number("<I"))
    yield p.MEMOIZE, lambda m: m.put(len(m.memo))
    yield p.GLOBAL, M.name_of_lines
    yield p.STACK_GLOBAL, M.name_of_stack
    yield p.INST, M.instance
    yield p.REDUCE, M.call
    yield p.NEWOBJ, M.call
    yield p.NEWOBJ_EX, M.call_with_keywords
    yield p.BINPERSID, M.persistent
    yield p.BUILD, M.state


_OPCODES = dict(_opcodes())
