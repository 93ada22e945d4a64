"""Between the release's ragged lists (concatenated rows and lengths) and padded arrays."""

import numpy as np


def pad(rows: np.ndarray, lengths: np.ndarray, size: int | None = None):
    """Rows [sum(lengths), ...] to [B, size, ...] and the mask bool[B, size]."""
    lengths = [int(n) for n in lengths]
    size = max(lengths) if size is None else size
    padded = np.zeros((len(lengths), size, *rows.shape[1:]), rows.dtype)
    mask = np.zeros((len(lengths), size), bool)
    start = 0
    for row, length in enumerate(lengths):
        padded[row, :length] = rows[start : start + length]
        mask[row, :length] = True
        start += length
    return padded, mask


def unpad(padded, mask) -> np.ndarray:
    """The real rows, concatenated."""
    return np.asarray(padded)[np.asarray(mask)]
