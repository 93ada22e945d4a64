"""Converts `metrics.jsonl` to charts."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.evaluate import local_use
from prior_jax.report import charts
from prior_jax.report.losses import Losses, is_number

# Headings of the values that every run logs besides its loss terms, in the page's order.
_TITLES = {
    "lr": "Learning rate",
    "gradient_norm": "Gradient norm",
    "grad_norm": "Gradient norm",
    "pairs_per_second": "Pairs per second",
    "input_wait": "Share of time waiting for input",
    "bank_perplexity": "Bank perplexity",
    "validation_local_image_use": (
        "Local losses with another study's image less those with the own, in nats: above 0 is good "
        "(validation_local_image_use)"
    ),
    "validation_local_image_use_share": (
        "The same as a share of those with another study's image: above 0 is good, and below "
        f"{local_use.UNUSED:g} the texts hardly depend on the image "
        "(validation_local_image_use_share)"
    ),
    "validation_local_mirror_use": (
        "Local losses with the mirrored image less those with the own, in nats: above 0, the texts "
        "tell left from right (validation_local_mirror_use)"
    ),
    "validation_local_mirror_use_share": (
        "The same as a share of those with the mirrored image (validation_local_mirror_use_share)"
    ),
}
_UNTRAINED = "weight 0: measured, not trained"
_ACRONYMS = {
    "kl": "KL",
    "auroc": "AUROC",
    "f1": "F1",
    "lr": "learning rate",
    "knn": "nearest-neighbour",
}
_LOGARITHMIC = {"gradient_norm", "grad_norm"}
_HELD_OUT = ("validate_", "validation_", "val_")
_AXES = {"step", "stage"}
_WHILE_TRAINING = "evaluate_"
_UNKNOWN = Losses()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Log:
    """The readable contents of a metrics file.

    Attributes:
      records: lines that are JSON objects with a numeric `step`, in the order of steps.
      unreadable: number of other lines; a run that was killed can leave one.
    """

    records: Sequence[Mapping[str, Any]]
    unreadable: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves:
    """Charts of a run.

    Attributes:
      losses: charts of the total loss and of each term.
      evaluations: charts of what was evaluated while training; step 0 is the untrained model.
      others: charts of the learning rate, the gradient norm, the speed and all other logged values.
      stages: stages of the run; each chart shades the steps of every second one.
    """

    losses: Sequence[charts.Chart]
    evaluations: Sequence[charts.Chart]
    others: Sequence[charts.Chart]
    stages: Sequence[charts.Stage]


def read_log(path: pathlib.Path) -> Log:
    """Reads all readable lines of a metrics file.

    Args:
      path: path of the file; a missing file gives an empty log.

    Returns:
      The records; of two lines with the same step the later one is kept.
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


def draw(log: Log, *, losses: Losses = _UNKNOWN) -> Curves:
    """Draws every series of a log.

    Args:
      log: log with at least one record.
      losses: losses that the run trains. The chart of a term whose weight is 0 in every stage of
        the log says so.

    Returns:
      The charts; a name without any finite value has no chart.
    """
    names = dict.fromkeys(name for record in log.records for name in record if name not in _AXES)
    every = {n: found for n in names if (found := series_of(log.records, n)) is not None}
    stages = stages_of(log.records)
    terms, evaluations, others = {}, {}, {}
    for name, series in every.items():
        if _train_name(name) in every:
            continue
        held_out = next((every[p + name] for p in _HELD_OUT if p + name in every), None)
        if name.startswith(_WHILE_TRAINING):
            title = title_of(name.removeprefix(_WHILE_TRAINING))
            evaluations[name] = charts.line_chart(
                title, series, held_out=None, stages=stages, logarithmic=False, marked=True
            )
            continue
        title = title_of(name)
        if losses.untrained(name.removesuffix("_loss"), [stage.name for stage in stages]):
            title = f"{title} ({_UNTRAINED})"
        chart = charts.line_chart(
            title,
            series,
            held_out=held_out,
            stages=stages,
            logarithmic=name in _LOGARITHMIC and series.values.min() > 0,
            marked=name.startswith(_HELD_OUT),
        )
        (terms if name.endswith("_loss") else others)[name] = chart
    first = [name for name in ("total_loss",) if name in terms]
    known = [name for name in _TITLES if name in others]
    return Curves(
        losses=[terms[name] for name in dict.fromkeys([*first, *terms])],
        evaluations=list(evaluations.values()),
        others=[others[name] for name in dict.fromkeys([*known, *others])],
        stages=stages,
    )


def series_of(records: Sequence[Mapping[str, Any]], name: str) -> charts.Series | None:
    """Returns the values called `name`, or None if no value is finite."""
    found = [
        (record["step"], float(record[name])) for record in records if is_number(record.get(name))
    ]
    if not found:
        return None
    steps, values = np.array(found, np.float64).T
    return charts.Series(steps=steps, values=values)


def stages_of(records: Sequence[Mapping[str, Any]]) -> list[charts.Stage]:
    """Returns the ranges of consecutive records of one stage."""
    stages: list[charts.Stage] = []
    for record in records:
        name, step = str(record.get("stage", "")), float(record["step"])
        if stages and stages[-1].name == name:
            stages[-1] = dataclasses.replace(stages[-1], last=step)
        else:
            # A stage begins where the previous one ended, so there is no gap between logged steps.
            first = stages[-1].last if stages else step
            stages.append(charts.Stage(name=name, first=first, last=step))
    return stages


def title_of(name: str) -> str:
    """Converts a logged name to a heading: `local_image_loss` becomes "Local image loss"."""
    words = name.replace("_", " ").replace("/", " ").split()
    text = " ".join(_ACRONYMS.get(word, word) for word in words)
    return _TITLES.get(name, text[:1].upper() + text[1:])


def _train_name(name):
    """Returns the training counterpart of a held-out name, or "" for other names."""
    return next((name.removeprefix(p) for p in _HELD_OUT if name.startswith(p)), "")
