"""The files and the console table that an evaluation writes."""

import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prior_jax.data.array_file import read_arrays
from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError, first_line
from prior_jax.evaluate import box_file, mask_file, pictures, region_columns, undefined
from prior_jax.evaluate.bootstrap import Interval

DRAWS_SUFFIX = ".draws.npz"
UNTRAINED_DRAWS_SUFFIX = ".untrained.draws.npz"
SUITE = "suite"
"""Name of the table of a suite in `eval`, which is the result of no single task."""
BEGAN_WITH_WEIGHTS = "began_with_weights"
"""Setting of a results file: whether the model had weights of another before its first step."""
_EVALUATE_AGAIN = "Delete the file, and run launch.evaluate again if it was a result."


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The results of one model on one task.

    Attributes:
      metrics: metrics by name, each with its interval; NaN where a metric is undefined.
      settings: settings of the measurement: counts, policies, chance levels, and under `undefined`
        the reason for each undefined metric. JSON types only.
      shown: phrases over their images, for the report; () for tasks without phrases.
      kept: boxes of a detector, or counts and masks of a segmentation model, for the report; None
        for other tasks.
    """

    metrics: Mapping[str, Interval]
    settings: Mapping[str, Any]
    shown: Sequence[pictures.PhrasePicture] = dataclasses.field(default=(), repr=False)
    kept: box_file.KeptBoxes | mask_file.KeptMasks | None = dataclasses.field(
        default=None, repr=False
    )


def write_results(
    workdir: os.PathLike[str] | str,
    *,
    task: str,
    trained: TaskResult,
    untrained: TaskResult,
    settings: Mapping[str, Any],
) -> pathlib.Path:
    """Writes `workdir/eval/<task>.json` and replaces an older file atomically.

    The bootstrap draws of the trained model, if they were kept, are written to `<task>.draws.npz`
    in the same folder, those of the untrained one to `<task>.untrained.draws.npz`, its pictures to
    `<task>.pictures.npz`, the boxes of a detector to `<task>.boxes.npz`,
    and the counts and some masks of a segmentation model to `<task>.masks.npz`.

    Args:
      workdir: folder of the run.
      task: name of the file without its ending; letters, digits, "_" and "-".
      trained: results of the run's model.
      untrained: results of the same model before its first step, on the same records.
      settings: settings that the caller adds to the trained result's own settings (checkpoint step,
        data set, split); on equal keys the caller's value is kept.

    Returns:
      Path of the file.

    Raises:
      DataError: if the task's name is not a valid file name, or the settings are not valid JSON.
    """
    if not task or not task.replace("_", "").replace("-", "").isalnum():
        raise DataError.of_value("task", task, "a name of letters, digits, '_' and '-'")
    text = _as_json(task, trained, untrained, {**trained.settings, **settings})
    path = pathlib.Path(workdir) / "eval" / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written before the results, so that a reader who finds the results also finds their draws.
    _write_draws(path.with_suffix(DRAWS_SUFFIX), trained)
    _write_draws(path.with_suffix(UNTRAINED_DRAWS_SUFFIX), untrained)
    pictures.save(path.with_suffix(pictures.SUFFIX), trained.shown)
    if isinstance(trained.kept, box_file.KeptBoxes):
        box_file.save(path.with_suffix(box_file.SUFFIX), trained.kept)
    if isinstance(trained.kept, mask_file.KeptMasks):
        mask_file.save(path.with_suffix(mask_file.SUFFIX), trained.kept)
    write_atomically(path, (text + "\n").encode("utf-8"))
    return path


def _as_json(task: str, trained: TaskResult, untrained: TaskResult, settings) -> str:
    """Returns the text of a results file, without its final line break."""
    content = {
        "task": task,
        "metrics": {name: value.to_json() for name, value in trained.metrics.items()},
        "untrained": {name: value.to_json() for name, value in untrained.metrics.items()},
        "settings": settings,
    }
    try:
        return json.dumps(content, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The settings cannot be written as JSON ({first_line(error)}).",
            "Use only finite numbers, strings, lists and mappings.",
            where=f"settings of {task}",
        ) from error


def _write_draws(path: pathlib.Path, result: TaskResult) -> None:
    """Writes the bootstrap draws of a result; no file, nor an earlier one, if none were kept."""
    draws: dict[str, Any] = {
        name: m.draws for name, m in result.metrics.items() if m.draws is not None
    }
    if draws:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **draws)
        write_atomically(path, buffer.getvalue())
    else:
        path.unlink(missing_ok=True)


def read_draws(
    workdir: os.PathLike[str] | str, *, task: str, untrained: bool = False
) -> dict[str, np.ndarray]:
    """Reads the bootstrap draws that `write_results` kept.

    Args:
      workdir: folder of the run.
      task: name of the task, as given to `write_results`.
      untrained: whether the draws are those of the untrained model.

    Returns:
      Draws by metric name, float64[resamples] each, NaN where the metric is undefined on a
      resample.

    Raises:
      DataError: if the file is absent or damaged; the error names it.
    """
    suffix = UNTRAINED_DRAWS_SUFFIX if untrained else DRAWS_SUFFIX
    path = pathlib.Path(workdir) / "eval" / f"{task}{suffix}"
    try:
        return read_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The bootstrap draws of the task cannot be read ({first_line(error)}).",
            "Run launch.evaluate again for this task.",
            where=str(path),
        ) from error


def read_results(workdir: os.PathLike[str] | str) -> list[dict[str, Any]]:
    """Reads every `workdir/eval/*.json` but the table of a suite, sorted by task.

    Args:
      workdir: folder of the run; a missing `eval` folder gives an empty list.

    Returns:
      Contents of the files, as `write_results` wrote them.

    Raises:
      DataError: if a file does not have that form; the error names it.
    """
    found = []
    for path in sorted((pathlib.Path(workdir) / "eval").glob("*.json")):
        if path.stem == SUITE:
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"The file is not JSON ({first_line(error)}).", _EVALUATE_AGAIN, where=str(path)
            ) from error
        wanted = {"task", "metrics", "untrained", "settings"}
        if not isinstance(content, dict) or wanted - content.keys():
            found_in = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise DataError(
                f"The file is no result of an evaluation: it holds {found_in}, not an object with "
                f"{', '.join(sorted(wanted))}.",
                _EVALUATE_AGAIN,
                where=str(path),
            )
        objects = all(isinstance(content[name], dict) for name in wanted - {"task"})
        if not (objects and isinstance(content["task"], str)):
            raise DataError(
                "The file is no result of an evaluation: 'task' must be a name, and 'metrics', "
                "'untrained' and 'settings' objects.",
                _EVALUATE_AGAIN,
                where=str(path),
            )
        found.append(content)
    return found


def format_table(trained: TaskResult, untrained: TaskResult) -> str:
    """Formats the trained results beside the untrained ones, for the console.

    Args:
      trained: results of the run's model.
      untrained: results of the same model before its first step; of a fine-tuning those of the
        same training from random weights. The header says which, by the trained result's settings.

    Returns:
      Lines of text without a final line break: a header, one line per metric, which says over how
      many classes a mean is if not over all, one sentence for each reason of undefined metrics, and
      one line for each column of segmentation and detection that says what it counts.
    """
    names = list(trained.metrics)
    width = max([len("metric"), *map(len, names)])
    beside = baseline_of(trained.settings)
    lines = [f"{'metric':<{width}}  {'trained':>21}  {beside:>21}"]
    values = {name: metric.value for name, metric in trained.metrics.items()}
    missing = Interval(value=math.nan, low=math.nan, high=math.nan)
    for name in names:
        cells = (trained.metrics[name], untrained.metrics.get(name, missing))
        part = undefined.classes_behind(name, values, trained.settings.get("classes", ()))
        line = f"{name:<{width}}  " + "  ".join(f"{_cell(cell):>21}" for cell in cells)
        lines.append(line if part is None else f"{line}  over {part[0]} of {part[1]} classes")
    lines += undefined.sentences(trained.settings.get("undefined", {}))
    told = region_columns.meanings(region_columns.kind_of(trained.settings), names)
    lines += [f"{name}: {meaning}" for name, meaning in told.items()]
    return "\n".join(lines)


def baseline_of(settings: Mapping[str, Any]) -> str:
    """Returns what the results beside the model's are of, from the settings of a results file."""
    # The baseline of a fine-tuning is trained as well.
    if "finetune" in settings:
        return "from random weights"
    return "before training" if settings.get(BEGAN_WITH_WEIGHTS) else "untrained"


def _cell(metric: Interval) -> str:
    if math.isnan(metric.value):
        return "-"
    if math.isnan(metric.low):
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
