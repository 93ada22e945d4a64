"""TIFF files of every kind of number, which Pillow reads and does not write."""

import struct

import numpy as np

SHORT, LONG = 3, 4


def tiff(pixels, *, photometric, orientation=None):
    """An uncompressed TIFF of one strip, in the byte order and the kind of the pixels.

    Args:
      pixels: int, uint or float[H, W] or [H, W, channels].
      photometric: 0 where the lowest value is white, 1 where it is black, 2 for red, green, blue.
      orientation: None to leave it out.
    """
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim > 2 else 1
    data = pixels.tobytes()
    tags = [
        (256, LONG, [width]), (257, LONG, [height]),
        (258, SHORT, [8 * pixels.dtype.itemsize] * channels), (259, SHORT, [1]),
        (262, SHORT, [photometric]), (273, LONG, [8]), (277, SHORT, [channels]),
        (278, LONG, [height]), (279, LONG, [len(data)]),
        (339, SHORT, [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * channels),
    ]  # fmt: skip
    if orientation is not None:
        tags = sorted([*tags, (274, SHORT, [orientation])])
    place = 8 + len(data)  # of the values that have no room beside their tag
    beside, entries = b"", b""
    for tag, kind, values in tags:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        if len(packed) > 4:
            beside, packed = beside + packed, struct.pack(f"{order}I", place + len(beside))
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place + len(beside))
    count = struct.pack(f"{order}H", len(tags))
    return head + data + beside + count + entries + bytes(4)


def ramp_of(word, ramp):
    """A ramp over all values of a kind of integers, or from 0 to 1 in floats."""
    kind = np.dtype(word)
    if kind.kind == "f":
        return (ramp / 255).astype(kind)
    least, most = np.iinfo(kind).min, np.iinfo(kind).max
    return np.rint(least + ramp / 255 * (most - least)).astype(kind)
