"""Compares a report with an earlier one, and names what has become slower or larger."""

import dataclasses
import math
from collections.abc import Collection, Sequence

from launch.benchmarks.result import Report, Result
from prior_jax.errors import ConfigError

_UNKNOWN = "not comparable"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """How a benchmark differs from before.

    Attributes:
      name: name of the benchmark, with batch and dtype.
      seconds: new median over old.
      memory: new peak memory over old.
      verdict: "slower", "faster", "more memory", "like before", or "not comparable" where a number
        of now is not finite and above 0.
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

    @property
    def holds(self) -> bool:
        """Returns whether something was compared, and nothing became worse or is not comparable."""
        good = [not (one.regressed or one.verdict == _UNKNOWN) for one in self.changes]
        return bool(good) and all(good)


def check_shared(
    old: Report, names: Collection[str], *, tiny: bool, cpu_devices: int | None
) -> None:
    """Refuses an earlier report that shares nothing with what is to be measured.

    Args:
      old: report of before.
      names: names of the benchmarks that are to be measured.
      tiny: whether they are shrunk.
      cpu_devices: number of simulated CPU devices to measure on; None where the devices are known
        only once one has been measured.

    Raises:
      ConfigError: if no benchmark can be compared.
    """
    shared = {one.name for one in old.results if one.tiny == tiny} & set(names)
    if not shared:
        shrunk = " with --tiny" if tiny else " without --tiny"
        listed = ", ".join(dict.fromkeys(map(_told, old.results))) or "none at all"
        raise ConfigError(
            f"The earlier report has none of the benchmarks that are measured now{shrunk}.",
            f"It has {listed}.",
            where="--against",
        )
    then, now = old.versions.get("devices"), f"{cpu_devices} x cpu (cpu)"
    if cpu_devices is not None and then != now:
        raise ConfigError(
            f"The earlier report is of {then}, and {now} are to be measured.",
            "Compare with a report of the same devices.",
            where="--against",
        )


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
    unknown = sum(change.verdict == _UNKNOWN for change in ordered)
    end = f"{len(worse)} of {len(ordered)} benchmarks became worse."
    if not ordered:
        end = "No benchmark was compared."
    elif unknown:
        end += f" {unknown} cannot be compared."
    return "\n".join([*comparison.untold, *map(str, ordered), end])


def _change(new: Result, old: Result, *, threshold: float) -> Change:
    seconds = new.seconds.value / old.seconds.value
    memory = new.peak_bytes / old.peak_bytes
    told = (new.seconds.low, new.seconds.value, new.seconds.high, new.peak_bytes)
    verdict = "like before"
    if not all(math.isfinite(number) and number > 0 for number in told):
        verdict = _UNKNOWN
    elif new.seconds.low > old.seconds.high and seconds > 1 + threshold:
        verdict = "slower"
    elif memory > 1 + threshold:
        verdict = "more memory"
    elif new.seconds.high < old.seconds.low and seconds < 1 / (1 + threshold):
        verdict = "faster"
    return Change(name=_name(new), seconds=seconds, memory=memory, verdict=verdict)


def _told(result: Result) -> str:
    return f"{result.name}{' (tiny)' if result.tiny else ''}"


def _key(result: Result) -> tuple[object, ...]:
    return result.name, result.batch, result.dtype, result.tiny


def _name(result: Result) -> str:
    return f"{result.name}, {result.batch}{f', {result.dtype}' if result.dtype else ''}"
