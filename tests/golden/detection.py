"""What the detection recordings share: formula parameters, torch names, ragged boxes."""

import zlib

import numpy as np

from tests.golden import ragged
from tests.golden.reader import Golden


def formula(name: str, shape: tuple[int, ...], *, salt: str) -> np.ndarray:
    """The parameter of that name, float32, as the recordings made it."""
    seed = zlib.crc32((salt + name).encode())
    n = np.random.RandomState(seed).standard_normal(shape)
    if name.endswith("running_mean"):
        n = 0.1 * n
    elif name.endswith("running_var"):
        n = 1 + 0.3 * np.tanh(n)
    elif n.ndim == 4:
        n = n * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        n = 1 + 0.1 * n
    else:
        n = 0.05 * n
    return n.astype(np.float32)


def head_params(golden: Golden, *, classes: int) -> dict[str, np.ndarray]:
    """The head's parameters by torch name, for a number of classes."""
    salt = golden.scalar("in/config/formula_salt")
    per_cell = golden["in/config/anchors"].shape[1]
    found = {}
    for name, written in zip(golden["in/param_names"], golden["in/param_shapes"], strict=True):
        name, shape = str(name), tuple(int(size) for size in str(written).split(",") if size)
        if name.endswith("num_batches_tracked"):
            continue
        if ".conv_out." in name:
            shape = (per_cell * (5 + classes), *shape[1:])
        found[name] = formula(name, shape, salt=salt)
    return found


def raw_of(array: np.ndarray, *, per_cell: int) -> np.ndarray:
    """[B, A * (5 + K), h, w] of the releases as [B, h, w, A, 5 + K]."""
    batch, channels, height, width = array.shape
    array = array.reshape(batch, per_cell, channels // per_cell, height, width)
    return array.transpose(0, 3, 4, 1, 2)


def released_raw(array: np.ndarray) -> np.ndarray:
    """The inverse of `raw_of`."""
    array = np.asarray(array).transpose(0, 3, 4, 1, 2)
    batch, _, _, height, width = array.shape
    return array.reshape(batch, -1, height, width)


def padded_boxes(golden: Golden, case: str):
    """Corners float32[B, N, 4], mask bool[B, N] and classes int32[B, N] of ragged x, y, w, h."""
    lengths = golden[f"in/{case}/boxes/lengths"]
    rows = golden[f"in/{case}/boxes/rows"].reshape(-1, 4)
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
    size = max(1, int(max(lengths)))
    boxes, real = ragged.pad(corners, lengths, size)
    names = np.zeros(len(rows), np.int32)
    if f"in/{case}/classes/rows" in golden:
        names = golden[f"in/{case}/classes/rows"].astype(np.int32)
    return boxes.astype(np.float32), real, ragged.pad(names, lengths, size)[0]
