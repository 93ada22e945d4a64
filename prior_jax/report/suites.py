"""Reads the table of a suite for the page, and the pictures and curves of its parts."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prior_jax.errors import DataError, first_line
from prior_jax.evaluate import fixed_points, pictures, results, undefined
from prior_jax.evaluate.over_seeds import LEAST_SEEDS
from prior_jax.report import learning_curves, phrase_sheets, region_sheets, reliability
from prior_jax.report.charts import Chart
from prior_jax.report.phrase_sheets import Gallery
from prior_jax.report.region_sheets import RegionGallery
from prior_jax.report.reliability import CurveSheet
from prior_jax.report.tables import meanings_of, notes_of, whole_words

FOLDER = "suite"
"""Folder of the parts' results under that of the suite: `suite/<set>/eval/<task>.json`."""
_SEED, _OVER_SEEDS = "_seed_", "_over_seeds"
_COLUMNS = {"Model": "value", "Random": "random", "ImageNet": "imagenet"}
_BEGAN = "Before training"
"""Name of the column "Random" of a run that began with weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A value of the table.

    Attributes:
      text: value, or "–".
      interval: interval as text, or "".
    """

    text: str
    interval: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteRow:
    """A metric.

    Attributes:
      label: name of the metric in words.
      cells: values in the order of `SuiteSheet.columns`; one for a baseline that is the same for
        every model.
      chance: chance level as text, or "".
    """

    label: str
    cells: Sequence[Cell]
    chance: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskRows:
    """The rows of one task on one set.

    Attributes:
      label: name of the task in words.
      interval: what the intervals are over, in words.
      rows: metrics that are not of a single class; means over classes come first.
      by_class: metrics of single classes.
      seeds: rows of each seed, if the task's own rows are means over seeds.
    """

    label: str
    interval: str
    rows: list[SuiteRow]
    by_class: list[SuiteRow]
    seeds: Sequence["TaskRows"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetSheet:
    """All results on one set.

    Attributes:
      name: name of the set.
      tasks: rows of each task.
      notes: sentences on the classes that the rows leave out, each with its task in words.
      curves: reliability curve of each classification, all its classes together.
      galleries: name of each grounding task in words, with its phrases.
      regions: name of each segmentation and detection in words, with its images.
      learning: name of each of them in words, with the curves of its training.
      meanings: names in words of the columns of segmentation and detection, and what they count.
    """

    name: str
    tasks: Sequence[TaskRows]
    notes: Sequence[str]
    curves: Sequence[CurveSheet]
    galleries: Sequence[tuple[str, Gallery]]
    regions: Sequence[tuple[str, RegionGallery]]
    learning: Sequence[tuple[str, Sequence[Chart]]]
    meanings: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteSheet:
    """A suite, as text and pictures.

    Attributes:
      columns: names of the columns that have a value: the model, random weights, ImageNet weights.
      baseline: sentence that says what the column beside the model's is.
      chance: whether a row has a chance level.
      sets: results of each set.
      notes: a sentence on every part that was left out or failed.
    """

    columns: Sequence[str]
    baseline: str
    chance: bool
    sets: Sequence[SetSheet]
    notes: Sequence[str]


def read(workdir: pathlib.Path) -> SuiteSheet | None:
    """Reads `eval/suite.json`, and what its parts left in `suite/<set>/eval`.

    Args:
      workdir: folder of the results.

    Returns:
      The table, or None if there is none.

    Raises:
      DataError: if a file is damaged; the error names it.
    """
    path = workdir / "eval" / f"{results.SUITE}.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = content["rows"]
        began = bool(content.get("model", {}).get(results.BEGAN_WITH_WEIGHTS))
        columns = {
            _BEGAN if began and label == "Random" else label: name
            for label, name in _COLUMNS.items()
            if label == "Model" or any(row[name] is not None for row in rows)
        }
        tasks = {
            name: _tasks([row for row in rows if row["set"] == name], columns)
            for name in dict.fromkeys(row["set"] for row in rows)
        }
        chance = any(row["chance"] is not None for row in rows)
        notes = [
            f"{one['set']}, {whole_words(one['task']) or 'the whole set'}: {one['state']}, "
            f"{one['reason']}"
            for one in content["parts"]
            if one["reason"]
        ]
        done = {name: [r["task"] for r in rows if r["set"] == name] for name in tasks}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The file is no table of a suite ({first_line(error)}).",
            "Delete the file, and run the suite again.",
            where=str(path),
        ) from error
    return SuiteSheet(
        columns=list(columns),
        baseline=_baseline(began),
        chance=chance,
        sets=[
            _set_sheet(name, found, workdir / FOLDER / name, done=list(dict.fromkeys(done[name])))
            for name, found in tasks.items()
        ],
        notes=notes,
    )


def _baseline(began: bool) -> str:
    """Says what the column beside the model's is; `began` is whether the run began with weights."""
    name, state = ("Random", "random weights")
    if began:
        name, state = _BEGAN, "the weights that its run began with"
    return (
        f"{name} is the same model at {state}; for trainings (linear, finetune, segmentation, "
        "detection) it is the same training from random weights."
    )


