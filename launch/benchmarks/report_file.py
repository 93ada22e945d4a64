"""Reads the reports that launch.bench has written, field by field."""

import json
import math
import pathlib
from collections.abc import Iterator

from launch.benchmarks.result import Report, Result
from prior_jax import strict
from prior_jax.errors import ConfigError, DataError, first_line

_REMEDY = "Give a file that launch.bench --out has written."
_MEDIAN = ("value", "low", "high")


def from_json(text: str | bytes, *, where: str) -> Report:
    """Reads a report that `Report.to_json` wrote.

    Args:
      text: the JSON.
      where: name of the file or flag, for the error.

    Raises:
      DataError: if it is not such a report; the message names the field that is wrong.
    """
    try:
        return strict.build(Report, json.loads(text), name="report")
    except ConfigError as error:
        raise _refusal(str(error), where=where) from error
    except (ValueError, OverflowError) as error:
        raise _refusal(f"{first_line(error)}.", where=where) from error


def read(path: pathlib.Path, *, where: str) -> Report:
    """Reads the report in a file, to compare with it; see `from_json`.

    Raises:
      ConfigError: if the file cannot be read.
      DataError: if it is not a report, or a time or memory in it is not finite and above 0.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The file {path} cannot be read ({error.strerror}).", _REMEDY, where=where
        ) from error
    report = from_json(text, where=f"{where}={path}")
    for index, result in enumerate(report.results):
        for field, value in _compared(result):
            if not (math.isfinite(value) and value > 0):
                name = f"report.results[{index}].{field}"
                problem = f"{name}: The value is {value!r}. It must be finite and above 0."
                raise _refusal(problem, where=f"{where}={path}")
    return report


def _compared(result: Result) -> Iterator[tuple[str, float]]:
    """Yields the numbers of a result that another is compared with, and the names of them."""
    yield from ((f"seconds.{name}", getattr(result.seconds, name)) for name in _MEDIAN)
    yield "host_peak_bytes", result.host_peak_bytes
    if result.device_peak_bytes is not None:
        yield "device_peak_bytes", result.device_peak_bytes


def _refusal(problem: str, *, where: str) -> DataError:
    return DataError(
        f"The file is not a report of this version of launch.bench ({problem.rstrip('.')}).",
        _REMEDY,
        where=where,
    )
