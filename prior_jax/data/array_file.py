"""Reads NumPy's files, and tells damage as one kind of error.

A damaged .npz file can raise an error of any library below NumPy: of zip archives, of zlib, of
Python's tokenizer (for the header of an array), or of the codecs of names.
"""

import io
import os
import pathlib
from typing import Any

import numpy as np

from prior_jax.errors import first_line


def read_arrays(path: os.PathLike[str] | str) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz file.

    Args:
      path: path of the file.

    Returns:
      Arrays by their names.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is damaged, no .npz file, or holds pickled objects.
    """
    found = _loaded(path)
    if not isinstance(found, dict):
        raise ValueError("it holds a single array, and no named ones")
    return found


def read_array(path: os.PathLike[str] | str) -> np.ndarray:
    """Reads the array of an .npy file; see `read_arrays` for the errors."""
    found = _loaded(path)
    if isinstance(found, dict):
        raise ValueError("it holds named arrays, and no single one")
    return found


def _loaded(path: os.PathLike[str] | str) -> Any:
    # Of a damaged archive NumPy would leave the file open.
    content = io.BytesIO(pathlib.Path(path).read_bytes())
    try:
        found = np.load(content, allow_pickle=False)
        return dict(found) if isinstance(found, np.lib.npyio.NpzFile) else found
    except Exception as error:  # any error of the libraries below
        raise ValueError(first_line(error) or type(error).__name__) from error
