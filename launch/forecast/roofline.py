"""Forecasts memory, time and traffic of a compiled step on one chip, and prints them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from launch.forecast.hlo_cost import Cost
from launch.start.machines import MachineConfig


def bytes_on_chip(tree: Any) -> int:
    """Returns the bytes of one device's shards of a tree of `jax.ShapeDtypeStruct`s."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def memory(parts: Mapping[str, int], compiled: Any) -> dict[str, int]:
    """Returns the contents of a chip's memory while a step runs, in bytes.

    Args:
      parts: name -> bytes of an argument of the step.
      compiled: compiled step.

    Returns:
      The parts, then the bytes that layouts add to them, "temporaries" (activations, gradients,
      gathered weights), "results" that replace no argument, "code", and "total".
    """
    found = compiled.memory_analysis()
    given = sum(parts.values())
    rest = {
        "padding of layouts": max(found.argument_size_in_bytes - given, 0),
        "temporaries": found.temp_size_in_bytes,
        "results": max(found.output_size_in_bytes - found.alias_size_in_bytes, 0),
        "code": found.generated_code_size_in_bytes,
    }
    both = dict(parts) | rest
    return both | {"total": sum(both.values())}


def summary(
    machine: MachineConfig, *, memory: Mapping[str, int], cost: Cost, pairs: int
) -> dict[str, Any]:
    """Returns the cost of a step for a chip, and a lower bound of its time.

    Args:
      machine: machine, which has the figures of the chip.
      memory: contents of the memory, from `memory`.
      cost: cost of one step on one chip.
      pairs: number of pairs of the global batch.

    Returns:
      JSON values. The time is that of the slowest resource (products, memory or the network), as
      if the work of the others were hidden behind it: no step is faster, most are slower. The
      time of the memory is an upper bound, since each instruction is assumed to read all its
      operands from main memory.
    """
    chip, slice_size = machine.chip, machine.chips // machine.slices
    inside = sum(c.sent for c in cost.collectives.values() if c.group <= slice_size)
    across = sum(c.sent for c in cost.collectives.values() if c.group > slice_size)
    seconds = {
        "products": cost.passes / chip.peak_flops,
        "memory": cost.memory / chip.hbm_bandwidth,
        "links": inside / chip.link_bandwidth + across / chip.dcn_bandwidth,
    }
    longest = max(seconds.values())
    return {
        "fits": memory["total"] <= chip.hbm_bytes,
        "memory_bytes": dict(memory),
        "hbm_bytes": chip.hbm_bytes,
        "flops": cost.flops,
        "flops_with_passes": cost.passes,
        "memory_traffic_bytes": cost.memory,
        "collective_bytes": cost.collective_bytes,
        "collectives": [vars(found) for found in cost.collectives.values()],
        "least_seconds": seconds,
        "step_seconds": longest,
        "pairs_per_second": pairs / longest,
        "mfu": cost.flops / chip.peak_flops / longest,
    }


def table(report: Mapping[str, Any]) -> str:
    """Returns the figures of one batch size as a Markdown table."""
    mesh = ", ".join(f"{name} {size}" for name, size in report["mesh"].items())
    head = (
        f"\n{report['config']} {report['stage']} on {report['machine']}: {report['chips']} x "
        f"{report['chip']} ({mesh}), {_rows(report)}, {report['dtype']}, remat "
        f"{report['remat']['image']} and {report['remat']['text']}, effort {report['effort']}; "
        f"compiled for {report['compiled_for']} in {report['compile_cpu_seconds']} CPU-seconds\n\n"
    )
    if "refused" in report:
        return f"{head}DOES NOT FIT: {report['refused']}\n"
    rows = [("memory of a chip", "")]
    rows += [(name, _size(size)) for name, size in report["memory_bytes"].items()]
    rows += [("of", _size(report["hbm_bytes"]))]
    rows += [("a step on a chip", "")]
    rows += [("products, GFLOP", f"{report['flops'] / 1e9:,.1f}")]
    rows += [("memory traffic", _size(report["memory_traffic_bytes"]))]
    rows += [
        (
            f"{c['kind']} among {c['group']}",
            f"{c['count']} of {_size(c['bytes'])} together, {_size(c['sent'])} sent",
        )
        for c in report["collectives"]
    ]
    sent = sum(c["sent"] for c in report["collectives"])
    rows += [("all collectives", f"{_size(report['collective_bytes'])}, {_size(sent)} sent")]
    seconds = report["least_seconds"]
    rows += [(f"{name}, at least, ms", f"{1e3 * x:.1f}") for name, x in seconds.items()]
    rows += [("pairs/s of all chips, at most", f"{report['pairs_per_second']:,.0f}")]
    lines = [f"| {name} | {value} |" for name, value in rows]
    lines.insert(1, "| --- | --- |")
    return head + "\n".join(lines) + f"\n\n{'fits' if report['fits'] else 'DOES NOT FIT'}\n"


def _rows(report: Mapping[str, Any]) -> str:
    """Returns the rows of a batch on each chip, in words."""
    if report["tokens"] is None:  # the objective reads images alone
        return f"{report['pairs_per_chip']} images a chip"
    return f"{report['pairs_per_chip']} pairs a chip of {report['tokens']} tokens"


def _size(count: float) -> str:
    """Formats a number of bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1e3:.2f} kB"


def verdict(reports: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence that names the batch sizes that fit."""
    fitting = [report["pairs_per_chip"] for report in reports if report["fits"]]
    if not fitting:
        return "No batch size fits. Try a smaller --pairs_per_chip, or another --machine."
    return f"Pairs per chip that fit: {', '.join(map(str, sorted(fitting, reverse=True)))}."
