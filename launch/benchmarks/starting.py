"""The start of training: from the start of a process to the line of the first step."""

import contextlib
import pathlib
import shutil
import sys
from collections.abc import Iterator

from launch.benchmarks import child, generated_set
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import CPU_BATCH, dtype_of, on_accelerator

_BATCH = 98  # pairs on an accelerator, as of prior_stage1
_STUDIES = 300
_LONGEST_SECONDS = 1800.0


@contextlib.contextmanager
def start(request: Request, folder: pathlib.Path, *, warm: bool) -> Iterator[Repeated]:
    """Opens the start of launch.train on a prepared set, which is not timed.

    Args:
      request: batch, dtype, set and size.
      folder: folder for the set, the runs and the compiled programs.
      warm: whether the compiled programs of an earlier start are there.

    Yields:
      A start of PRIOR's first stage up to its first line in metrics.jsonl, whose unit is the start.
    """
    given = request.data or str(generated_set.prepared(folder, studies=_STUDIES, tiny=request.tiny))
    batch = request.batch or (4 if request.tiny else (_BATCH if on_accelerator() else CPU_BATCH))
    run_folder, cache = folder / "run", folder / "cache"
    command = _command(request, given, batch=batch, workdir=run_folder, cache=cache)
    lines = run_folder / "metrics.jsonl"
    peaks: list[int] = []

    def run(count: int) -> None:
        for _ in range(count):
            shutil.rmtree(run_folder, ignore_errors=True)
            if not warm:
                shutil.rmtree(cache, ignore_errors=True)
            with child.started(command, folder / "output") as program:
                program.watch(
                    until=lambda: lines.exists() and lines.stat().st_size > 0,
                    seconds=_LONGEST_SECONDS,
                )
                peaks.append(program.peak_bytes)

    yield Repeated(
        run=run,
        unit="starts",
        count=1,
        batch=batch,
        steps=request.steps or 1,
        blocks=request.blocks or (1 if request.tiny else 3),
        warm_up=1 if warm else 0,
        dtype=dtype_of(request),
        child_peak=lambda: max(peaks),
    )


def _command(
    request: Request, data: str, *, batch: int, workdir: pathlib.Path, cache: pathlib.Path
) -> list[str]:
    """Returns the command of a run that logs its first step and never validates."""
    config = "configs/debug.py" if request.tiny else "configs/prior/paper.py"
    settings = {
        "data.path": data,
        "data.tokenizer.path": str(pathlib.Path(data) / "tokenizer.model"),
        "data.batch_size": batch,
        "data.workers": 0,
        "model.dtype": dtype_of(request),
        "stage_unit": "steps",
        "stages.stage1.length": 1000,
        "stages.stage1.warmup": 1,
        "log.every_steps": 1,
        "validate_every": 0,
        "checkpoint.every_steps": 10**6,
        "after": "()",
    }
    devices = request.cpu_devices
    return [
        sys.executable, "-m", "launch.train", f"--config={config}", f"--workdir={workdir}",
        f"--cache_dir={cache}", *(f"--config.{name}={value}" for name, value in settings.items()),
        *(() if devices is None else (f"--cpu_devices={devices}",)),
    ]  # fmt: skip
