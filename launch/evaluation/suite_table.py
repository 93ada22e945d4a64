"""The table of a suite, as JSON and CSV."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.evaluation.suite_parts import Part
from prior_jax import near_names
from prior_jax.data.schema import write_atomically
from prior_jax.evaluate import over_seeds, results

COLUMNS = (
    *("set", "task", "metric", "by_class", "seeds"),
    *("value", "low", "high", "random", "random_low", "random_high"),
    *("imagenet", "imagenet_low", "imagenet_high", "chance"),
)
"""Columns of `eval/suite.csv`; the first three name the row.

`value` is the model's, `random` that of the same model at random weights (for a run, before its
first step, which with `config.init` has the weights that it began with, as `began_with_weights` of
`model` says; for a training, one from random weights), `imagenet` that of the weights of
--task.imagenet. Intervals are over patients where `seeds` is 1, and over patients and seeds
otherwise: `over_seeds.over_patients_and_seeds`. Two seeds have none: their values are in the rows
of each seed.
"""
INTERVALS = {
    "one_seed": "over patients",
    "several_seeds": "over patients and seeds, cut at the ends of the metric's range",
    "least_seeds": over_seeds.LEAST_SEEDS,
}
"""What `eval/suite.json` says about its intervals."""
SIDES = ("value", "random", "imagenet")
"""Columns of values, of which each has an interval."""

Content = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The results of one part, as its files hold them.

    Attributes:
      content: results file.
      trained: bootstrap draws of the model by metric, float64[R].
      untrained: bootstrap draws of the same model before its first step, likewise.
    """

    content: Content
    trained: Mapping[str, np.ndarray]
    untrained: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
      cells: value of each column of COLUMNS.
      draws: bootstrap draws of each of SIDES, float64[R]; None for a side without any.
    """

    cells: dict[str, Any]
    draws: Mapping[str, np.ndarray | None]


def rows_of(part: Part, found: Measured, imagenet: Measured | None) -> list[Row]:
    """Returns the rows of one part.

    Args:
      part: the part.
      found: its results.
      imagenet: results of the ImageNet weights; None for none.
    """
    content = found.content
    classes = content["settings"].get("classes", ())
    slugs = tuple(f"_{near_names.slug(name)}" for name in classes)
    other = {} if imagenet is None else imagenet.content["metrics"]
    drawn = (found.trained, found.untrained, {} if imagenet is None else imagenet.trained)
    return [
        Row(
            cells={
                "set": part.set_name,
                "task": part.name,
                "metric": metric,
                "by_class": metric.endswith(slugs) if slugs else False,
                "seeds": 1,
                **_cells("", value),
                **_cells("random", content["untrained"].get(metric)),
                **_cells("imagenet", other.get(metric)),
                "chance": content["settings"].get("chance", {}).get(metric),
            },
            draws={side: one.get(metric) for side, one in zip(SIDES, drawn, strict=True)},
        )
        for metric, value in content["metrics"].items()
    ]


def _cells(name: str, found: Mapping[str, float | None] | None) -> dict[str, float | None]:
    first, prefix = (name, f"{name}_") if name else ("value", "")
    given = found or {"value": None, "low": None, "high": None}
    return {first: given["value"], f"{prefix}low": given["low"], f"{prefix}high": given["high"]}


def over_seeds_rows(rows: Sequence[Row], *, confidence: float) -> list[dict[str, Any]]:
    """Returns the mean over seeds of every metric that was measured with several.

    Args:
      rows: rows of the parts; those of other seeds than the first have a task that ends in
        "_seed_<number>".
      confidence: coverage of the intervals over patients and seeds.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        base = row.cells["task"].partition("_seed_")[0]
        groups.setdefault((row.cells["set"], base, row.cells["metric"]), []).append(row)
    found = []
    for (set_name, task, metric), members in groups.items():
        if len(members) == 1:
            continue
        columns = {
            name: _seeds(members, name, metric=metric, confidence=confidence) for name in SIDES
        }
        found.append(
            {
                "set": set_name,
                "task": f"{task}_over_seeds",
                "metric": metric,
                "by_class": members[0].cells["by_class"],
                "seeds": len(members),
                **_cells("", columns["value"]),
                **_cells("random", columns["random"]),
                **_cells("imagenet", columns["imagenet"]),
                "chance": members[0].cells["chance"],
            }
        )
    return found


def _seeds(
    members: Sequence[Row], side: str, *, metric: str, confidence: float
) -> dict[str, float | None]:
    """Returns the mean of a side over seeds with its interval; None for what has no value."""
    kept = [row for row in members if row.cells[side] is not None]
    drawn = [row.draws[side] for row in kept]
    # Without draws of every seed, nothing tells what other patients would change.
    draws = [np.full(1, np.nan) for _ in kept]
    if all(one is not None for one in drawn):
        draws = [np.asarray(one) for one in drawn]
    values = [row.cells[side] for row in kept]
    found = over_seeds.over_patients_and_seeds(values, draws, metric=metric, confidence=confidence)
    return found.to_json()


def write(
    out: pathlib.Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    parts: Sequence[Mapping[str, str]],
    about: Mapping[str, Any],
) -> pathlib.Path:
    """Writes `eval/suite.json` and `eval/suite.csv`; equal results give equal bytes.

    Args:
      out: folder of the results.
      rows: rows with the keys of COLUMNS.
      parts: set, task, state ("done", "left out" or "failed") and reason of every part.
      about: origin of the weights, `Subject.origin`: run and step, folder of weights, or config and
        seed, and what the baseline is.

    Returns:
      Path of the JSON file.
    """
    folder = out / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "model": dict(about),
        "intervals": dict(INTERVALS),
        "parts": list(parts),
        "rows": list(rows),
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / f"{results.SUITE}.csv", text.getvalue().encode())
    path = folder / f"{results.SUITE}.json"
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return path
