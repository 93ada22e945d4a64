"""OpenCV's resizing in numpy, bit-exact on 8-bit images, as used for GLoRIA's images.

Shrinking by area averages the source pixels that a target pixel covers; enlarging and bilinear
resizing mix two pixels per side, in fixed point for 8 bits. Sums are computed in OpenCV's order and
width, because the last bit decides the rounding of a sum that ends in .5.

Source: OpenCV 4, modules/imgproc/src/resize.cpp (INTER_AREA, INTER_LINEAR).
"""

import math

import numpy as np

from prior_jax.errors import DataError

_SCALE = 2048  # scale of the fixed-point coefficients
_SLIVER = 1e-3  # a smaller share of a source pixel is left out


def area(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Resizes as cv2.INTER_AREA does.

    Args:
      pixels: image, uint8[H, W] or float32[H, W].
      height: height of the result in pixels, >= 1.
      width: width of the result in pixels, >= 1.

    Returns:
      Resized image, [height, width], same dtype.

    Raises:
      DataError: for another dtype or rank, or an empty result.
    """
    _check(pixels, height=height, width=width)
    ratios = _ratio(pixels.shape[0], height), _ratio(pixels.shape[1], width)
    if min(ratios) < 1:
        # When enlarging, a source pixel covers several target pixels: only their borders are mixed.
        rows = _border_taps(pixels.shape[0], height)
        columns = _border_taps(pixels.shape[1], width)
        return _mixed(pixels, rows=rows, columns=columns)
    if all(abs(ratio - round(ratio)) < np.finfo(np.float64).eps for ratio in ratios):
        return _block_means(pixels, height=height, width=width)
    total = _weighted(pixels.astype(np.float32).T, _area_taps(pixels.shape[1], width))
    total = _weighted(np.ascontiguousarray(total.T), _area_taps(pixels.shape[0], height))
    return _as(total, pixels.dtype)


def linear(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Resizes as cv2.INTER_LINEAR does, which averages 2 x 2 pixels to halve both sides.

    Args:
      pixels: image, uint8[H, W] or float32[H, W].
      height: height of the result in pixels, >= 1.
      width: width of the result in pixels, >= 1.

    Returns:
      Resized image, [height, width], same dtype.

    Raises:
      DataError: for the reasons that `area` lists.
    """
    _check(pixels, height=height, width=width)
    if pixels.shape == (2 * height, 2 * width):
        return _block_means(pixels, height=height, width=width)
    if pixels.shape == (height, width):
        return pixels.copy()
    rows = _linear_taps(pixels.shape[0], height)
    columns = _linear_taps(pixels.shape[1], width)
    return _mixed(pixels, rows=rows, columns=columns)


def nearest(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Takes for each target pixel the source pixel that contains its centre.

    The result of a mask is a mask.

    Args:
      pixels: image, [H, W], any dtype.
      height: height of the result in pixels, >= 1.
      width: width of the result in pixels, >= 1.

    Returns:
      Resized image, [height, width], same dtype.
    """
    rows = (2 * np.arange(height) + 1) * pixels.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * pixels.shape[1] // (2 * width)
    return pixels[np.ix_(rows, columns)]


def _check(pixels: np.ndarray, *, height: int, width: int) -> None:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"The image is {pixels.dtype}{list(pixels.shape)}, which cannot be resized.",
            "Give an image that is uint8[H, W] or float32[H, W].",
        )
    if min(height, width, *pixels.shape) < 1:
        raise DataError(
            f"An image of {pixels.shape} pixels cannot be resized to {(height, width)}.",
            "Give each side at least one pixel.",
        )


def _ratio(source: int, target: int) -> float:
    return 1.0 / (target / source)  # not source / target: OpenCV divides twice


def _as(total: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype == np.uint8:
        return np.clip(np.rint(total), 0, 255).astype(np.uint8)
    return total.astype(np.float32)


def _block_means(pixels: np.ndarray, *, height: int, width: int) -> np.ndarray:
    tall, wide = pixels.shape[0] // height, pixels.shape[1] // width
    blocks = pixels.reshape(height, tall, width, wide)
    if pixels.dtype == np.uint8:
        total = blocks.sum(axis=(1, 3), dtype=np.int32)
        if (tall, wide) == (2, 2):
            return ((total + 2) >> 2).astype(np.uint8)  # halves go up here, to even elsewhere
    else:
        total = blocks.sum(axis=(1, 3), dtype=np.float32)
    return _as(total.astype(np.float32) * np.float32(1.0 / (tall * wide)), pixels.dtype)


def _area_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the source pixels that each target pixel covers, and their shares.

    The arrays are int[target, K] and float32[target, K].
    """
    ratio = _ratio(source, target)
    index = np.zeros((target, math.ceil(ratio) + 2), np.int64)
    share = np.zeros(index.shape, np.float32)
    for number in range(target):
        begin = number * ratio
        end = begin + ratio
        cell = min(ratio, source - begin)
        last = min(math.floor(end), source - 1)
        first = min(math.ceil(begin), last)
        taps = [(k, 1.0 / cell) for k in range(first, last)]
        if first - begin > _SLIVER:
            taps.insert(0, (first - 1, (first - begin) / cell))
        if end - last > _SLIVER:
            taps.append((last, min(end - last, 1.0, cell) / cell))
        index[number, : len(taps)] = [k for k, _ in taps]
        share[number, : len(taps)] = [weight for _, weight in taps]
    return index, share


def _weighted(lines: np.ndarray, taps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Mixes float32[source, N] to float32[target, N], one tap after the other."""
    index, share = taps
    total = np.zeros((len(index), lines.shape[1]), np.float32)
    for place in range(index.shape[1]):
        total += lines[index[:, place]] * share[:, place, None]
    return total


def _border_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first of two source pixels, and the share of the second.

    The arrays are int[target] and float32[target].
    """
    number = np.arange(target)
    first = np.floor(number * _ratio(source, target)).astype(np.int64)
    share = ((number + 1) - (first + 1) * (target / source)).astype(np.float32)
    return first, np.where(share <= 0, np.float32(0), share - np.floor(share))


def _linear_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same as `_border_taps` for pixel centres.

    The first pixel can be -1, before the first one of the image.
    """
    place = ((np.arange(target) + 0.5) * _ratio(source, target) - 0.5).astype(np.float32)
    first = np.floor(place)
    return first.astype(np.int64), place - first


def _mixed(
    pixels: np.ndarray,
    *,
    rows: tuple[np.ndarray, np.ndarray],
    columns: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    first, share = columns
    outside = (first < 0) | (first >= pixels.shape[1] - 1)
    # A column beyond an edge uses the edge alone, a row uses the edge twice, which rounds
    # differently.
    left, right = _clipped(first, pixels.shape[1])
    share = np.where(outside, np.float32(0), share)
    top, bottom = _clipped(rows[0], pixels.shape[0])
    if pixels.dtype == np.uint8:
        near, far = _fixed(share)
        across = pixels[:, left].astype(np.int32) * near + pixels[:, right].astype(np.int32) * far
        above, below = (weight[:, None] for weight in _fixed(rows[1]))
        total = (((across[top] >> 4) * above) >> 16) + (((across[bottom] >> 4) * below) >> 16)
        return np.clip((total + 2) >> 2, 0, 255).astype(np.uint8)
    one = np.float32(1)
    across = pixels[:, left] * (one - share) + pixels[:, right] * share
    down = rows[1][:, None]
    return across[top] * (one - down) + across[bottom] * down


def _clipped(first: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1)


def _fixed(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares of the first and second pixel in 1/2048."""
    near, far = np.float32(1) - share, share
    return np.rint(near * _SCALE).astype(np.int32), np.rint(far * _SCALE).astype(np.int32)
