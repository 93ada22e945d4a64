"""Tells what a set that is already there was made of."""

import json
import pathlib
from collections.abc import Mapping

from data_prep.kit import writer
from prior_jax.data import manifest as manifest_lib


def inputs_there(out: pathlib.Path) -> Mapping[str, str] | None:
    """Returns the inputs of the set that a folder holds, finished or not; None without a set.

    Args:
      out: directory of the set.

    Returns:
      Name of each table and sha256 of its file.

    Raises:
      DataError: if the manifest of a finished set is damaged.
    """
    if (out / manifest_lib.MANIFEST_NAME).is_file():
        return manifest_lib.load_manifest(out).inputs
    state = out / writer.PARTS / writer.STATE
    return json.loads(state.read_text())["inputs"] if state.is_file() else None
