"""What a results file says about its model and its set, and the care that none is mixed up."""

import pathlib
from typing import Any

from launch.evaluation.subject import Opened, Subject
from prior_jax.errors import ConfigError
from prior_jax.evaluate import results


def described(subject: Subject, opened: Opened, *, split: str) -> dict[str, Any]:
    """Returns the JSON values that a results file repeats: split, set and model."""
    return {
        "split": split,
        "set": opened.split.manifest.fingerprint,
        "set_path": subject.data.path,
        **subject.about,
    }


def check_same_set(out: pathlib.Path, *, task: str, where: dict[str, Any]) -> None:
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
