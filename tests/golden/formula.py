"""Parameters and inputs of the full-size recordings: a formula of their names, beside the files."""

import ast
import importlib.util
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np


class Formula:
    """The formula that lies in `<golden_dir>/gloria/formula_params.py`."""

    def __init__(self, golden_dir: pathlib.Path):
        path = pathlib.Path(golden_dir) / "gloria" / "formula_params.py"
        spec = importlib.util.spec_from_file_location("formula_params", path)
        assert spec is not None and spec.loader is not None
        self._module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._module)

    def params(self, shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """float32 parameters and statistics by torch name; counters are left out."""
        return {
            name: self._module.formula(name, tuple(shape))
            for name, shape in shapes.items()
            if not name.endswith("num_batches_tracked")
        }

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The float32 input of that name."""
        return self._module.array(name, shape)

    def input(self, written: str) -> np.ndarray:
        """The input that a file describes as "array('name',(1, 2))"."""
        match = re.fullmatch(r"array\('(\w+)',(\(.*\))\)", written)
        assert match, written
        return self.array(match[1], ast.literal_eval(match[2]))
