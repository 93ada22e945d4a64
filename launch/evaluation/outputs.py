"""What a results file says about its model and its set, and the care that none is mixed up."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from launch.evaluation.subject import Opened, Subject
from prior_jax.config import CONFIG_NAME
from prior_jax.data.manifest import MANIFEST_NAME, load_manifest
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import results
from prior_jax.report import suites


def described(subject: Subject, opened: Opened, *, split: str) -> dict[str, Any]:
    """Returns the JSON values that a results file repeats: split, set and model."""
    return {
        "split": split,
        "set": opened.split.manifest.fingerprint,
        "set_path": subject.data.path,
        **subject.origin,
    }


def with_remarks(where: Mapping[str, Any], remarks: Sequence[str]) -> dict[str, Any]:
    """Returns the description of a results file with what is to be known when it is read."""
    return {**where, "remarks": list(remarks)} if remarks else dict(where)


def sets_of_results(path: str, *, out: pathlib.Path) -> dict[str, str]:
    """Returns the set at `path` and all others that a folder of results is of, by their names.

    Args:
      path: folder of a prepared set.
      out: folder of the results.
    """
    measured = (content["settings"].get("set_path") for content in results.read_results(out))
    found: dict[str, str] = {}
    for one in dict.fromkeys(str(one) for one in (path, *measured) if one is not None):
        name = pathlib.Path(os.path.abspath(one)).name
        found[name if name not in found else one] = one
    return found


def counts_of(sets: Mapping[str, str]) -> dict[str, dict[str, dict[str, int]]]:
    """Returns the counts of each set's splits, for the report; a set that is gone is left out."""
    found = {}
    for name, path in sets.items():
        try:
            splits = load_manifest(path).splits
        except DataError as error:
            logging.warning("The report does not count the set %s: %s", name, error)
            continue
        found[name] = {split: dataclasses.asdict(counts) for split, counts in splits.items()}
    return found


def titled(subject: Subject, sets: Sequence[str], *, out: pathlib.Path) -> str:
    """Returns the title of a report: the run's name, and the sets where it is of results alone."""
    if (out / CONFIG_NAME).is_file():
        return subject.name
    return f"{subject.name} on {', '.join(sets)}"


def check_own(out: pathlib.Path, *, run: pathlib.Path | None) -> None:
    """Refuses the folder of a prepared set, and that of another run, whose report would be lost.

    Args:
      out: folder of the results.
      run: folder of the run that is measured; None for a model without a run.

    Raises:
      ConfigError: naming the file that marks the folder.
    """
    if run is not None and out.resolve() == run.resolve():
        return
    for name, kind in ((CONFIG_NAME, "another run"), (MANIFEST_NAME, "a prepared set")):
        if (out / name).is_file():
            raise ConfigError(
                f"The folder {out} belongs to {kind}: it holds {name}.",
                "Give --out=DIR, a folder for the results of this model.",
                where="--out",
            )


def check_same_set(out: pathlib.Path, *, task: str, where: Mapping[str, Any]) -> None:
    """Refuses to replace the results of another set.

    Args:
      out: folder of the results.
      task: name of the results file, without its suffix.
      where: description of the split, set and model, from `described`.

    Raises:
      ConfigError: if the file holds results of another set.
    """
    for content in results.read_results(out):
        kept = content["settings"].get("set")
        if content["task"] == task and kept not in (None, where["set"]):
            raise ConfigError(
                f"{out}/eval/{task}.json holds results of another set, "
                f"{content['settings'].get('set_path')}.",
                "Give --out=DIR, a folder for the results on this set.",
                where="--out",
            )


def check_same_model(out: pathlib.Path, *, about: Mapping[str, Any]) -> None:
    """Refuses a folder with results of another model, which the report would mix with these.

    Args:
      out: folder of the results, other than the run's own.
      about: description of the model, `Subject.about`.

    Raises:
      ConfigError: if a file holds results of another model, those of the parts of a suite included.
    """
    found = {f"{out}/eval/{one['task']}.json": one for one in results.read_results(out)}
    for folder in sorted((out / suites.FOLDER).glob("*")):
        with contextlib.suppress(DataError):  # a suite measures anew what is damaged
            parts = results.read_results(folder)
            found |= {f"{folder}/eval/{one['task']}.json": one for one in parts}
    for path, content in found.items():
        kept = content["settings"]
        if _is_another(kept, about):
            raise ConfigError(
                f"{path} holds results of another model, {_named(kept)}.",
                "Give --out=DIR, a folder for the results of this model.",
                where="--out",
            )


def check_unchanged(
    out: pathlib.Path, *, task: str, where: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Refuses to write beside results that came meanwhile, of another set or another model.

    Between the first look at the folder and the results lie minutes, in which a second evaluation
    may have written to it.

    Args:
      out: folder of the results.
      task: name of the results file, without its suffix.
      where: description of the split, set and model, from `described`.
      about: description of the model, `Subject.about`.

    Raises:
      ConfigError: as `check_same_set` and `check_same_model` raise it.
    """
    check_same_set(out, task=task, where=where)
    if not (out / CONFIG_NAME).is_file():  # the folder of the run itself is of one model
        check_same_model(out, about=about)


def _is_another(kept: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Tells whether results are of another model than `about`; a later step is the same model."""
    kind, other = _kind(about), _kind(kept)
    if other is None or kind is None:
        return False
    if kind != other or kept.get("run") != about.get("run"):
        return True
    if kind == "random":
        return any(kept.get(name) != about[name] for name in ("random", "seed"))
    another_step = kind == "run" and kept.get("step") != about.get("step")
    # An earlier version, or a hand, may have left out the weights.
    return kept.get("weights") not in (None, about["weights"]) and not another_step


def _kind(about: Mapping[str, Any]) -> str | None:
    """Returns where a model comes from, "run", "random" or "weights"; None if it is not told."""
    return next((name for name in ("run", "random", "weights") if name in about), None)


def _named(about: Mapping[str, Any]) -> str:
    kind = _kind(about)
    if kind == "run":
        return f"the run {about['run']} at step {about.get('step')}"
    if kind == "random":
        return f"the config {about['random']} with seed {about.get('seed')} before its first step"
    origin = about.get("origin", {})
    source = origin.get("file") or origin.get("run") or origin.get("source")
    return f"the weights {about['weights'][:12]} of {source}"
