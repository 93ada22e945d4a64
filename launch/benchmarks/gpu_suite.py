"""Everything for the day a GPU is there, within a budget of time: `--suite=gpu`.

First what computes nothing that is timed, some at once: the tests marked gpu, and the compilation
of every training step into a cache that the steps are then started from. Then the steps, one after
the other, each in a process of its own: PRIOR and GLoRIA at full size with every token real, on a
batch that stays on the device and with their input; then larger batches. What does not fit into the
budget is named. On a CPU with --tiny it is the rehearsal.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

from absl import logging

from configs.machines import base
from launch.benchmarks import generated_set
from launch.benchmarks.alone import command_of, measure_alone
from launch.benchmarks.child import ROOT, ChildFailed
from launch.benchmarks.job import Job
from launch.benchmarks.largest import Largest, largest
from launch.benchmarks.request import Request
from launch.benchmarks.result import HEAD, Report, Result, joined

SECONDS = 600
"""Budget of the suite, in seconds."""
STEPS = (
    ("prior_stage3_full", "bfloat16"),
    ("prior_stage1_full", "bfloat16"),
    ("gloria_full", "bfloat16"),
    ("prior_stage3_full", "float32"),
    ("prior_stage1_full", "float32"),
    ("gloria_full", "float32"),
    ("prior_stage2_full", "bfloat16"),
)
"""Training steps with their dtypes, the most important first."""
NAMES = ("machine", *dict.fromkeys(name for name, _ in STEPS))
"""Names of the benchmarks that are measured."""
TRACED = ("prior_stage3_full", "bfloat16")
LARGEST = ("prior_stage1_full", "prior_stage3_full", "gloria_full")
"""Steps whose largest batch is searched, in bfloat16."""
TESTS = "pytest -m gpu"
_STUDIES, _TINY_STUDIES = 2000, 100
_AT_ONCE = 4  # programs that are compiled at once
_READY_SHARE = 0.5  # of the budget, after which what is not compiled yet is left to its turn
_TRIAL_SECONDS = 30  # of a larger batch, without its compilation
# Several processes share the device while they compile; the steps have it alone.
_SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_ALONE = {"XLA_PYTHON_CLIENT_MEM_FRACTION": base.GPU_ENVIRONMENT["XLA_PYTHON_CLIENT_MEM_FRACTION"]}


class Suite:
    """A run of the suite."""

    def __init__(
        self,
        request: Request,
        folder: pathlib.Path,
        *,
        seconds: float,
        save: Callable[[Report], None],
    ):
        """Starts the clock.

        Args:
          request: size, set, folder of the trace and devices; batch and dtype are the suite's.
          folder: folder for the set and the compiled programs.
          seconds: budget.
          save: called with the report after every part, so that nothing is lost.
        """
        self._request, self._folder, self._save = request, folder, save
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._reports: list[Report] = []
        self._left_out: dict[str, str] = {}
        self._notes: list[str] = []
        self._compiled_in: dict[str, float] = {}

    @property
    def left(self) -> float:
        """Returns the seconds that remain."""
        return self._end - time.monotonic()

    def run(self) -> Report:
        """Runs all parts and returns the report."""
        studies = _TINY_STUDIES if self._request.tiny else _STUDIES
        data = self._request.data or str(
            generated_set.prepared(self._folder, studies=studies, tiny=self._request.tiny)
        )
        cache = self._request.cache_dir or str(self._folder / "cache")
        trace = self._request.trace
        self._request = dataclasses.replace(
            self._request, data=data, cache_dir=cache, trace=None, batch=None, dtype=None
        )
        self._get_ready()
        self._measure("machine", self._request, label="machine")
        for name, dtype in STEPS:
            wanted = trace if (name, dtype) == TRACED else None
            request = dataclasses.replace(self._request, dtype=dtype, trace=wanted)
            self._measure(name, request, label=f"{name}, {dtype}")
        for name in LARGEST:
            self._largest(name)
        report = self._report()
        self._save(report)
        return report

    def _get_ready(self) -> None:
        """Runs the tests and compiles the steps, some at once."""
        logging.info("running the tests marked gpu, and compiling %d steps", len(STEPS))
        jobs = list(self._jobs())
        end = self._end - (1 - _READY_SHARE) * self._seconds
        with contextlib.ExitStack() as opened:
            running: dict[str, Job] = {}
            while (jobs or running) and time.monotonic() < end:
                while jobs and len(running) < min(_AT_ONCE, max((os.cpu_count() or 1) - 1, 1)):
                    job = jobs.pop(0)
                    running[job.name] = job
                    job.start(opened, self._folder / "output", environment=_SHARING)
                for job in [job for job in running.values() if job.ended]:
                    del running[job.name]
                    self._note(job)
                time.sleep(0.1)
            for job in (*running.values(), *jobs):
                self._note(job)

    def _jobs(self) -> Iterator[Job]:
        marked = [
            str(path.relative_to(ROOT))
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
            if "mark.gpu" in path.read_text()
        ]
        if marked:
            options = (
                "-m",
                "gpu",
                "-q",
                "-o",
                "addopts=--strict-markers",
                "-p",
                "no:cacheprovider",
            )
            yield Job(TESTS, (sys.executable, "-m", "pytest", *options, *marked))
        else:
            self._notes.append(f"{TESTS}: no file of tests has the marker")
        for name, dtype in STEPS:
            request = dataclasses.replace(self._request, dtype=dtype)
            command = tuple(command_of(name, request, mode="compile"))
            yield Job(_compiling(name, dtype), command)

    def _note(self, job: Job) -> None:
        """Notes how a job ended; a compilation that succeeded needs no note."""
        if job.name == TESTS and (job.failed or not job.ended):
            self._left_out[TESTS] = job.outcome()
        elif job.name == TESTS or job.failed or not job.ended:
            self._notes.append(f"{job.name}: {job.outcome()}")
        self._compiled_in[job.name] = job.seconds

    def _measure(self, name: str, request: Request, *, label: str) -> Report | None:
        """Measures a benchmark, or says why it is left out."""
        if self.left <= 0:
            self._left_out[label] = f"the {self._seconds:.0f} s of the suite were over"
            return None
        logging.info("measuring %s, %.0f s are left", label, self.left)
        try:
            report = measure_alone(name, request, seconds=self.left, environment=_ALONE)
        except ChildFailed as error:
            self._left_out[label] = error.problem
            return None
        if not self._reports:
            print(HEAD)
        self._reports.append(report)
        self._save(self._report())
        print("\n".join(result.row() for result in report.results), flush=True)
        return report

    def _largest(self, name: str) -> None:
        """Searches the largest batch of a step in bfloat16."""
        label = f"largest batch of {name}"
        first = self._result(name)
        if first is None:
            self._left_out[label] = "the step itself was not measured"
            return
        told = first.facts.get("device_limit_bytes")
        # A CPU does not tell; its rehearsal ends at the largest multiple that is tried.
        limit = int(told) if told else sys.maxsize

        def measure(batch: int) -> Report:
            logging.info("trying a batch of %d of %s, %.0f s are left", batch, name, self.left)
            request = dataclasses.replace(
                self._request, dtype="bfloat16", batch=batch, data=None, blocks=4
            )
            return measure_alone(name, request, seconds=self.left, environment=_ALONE)

        # The step itself came from the cache; a trial compiles anew.
        compiling = self._compiled_in.get(_compiling(name, "bfloat16"), 0.0)
        found = largest(
            first,
            measure,
            limit=limit,
            multiple=2 if self._request.tiny else 8,
            seconds_left=lambda: self.left,
            trial_seconds=compiling + _TRIAL_SECONDS,
        )
        self._say(label, found)

    def _say(self, label: str, found: Largest) -> None:
        refused = f"; too large: {', '.join(map(str, found.refused))}" if found.refused else ""
        self._notes.append(f"{label}: {found.fits} ran{refused} ({found.ended})")
        if found.report is not None:
            self._reports.append(found.report)
        self._save(self._report())

    def _result(self, name: str) -> Result | None:
        """Returns the result of a step in bfloat16."""
        results = [result for report in self._reports for result in report.results]
        return next((r for r in results if (r.name, r.dtype) == (name, "bfloat16")), None)

    def _report(self) -> Report:
        return joined(self._reports, left_out=self._left_out, notes=self._notes)


def _compiling(name: str, dtype: str) -> str:
    return f"compiling {name}, {dtype}"