def _tasks(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[TaskRows]:
    """Groups the rows of a set; the rows of single seeds go under the mean over seeds."""
    groups: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        base = _base(row["task"])
        groups.setdefault(base, {}).setdefault(row["task"], []).append(row)
    found = []
    for base, members in groups.items():
        over = members.pop(f"{base}{_OVER_SEEDS}", None)
        singles = [
            _task(
                f"{whole_words(base)}, {_seed_words(task)}" if over else whole_words(task),
                members[task],
                columns,
            )
            for task in members
        ]
        if over is None:
            found += singles
        else:
            rows = [row for one in members.values() for row in one]
            found.append(_task(whole_words(base), over, columns, seeds=singles, single=rows))
    return found


def _base(task: str) -> str:
    """Returns the name of a task without its seed."""
    return task.partition(_SEED)[0].removesuffix(_OVER_SEEDS)


def _seed_words(task: str) -> str:
    seed = task.partition(_SEED)[2]
    return f"seed {seed}" if seed else "first seed"


def _task(label, rows, columns, *, seeds=(), single=()) -> TaskRows:
    """Returns the rows of a task; `single` are the rows of each seed, if `rows` are means."""
    chance = {row["metric"]: row["chance"] for row in rows}
    rows = [row for row in rows if not fixed_points.repeats_chance(row["metric"], chance)]
    of_all = [row for row in rows if not row["by_class"]]
    of_all.sort(key=lambda row: not row["metric"].startswith("macro_"))  # stable
    return TaskRows(
        label=label,
        interval=_interval_words(max(row["seeds"] for row in rows)),
        rows=[_row(row, columns, single, _part(row["metric"], rows)) for row in of_all],
        by_class=[_row(row, columns, single, "") for row in rows if row["by_class"]],
        seeds=seeds,
    )


def _interval_words(seeds: int) -> str:
    """Returns what the intervals are over."""
    if seeds == 1:
        return "intervals over patients"
    if seeds < LEAST_SEEDS:
        return (
            f"mean over {seeds} seeds, with the value of each: an interval over seeds needs at "
            f"least {LEAST_SEEDS}"
        )
    return f"mean over {seeds} seeds, intervals over patients and seeds, cut at the metric's range"


def _part(metric: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns over how many classes a mean of the model is, or "" if over all."""
    values = {row["metric"]: row["value"] for row in rows}
    auroc = [one["metric"] for one in rows if one["by_class"]]
    slugs = [name.removeprefix("auroc_") for name in auroc if name.startswith("auroc_")]
    part = undefined.classes_behind(metric, values, slugs)
    return "" if part is None else f", over {part[0]} of {part[1]} classes"


def _row(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    single: Sequence[Mapping[str, Any]],
    part: str,
) -> SuiteRow:
    same = [one for one in single if one["metric"] == row["metric"]]
    if fixed_points.of_set_alone(row["metric"]):
        columns = {"Model": "value"}
    return SuiteRow(
        label=whole_words(row["metric"]) + part,
        cells=[_cell(row, name, same) for name in columns.values()],
        chance="" if row["chance"] is None else f"{row['chance']:.3f}",
    )


def _cell(row: Mapping[str, Any], name: str, same: Sequence[Mapping[str, Any]]) -> Cell:
    """Returns a value with its interval; without one, with the value of each seed, if several."""
    prefix = "" if name == "value" else f"{name}_"
    value, low, high = row[name], row[f"{prefix}low"], row[f"{prefix}high"]
    each = [f"{one[name]:.3f}" for one in same if one[name] is not None]
    if 1 < len(each) < LEAST_SEEDS:
        return Cell(text=f"{value:.3f}", interval=f"({', '.join(each)})")
    return Cell(
        text="–" if value is None else f"{value:.3f}",
        interval="" if low is None or high is None else f"[{low:.3f}, {high:.3f}]",
    )


def _set_sheet(
    name: str, tasks: Sequence[TaskRows], folder: pathlib.Path, *, done: Sequence[str]
) -> SetSheet:
    """Adds to a set's rows the pictures of each part; of several seeds those of the first."""
    contents = {content["task"]: content for content in results.read_results(folder)}
    first: dict[str, str] = {}
    for task in (one for one in done if one in contents):
        first.setdefault(_base(task), task)
    curves, galleries, notes, shown_regions, learning = [], [], [], [], []
    meanings: dict[str, str] = {}
    for task in first.values():
        curve = reliability.pooled_of(contents[task], title=whole_words(task))
        curves += [] if curve is None else [curve]
        notes += [f"{whole_words(task)}. {one}" for one in notes_of(contents[task]["settings"])]
        path = folder / "eval" / f"{task}{pictures.SUFFIX}"
        shown = phrase_sheets.gallery(pictures.load(path), each=1)
        galleries += [] if shown is None else [(whole_words(task), shown)]
        images = region_sheets.load(folder, task, each=1)
        shown_regions += [] if images is None else [(whole_words(task), images)]
        charts = [] if images is None else learning_curves.of_task(folder, task)
        learning += [(whole_words(task), charts)] if charts else []
        meanings |= meanings_of(contents[task])
    return SetSheet(
        name=name,
        tasks=tasks,
        notes=notes,
        curves=curves,
        galleries=galleries,
        regions=shown_regions,
        learning=learning,
        meanings=list(meanings.items()),
    )
