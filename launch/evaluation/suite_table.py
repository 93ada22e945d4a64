"""The table of a suite, as JSON and CSV."""

import csv
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from launch.evaluation.suite_parts import Part
from prior_jax.data.schema import write_atomically
from prior_jax.evaluate import over_seeds, prompts, results

COLUMNS = (
    *("set", "task", "metric", "by_class", "seeds"),
    *("value", "low", "high", "random", "random_low", "random_high"),
    *("imagenet", "imagenet_low", "imagenet_high", "chance"),
)
"""Columns of `eval/suite.csv`; the first three name the row.

`value` is the model's, `random` that of the same model at random weights (for a run, before its
first step), `imagenet` that of the weights of --task.imagenet. Intervals are over patients where
`seeds` is 1, and t intervals over seeds otherwise.
"""

Content = Mapping[str, Any]


def rows_of(part: Part, content: Content, imagenet: Content | None) -> list[dict[str, Any]]:
    """Returns the rows of one part.

    Args:
      part: the part.
      content: its results file.
      imagenet: results file of the ImageNet weights; None for none.
    """
    classes = content["settings"].get("classes", ())
    slugs = tuple(f"_{prompts.slug(name)}" for name in classes)
    other = {} if imagenet is None else imagenet["metrics"]
    return [
        {
            "set": part.set_name,
            "task": part.name,
            "metric": metric,
            "by_class": metric.endswith(slugs) if slugs else False,
            "seeds": 1,
            **_cells("", value),
            **_cells("random", content["untrained"].get(metric)),
            **_cells("imagenet", other.get(metric)),
            "chance": content["settings"].get("chance", {}).get(metric),
        }
        for metric, value in content["metrics"].items()
    ]


def _cells(name: str, found: Mapping[str, float | None] | None) -> dict[str, float | None]:
    first, prefix = (name, f"{name}_") if name else ("value", "")
    given = found or {"value": None, "low": None, "high": None}
    return {first: given["value"], f"{prefix}low": given["low"], f"{prefix}high": given["high"]}


def over_seeds_rows(
    rows: Sequence[Mapping[str, Any]], *, confidence: float
) -> list[dict[str, Any]]:
    """Returns the mean over seeds of every metric that was measured with several.

    Args:
      rows: rows of the parts; those of other seeds than the first have a task that ends in
        "_seed_<number>".
      confidence: coverage of the t interval.
    """
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        base = row["task"].partition("_seed_")[0]
        groups.setdefault((row["set"], base, row["metric"]), []).append(row)
    found = []
    for (set_name, task, metric), members in groups.items():
        if len(members) == 1:
            continue
        columns = {
            name: _seeds([row[name] for row in members], confidence=confidence)
            for name in ("value", "random", "imagenet")
        }
        found.append(
            {
                "set": set_name,
                "task": f"{task}_over_seeds",
                "metric": metric,
                "by_class": members[0]["by_class"],
                "seeds": len(members),
                **_cells("", columns["value"]),
                **_cells("random", columns["random"]),
                **_cells("imagenet", columns["imagenet"]),
                "chance": members[0]["chance"],
            }
        )
    return found


def _seeds(values: Sequence[float | None], *, confidence: float) -> dict[str, float | None] | None:
    runs = [{"": math.nan if value is None else value} for value in values]
    found = over_seeds.seed_intervals(runs, confidence=confidence)[""].to_json()
    return {"value": found["mean"], "low": found["low"], "high": found["high"]}


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
      about: origin of the weights: run and step, folder of weights, or config and seed.

    Returns:
      Path of the JSON file.
    """
    folder = out / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": dict(about), "parts": list(parts), "rows": list(rows)}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / f"{results.SUITE}.csv", text.getvalue().encode())
    path = folder / f"{results.SUITE}.json"
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return path
