"""Opens the numbers recorded from the authors' code, and compares with them.

`load(golden_dir, "prior", "bert_encoder")` opens `<golden>/prior/bert_encoder.npz`. A directory
without `prior/` holds other systems' numbers: the test is skipped, saying so. A `prior/` that
lacks the file is damaged: that is an error.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest


class Golden(Mapping[str, np.ndarray]):
    """Arrays by name; `prefix("param/a/")` gives those below a prefix, names shortened."""

    def __init__(self, arrays: Mapping[str, np.ndarray], source: str):
        self._arrays = dict(arrays)
        self.source = source

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            near = sorted(k for k in self._arrays if k.split("/")[0] == name.split("/")[0])
            raise KeyError(f"{self.source} has no {name!r}; it has {near[:40]}")
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def prefix(self, prefix: str) -> "Golden":
        """The arrays whose names start with `prefix`, without it; at least one."""
        found = {k[len(prefix) :]: v for k, v in self._arrays.items() if k.startswith(prefix)}
        if not found:
            raise KeyError(f"{self.source} has nothing below {prefix!r}")
        return Golden(found, f"{self.source}:{prefix}")

    def cases(self, prefix: str) -> list[str]:
        """The sorted next path parts below `prefix`: `cases("in/")` -> ["a", "b"]."""
        return sorted({name.split("/")[0] for name in self.prefix(prefix) if "/" in name})

    def scalar(self, name: str) -> Any:
        """A 0-d array as a Python number, bool or text."""
        return self[name].item()


def _path(golden_dir: pathlib.Path, system: str, file: str) -> pathlib.Path:
    folder = pathlib.Path(golden_dir) / system
    if not folder.is_dir():
        pytest.skip(f"{golden_dir} holds no {system}/ numbers")
    path = folder / file
    if not path.is_file():
        raise FileNotFoundError(f"{folder} lacks {file}")
    return path


def load(golden_dir: pathlib.Path, system: str, name: str) -> Golden:
    """Opens `<golden_dir>/<system>/<name>.npz`."""
    path = _path(golden_dir, system, f"{name}.npz")
    with np.load(path, allow_pickle=False) as arrays:
        return Golden({key: arrays[key] for key in arrays.files}, f"{system}/{name}.npz")


def load_json(golden_dir: pathlib.Path, system: str, name: str) -> Any:
    """Opens `<golden_dir>/<system>/<name>.json`."""
    return json.loads(_path(golden_dir, system, f"{name}.json").read_text(encoding="utf-8"))


def load_text(golden_dir: pathlib.Path, system: str, name: str) -> str:
    """Opens `<golden_dir>/<system>/<name>` as UTF-8 text; `name` has its suffix."""
    return _path(golden_dir, system, name).read_text(encoding="utf-8")


def is_key_bias(name: str) -> bool:
    """Whether a torch name is a softmax attention's key bias, whose true gradient is 0."""
    return name.endswith(("k_proj.bias", ".self.key.bias"))


def assert_close(actual: Any, expected: np.ndarray, *, rtol: float, name: str = "") -> None:
    """Elementwise |actual - expected| <= rtol * max|expected|, shapes equal.

    The largest magnitude of the recorded tensor is the scale: entries far below it carry the
    rounding of sums of entries of its size.
    """
    actual = np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, not {expected.shape}"
    if expected.size == 0:
        return
    scale = np.abs(expected).max()
    worst = np.abs(actual - expected).max()
    assert worst <= rtol * scale, (
        f"{name}: off by {worst:.3g}, {worst / max(scale, 1e-300):.3g} of the largest entry "
        f"{scale:.3g}; accepted {rtol:g}"
    )


def assert_trees_close(
    actual: Mapping[str, Any],
    expected: Mapping[str, np.ndarray],
    *,
    rtol: float,
    skip_key_biases: bool = False,
) -> None:
    """`assert_close` for every expected name; an expected name that is missing fails."""
    for name, value in expected.items():
        if skip_key_biases and is_key_bias(name):
            continue
        assert name in actual, f"{name} was recorded and not computed"
        assert_close(actual[name], value, rtol=rtol, name=name)
