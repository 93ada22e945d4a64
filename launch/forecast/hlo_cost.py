"""Counts what one run of a program costs a device: arithmetic, memory traffic, collectives."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from launch.forecast.hlo_text import Computation, Instruction, Program

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# Instructions that neither read nor write an array of their own.
_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "after-all", "partition-id", "replica-id", "async-start", "async-update",
    "opt-barrier", "add-dependency", "iota",
)  # fmt: skip
# Products of float32 factors on TPUs: one bfloat16 pass by default, more for higher precision.
_PASSES = {"high": 3, "highest": 6}


@dataclasses.dataclass
class Collective:
    """All collectives of one kind among groups of one size.

    Attributes:
      kind: kind of the collectives, e.g. "all-reduce".
      group: number of devices that take part in each collective.
      count: number of collectives that run.
      bytes: size of the whole arrays that the collectives make or sum, on one device.
      sent: number of bytes that a device sends with the algorithm that sends least.
    """

    kind: str
    group: int
    count: int = 0
    bytes: int = 0
    sent: float = 0.0


@dataclasses.dataclass
class Cost:
    """The cost of one run of a program on one device.

    Attributes:
      flops: operations of matrix products and convolutions; a multiplication with its addition
        counts as two.
      passes: operations as in `flops`, multiplied by the number of passes of each product.
      memory: bytes read from and written to main memory, summed over single instructions.
      collectives: collectives by kind and group size.
    """

    flops: float = 0.0
    passes: float = 0.0
    memory: float = 0.0
    collectives: dict[tuple[str, int], Collective] = dataclasses.field(default_factory=dict)

    @property
    def collective_bytes(self) -> int:
        """Returns the bytes of all collectives together."""
        return sum(found.bytes for found in self.collectives.values())


def cost_of(program: Program, *, devices: int) -> Cost:
    """Counts the cost of one run of a program on one device.

    Args:
      program: program from `hlo_text.read`.
      devices: number of devices that the program runs on.

    Returns:
      The cost. Elementwise arithmetic counts as memory traffic only.
    """
    cost = Cost()
    for name, instruction, runs in program.each():
        computation = program.computations[name]
        if instruction.opcode in ("dot", "convolution"):
            flops = runs * flops_of(instruction, computation)
            cost.flops += flops
            cost.passes += flops * _passes(instruction, computation)
        kind = instruction.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            _add_collective(cost, program, name, instruction, runs, devices)
        if name not in program.fused:
            cost.memory += runs * memory_of(instruction, program, computation)
    return cost


def flops_of(instruction: Instruction, computation: Computation) -> int:
    """Returns the operations of a product or convolution; kernel taps on padding do not count."""
    (output,) = instruction.shapes
    left, right = (computation[name].shapes[0] for name in instruction.operands[:2])
    if instruction.opcode == "dot":
        contracting = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        indices = [int(i) for i in contracting[1].split(",") if i] if contracting else []
        return 2 * output.size * math.prod(left.dims[i] for i in indices)
    labels = re.match(r"(\w+)_(\w+)->(\w+)", instruction.attribute("dim_labels") or "")
    if not labels:
        raise ValueError(f"no dim_labels in {instruction.name}")
    of_left, of_right, of_output = labels.groups()
    window = _window(instruction)
    taps = 1
    for i in range(len(of_left) - 2):
        digit = str(i)
        taps *= _taps(
            left.dims[of_left.index(digit)],
            right.dims[of_right.index(digit)],
            output.dims[of_output.index(digit)],
            {name: values[i] for name, values in window.items() if name != "size"},
        )
    batch, features = (output.dims[of_output.index(label)] for label in "bf")
    return 2 * batch * features * right.dims[of_right.index("i")] * taps


def _window(instruction: Instruction) -> dict[str, list[str]]:
    text = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    if not text:
        return {}
    return {k: v.split("x") for k, v in (part.split("=") for part in text[1].split())}


def _taps(size: int, kernel: int, output: int, window: Mapping[str, str]) -> int:
    """Counts the pairs of an output and a kernel position that meet an input in one dimension."""
    stride, input_gap, kernel_gap = (
        int(window.get(name, 1)) for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    low = int(window.get("pad", "0_0").split("_")[0])
    places = np.arange(output)[:, None] * stride + np.arange(kernel)[None, :] * kernel_gap - low
    inside = (places >= 0) & (places <= (size - 1) * input_gap) & (places % input_gap == 0)
    return int(inside.sum())


def _passes(instruction: Instruction, computation: Computation) -> int:
    precision = re.search(r"operand_precision=\{(\w+),", instruction.attributes)
    wide = any(computation[name].shapes[0].dtype == "f32" for name in instruction.operands[:2])
    return _PASSES.get(precision[1], 1) if precision and wide else 1


def memory_of(instruction: Instruction, program: Program, computation: Computation) -> int:
    """Returns the bytes that an instruction moves; arrays that are only sliced count by slices."""
    if instruction.opcode in _FREE or instruction.opcode.endswith(("-done", "-update")):
        return 0
    written = sum(shape.bytes for shape in instruction.shapes if not shape.on_chip)
    read = 0
    for index, name in enumerate(instruction.operands):
        # An operand that names a called computation has no line of its own.
        shapes = computation[name].shapes if name in computation else ()
        whole = sum(shape.bytes for shape in shapes if not shape.on_chip)
        used, updated = _slices(index, instruction, program, computation)
        read += whole if used is None else min(whole, used)
        if updated:
            # The rest of the array is not moved.
            written = max(written - whole, 0) + (used or 0)
    if instruction.opcode == "copy-start":
        return sum(shape.bytes for shape in instruction.shapes[:2] if not shape.on_chip)
    return read + written


def _slices(
    index: int, instruction: Instruction, program: Program, computation: Computation
) -> tuple[int | None, bool]:
    """Returns the bytes of an operand's slices, None if more is used; and if it is updated.

    A fusion may slice its operand in a fusion of its own, such as a product with one layer's part
    of the weights of all layers.
    """
    if instruction.opcode != "fusion":
        if index == 0 and instruction.opcode in ("dynamic-slice", "gather"):
            return instruction.shapes[0].bytes, False
        if index == 0 and instruction.opcode == "dynamic-update-slice":
            return computation[instruction.operands[1]].shapes[0].bytes, True
        return None, False
    inside = program.computations[instruction.called()[0]]
    names = {
        x.name for x in inside.values() if x.opcode == "parameter" and x.arguments == str(index)
    }
    if not names:
        return None, False
    sliced, updated = 0, False
    for user in inside.values():
        if user.opcode == "bitcast" and set(user.operands) & names:
            names.add(user.name)
            continue
        for place, operand in enumerate(user.operands):
            if operand in names:
                found, update = _slices(place, user, program, inside)
                if found is None:
                    return None, False
                sliced, updated = sliced + found, updated or update
    return sliced, updated


def _add_collective(
    cost: Cost,
    program: Program,
    name: str,
    instruction: Instruction,
    runs: int,
    devices: int,
) -> None:
    kind = instruction.opcode.removesuffix("-start")
    group = group_size(instruction, devices=devices)
    size = sum(shape.bytes for shape in instruction.shapes)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        # Operand and result, and on some platforms numbers that are neither of the two.
        size = max(shape.bytes for shape in instruction.shapes)
    if kind == "reduce-scatter":
        size *= group
    if kind == "all-reduce" and name in program.fused and "all-reduce-scatter" in name:
        kind = "reduce-scatter"  # a TPU's fusion keeps only its own part
    entry = cost.collectives.setdefault((kind, group), Collective(kind, group))
    entry.count += runs
    entry.bytes += runs * size
    entry.sent += runs * size * _share_sent(kind, group)


def _share_sent(kind: str, group: int) -> float:
    """Returns the bytes a device sends for each byte of the whole array, by the optimal ring."""
    if kind.startswith("collective"):
        return 1.0
    ring = (group - 1) / group
    return 2 * ring if kind == "all-reduce" else ring


def group_size(instruction: Instruction, *, devices: int) -> int:
    """Returns the number of devices that take part in a collective."""
    text = instruction.attributes
    if instruction.opcode.startswith("collective-permute"):
        pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", text)
        return len(re.findall(r"\d+,\d+", pairs[1])) if pairs else devices
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", text)
    if iota:
        return int(iota[2])
    axes = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text)
    if axes:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return devices
