"""Results of a sweep's trials, and the file that carries them to another folder of the sweep."""

import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from launch.sweeps import data as data_lib
from launch.sweeps.config import Sweep
from launch.sweeps.flat_settings import first_difference
from launch.sweeps.variants import Variant
from prior_jax.data.array_file import read_arrays
from prior_jax.data.schema import write_atomically
from prior_jax.errors import ConfigError, DataError, first_line
from prior_jax.evaluate import results

RESULTS_NAME = "results.npz"
"""Name of the file with the results of all trials that are done."""

# Settings that must be equal in two results for their bootstrap draws to be paired.
_PAIRED_BY = (
    *("split", "records", "patients", "classes", "regions", "attention", "bootstrap"),
    *("text", "prompt_set"),
)
# Results of grounding by an earlier version do not say that the reports' sentences were asked.
_UNSAID = {"text": "report"}
_FORM = 2
_ENOUGH = 100  # draws among which a number lies


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One metric of one trial.

    Attributes:
      value: value of the trained model; NaN where it is undefined.
      untrained: value of the model before its first step; NaN if there is none.
      settings: what two results must have in common for their draws to be paired, JSON types.
      draws: bootstrap draws, float[R], made by resampling patients.
    """

    value: float
    untrained: float
    settings: Mapping[str, Any]
    draws: np.ndarray = dataclasses.field(repr=False)


Trial = Mapping[str, Measured]
"""The metrics of one trial by name, "<results>.<metric>"; one without a value is absent."""

Trials = Mapping[tuple[str, int], Trial]
"""The results of trials by (variant, seed)."""


def read_trial(folder: pathlib.Path, *, metrics: Sequence[str]) -> Trial:
    """Reads the results in the folder of a trial that is done.

    Args:
      folder: workdir of the trial.
      metrics: names of the metrics, "<results>.<metric>".

    Raises:
      DataError: if a result is damaged; the message names the file.
    """
    contents = {content["task"]: content for content in results.read_results(folder)}
    draws: dict[str, Mapping[str, np.ndarray]] = {}
    found = {}
    for metric in metrics:
        task, _, name = metric.partition(".")
        if task not in contents:
            continue
        content, path = contents[task], folder / "eval" / f"{task}.json"
        value = _value(content, name, part="metrics", path=path)
        if math.isnan(value):
            continue
        if task not in draws:
            draws[task] = results.read_draws(folder, task=task)
        if name not in draws[task]:
            raise DataError(
                f"There are no bootstrap draws of {name}.",
                "Run launch.evaluate again for this task.",
                where=str(path.with_suffix(results.DRAWS_SUFFIX)),
            )
        settings = content["settings"]
        found[metric] = Measured(
            value=value,
            untrained=_value(content, name, part="untrained", path=path),
            settings={key: settings[key] for key in _PAIRED_BY if key in settings},
            draws=draws[task][name],
        )
    return found


def _value(content: Mapping[str, Any], name: str, *, part: str, path: pathlib.Path) -> float:
    """Returns a number of "metrics" or "untrained", or NaN if there is none."""
    metric = content[part].get(name) or {}
    value = metric.get("value") if isinstance(metric, dict) else metric
    if value is None:
        return math.nan
    if not _is_finite(value):
        raise DataError(
            f"The value of {name} in {part!r} is {value!r}, which is no finite number.",
            "Run launch.evaluate again for this task.",
            where=str(path),
        )
    return float(value)


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def paired(ours: Measured, theirs: Measured) -> bool:
    """Tells whether the bootstrap draws of two results are of the same resampled patients."""
    alike = {**_UNSAID, **ours.settings} == {**_UNSAID, **theirs.settings}
    return alike and ours.draws.shape == theirs.draws.shape


def save(path: pathlib.Path, *, trials: Trials, sweep: Sweep, found: Sequence[Variant]) -> None:
    """Writes the results of trials, with their configs and what tells their data, atomically.

    Bootstrap draws are rounded to three digits (float16), all other numbers are kept.

    Args:
      path: file to write.
      trials: results of the trials that are done.
      sweep: sweep of the trials.
      found: variants of the sweep.
    """
    rows, draws = [], {}
    for (variant, seed), trial in trials.items():
        for metric, one in trial.items():
            draws[f"draws_{len(rows)}"] = one.draws.astype(np.float16)
            rows.append(
                {
                    "variant": variant,
                    "seed": seed,
                    "metric": metric,
                    "value": one.value,
                    "untrained": None if math.isnan(one.untrained) else one.untrained,
                    "settings": one.settings,
                }
            )
    content = {
        "form": _FORM,
        "metrics": list(sweep.metrics),
        "data": data_lib.identity(sweep),
        "configs": {variant.name: variant.resolved for variant in found},
        "tasks": sweep.task_settings,
        "rows": rows,
    }
    text = np.frombuffer(json.dumps(content, allow_nan=False).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, content=text, **draws)
    write_atomically(path, buffer.getvalue())


def load(
    path: str | os.PathLike[str], *, sweep: Sweep, found: Sequence[Variant], where: str
) -> Trials:
    """Reads the results of trials that have run in another folder.

    Args:
      path: `results.npz` of a sweep.
      sweep: this sweep.
      found: variants of this sweep.
      where: name of the flag or file that gave the path, for error messages.

    Returns:
      The results of this sweep's variants and seeds. A warning names how many trials of the file
      are of others.

    Raises:
      DataError: if the file is absent, damaged or no such file.
      ConfigError: if a variant has another config there, the trials saw other data or were measured
        by tasks with other settings, the file lacks a metric of this sweep, or none of its trials
        belongs to this sweep.
    """
    content, there = _read(path, where=where)
    variants = {variant.name: variant for variant in found}
    for name, variant in variants.items():
        theirs = content["configs"].get(name)
        if theirs is not None:
            other = first_difference(variant.resolved, theirs)
            _check(other, variant.resolved, theirs, path=path, where=f"{name}: config.")
    ours = data_lib.identity(sweep)
    other = data_lib.first_other(ours, content["data"])
    _check(other, ours, content["data"], path=path, where="sweep.data: config.")
    for task, settings in sweep.task_settings.items():
        theirs = content.get("tasks", {}).get(task)  # files of earlier versions do not have them
        if theirs is not None:
            other = first_difference(settings, theirs)
            _check(other, settings, theirs, path=path, where=f"{task}: task.")
    trials = {
        (variant, seed): {name: trial[name] for name in sweep.metrics if name in trial}
        for (variant, seed), trial in there.items()
        if variant in variants and seed in sweep.seeds
    }
    lacking = sorted(set(sweep.metrics) - set(content["metrics"]))
    if not trials or lacking:
        absent = lacking[0] if lacking else "trial of this sweep's arms and seeds"
        raise ConfigError(
            f"{path} has no {absent}.",
            f"Give the {RESULTS_NAME} of a sweep with the same arms and metrics.",
            where=where,
        )
    if len(trials) < len(there):
        logging.warning(
            "%s: left out %d trials of other arms or seeds", path, len(there) - len(trials)
        )
    return trials


def _read(path, *, where: str) -> tuple[dict[str, Any], Trials]:
    """Returns the content of a file of results, whose form is checked, and its trials."""
    try:
        draws = read_arrays(path)
        content = json.loads(draws.pop("content").tobytes())
        form = content["form"]
        trials = _trials(content, draws) if form == _FORM else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} cannot be read as results of a sweep ({first_line(error)}).",
            f"Give the {RESULTS_NAME} that launch.sweep wrote in the folder of a sweep.",
            where=where,
        ) from error
    if form != _FORM:
        raise DataError(
            f"{path} has the form {form!r}, but this version reads the form {_FORM}, which also "
            "says what data the trials saw.",
            "Write the file anew with launch.sweep --collect in the folder of that sweep, and "
            "delete a copy of it in the folder of this one.",
            where=where,
        )
    return content, trials


def _trials(content: Mapping[str, Any], draws: Mapping[str, np.ndarray]) -> Trials:
    """Returns the trials of a file's content.

    Raises:
      ValueError: if a part of the content has another form than `save` gives it.
    """
    configs, metrics, rows = content["configs"], content["metrics"], content["rows"]
    _require(isinstance(content["data"], dict), "'data' is no object")
    objects = isinstance(configs, dict) and all(isinstance(c, dict) for c in configs.values())
    _require(objects, "'configs' has no objects")
    texts = isinstance(metrics, list) and all(isinstance(name, str) for name in metrics)
    _require(texts, "'metrics' has no names")
    tasks = content.get("tasks", {})
    objects = isinstance(tasks, dict) and all(isinstance(t, dict) for t in tasks.values())
    _require(objects, "'tasks' has no objects")
    trials: dict[tuple[str, int], dict[str, Measured]] = {}
    for index, row in enumerate(rows):
        variant, seed, untrained = row["variant"], row["seed"], row["untrained"]
        one = draws[f"draws_{index}"]
        told = f"row {index}"
        _require(variant in configs, f"{told}: there is no config of {variant!r}")
        _require(type(seed) is int, f"{told}: the seed is {seed!r}")
        _require(row["metric"] in metrics, f"{told}: the metric is {row['metric']!r}")
        _require(_is_finite(row["value"]), f"{told}: the value is {row['value']!r}")
        fits = untrained is None or _is_finite(untrained)
        _require(fits, f"{told}: the untrained value is {untrained!r}")
        _require(isinstance(row["settings"], dict), f"{told}: its settings are no object")
        numbers = one.ndim == 1 and one.dtype.kind == "f" and not np.isinf(one).any()
        _require(numbers, f"{told}: its draws are no row of numbers")
        _require(_holds(one, row["value"]), f"{told}: its draws are those of another number")
        trials.setdefault((variant, seed), {})[row["metric"]] = Measured(
            value=float(row["value"]),
            untrained=math.nan if untrained is None else float(untrained),
            settings=row["settings"],
            draws=one.astype(np.float64),
        )
    return trials


def _holds(draws: np.ndarray, value: float) -> bool:
    """Returns whether a number lies among its draws; it does not where rows were exchanged.

    A few draws tell nothing. They are kept in half precision.
    """
    known = draws[~np.isnan(draws)]
    slack = 1e-3 * max(1.0, abs(value))
    return len(known) < _ENOUGH or bool(known.min() - slack <= value <= known.max() + slack)


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _check(
    name: str | None, ours: Mapping[str, Any], theirs: Mapping[str, Any], *, path, where: str
) -> None:
    """Refuses the setting of this name, by which results differ from those of this sweep."""
    if name is None:
        return
    raise ConfigError(
        f"The value is {ours.get(name, 'missing')!r}, but {path} has results of "
        f"{theirs.get(name, 'no value')!r}.",
        "Give the settings of that sweep, or leave its results out.",
        where=where + name,
    )
