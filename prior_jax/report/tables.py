"""Converts the files of `workdir/eval` to tables with drawn intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prior_jax import near_names
from prior_jax.evaluate import fixed_points, region_columns, results, undefined

# Prefixes of the metrics, in the order of the page.
_PREFIXES = (
    ("report_to_image_", "Report to image"),
    ("auroc_", "AUROC by class"),
    ("average_precision_", "Average precision by class"),
)
_ACRONYMS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "kappa": "Cohen's kappa",
    "miou": "mIoU",
    "mdice": "mDice",
    "map": "mAP",
    "cnr": "CNR",
    "brier": "Brier score",
}
# Title of the metrics of single classes that have no table of their own.
_BY_CLASS = "Other metrics by class"
# Metrics shown at the top of the page, if they were measured.
_HEADLINES = (
    *("macro_auroc", "accuracy", "precision_at_5", "recall_at_10"),
    *("pixel_dice", "coco_ap50"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """One metric of one model, as text and as positions on a 0 to 100 axis.

    Attributes:
      text: value as text, or "–".
      interval: interval as text, "[low, high]", or "".
      value: position of the value; None if there is no value.
      low: position of the interval's lower end; None if there is no interval.
      high: position of the interval's upper end; None if there is no interval.
    """

    text: str
    interval: str
    value: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A metric of the trained model beside that of the untrained one.

    Attributes:
      name: name of the metric in the file.
      label: name of the metric in words.
      trained: result of the run's model.
      untrained: result of the model before its first step.
      chance: position of the chance level on the axis; None if the file has none.
      chance_text: chance level as text, or "".
      reason: reason why the metric is undefined, or over how many classes a mean is if not over
        all, or "".
      fixed: whether the metric is a baseline that is the same for every model.
    """

    name: str
    label: str
    trained: Mark
    untrained: Mark
    chance: float | None
    chance_text: str
    reason: str
    fixed: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Metrics of one kind.

    Attributes:
      title: heading of the table, "" for the first one of a task.
      folded: whether the table is shown only when it is asked for.
      axis: ends of the drawn axis, as text.
      rows: rows of the metrics.
    """

    title: str
    folded: bool
    axis: tuple[str, str]
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One results file.

    Attributes:
      name: name of the task in the file.
      label: name of the task in words.
      baseline: name of the model beside which the task was measured: "untrained", "before training"
        where the run began with weights, or "from random weights" for a training.
      split: name of the split that was measured; "" where the file does not tell it.
      fraction: share of the labels that were learnt; None where none were.
      notes: sentences on what the numbers leave out.
      tables: tables of the metrics.
      meanings: name in words of each column of segmentation or detection, and what it counts.
      settings: settings as flat (name, value) pairs.
    """

    name: str
    label: str
    baseline: str
    split: str
    fraction: float | None
    notes: Sequence[str]
    tables: Sequence[Table]
    meanings: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]


def task_of(content: Mapping[str, Any]) -> Task:
    """Converts one results file to tables.

    Args:
      content: content of the file, from `evaluate.results.read_results`.

    Returns:
      The tables of the task.
    """
    groups: dict[str, list[str]] = {"": []}
    slugs = tuple(f"_{near_names.slug(name)}" for name in content["settings"].get("classes", ()))
    chance = content["settings"].get("chance", {})
    for name in content["metrics"]:
        if fixed_points.repeats_chance(name, chance):
            continue
        other = _BY_CLASS if slugs and name.endswith(slugs) else ""
        title = next((title for prefix, title in _PREFIXES if name.startswith(prefix)), other)
        groups.setdefault(title, []).append(name)
    groups |= {_BY_CLASS: groups.pop(_BY_CLASS, [])}  # the folded table comes last
    if "Report to image" in groups:
        groups = {"Image to report" if not title else title: n for title, n in groups.items()}
    settings = {
        name: value
        for name, value in content["settings"].items()
        if name not in ("chance", "undefined", "reliability", "pooled_reliability")
    }
    return Task(
        name=content["task"],
        label=words(content["task"]),
        baseline=results.baseline_of(content["settings"]),
        split=str(content["settings"].get("split", "")),
        fraction=_fraction(content["settings"]),
        notes=[*notes_of(content["settings"]), *_calibration_note(content["metrics"])],
        tables=[_table(content, title, names) for title, names in groups.items() if names],
        meanings=meanings_of(content),
        settings=flatten(settings),
    )


