"""Compares a report with an earlier one, and names what has become slower or larger."""

import dataclasses
from collections.abc import Sequence

from launch.benchmarks.result import Report, Result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """How a benchmark differs from before.

    Attributes:
      name: name of the benchmark, with batch and dtype.
      seconds: new median over old.
      memory: new peak memory over old.
      verdict: "slower", "faster", "more memory" or "like before".
    """

    name: str
    seconds: float
    memory: float
    verdict: str

    @property
    def regressed(self) -> bool:
        """Returns whether the change is for the worse."""
        return self.verdict in ("slower", "more memory")

    def __str__(self) -> str:
        """Returns the change as a line."""
        return (
            f"{self.name}: {self.verdict} (time x {self.seconds:.2f}, memory x {self.memory:.2f})"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All changes between two reports, and why others cannot be told.

    Attributes:
      changes: those benchmarks that both reports have at the same size.
      untold: sentences on what was not compared.
    """

    changes: tuple[Change, ...]
    untold: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """Returns the changes for the worse."""
        return tuple(change for change in self.changes if change.regressed)


def compare(new: Report, old: Report, *, threshold: float) -> Comparison:
    """Compares the benchmarks that both reports have.

    A benchmark is slower where the intervals of the two medians do not meet and the ratio of the
    medians is above 1 + threshold; it takes more memory where the ratio of the peaks is.

    Args:
      new: report of now.
      old: report of before.
      threshold: share by which time or memory may grow, e.g. 0.1.
    """
    now, then = new.versions.get("devices"), old.versions.get("devices")
    if now != then:
        told = f"Nothing is compared, because the devices differ: {then} before, {now} now."
        return Comparison(changes=(), untold=(told,))
    before = {_key(result): result for result in old.results}
    changes, untold = [], []
    for result in new.results:
        earlier = before.pop(_key(result), None)
        if earlier is None:
            untold.append(f"{_name(result)} is not in the earlier report.")
        else:
            changes.append(_change(result, earlier, threshold=threshold))
    untold += [f"{_name(result)} was not measured now." for result in before.values()]
    return Comparison(changes=tuple(changes), untold=tuple(untold))


def table(comparison: Comparison) -> str:
    """Returns the comparison as lines, the regressions last, where they are read."""
    ordered: Sequence[Change] = sorted(comparison.changes, key=lambda change: change.regressed)
    worse = comparison.regressions
    end = f"{len(worse)} of {len(ordered)} benchmarks became worse."
    return "\n".join([*comparison.untold, *map(str, ordered), end])


def _change(new: Result, old: Result, *, threshold: float) -> Change:
    seconds = new.seconds.value / old.seconds.value
    memory = new.peak_bytes / old.peak_bytes
    verdict = "like before"
    if new.seconds.low > old.seconds.high and seconds > 1 + threshold:
        verdict = "slower"
    elif memory > 1 + threshold:
        verdict = "more memory"
    elif new.seconds.high < old.seconds.low and seconds < 1 / (1 + threshold):
        verdict = "faster"
    return Change(name=_name(new), seconds=seconds, memory=memory, verdict=verdict)


def _key(result: Result) -> tuple[object, ...]:
    return result.name, result.batch, result.dtype, result.tiny


def _name(result: Result) -> str:
    return f"{result.name}, {result.batch}{f', {result.dtype}' if result.dtype else ''}"
