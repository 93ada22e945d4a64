"""Reads the table of a suite for the page."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prior_jax.errors import DataError, first_line
from prior_jax.evaluate import results
from prior_jax.report.tables import words


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteSheet:
    """A suite, as text.

    Attributes:
      rows: set, task, metric and the values of the model, of random weights and of ImageNet weights
        of each row that is not of a single class; "" for no value.
      imagenet: whether a row has a value of ImageNet weights.
      notes: a sentence on every part that was left out or failed.
    """

    rows: Sequence[tuple[str, ...]]
    imagenet: bool
    notes: Sequence[str]


def read(workdir: pathlib.Path) -> SuiteSheet | None:
    """Reads `eval/suite.json`.

    Args:
      workdir: folder of the results.

    Returns:
      The table, or None if there is none.

    Raises:
      DataError: if the file is damaged; the error names it.
    """
    path = workdir / "eval" / f"{results.SUITE}.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in content["rows"] if not row["by_class"]]
        return SuiteSheet(
            rows=[
                (
                    row["set"],
                    words(row["task"]),
                    words(row["metric"]),
                    _cell(row, "value", ""),
                    _cell(row, "random", "random_"),
                    _cell(row, "imagenet", "imagenet_"),
                )
                for row in rows
            ],
            imagenet=any(row["imagenet"] is not None for row in rows),
            notes=[
                f"{one['set']}, {words(one['task']) or 'the whole set'}: {one['state']}, "
                f"{one['reason']}"
                for one in content["parts"]
                if one["reason"]
            ],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The file is no table of a suite ({first_line(error)}).",
            "Delete the file, and run the suite again.",
            where=str(path),
        ) from error


def _cell(row: Mapping[str, Any], name: str, prefix: str) -> str:
    if row[name] is None:
        return ""
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{row[name]:.3f}{interval}"
