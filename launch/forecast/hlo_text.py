"""Reads a compiled program's HLO text: its instructions, and the number of runs of each.

XLA's own cost analysis counts the body of a loop once, however often the loop runs, and so says
little about a model whose layers are a loop. The HLO text holds all that is needed to count every
run.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w-]*)\(")
_SHAPE = re.compile(r"([a-z][a-z0-9]*)\[([0-9,]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([\w.-]+)")
_CALLS = re.compile(r"(?:calls|body|condition|to_apply|\w+_computation)=%?([\w.-]+)")
_MANY_CALLS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"\}')
_BITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array of a program.

    Attributes:
      dtype: dtype in HLO's notation, e.g. "bf16".
      dims: sizes of the dimensions.
      on_chip: whether the array lies in the core's own memory instead of the main memory.
    """

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool

    @property
    def size(self) -> int:
        """Returns the number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Returns the number of bytes without the padding of tiles."""
        if self.dtype in ("pred", "token", "opaque"):
            return self.size if self.dtype == "pred" else 0
        bits = _BITS.search(self.dtype)
        return self.size * (int(bits[0]) if bits else 0) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: name without the percent sign.
      opcode: opcode, e.g. "fusion".
      type_text: type as written.
      operands: names of the operands, in order.
      attributes: text that follows the operands, as written.
      arguments: text between the parentheses, as written.
      root: whether the instruction is the result of its computation.
    """

    name: str
    opcode: str
    type_text: str
    operands: tuple[str, ...]
    attributes: str
    arguments: str
    root: bool

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Returns the arrays of the result: one, or those of a tuple."""
        return tuple(
            Shape(
                dtype,
                tuple(int(size) for size in dims.split(",") if size),
                on_chip="S(1)" in layout,
            )
            for dtype, dims, layout in _SHAPE.findall(self.type_text)
        )

    def called(self) -> tuple[str, ...]:
        """Returns the names of the computations that the instruction calls."""
        found = _CALLS.findall(self.attributes)
        for group in _MANY_CALLS.findall(self.attributes):
            found += [name.strip().lstrip("%") for name in group.split(",")]
        return tuple(found)

    def attribute(self, name: str) -> str | None:
        """Returns the value of an attribute without spaces, e.g. "bf_io->bf" of dim_labels."""
        found = re.search(rf"\b{name}=([^\s,]+)", self.attributes)
        return found[1] if found else None


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      computations: name of a computation -> its instructions by name; called computations come
        before their callers.
      runs: name of a computation -> number of times that one call of the program runs it; both
        branches of a conditional count.
      fused: names of the computations that are parts of another instruction.
      unknown_loops: bodies of loops whose trip count is not known; they are counted once.
    """

    computations: Mapping[str, Computation]
    runs: Mapping[str, int]
    fused: frozenset[str]
    unknown_loops: tuple[str, ...]

    def each(self) -> Iterator[tuple[str, Instruction, int]]:
        """Yields (name of the computation, instruction, number of runs) for all that run."""
        for name, computation in self.computations.items():
            if self.runs[name]:
                for instruction in computation.values():
                    yield name, instruction, self.runs[name]


def read(text: str) -> Program:
    """Reads the text of a compiled program, e.g. `compiled.as_text()`.

    Raises:
      ValueError: if the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        header = _HEADER.match(line) if line and not line[0].isspace() else None
        if header:
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif current is not None:
            instruction = _instruction(line)
            if instruction is not None:
                current[instruction.name] = instruction
    if entry is None:
        raise ValueError("the text has no ENTRY computation")
    return _count(computations, entry)


def _instruction(line: str) -> Instruction | None:
    found = _INSTRUCTION.match(line)
    if not found:
        return None
    rest = line[found.end() :]
    end = _closing(rest, 0) if rest.startswith("(") else rest.find(" ") - 1
    opcode = _OPCODE.match(rest, end + 1)
    if not opcode:
        return None
    close = _closing(rest, opcode.end() - 1)
    arguments = rest[opcode.end() : close]
    return Instruction(
        name=found[2],
        opcode=opcode[1],
        type_text=rest[: end + 1],
        operands=tuple(_NAME.findall(arguments)),
        attributes=rest[close + 1 :],
        arguments=arguments,
        root=bool(found[1]),
    )


def _closing(text: str, start: int) -> int:
    """Returns the index of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def _count(computations: dict[str, dict[str, Instruction]], entry: str) -> Program:
    """Counts the runs of each computation; HLO lists called computations before their callers."""
    runs = dict.fromkeys(computations, 0)
    runs[entry] = 1
    fused, unknown = set(), []
    for name in reversed(computations):
        for instruction in computations[name].values():
            trips: int | None = 1
            if instruction.opcode == "while":
                trips = _trips(instruction, computations)
                if trips is None:
                    unknown.append(instruction.attribute("body") or instruction.name)
            for called in instruction.called():
                runs[called] += runs[name] * (trips or 1)
                if instruction.opcode not in ("while", "conditional", "call", "async-start"):
                    fused.add(called)
                elif name in fused:
                    fused.add(called)
    return Program(computations, runs, frozenset(fused), tuple(unknown))


def _trips(loop: Instruction, computations: Mapping[str, Computation]) -> int | None:
    """Returns the trip count of a loop; the counters of JAX's loops start at 0 and grow by 1."""
    known = _KNOWN_TRIPS.search(loop.attributes)
    if known:
        return int(known[1])
    condition = computations[(loop.attribute("condition") or "").lstrip("%")]
    root = next(instruction for instruction in condition.values() if instruction.root)
    if root.opcode == "fusion":
        limits = [condition[name] for name in root.operands if name in condition]
        (inner,) = (computations[name] for name in root.called())
        root = next(instruction for instruction in inner.values() if instruction.root)
        limits += [inner[name] for name in root.operands]
    else:
        limits = [condition[name] for name in root.operands]
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    constants = [x.arguments for x in limits if x.opcode == "constant"]
    return int(constants[0]) if len(constants) == 1 and constants[0].isdigit() else None
