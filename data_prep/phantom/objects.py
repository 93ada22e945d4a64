"""Foreign objects on a phantom radiograph, for the layout of Object-CXR: buttons, plates, clips."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

RECTANGLE, ELLIPSE, POLYGON = 0, 1, 2
"""Shapes as Object-CXR's annotations number them."""
SHAPES = ("rectangle", "ellipse", "polygon")
SOME = 0.5
"""Share of the images that show objects, as in Object-CXR."""
_MOST = 3
_SMALLEST, _LARGEST = 5.0, 16.0  # half of an object's width in millimetres
_METAL = 245


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForeignObject:
    """One object.

    Attributes:
      shape: RECTANGLE, ELLIPSE or POLYGON.
      points: x and y of the corners in pixels; x1, y1 and x2, y2 of the box for a rectangle and an
        ellipse, where pixel column c covers x from c to c + 1.
    """

    shape: int
    points: tuple[tuple[int, int], ...]

    def annotation(self) -> str:
        """Returns the object as a part of Object-CXR's cell: "0 x1 y1 x2 y2", "2 x y x y x y"."""
        return " ".join(
            map(str, (self.shape, *(value for point in self.points for value in point)))
        )

    def mask(self, height: int, width: int) -> np.ndarray:
        """Returns bool[height, width]: the pixels of the object."""
        layer = Image.new("L", (width, height), 0)
        _draw(ImageDraw.Draw(layer), self, fill=255)
        return np.asarray(layer) > 0


def sample_objects(rng: np.random.Generator, exposure) -> tuple[ForeignObject, ...]:
    """Samples up to three objects whose centres are in the lungs, and that lie within the image.

    Args:
      rng: random stream of the image's objects.
      exposure: frontal image, a `radiographs.Exposure`.
    """
    from data_prep.phantom.radiographs import LUNGS

    height, width = exposure.pixels.shape
    rows, columns = np.nonzero(exposure.mask(LUNGS))
    if rng.random() >= SOME or not len(rows):
        return ()
    found = []
    for _ in range(int(rng.integers(1, _MOST + 1))):
        place = int(rng.integers(len(rows)))
        reach = max(2, round(float(rng.uniform(_SMALLEST, _LARGEST)) * exposure.px_per_mm))
        tall = max(2, round(reach * float(rng.uniform(0.6, 1.0))))
        x = int(np.clip(columns[place], reach, width - 1 - reach))
        y = int(np.clip(rows[place], tall, height - 1 - tall))
        shape = int(rng.integers(len(SHAPES)))
        points = ((x - reach, y - tall), (x + reach, y + tall))
        if shape == POLYGON:
            points = ((x - reach, y), (x, y - tall), (x + reach, y), (x + reach // 2, y + tall))
        found.append(ForeignObject(shape=shape, points=points))
    return tuple(found)


def painted(pixels: np.ndarray, objects: tuple[ForeignObject, ...]) -> np.ndarray:
    """Returns the image, uint8[H, W], with the objects on it, as bright as metal."""
    image = Image.fromarray(pixels)
    for one in objects:
        _draw(ImageDraw.Draw(image), one, fill=_METAL)
    return np.asarray(image)


def _draw(draw: ImageDraw.ImageDraw, one: ForeignObject, *, fill: int) -> None:
    if one.shape == POLYGON:
        draw.polygon(list(one.points), fill=fill)
        return
    (x1, y1), (x2, y2) = one.points
    drawn = draw.ellipse if one.shape == ELLIPSE else draw.rectangle
    drawn([x1, y1, x2 - 1, y2 - 1], fill=fill)  # Pillow draws the last pixel too
