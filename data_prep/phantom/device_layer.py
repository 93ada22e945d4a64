"""Draws tubes, wires and markers over the phantom's chest."""

import numpy as np
from PIL import Image, ImageDraw

from data_prep.phantom import anatomy


def _polyline(draw, chest, points, *, mm, fill):
    pixels = [chest.pixel(*point) for point in points]
    draw.line(pixels, fill=fill, width=max(1, round(mm * chest.px_per_mm)), joint="curve")


def _endotracheal_tube(draw, chest):
    x = 0.6 * chest.shift
    _polyline(draw, chest, [(x + 1, -60), (x, 0), (x, 42)], mm=4, fill=90)


def _central_line(draw, chest):
    x = -0.2 * chest.half_width
    _polyline(
        draw,
        chest,
        [(-48, -60), (-34, -10), (x, 25), (x, 0.42 * chest.lung_height)],
        mm=2,
        fill=150,
    )


def _pacemaker(draw, chest):
    x, y, floor = 0.72 * chest.half_width, 22.0, 0.86 * chest.lung_height
    box = [*chest.pixel(x - 20, y - 17), *chest.pixel(x + 20, y + 17)]
    draw.rounded_rectangle(box, radius=8 * chest.px_per_mm, fill=255)
    lead = [(x - 15, y + 8), (30, 12), (-18, 35), (-24, 90), (-12, floor - 40), (28, floor)]
    _polyline(draw, chest, lead, mm=2, fill=190)


def _sternotomy(draw, chest):
    for i in range(5):
        x, y = 0.4 * chest.shift, 48 + 0.15 * i * chest.lung_height
        _polyline(draw, chest, [(x - 6, y - 4), (x + 6, y + 4)], mm=1.8, fill=220)
        _polyline(draw, chest, [(x - 6, y + 4), (x + 6, y - 4)], mm=1.8, fill=220)


def _leads(draw, chest):
    # Electrodes are beyond the lungs, and rings rather than discs, so that they do not look like
    # nodules.
    spots = ((-0.8, -0.04), (0.8, -0.04), (-1.04, 0.95), (1.04, 0.9), (0.25, 1.12))
    for across, down in spots:
        x, y = across * chest.half_width, down * chest.lung_height
        box = [*chest.pixel(x - 4, y - 4), *chest.pixel(x + 4, y + 4)]
        draw.ellipse(box, outline=150, width=max(1, round(1.5 * chest.px_per_mm)))
        _polyline(draw, chest, [(x, y), (x + 18 * np.sign(across), y + 60)], mm=1, fill=100)


def _chest_tube(side):
    sign = anatomy.sign_of(side)

    def draw_tube(draw, chest):
        half, height = chest.half_width, chest.lung_height
        path = [(1.25, 0.85), (0.95, 0.72), (0.72, 0.4), (0.62, 0.16)]
        points = [(sign * across * half, down * height) for across, down in path]
        _polyline(draw, chest, points, mm=4.5, fill=120)

    return draw_tube


_DRAWN = {
    "endotracheal_tube": _endotracheal_tube,
    "central_line": _central_line,
    "pacemaker": _pacemaker,
    "sternotomy": _sternotomy,
    "leads": _leads,
    "chest_tube_left": _chest_tube("left"),
    "chest_tube_right": _chest_tube("right"),
}

# Strokes of the side markers in a 6 x 10 mm cell.
_LETTERS = {
    "L": (((0, 0), (0, 10), (6, 10)),),
    "R": (((0, 10), (0, 0), (5, 0), (6, 2.5), (5, 5), (0, 5)), ((2.5, 5), (6, 10))),
}


def overlay(chest, devices: tuple[str, ...], rng) -> np.ndarray:
    """Draws the additive shadow of devices and side marker, float32[H, W] in 0..1.

    Args:
      chest: geometry of the chest, an `anatomy.Chest`.
      devices: names from `cases.Study.devices`.
      rng: random stream of the image, which determines the marker.
    """
    layer = Image.new("L", (len(chest.x), len(chest.y)), 0)
    draw = ImageDraw.Draw(layer)
    for device in devices:
        _DRAWN[device](draw, chest)
    letter, sign = (("L", 1), ("R", -1))[int(rng.integers(2))]
    corner = sign * (chest.half_width + 8), float(rng.uniform(-42, -18))
    if rng.random() < 0.8:
        for stroke in _LETTERS[letter]:
            points = [(corner[0] + 1.3 * a, corner[1] + 1.3 * b) for a, b in stroke]
            _polyline(draw, chest, points, mm=2.2, fill=235)
    return np.asarray(layer, np.float32) * np.float32(1 / 255)
