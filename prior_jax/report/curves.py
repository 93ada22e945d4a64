"""`metrics.jsonl` to charts."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.report import charts

# Headings of what every run logs beside its loss terms, in the page's order.
_TITLES = {
    "lr": "Learning rate",
    "gradient_norm": "Gradient norm",
    "grad_norm": "Gradient norm",
    "pairs_per_second": "Pairs per second",
    "input_wait": "Share of time waiting for input",
    "bank_perplexity": "Bank perplexity",
}
_ACRONYMS = {"kl": "KL", "auroc": "AUROC", "f1": "F1", "lr": "learning rate"}
_LOGARITHMIC = {"gradient_norm", "grad_norm"}
_HELD_OUT = ("validate_", "validation_", "val_")
_AXES = {"step", "stage"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Log:
    """What could be read of a metrics file.

    Attributes:
      records: the lines that are JSON objects with a numeric `step`, in the order of steps.
      unreadable: how many lines are not; a run that was killed can leave one.
    """

    records: Sequence[Mapping[str, Any]]
    unreadable: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """Charts of a run.

    Attributes:
      losses: the total and each term.
      others: learning rate, gradient norm, speed and whatever else was logged.
      stages: what is shaded.
    """

    losses: Sequence[charts.Chart]
    others: Sequence[charts.Chart]
    stages: Sequence[charts.Stage]


def read_log(path: pathlib.Path) -> Log:
    """Reads a metrics file as far as it can be read.

    Args:
      path: of the file; one that does not exist is an empty log.

    Returns:
      Its records; of two lines of one step the later one counts.
    """
    if not path.exists():
        return Log(records=(), unreadable=0)
    records, unreadable = {}, 0
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
            step = record["step"]
        except (ValueError, KeyError, TypeError):
            record = step = None
        if isinstance(step, int) and not isinstance(step, bool):
            records[step] = record
        elif line.strip():
            unreadable += 1
    return Log(records=[records[step] for step in sorted(records)], unreadable=unreadable)


def draw(log: Log) -> Curves:
    """Draws every number of a log.

    Args:
      log: at least one record.

    Returns:
      The charts; a name without any finite number has none.
    """
    names = dict.fromkeys(name for record in log.records for name in record)
    stages = stages_of(log.records)
    losses, others = {}, {}
    for name in names:
        series = series_of(log.records, name)
        if name in _AXES or series is None or _train_name(name) in names:
            continue
        held_out = next(
            (found for p in _HELD_OUT if (found := series_of(log.records, p + name))), None
        )
        chart = charts.line_chart(
            title_of(name),
            series,
            held_out=held_out,
            stages=stages,
            logarithmic=name in _LOGARITHMIC and series.values.min() > 0,
        )
        (losses if name.endswith("_loss") else others)[name] = chart
    first = [name for name in ("total_loss",) if name in losses]
    known = [name for name in _TITLES if name in others]
    return Curves(
        losses=[losses[name] for name in dict.fromkeys([*first, *losses])],
        others=[others[name] for name in dict.fromkeys([*known, *others])],
        stages=stages,
    )


def series_of(records: Sequence[Mapping[str, Any]], name: str) -> charts.Series | None:
    """The numbers called `name`, or None if there is no finite one."""
    found = [(record["step"], float(record[name])) for record in records if _number(record, name)]
    if not found:
        return None
    steps, values = np.array(found, np.float64).T
    return charts.Series(steps=steps, values=values)


def stages_of(records: Sequence[Mapping[str, Any]]) -> list[charts.Stage]:
    """Stretches of consecutive records of one stage."""
    stages: list[charts.Stage] = []
    for record in records:
        name, step = str(record.get("stage", "")), float(record["step"])
        if stages and stages[-1].name == name:
            stages[-1] = dataclasses.replace(stages[-1], last=step)
        else:
            # A stage begins where the one before ended: no gap between logged steps.
            first = stages[-1].last if stages else step
            stages.append(charts.Stage(name=name, first=first, last=step))
    return stages


def title_of(name: str) -> str:
    """A heading from a logged name: `local_image_loss` is "Local image loss"."""
    words = name.replace("_", " ").replace("/", " ").split()
    text = " ".join(_ACRONYMS.get(word, word) for word in words)
    return _TITLES.get(name, text[:1].upper() + text[1:])


def _train_name(name):
    """The training counterpart of a held-out name, or "" if the name is none."""
    return next((name.removeprefix(p) for p in _HELD_OUT if name.startswith(p)), "")


def _number(record, name):
    value = record.get(name)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
