"""Results of a sweep's trials, and the file that carries them to another folder of the sweep."""

import dataclasses
import io
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from launch.sweeps.config import Sweep, Variant, first_difference
from prior_jax.data.schema import write_atomically
from prior_jax.errors import ConfigError, DataError, first_line
from prior_jax.evaluate import results

RESULTS_NAME = "results.npz"
"""Name of the file with the results of all trials that are done."""

# Settings that must be equal in two results for their bootstrap draws to be paired.
_PAIRED_BY = ("split", "records", "patients", "classes", "regions", "attention", "bootstrap")
_FORM = 1


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
        content = contents.get(task)
        value = math.nan if content is None else _value(content, name, part="metrics")
        if content is None or math.isnan(value):
            continue
        if task not in draws:
            draws[task] = results.read_draws(folder, task=task)
        settings = content["settings"]
        found[metric] = Measured(
            value=value,
            untrained=_value(content, name, part="untrained"),
            settings={key: settings[key] for key in _PAIRED_BY if key in settings},
            draws=draws[task][name],
        )
    return found


def _value(content: Mapping[str, Any], name: str, *, part: str) -> float:
    """Returns a number of "metrics" or "untrained", or NaN if there is none."""
    found = content[part].get(name, {}).get("value")
    return math.nan if found is None else float(found)


def paired(ours: Measured, theirs: Measured) -> bool:
    """Tells whether the bootstrap draws of two results are of the same resampled patients."""
    return ours.draws is not None and theirs.draws is not None and ours.settings == theirs.settings


def save(path: pathlib.Path, *, trials: Trials, sweep: Sweep, found: Sequence[Variant]) -> None:
    """Writes the results of trials, with the configs that were trained, atomically.

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
        "configs": {variant.name: variant.resolved for variant in found},
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
      DataError: if the file is absent, or no such file.
      ConfigError: if a variant has another config there, the file lacks a metric of this sweep, or
        none of its trials belongs to this sweep.
    """
    content, draws = _read(path, where=where)
    variants = {variant.name: variant for variant in found}
    for variant in found:
        if variant.name in content["configs"]:
            _check_config(variant, content["configs"][variant.name], path=path)
    lacking = sorted(set(sweep.metrics) - set(content["metrics"]))
    trials: dict[tuple[str, int], dict[str, Measured]] = {}
    others = set()
    for index, row in enumerate(content["rows"]):
        place = row["variant"], row["seed"]
        if place[0] not in variants or place[1] not in sweep.seeds:
            others.add(place)
            continue
        trials.setdefault(place, {})[row["metric"]] = Measured(
            value=row["value"],
            untrained=math.nan if row["untrained"] is None else row["untrained"],
            settings=row["settings"],
            draws=draws[f"draws_{index}"].astype(np.float64),
        )
    if not trials or lacking:
        absent = lacking[0] if lacking else "trial of this sweep's arms and seeds"
        raise ConfigError(
            f"{path} has no {absent}.",
            f"Give the {RESULTS_NAME} of a sweep with the same arms and metrics.",
            where=where,
        )
    if others:
        logging.warning("%s: left out %d trials of other arms or seeds", path, len(others))
    return trials


def _read(path, *, where: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the content of a file of results and its draws."""
    try:
        # numpy leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            draws = dict(arrays)
        content = json.loads(draws.pop("content").tobytes())
        if content["form"] != _FORM:
            raise ValueError(f"its form is {content['form']}, not {_FORM}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as results of a sweep ({first_line(error)}).",
            f"Give the {RESULTS_NAME} that launch.sweep wrote in the folder of a sweep.",
            where=where,
        ) from error
    return content, draws


def _check_config(variant: Variant, theirs: Mapping[str, Any], *, path) -> None:
    name = first_difference(variant.resolved, theirs)
    if name is None:
        return
    raise ConfigError(
        f"The value is {variant.resolved.get(name, 'missing')!r}, but {path} has results of "
        f"{theirs.get(name, 'no value')!r}.",
        "Give the settings of that sweep, or leave its results out.",
        where=f"{variant.name}: config.{name}",
    )
