"""The result of a benchmark, a report of several, and both as JSON and as rows of a table."""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from launch.benchmarks.clock import Timing
from launch.benchmarks.machine_peak import MachinePeak
from launch.benchmarks.median import Median, median_of
from launch.benchmarks.repeated import Repeated
from launch.start.run import versions

_ROOT = pathlib.Path(__file__).parents[2]
HEAD = (
    "| benchmark | batch | dtype | s, median [interval] | units/s | CPU-s | with input, s (wait) "
    "| memory, GB | TFLOP | share of product / copy |\n" + "| --- " * 10 + "|"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What one benchmark measured. Seconds are of one unit of work.

    Attributes:
      name: name of the benchmark.
      unit: name of what is counted, e.g. "pairs".
      count: number of pairs, images or whatever `unit` names in one unit of work.
      batch: size that the benchmark was run at.
      dtype: dtype of the computation; None where nothing is computed on a device.
      tiny: whether everything was shrunk, so that the numbers say nothing.
      seconds: median of the blocks, with its interval.
      samples: the blocks' seconds, in the order in which they were measured.
      cpu_seconds: median of the blocks' processor seconds.
      with_input: median with data that are read meanwhile, None where not measured.
      input_wait: share of that time spent waiting for data; None where not measured.
      host_peak_bytes: largest resident memory of the process.
      device_peak_bytes: largest memory in use on a device; None where devices do not tell.
      flops: operations of matrix products and convolutions, see `Repeated`.
      bytes_moved: bytes read and written, at most, see `Repeated`.
      peak: rates of the machine, measured in the same process; None where nothing is computed.
      beside: figures of a peer's program that took turns with this one, from `turns.beside`; None
        without a peer.
      facts: further facts of the benchmark.
    """

    name: str
    unit: str
    count: int
    batch: int
    dtype: str | None
    tiny: bool
    seconds: Median
    samples: tuple[float, ...]
    cpu_seconds: float
    with_input: Median | None = None
    input_wait: float | None = None
    host_peak_bytes: int
    device_peak_bytes: int | None = None
    flops: float | None = None
    bytes_moved: float | None = None
    peak: MachinePeak | None = None
    beside: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Returns the units per second, e.g. pairs/s."""
        return self.count / self.seconds.value

    @property
    def share_of_product(self) -> float | None:
        """Returns the operations per second as a share of the measured matrix product's."""
        if self.flops is None or self.peak is None:
            return None
        return self.flops / self.seconds.value / self.peak.product

    @property
    def share_of_copy(self) -> float | None:
        """Returns the bytes per second as a share of the measured copy's; at most, it may pass 1.

        The bytes are summed over instructions as if each read its operands from main memory.
        """
        if self.bytes_moved is None or self.peak is None:
            return None
        return self.bytes_moved / self.seconds.value / self.peak.copy

    @property
    def peak_bytes(self) -> int:
        """Returns the memory that is told: the device's, or the process's where it has none."""
        return self.device_peak_bytes or self.host_peak_bytes

    def row(self) -> str:
        """Returns the row of the table under `HEAD`."""
        shares = [
            "" if x is None else f"{x:.2f}" for x in (self.share_of_product, self.share_of_copy)
        ]
        fed = self.with_input
        cells = (
            f"`{self.name}`{' (tiny)' if self.tiny else ''}",
            f"{self.batch:,}",
            self.dtype or "",
            f"{_short(self.seconds.value)} [{_short(self.seconds.low)}, "
            f"{_short(self.seconds.high)}]",
            f"{_short(self.rate)} {self.unit}",
            _short(self.cpu_seconds),
            "" if fed is None else f"{_short(fed.value)} ({100 * (self.input_wait or 0):.0f} %)",
            f"{self.peak_bytes / 1e9:.2f}",
            "" if self.flops is None else f"{self.flops / 1e12:.3g}",
            " / ".join(shares) if any(shares) else "",
        )
        return f"| {' | '.join(cells)} |"

    def beside_line(self) -> str:
        """Returns what a peer's program showed beside this one; see `turns.beside`."""
        beside = self.beside or {}
        ratio, theirs = Median(**beside["ratio"]), Median(**beside["seconds"])
        return (
            f"`{self.name}`: {_short(self.seconds.value)} s, the peer's {_short(theirs.value)} s; "
            f"ratio {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] over {beside['turns']} "
            f"turns ({100 * ratio.coverage:.0f} %); peak memory {self.peak_bytes / 1e9:.2f} and "
            f"{beside['peak_bytes'] / 1e9:.2f} GB"
        )


def result_of(name: str, work: Repeated, timing: Timing, *, tiny: bool) -> Result:
    """Returns the result of a benchmark that has been timed, without the machine's peak."""
    fed = timing.input_seconds
    return Result(
        name=name,
        unit=work.unit,
        count=work.count,
        batch=work.batch,
        dtype=work.dtype,
        tiny=tiny,
        seconds=median_of(timing.seconds),
        samples=timing.seconds,
        cpu_seconds=median_of(timing.cpu_seconds).value,
        with_input=median_of(fed) if fed else None,
        input_wait=sum(timing.input_waited) / sum(fed) if fed else None,
        host_peak_bytes=timing.host_peak_bytes,
        device_peak_bytes=timing.device_peak_bytes,
        flops=work.flops,
        bytes_moved=work.bytes_moved,
        facts=timing.facts,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one command.

    Attributes:
      command: the command, as it was given.
      date: day of the measurement, YYYY-MM-DD.
      commit: commit of the checkout, with "-dirty" where files differ from it; None outside git.
      versions: package -> version, and "devices" for what was computed on.
      results: results of the benchmarks, in the order in which they were measured.
      left_out: name -> why it was not measured.
      notes: sentences on what belongs to no benchmark alone.
    """

    command: str
    date: str
    commit: str | None
    versions: Mapping[str, str]
    results: tuple[Result, ...]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Returns the report as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def table(self) -> str:
        """Returns the report as a section of docs/benchmarks.md."""
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items() if k != "devices")
        lines = [
            f"{self.versions.get('devices', 'no device')}; {versions}; commit "
            f"{self.commit or 'unknown'}; {self.date}:",
            f"\n```\n{self.command}\n```\n",
            HEAD,
            *(result.row() for result in self.results),
        ]
        beside = [one.beside_line() for one in self.results if one.beside is not None]
        for title, listed in (
            ("Beside the peer", beside),
            ("Also", self.notes),
            ("Failed or left out", [f"{name}: {reason}" for name, reason in self.left_out.items()]),
        ):
            if listed:
                lines += [f"\n{title}:\n", *(f"- {line}" for line in listed)]
        return "\n".join(lines)


def report_here(results: Sequence[Result]) -> Report:
    """Returns a report of results of this process, with its devices, versions and commit."""
    return Report(
        command=command_line(),
        date=datetime.date.today().isoformat(),
        commit=_commit(),
        versions={**versions(), **_system()},
        results=tuple(results),
    )


def joined(
    reports: Sequence[Report], *, left_out: Mapping[str, str], notes: Sequence[str] = ()
) -> Report:
    """Returns the reports of several processes as that of this process; it needs no device."""
    first = reports[0] if reports else None
    return Report(
        command=command_line(),
        date=datetime.date.today().isoformat(),
        commit=first.commit if first else _commit(),
        versions=first.versions if first else {},
        results=tuple(result for report in reports for result in report.results),
        left_out=left_out,
        notes=tuple(notes),
    )


def command_line() -> str:
    """Returns the command that started this process."""
    return shlex.join(["python", "-m", "launch.bench", *sys.argv[1:]])


def _system() -> dict[str, str]:
    """Returns the versions below Python: of jaxlib, the system, and the driver of NVIDIA's GPUs."""
    found = {"jaxlib": importlib.metadata.version("jaxlib"), "system": platform.platform()}
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        found["driver and memory"] = told.splitlines()[0] if told else "unknown"
    return found


def _commit() -> str | None:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=9"]
    command += ["--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _short(value: float) -> str:
    """Formats a number with three digits, large ones whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
