"""Draws the findings into the phantom's chest: one painter function for each kind, in a table.

A painter adds opacity to the lungs (0 is air, 1 is soft tissue), may darken the lungs or remove
their markings, and returns the region of the finding as its mask.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from data_prep.phantom import anatomy, cases


@dataclasses.dataclass(kw_only=True)
class Layers:
    """The arrays that the painters write to; all are float32[H, W].

    Attributes:
      opacity: 0 for aerated lung, 1 for soft tissue.
      markings: factor on the visibility of the vessels.
      extra: values that are added to the attenuation unchanged, e.g. thin lines.
    """

    opacity: np.ndarray
    markings: np.ndarray
    extra: np.ndarray

    def cover(self, columns: slice, opacity: np.ndarray) -> None:
        """Adds `opacity` float32[H, columns] to the existing opacity, never above 1."""
        view = self.opacity[:, columns]
        view += opacity * (1 - view)


def effects_on_pose(study: cases.Study) -> tuple[dict[str, float], float]:
    """Returns the effects of lost or gained volume: raised domes by side and the shift, in mm."""
    raised, shift = {"left": 0.0, "right": 0.0}, 0.0
    for finding in study.findings:
        if finding.side == "midline":
            continue
        away = -anatomy.sign_of(finding.side)
        large = finding.size == "large"
        if finding.kind == "Atelectasis":
            raised[finding.side] += {"small": 6.0, "moderate": 14.0, "large": 24.0}[finding.size]
            shift -= away * (10.0 if finding.form == "lobar" else 0.0)
        elif finding.kind in ("Pleural Effusion", "Pneumothorax") and large:
            shift += away * 14.0
    return raised, shift


def band(x, y, *, start, end, width) -> np.ndarray:
    """Draws a soft line from `start` to `end` (mm), float32[len(y), len(x)]."""
    (x0, y0), (x1, y1) = start, end
    length = float(np.hypot(x1 - x0, y1 - y0))
    ux, uy = (x1 - x0) / length, (y1 - y0) / length
    along = ((x - x0) * ux)[None] + ((y - y0) * uy)[:, None]
    across = ((y - y0) * ux)[:, None] - ((x - x0) * uy)[None]
    thick = np.clip((width / 2 - np.abs(across)) / 2.2 + 0.5, 0, 1)
    ends = np.clip(np.minimum(along, length - along) / 14, 0, 1)
    return (thick * ends).astype(np.float32)


def _paint_atelectasis(chest, layers, finding, rng):
    half = chest.half(finding.side)
    lung = chest.lung[:, half]
    if finding.form == "lobar":
        opacity = _collapsed_lobe(chest, finding, half)
    else:
        x, y = chest.place(finding)
        sign = anatomy.sign_of(finding.side)
        opacity = np.zeros_like(lung)
        width = {"small": 6.0, "moderate": 8.0, "large": 9.5}[finding.size]
        count = {"small": 1, "moderate": 2, "large": 3}[finding.size]
        texture = np.random.default_rng(finding.shape)
        slope = texture.uniform(0.12, 0.5)
        for i in range(count):
            reach = finding.extent * (1 - 0.18 * i) / 2
            level = y + 17 * (i - (count - 1) / 2) + rng.uniform(-1.5, 1.5)
            slope += texture.uniform(-0.12, 0.12)
            line = band(
                chest.x[half],
                chest.y,
                start=(x - sign * reach, level - slope * reach),
                end=(x + sign * reach, level + slope * reach),
                width=width,
            )
            opacity = np.maximum(opacity, line)
    strength = {"small": 0.62, "moderate": 0.78, "large": 0.85}[finding.size]
    layers.cover(half, np.float32(strength) * opacity)
    return half, (opacity > 0.4) & (lung > 0.5) & (chest.heart[:, half] < 0.5)


def _collapsed_lobe(chest, finding, half) -> np.ndarray:
    """Draws a wedge between hilum, mediastinum and dome with one straight, sharp border."""
    reach = (0.46 if finding.size == "moderate" else 0.66) * chest.half_width
    away = np.abs(chest.x[half])[None]
    top = 0.5 * chest.lung_height
    edge = (chest.y[:, None] - np.float32(top)) / np.float32(0.5 * chest.lung_height)
    # The left lower lobe would be hidden behind the heart, so its border is drawn further out.
    start = (0.34 if finding.side == "left" else 0.16) * chest.half_width
    depth = (start + reach * edge - away) / 2.5
    return np.clip(np.minimum(depth, edge * 30), 0, 1).astype(np.float32)


def _paint_cardiomegaly(chest, layers, finding, rng):
    del layers, finding, rng  # the heart was already built wide
    return slice(None), chest.heart > 0.5


def _paint_consolidation(chest, layers, finding, rng):
    half = chest.half(finding.side)
    x, y = chest.place(finding)
    texture = np.random.default_rng(finding.shape)
    ratio = texture.uniform(0.8, 1.15)
    radius = finding.extent / 2
    dx = (chest.x[half] - np.float32(x)) / np.float32(radius * ratio)
    dy = (chest.y - np.float32(y)) / np.float32(radius / ratio)
    inside = 0.8 - np.hypot(dx[None], dy[:, None])
    for angle in texture.uniform(0, 6.28, 1) + np.arange(5) * 1.26:
        away, spread = texture.uniform(0.45, 0.75), texture.uniform(0.3, 0.5)
        px, py = dx - np.float32(away * np.cos(angle)), dy - np.float32(away * np.sin(angle))
        inside = np.maximum(inside, np.float32(spread) - np.hypot(px[None], py[:, None]))
    noise = anatomy.clouds(texture, inside.shape, px_per_mm=chest.px_per_mm)
    lung = chest.lung[:, half]
    patch = np.clip((inside + np.float32(0.1) * noise) * 2.6 + 0.3, 0, 1).astype(np.float32)
    strength = 0.62 if finding.hedged else texture.uniform(0.78, 0.95)
    bronchi = _air_bronchogram(chest, finding, half, texture, (x, y), radius)
    layers.cover(half, np.float32(strength) * patch * (1 - np.float32(0.55) * bronchi))
    view = layers.markings[:, half]
    view *= 1 - 0.8 * patch
    return half, (patch > 0.4) & (lung > 0.5) & (chest.heart[:, half] < 0.5)


def _air_bronchogram(chest, finding, half, texture, centre, radius) -> np.ndarray:
    """Draws dark branching tubes in a consolidation, float32[H, columns]; none in a small one."""
    layer = Image.new("L", (len(chest.x), len(chest.y)), 0)
    if finding.size != "small":
        draw = ImageDraw.Draw(layer)
        sign = anatomy.sign_of(finding.side)
        root = (centre[0] - sign * 0.8 * radius, centre[1] - 0.2 * radius)
        for angle in texture.uniform(-0.7, 0.9, 4):
            tip = (
                root[0] + sign * 1.25 * radius * np.cos(angle),
                root[1] + 1.25 * radius * np.sin(angle),
            )
            width = max(1, round(2.4 * chest.px_per_mm))
            draw.line([chest.pixel(*root), chest.pixel(*tip)], fill=200, width=width)
    return np.asarray(layer, np.float32)[:, half] * np.float32(1 / 255)


def _paint_edema(chest, layers, finding, rng):
    half = chest.half(finding.side)
    sign = anatomy.sign_of(finding.side)
    strength = {"small": 0.4, "moderate": 0.58, "large": 0.76}[finding.size]
    dx = (sign * chest.x[half] - np.float32(0.26 * chest.half_width)) / np.float32(finding.extent)
    dy = (chest.y - np.float32(0.47 * chest.lung_height)) / np.float32(1.25 * finding.extent)
    noise = anatomy.clouds(rng, (len(dy), len(dx)), px_per_mm=chest.px_per_mm)
    radius = (dx**2)[None] + (dy**2)[:, None]
    haze = np.exp(-radius) * (1 + np.float32(0.22) * noise)
    haze = np.clip(haze, 0, 1).astype(np.float32)
    layers.cover(half, np.float32(strength) * haze)
    _kerley_lines(chest, layers, finding, sign)
    return half, (haze > 0.37) & (chest.lung[:, half] > 0.5) & (chest.heart[:, half] < 0.5)


def _kerley_lines(chest, layers, finding, sign) -> None:
    """Draws short horizontal lines at the outer border of the lung base."""
    for i in range(7):
        y = (0.62 + 0.042 * i) * chest.lung_height
        row = chest.row(y)
        outer = float(chest.outer[row])
        first, last = sorted((sign * (outer - 24), sign * (outer - 3)))
        columns = slice(*np.searchsorted(chest.x, (first, last)))
        thick = max(1, round(1.3 * chest.px_per_mm))
        layers.extra[row : row + thick, columns] += {"small": 0.05, "moderate": 0.08, "large": 0.1}[
            finding.size
        ]


def _paint_lesion(chest, layers, finding, rng):
    del rng
    half = chest.half(finding.side)
    x, y = chest.place(finding)
    texture = np.random.default_rng(finding.shape)
    radius = finding.extent / 2
    dx, dy = chest.x[half] - np.float32(x), chest.y - np.float32(y)
    distance = np.sqrt((dx**2)[None] + (dy**2)[:, None])
    if finding.form == "mass":
        angle = np.arctan2(dy[:, None], dx[None])
        lobes = np.cos(angle * texture.integers(4, 7) + np.float32(texture.uniform(0, 6)))
        distance = distance + np.float32(0.05 * radius) * lobes
    disc = np.clip((radius - distance) / 1.6 + 0.5, 0, 1).astype(np.float32)
    strength = 0.5 if finding.hedged else texture.uniform(0.72, 0.95)
    layers.cover(half, np.float32(strength) * disc)
    return half, (disc > 0.5) & (chest.lung[:, half] > 0.5) & (chest.heart[:, half] < 0.5)


def _paint_effusion(chest, layers, finding, rng):
    del rng
    half = chest.half(finding.side)
    dome = chest.dome[half]
    bottom = float(dome.max(initial=-np.inf, where=np.abs(chest.x[half]) < 0.97 * chest.half_width))
    top = bottom - finding.extent
    away = np.clip(np.abs(chest.x[half]) / np.float32(chest.half_width), 0, 1)
    # The meniscus rises towards the chest wall: lowest near the mediastinum, highest outside.
    surface = top + 0.36 * min(finding.extent, 110) * np.clip((1 - away) / 0.8, 0, 1) ** 0.6
    fluid = np.clip((chest.y[:, None] - surface[None]) / 5, 0, 1).astype(np.float32)
    layers.cover(half, np.float32(0.72 if finding.hedged else 0.96) * fluid)
    view = layers.markings[:, half]
    view *= 1 - fluid
    return half, (fluid > 0.5) & (chest.lung[:, half] > 0.5) & (chest.heart[:, half] < 0.5)


def _paint_pneumothorax(chest, layers, finding, rng):
    del rng
    half = chest.half(finding.side)
    away = np.abs(chest.x[half])
    t = np.clip(chest.y / np.float32(chest.lung_height), 0, 1)
    rim = finding.extent * np.clip(1.0 - (1.1 if finding.size == "small" else 0.5) * t, 0, None)
    # The collapsed lung keeps its outline, but is lower and narrower. Depth is measured from the
    # line of the visceral pleura; the air is at negative depths.
    sunk = chest.y - np.float32(1.1 * finding.extent)
    border = np.interp(sunk, chest.y, chest.outer).astype(np.float32) - rim.astype(np.float32)
    depth = np.minimum(border[:, None] - away[None], (0.9 * sunk)[:, None])
    rounded = np.hypot(np.clip(14 - border[:, None] + away[None], 0, 14),
                       np.clip(14 - sunk, 0, 14)[:, None])  # fmt: skip
    depth = np.minimum(depth, 14 - rounded).astype(np.float32)
    lung = chest.lung[:, half]
    air = np.clip(-depth / 1.5, 0, 1).astype(np.float32) * lung
    line = np.clip(1.6 - np.abs(depth) / 1.1, 0, 1).astype(np.float32) * lung
    layers.extra[:, half] += np.float32(0.13) * line - np.float32(0.085) * air
    view = layers.markings[:, half]
    view *= 1 - air
    packed = {"small": 0.05, "moderate": 0.13, "large": 0.34}[finding.size]
    layers.cover(half, np.float32(packed) * (1 - air) * lung)
    return half, (air > 0.5) & (chest.heart[:, half] < 0.5)


_PAINTERS = {
    "Atelectasis": _paint_atelectasis,
    "Cardiomegaly": _paint_cardiomegaly,
    "Consolidation": _paint_consolidation,
    "Edema": _paint_edema,
    "Lung Lesion": _paint_lesion,
    "Pleural Effusion": _paint_effusion,
    "Pneumothorax": _paint_pneumothorax,
}


def paint(chest, study: cases.Study, rng) -> tuple[Layers, list[np.ndarray]]:
    """Paints every finding of a study.

    Args:
      chest: geometry of the chest, an `anatomy.Chest`.
      study: study to paint.
      rng: random stream of the image.

    Returns:
      The layers, and a mask bool[H, W] for each finding of `study.findings`.
    """
    shape = chest.lung.shape
    layers = Layers(
        opacity=np.zeros(shape, np.float32),
        markings=np.ones(shape, np.float32),
        extra=np.zeros(shape, np.float32),
    )
    masks = []
    for finding in study.findings:
        columns, region = _PAINTERS[finding.kind](chest, layers, finding, rng)
        mask = np.zeros(shape, bool)
        mask[:, columns] = region
        if finding.kind != "Cardiomegaly":
            mask &= chest.aorta < 0.5
        masks.append(mask)
    return layers, masks


def haze_from_edema(study: cases.Study) -> float:
    """Returns the fullness of the vessels: 0 without edema, up to 1."""
    return max(
        ({"small": 0.4, "moderate": 0.65, "large": 1.0}[f.size] for f in study.of("Edema")),
        default=0.0,
    )
