"""The data set and the tokenizer that all trials of a sweep share, and what tells them apart."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from data_prep.kit import cli
from launch.start import prepare
from launch.sweeps.config import Overrides, Sweep
from launch.sweeps.variants import resolve
from prior_jax.config import read_config
from prior_jax.data import manifest as manifest_lib
from prior_jax.run_config import RunConfig


def paths(sweep: Sweep, workdir: pathlib.Path, *, make: bool) -> Overrides:
    """Returns overrides that name the shared data and tokenizer; makes them if `make` is set."""
    config = _config(sweep, workdir)
    missing = prepare.missing(config)
    prepare.check_set(config)
    if make:
        prepare.make_absent(missing, workdir)
    return (
        ("data.path", os.path.abspath(config.data.path)),
        ("data.tokenizer.path", os.path.abspath(config.data.tokenizer.path)),
    )


def identity(sweep: Sweep) -> dict[str, Any]:
    """Returns what tells the data of a sweep from other data; nothing is made.

    Returns:
      Dotted name of a setting of `sweep.data` -> JSON value. What the sweep makes for itself is
      known by the settings that it is made with. A set or tokenizer that is given is known by its
      path and a sha256 of its content, which is None where there is none at the path.

    Raises:
      DataError: if the manifest of a given set is damaged.
    """
    config = _config(sweep, pathlib.Path())
    found: dict[str, Any] = {}
    if not config.makes_set:
        found["data.path"] = _given(config.data.path, _hash_of_set(config.data.path))
    elif config.prepare.phantom is not None:
        drawn = dataclasses.asdict(config.prepare.phantom)
        found.update({f"prepare.phantom.{name}": value for name, value in drawn.items()})
    if config.makes_tokenizer:
        found["prepare.vocab_size"] = config.prepare.vocab_size
        found["data.tokenizer.lower_case"] = config.data.tokenizer.lower_case
        found["data.text_sources"] = sorted(config.data.text_sources)
    elif config.data.tokenizer.path:
        path = pathlib.Path(config.data.tokenizer.path)
        sha256 = cli.sha256_of(path) if path.is_file() else None
        found["data.tokenizer.path"] = _given(path, sha256)
    return found


def first_other(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Returns the first setting by which two results of `identity` are of other data, or None."""
    names = sorted({*ours, *theirs})
    return next((name for name in names if not _same(ours.get(name), theirs.get(name))), None)


def _same(one: Any, other: Any) -> bool:
    """Compares two values of `identity`: contents where both are known, and else paths."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        known = one.get("sha256") is not None and other.get("sha256") is not None
        key = "sha256" if known else "path"
        return one.get(key) == other.get(key)
    return one == other


def _given(path: str | os.PathLike[str], sha256: str | None) -> dict[str, Any]:
    return {"path": os.path.abspath(path), "sha256": sha256}


def _hash_of_set(path: str) -> str | None:
    there = (pathlib.Path(path) / manifest_lib.MANIFEST_NAME).is_file()
    return manifest_lib.load_manifest(path).fingerprint if there else None


def _config(sweep: Sweep, workdir: pathlib.Path) -> RunConfig:
    return read_config(resolve(sweep.data, where="sweep.data"), workdir=workdir)
