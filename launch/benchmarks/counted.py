"""Operations and memory traffic of a program, by the counts of the compile check."""

import dataclasses
import math
from typing import Any

import jax

from launch.forecast import hlo_cost, hlo_text
from prior_jax.errors import first_line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What one run of a program costs all devices together.

    Attributes:
      flops: operations of the matrix products and convolutions as the model has them, before XLA
        changes them; None where they cannot be counted.
      bytes_moved: bytes that the compiled program moves, at most; None where they cannot be
        counted.
      facts: memory of a device by kind, in bytes, and what could not be counted and why.
    """

    flops: float | None
    bytes_moved: float | None
    facts: dict[str, Any]


def counts_of(lowered: Any, compiled: Any) -> Counts:
    """Counts a program.

    The operations are those of the program before it is optimised: afterwards a GPU's products are
    calls of a library, whose sizes the text no longer tells.

    Args:
      lowered: program from `jax.jit(...).lower(...)`.
      compiled: the same, compiled.
    """
    facts: dict[str, Any] = {}
    flops = bytes_moved = None
    try:
        text = lowered.compiler_ir("hlo").get_hlo_module().to_string()
        flops = hlo_cost.cost_of(hlo_text.read(text), devices=1).flops
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        facts["flops_not_counted"] = first_line(error)
    try:
        devices = jax.device_count()
        program = hlo_text.read(compiled.as_text())
        bytes_moved = devices * hlo_cost.cost_of(program, devices=devices).memory
        facts["loops_counted_once"] = len(program.unknown_loops)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        facts["bytes_not_counted"] = first_line(error)
    return Counts(flops=flops, bytes_moved=bytes_moved, facts={**facts, **memory_of(compiled)})


def memory_of(compiled: Any) -> dict[str, int]:
    """Returns the bytes of a device that the compiler plans, by kind."""
    found = compiled.memory_analysis()
    return {
        "argument_bytes": found.argument_size_in_bytes,
        "temporary_bytes": found.temp_size_in_bytes,
        "new_result_bytes": max(found.output_size_in_bytes - found.alias_size_in_bytes, 0),
    }


def bytes_of(tree: Any) -> int:
    """Returns the bytes of all arrays of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
