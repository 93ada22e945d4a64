"""Boxes and masks of findings, and how they follow an image through its geometric changes.

Coordinates are continuous pixel coordinates: x to the right, y down, and the pixel in column c and
row r covers x from c to c + 1 and y from r to r + 1. A box of whole pixels from column 2 to column
4 therefore has x1 = 2 and x2 = 5, and an image of width W ends at x = W.

Every function that changes the geometry of an image (`decode.placed`, `image.placed_resize`,
`image.placed_training_image`, `gloria_image.fit_transform` and the preparation) can say what it did
as a `Transform`; `moved_boxes` and `moved_mask` do the same to boxes and masks.
"""

import dataclasses
import io
import math

import numpy as np
from PIL import Image

from prior_jax.errors import DataError

NO_BOX = (math.nan, math.nan, math.nan, math.nan)
"""Box of a region that has none, or that lies outside of the image."""

_CORNERS = ((0, 1), (2, 1), (2, 3), (0, 3))
_NEAR = 1e-6  # pixels; a point so little outside of an image lies on its edge

_Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transform:
    """A geometric change of an image: an affine map, and the sizes of the old and the new image.

    Attributes:
      matrix: float64[2, 3] as nested tuples; the point (x, y) of the old image is at
        `matrix @ (x, y, 1)` in the new one.
      before: height and width of the old image in pixels.
      after: height and width of the new image in pixels.
      seen: images in between that had lost a part of the old one before a later change turned
        that part's place into the new image: for each the map from the old image to it, and its
        height and width. What lies outside of one of them is gone.
    """

    matrix: _Matrix
    before: tuple[int, int]
    after: tuple[int, int]
    seen: tuple[tuple[_Matrix, tuple[int, int]], ...] = ()

    def then(self, other: "Transform") -> "Transform":
        """Returns the change that this one and then the other make together.

        Raises:
          DataError: if the other change is of an image of another size than results from this one.
        """
        if other.before != self.after:
            raise DataError(
                f"A change of an image of {other.before} pixels was put behind one that ends with "
                f"{self.after} pixels.",
                "Describe the second change by the size of the image that it is made to.",
                where="transform",
            )
        seen = [*self.seen, *((_product(m, self.matrix), size) for m, size in other.seen)]
        loses = _beyond(self.matrix, self.before, self.after)
        if loses and _beyond(_nested(other.inverse_matrix()), other.after, other.before):
            seen.append((self.matrix, self.after))
        return Transform(
            matrix=_product(other.matrix, self.matrix),
            before=self.before,
            after=other.after,
            seen=tuple(seen),
        )

    def inverse_matrix(self) -> np.ndarray:
        """Returns float64[2, 3]: the map from points of the new image to points of the old one."""
        return np.linalg.inv(np.vstack([self.matrix, (0.0, 0.0, 1.0)]))[:2]


def unchanged(*, height: int, width: int) -> Transform:
    """Returns the change that leaves an image of this size as it is."""
    return scaled(down=1.0, right=1.0, before=(height, width), after=(height, width))


def resized(*, before: tuple[int, int], after: tuple[int, int]) -> Transform:
    """Returns the change of a resize, with a scale of its own in each direction.

    Args:
      before: height and width of the old image in pixels.
      after: height and width of the new image in pixels.
    """
    down, right = after[0] / before[0], after[1] / before[1]
    return scaled(down=down, right=right, before=before, after=after)


def scaled(
    *, down: float, right: float, before: tuple[int, int], after: tuple[int, int]
) -> Transform:
    """Returns the change of a resize by given factors.

    Args:
      down: factor of y.
      right: factor of x.
      before: height and width of the old image in pixels.
      after: height and width of the new image in pixels.
    """
    matrix = (float(right), 0.0, 0.0), (0.0, float(down), 0.0)
    return Transform(matrix=matrix, before=before, after=after)


def placed(*, top: int, left: int, before: tuple[int, int], after: tuple[int, int]) -> Transform:
    """Returns the change of a pad or a crop.

    Args:
      top: rows that are added above the image, or the negative number of rows that are cut off.
      left: columns that are added on the left, or the negative number of those cut off.
      before: height and width of the old image in pixels.
      after: height and width of the new image in pixels.
    """
    matrix = (1.0, 0.0, float(left)), (0.0, 1.0, float(top))
    return Transform(matrix=matrix, before=before, after=after)