def meanings_of(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the name in words and the meaning of each column whose counting has to be told."""
    kind = region_columns.kind_of(content["settings"])
    found = region_columns.meanings(kind, content["metrics"])
    return [(whole_words(name), meaning) for name, meaning in found.items()]


def notes_of(settings: Mapping[str, Any]) -> list[str]:
    """Returns the sentences of a task on the classes that its numbers leave out.

    Args:
      settings: settings of a results file: `left_out` has a reason for each class that was left
        out, `undefined` one for each metric without a value; a reason of several metrics is a
        sentence here, and another stands in the metric's row.
    """
    left_out = settings.get("left_out", {})
    each = "; ".join(f"{name} ({reason})" for name, reason in left_out.items())
    found = [f"Left out for too few records: {each}."] if each else []
    for reason, names in undefined.by_reason(settings.get("undefined", {})).items():
        if len(names) >= undefined.MANY:
            found.append(f"Without a value: {', '.join(map(whole_words, names))}; {reason}.")
    return found


def _calibration_note(metrics: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Returns a sentence on calibration errors below their own interval, if there are any."""
    for name, metric in metrics.items():
        value, low = metric.get("value"), metric.get("low")
        if "calibration_error" in name and value is not None and low is not None and value < low:
            return [
                "A calibration error may lie below its interval: on few records the error is too "
                "high by chance, and higher still on resamples, which repeat records "
                "(arXiv:2012.08668). The interval is not corrected for it."
            ]
    return []


def headlines(tasks: Sequence[Task]) -> list[tuple[Task, Row]]:
    """Returns the rows shown at the top of the page, each with its task.

    Of tasks that have learnt from shares of the labels, the one with the largest share is shown.
    """
    best: dict[str, tuple[Task, Row]] = {}
    for task in tasks:
        for row in (row for table in task.tables for row in table.rows):
            kept = best.get(row.name)
            if kept is None or _share(task) >= _share(kept[0]):
                best[row.name] = task, row
    shown = [best[name] for name in _HEADLINES if name in best]
    return [(task, row) for task, row in shown if row.trained.value is not None]


def _share(task: Task) -> float:
    return 1.0 if task.fraction is None else task.fraction


def _fraction(settings: Mapping[str, Any]) -> float | None:
    return settings.get("finetune", settings).get("fraction")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flattens nested settings to (dotted name, value) pairs.

    Args:
      settings: nested mappings; lists of plain values stay in one line.
      prefix: prefix of the names.

    Returns:
      The pairs in the order of the settings.
    """
    found = []
    for name, value in settings.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found += flatten(value, f"{dotted}.")
        elif isinstance(value, list | tuple) and value:
            if any(isinstance(item, Mapping) for item in value):
                found += flatten({str(i): item for i, item in enumerate(value)}, f"{dotted}.")
            else:
                found.append((dotted, ", ".join(str(item) for item in value)))
        else:
            found.append((dotted, "–" if value is None else str(value)))
    return found


def words(name: str) -> str:
    """Converts the name of a metric or task to words: `macro_f1` becomes "Macro F1"."""
    for prefix, _ in _PREFIXES:
        if name.startswith(prefix) and name != prefix:
            name = name.removeprefix(prefix)
            break
    return whole_words(name)


def whole_words(name: str) -> str:
    """Converts a name to words and leaves none out: `auroc_edema` becomes "AUROC edema"."""
    known = region_columns.in_words(name)
    if known is not None:
        return known
    base, at, rank = name.partition("_at_")
    text = " ".join(_ACRONYMS.get(word, word) for word in base.split("_"))
    text = text if text.startswith("mIoU") else text[:1].upper() + text[1:]
    return f"{text} at {rank}" if at else text


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Axis:
    """The axis on which the metrics of a table are drawn, with its ends."""

    low: float
    high: float

    def place(self, number: float | None) -> float | None:
        """Returns the position of a number, from 0 to 100; None for none."""
        if number is None:
            return None
        return round(100.0 * (number - self.low) / (self.high - self.low), 2)

    def mark(self, metric: Mapping[str, float | None]) -> Mark:
        value, lower, upper = (metric.get(key) for key in ("value", "low", "high"))
        return Mark(
            text="–" if value is None else f"{value:.3f}",
            interval="" if lower is None else f"[{lower:.3f}, {upper:.3f}]",
            value=self.place(value),
            low=self.place(lower),
            high=self.place(upper),
        )


def _axis(content, names) -> _Axis:
    """Returns the axis that holds all values and intervals of the metrics."""
    every = [
        number
        for side in ("metrics", "untrained")
        for name in names
        for number in content[side].get(name, {}).values()
        if number is not None
    ]
    # Leaves room for a kappa slightly below 0 without shrinking all other values.
    low = math.floor(10.0 * min(0.0, *every, 0.0)) / 10.0
    return _Axis(low=low, high=max([1.0, *every]))


def _remarks(content, names) -> dict[str, str]:
    """Returns what is said beside each metric, see `Row.reason`."""
    settings = content["settings"]
    reasons = settings.get("undefined", {})
    gathered = [
        reason
        for reason, same in undefined.by_reason(reasons).items()
        if len(same) >= undefined.MANY
    ]
    values = {name: metric.get("value") for name, metric in content["metrics"].items()}
    found = {}
    for name in names:
        part = undefined.classes_behind(name, values, settings.get("classes", ()))
        alone = "" if reasons.get(name) in gathered else reasons.get(name, "")
        found[name] = alone if part is None else f"over {part[0]} of {part[1]} classes"
    return found


def _table(content, title, names) -> Table:
    axis, remarks = _axis(content, names), _remarks(content, names)
    chance = content["settings"].get("chance", {})
    rows = [
        Row(
            name=name,
            label=words(name),
            trained=axis.mark(content["metrics"][name]),
            untrained=axis.mark(content["untrained"].get(name, {})),
            chance=axis.place(chance.get(name)),
            chance_text="" if chance.get(name) is None else f"{chance[name]:.3f}",
            reason=remarks[name],
            fixed=fixed_points.of_set_alone(name),
        )
        for name in names
    ]
    ends = f"{axis.low:.1f}", f"{axis.high:.1f}"
    return Table(title=title, folded=title == _BY_CLASS, axis=ends, rows=rows)
