"""The files of `workdir/eval` as tables with drawn intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

# Of the metrics, in the order in which they stand on the page.
_PREFIXES = (
    ("report_to_image_", "Report to image"),
    ("auroc_", "AUROC by class"),
    ("average_precision_", "Average precision by class"),
)
_ACRONYMS = {"auroc": "AUROC", "f1": "F1", "kappa": "Cohen's kappa"}
# What the top of the page shows, as far as it was measured.
_HEADLINES = ("macro_auroc", "accuracy", "precision_at_5", "recall_at_10")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
    """One model's figure, as text and as places on a 0 to 100 axis.

    Attributes:
      text: the value, or "–".
      interval: "[low, high]", or "".
      value: place of the value; None if there is none.
      low: place of the interval's lower end; None if there is none.
      high: place of its upper end.
    """

    text: str
    interval: str
    value: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A metric, trained beside untrained.

    Attributes:
      name: as in the file.
      label: in words.
      trained: of the run's model.
      untrained: of the model before its first step.
      chance: place of the chance level on the axis, None if the file has none.
      chance_text: its value, or "".
      reason: why the metric does not exist, or "".
    """

    name: str
    label: str
    trained: Mark
    untrained: Mark
    chance: float | None
    chance_text: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Metrics of one kind.

    Attributes:
      title: its heading, "" for the first of a task.
      axis: what the drawn axis runs from and to, as text.
      rows: the metrics.
    """

    title: str
    axis: tuple[str, str]
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One results file.

    Attributes:
      name: as in the file.
      label: in words.
      tables: its metrics.
      settings: flat (name, value) pairs.
    """

    name: str
    label: str
    tables: Sequence[Table]
    settings: Sequence[tuple[str, str]]


def task_of(content: Mapping[str, Any]) -> Task:
    """Arranges one results file.

    Args:
      content: as `evaluate.results.read_results` gives it.

    Returns:
      The task.
    """
    groups: dict[str, list[str]] = {"": []}
    for name in content["metrics"]:
        title = next((title for prefix, title in _PREFIXES if name.startswith(prefix)), "")
        groups.setdefault(title, []).append(name)
    if "Report to image" in groups:
        groups = {"Image to report" if not title else title: n for title, n in groups.items()}
    settings = {
        name: value
        for name, value in content["settings"].items()
        if name not in ("chance", "undefined")
    }
    return Task(
        name=content["task"],
        label=words(content["task"]),
        tables=[_table(content, title, names) for title, names in groups.items() if names],
        settings=flatten(settings),
    )


def headlines(tasks: Sequence[Task]) -> list[Row]:
    """The rows for the top of the page."""
    rows = {row.name: row for task in tasks for table in task.tables for row in table.rows}
    return [rows[name] for name in _HEADLINES if name in rows and rows[name].trained.value]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs.

    Args:
      settings: nested mappings; lists of plain values stay in one line.
      prefix: what the names begin with.

    Returns:
      Pairs in the order of the settings.
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
    """A metric's or task's name in words: `macro_f1` is "Macro F1"."""
    for prefix, _ in _PREFIXES:
        if name.startswith(prefix) and name != prefix:
            name = name.removeprefix(prefix)
            break
    base, at, rank = name.partition("_at_")
    text = " ".join(_ACRONYMS.get(word, word) for word in base.split("_"))
    text = text[:1].upper() + text[1:]
    return f"{text} at {rank}" if at else text


def _table(content, title, names) -> Table:
    every = [
        number
        for side in ("metrics", "untrained")
        for name in names
        for number in content[side].get(name, {}).values()
        if number is not None
    ]
    # Room for a kappa a little below 0, without shrinking everything else.
    low = math.floor(10.0 * min(0.0, *every, 0.0)) / 10.0
    high = max([1.0, *every])
    chance = content["settings"].get("chance", {})
    undefined = content["settings"].get("undefined", {})

    def place(number):
        return None if number is None else round(100.0 * (number - low) / (high - low), 2)

    def mark(metric):
        value, lower, upper = (metric.get(key) for key in ("value", "low", "high"))
        return Mark(
            text="–" if value is None else f"{value:.3f}",
            interval="" if lower is None else f"[{lower:.3f}, {upper:.3f}]",
            value=place(value),
            low=place(lower),
            high=place(upper),
        )

    rows = [
        Row(
            name=name,
            label=words(name),
            trained=mark(content["metrics"][name]),
            untrained=mark(content["untrained"].get(name, {})),
            chance=place(chance.get(name)),
            chance_text="" if chance.get(name) is None else f"{chance[name]:.3f}",
            reason=undefined.get(name, ""),
        )
        for name in names
    ]
    return Table(title=title, axis=(f"{low:.1f}", f"{high:.1f}"), rows=rows)