def turned(orientation: int, *, before: tuple[int, int]) -> Transform:
    """Returns the change that brings an image with an EXIF orientation upright.

    Args:
      orientation: value of the orientation, 1 to 8 (EXIF 2.32, 4.6.4 A); any other is 1.
      before: height and width of the image as it is stored.
    """
    height, width = before
    # The rows of the matrix give x and y of the upright image.
    right, left = (1.0, 0.0, 0.0), (-1.0, 0.0, float(width))
    down, up = (0.0, 1.0, 0.0), (0.0, -1.0, float(height))
    rows = {
        2: (left, down),
        3: (left, up),
        4: (right, up),
        5: (down, right),
        6: (up, right),
        7: (up, left),
        8: (down, left),
    }.get(orientation, (right, down))
    after = (width, height) if orientation in (5, 6, 7, 8) else before
    return Transform(matrix=rows, before=before, after=after)


def flipped(*, height: int, width: int) -> Transform:
    """Returns the change of a horizontal flip."""
    return turned(2, before=(height, width))


def rotated(angle: float, *, height: int, width: int, scale: float = 1.0) -> Transform:
    """Returns the change of a rotation about the centre that keeps the image's size.

    Args:
      angle: angle in degrees, counter-clockwise as it is seen on the screen, as Pillow's
        `Image.rotate` takes it.
      height: height of the image in pixels.
      width: width of the image in pixels.
      scale: factor of all distances from the centre.
    """
    sine, cosine = scale * math.sin(math.radians(angle)), scale * math.cos(math.radians(angle))
    x, y = width / 2, height / 2
    across = (cosine, sine, x - (cosine * x + sine * y))
    down = (-sine, cosine, y - (cosine * y - sine * x))
    return Transform(matrix=(across, down), before=(height, width), after=(height, width))


def shifted(change: Transform, *, right: float, down: float) -> Transform:
    """Returns a change whose new image is shifted besides, and keeps its size.

    Args:
      change: a change that has lost nothing on its way.
      right: columns by which the new image is shifted, of either sign.
      down: rows by which it is shifted.
    """
    (a, b, c), (d, e, f) = change.matrix
    matrix = (a, b, c + right), (d, e, f + down)
    return Transform(matrix=matrix, before=change.before, after=change.after)


def moved_boxes(boxes: np.ndarray, transform: Transform) -> np.ndarray:
    """Moves boxes as an image was changed.

    Args:
      boxes: float[R, 4], x1, y1, x2, y2 in pixels of the old image; NaN for no box.
      transform: change of the image.

    Returns:
      float32[R, 4]: the smallest upright box around the four moved corners, clipped to the new
      image. A box of which nothing is left inside, and a row without a box, is NaN.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)[:, _CORNERS]
    matrix = np.asarray(transform.matrix)
    limit = transform.after[::-1]
    found = np.full((len(corners), 4), np.nan)
    for row, outline in enumerate(corners):
        for other, size in transform.seen:
            outline = _cut_off(outline, np.asarray(other), size)
        if len(outline):
            points = outline @ matrix[:, :2].T + matrix[:, 2]
            found[row] = np.clip([points.min(axis=0), points.max(axis=0)], 0, limit).reshape(-1)
    # What is left of a box that only touches the edge has no area but for rounding.
    rounded = found.astype(np.float32)
    wide = (found[:, 2:] - found[:, :2] > _NEAR) & (rounded[:, 2:] > rounded[:, :2])
    return np.where(wide.all(axis=1, keepdims=True), rounded, np.float32(np.nan))


def moved_mask(mask: np.ndarray, transform: Transform) -> np.ndarray:
    """Moves a mask as an image was changed: each new pixel takes the old one below its centre.

    Args:
      mask: bool[H, W], mask of the old image.
      transform: change of the image.

    Returns:
      bool[H', W'], of the size `transform.after`; False outside of the old image.

    Raises:
      DataError: if the mask is not of the old image's size.
    """
    if mask.shape != transform.before:
        raise DataError(
            f"It has {mask.shape} pixels, and its image {transform.before}.",
            "Give a mask of the size of its image.",
            where="mask",
        )
    height, width = transform.after
    (a, b, c), (d, e, f) = transform.inverse_matrix()
    x = np.arange(width) + 0.5
    y = np.arange(height)[:, None] + 0.5
    # The small number keeps a centre that falls exactly between two pixels on one side of it.
    across, down = a * x + b * y + c + 1e-9, d * x + e * y + f + 1e-9
    columns, rows = np.floor(across).astype(np.int64), np.floor(down).astype(np.int64)
    inside = (columns >= 0) & (columns < mask.shape[1]) & (rows >= 0) & (rows < mask.shape[0])
    inside &= _in_sight(across, down, transform)
    found = np.zeros(inside.shape, bool)
    found[inside] = mask[rows[inside], columns[inside]]
    return found


def kept_mask(mask: np.ndarray, transform: Transform) -> np.ndarray:
    """Moves a mask as `moved_mask` does, but does not let a small one vanish when it is shrunk.

    If no pixel is left, each new pixel is set that a pixel of the old mask falls into.
    """
    found = moved_mask(mask, transform)
    if found.any() or not mask.any():
        return found
    rows, columns = np.nonzero(mask)
    matrix = np.asarray(transform.matrix)
    across, down = columns + 0.5, rows + 0.5
    x, y = np.floor(matrix[:, :2] @ np.stack([across, down]) + matrix[:, 2:])
    height, width = transform.after
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    inside &= _in_sight(across, down, transform)
    found[y[inside].astype(np.int64), x[inside].astype(np.int64)] = True
    return found


def box_of_mask(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Returns the smallest box around a mask, bool[H, W]; NO_BOX if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return NO_BOX
    right, below = float(columns[-1] + 1), float(rows[-1] + 1)
    return float(columns[0]), float(rows[0]), right, below


def mask_of_box(box: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Returns bool[height, width]: the pixels whose centres are in a box; none for a NaN box.

    A box with no such pixel, as one of less than a pixel, has the pixel that its centre lies in.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box)
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    found = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    across, down = (x1 + x2) / 2, (y1 + y2) / 2
    if x1 < x2 and y1 < y2 and 0 <= across < width and 0 <= down < height and not found.any():
        found[int(down), int(across)] = True
    return found


def encoded_mask(mask: np.ndarray) -> bytes:
    """Returns the content of a 1-bit PNG of a mask, bool[H, W]."""
    content = io.BytesIO()
    Image.fromarray(np.asarray(mask, bool)).save(content, "PNG", optimize=False)
    return content.getvalue()


def decoded_mask(content: bytes, *, name: str = "a mask") -> np.ndarray:
    """Returns bool[H, W], the mask that a PNG holds: pixels above 0.

    Args:
      content: content of a PNG of 1 bit, or of 8 bits with the values 0 and 255.
      name: name of the mask, for the message.

    Raises:
      DataError: if the content is no grey PNG.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            if image.mode not in ("1", "L"):
                raise ValueError(f"its mode is {image.mode}")
            return np.asarray(image.convert("L")) > 0
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"The mask cannot be read: {str(error).split('<_io')[0].strip()}.",
            "Prepare the set anew; a mask is a grey PNG of 1 or 8 bits.",
            where=name,
        ) from error


