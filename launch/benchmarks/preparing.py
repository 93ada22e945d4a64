"""Preparation of a data set, in a process of its own, start-up included."""

import contextlib
import pathlib
import shutil
import sys
from collections.abc import Iterator

from data_prep.phantom import hospital
from launch.benchmarks import child, generated_set
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request

STUDIES = 500
_TINY_STUDIES = 40
_LONGEST_SECONDS = 3600.0


@contextlib.contextmanager
def preparation(request: Request, folder: pathlib.Path) -> Iterator[Repeated]:
    """Opens the preparation of a generated hospital in the layout of MIMIC-CXR-JPG.

    Args:
      request: `batch` is the number of studies of the hospital.
      folder: folder for the hospital and the sets.

    Yields:
      A run of data_prep.mimic_cxr with one worker; its unit is the study.
    """
    studies = request.batch or (_TINY_STUDIES if request.tiny else STUDIES)
    raw, made = folder / "raw", folder / "set"
    hospital.draw_phantom(raw, generated_set.settings_of(studies, tiny=request.tiny), workers=1)
    command = [
        sys.executable, "-m", "data_prep.mimic_cxr", f"--images_dir={raw}",
        f"--reports={raw / 'reports'}", f"--out={made}", "--workers=1",
    ]  # fmt: skip
    peaks: list[int] = []

    def run(count: int) -> None:
        for _ in range(count):
            shutil.rmtree(made, ignore_errors=True)
            with child.started(command, folder / "output") as program:
                program.watch(seconds=_LONGEST_SECONDS)
                peaks.append(program.peak_bytes)

    yield Repeated(
        run=run,
        unit="studies",
        count=studies,
        batch=studies,
        steps=request.steps or 1,
        blocks=request.blocks or (2 if request.tiny else 6),
        warm_up=0 if request.tiny else 1,
        child_peak=lambda: max(peaks),
    )