# Every image that is read goes through these two functions. They are plain Python, which takes a
# tenth of the time of numpy on a matrix of 2 x 3.


def _product(later: _Matrix, earlier: _Matrix) -> _Matrix:
    """Returns the map that moves a point by one map and then by a later one."""
    (a, b, c), (d, e, f) = earlier
    across, down = ((x * a + y * d, x * b + y * e, x * c + y * f + z) for x, y, z in later)
    return across, down


def _beyond(matrix: _Matrix, before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Returns whether a map moves a corner of one image outside of the other."""
    height, width = before
    corners = (0, 0), (width, 0), (width, height), (0, height)
    return any(
        not -_NEAR <= x * a + y * b + c <= limit + _NEAR
        for (a, b, c), limit in zip(matrix, after[::-1], strict=True)
        for x, y in corners
    )


def _in_sight(x: np.ndarray, y: np.ndarray, transform: Transform) -> np.ndarray:
    """Returns which points of the old image lie inside of every image of `seen`."""
    found = np.ones(np.broadcast_shapes(x.shape, y.shape), bool)
    for ((a, b, c), (d, e, f)), (height, width) in transform.seen:
        across, down = a * x + b * y + c, d * x + e * y + f
        found &= (across >= 0) & (across < width) & (down >= 0) & (down < height)
    return found


def _cut_off(outline: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cuts off what a map moves outside of an image.

    Args:
      outline: corners of a convex polygon in order, float[K, 2].
      matrix: map of its points to the image, float[2, 3].
      size: height and width of the image.

    Returns:
      Corners of what is left, float[K', 2], where the outline lies; none if nothing is.

    Source: I. E. Sutherland and G. W. Hodgman, Reentrant polygon clipping, CACM 17 (1974).
    """
    for axis, limit in enumerate(size[::-1]):
        slope, shift = matrix[axis, :2], matrix[axis, 2]
        for sign, start in ((1.0, 0.0), (-1.0, float(limit))):
            depth = sign * (outline @ slope + shift) + start
            if not (depth > _NEAR).any():  # it touches the edge at most
                return outline[:0]
            left = []
            for here, there, inner, outer in zip(
                outline, np.roll(outline, -1, axis=0), depth, np.roll(depth, -1), strict=True
            ):
                if inner >= 0:
                    left.append(here)
                if inner * outer < 0:
                    left.append(here + (there - here) * inner / (inner - outer))
            outline = np.array(left).reshape(-1, 2)
    return outline


def _nested(matrix: np.ndarray) -> _Matrix:
    (a, b, c), (d, e, f) = np.asarray(matrix, np.float64).tolist()
    return (a, b, c), (d, e, f)
