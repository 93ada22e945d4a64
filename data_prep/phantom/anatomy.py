"""The phantom's normal chest: its geometry in millimetres, and the arrays drawn from it.

Convention for frontal images: x = 0 is the midline and x grows to the right of the image, which is
the patient's left; y = 0 is the apex of the lungs and y grows downwards. Borders of the lungs are
functions of x or of y alone, so that a whole chest costs about forty passes over the image.
"""

import dataclasses
import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_prep.phantom import cases

TISSUE = np.float32(0.62)
AIR = np.float32(0.43)
EDGE_MM = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chest:
    """Geometry of one frontal image; lengths in millimetres.

    Attributes:
      x: float32[W], column centres from the midline.
      y: float32[H], row centres from the apex.
      px_per_mm: pixels per millimetre.
      half_width: half the width of the inner thorax at its widest.
      lung_height: distance from the apex to the top of the right dome.
      shift: shift of the mediastinum, > 0 to the right of the image.
      heart_width: largest width of the heart.
      outer: float32[H], distance of the outer border of the lungs from the midline.
      inner: float32[H], distance of the mediastinal border of the lungs from the midline.
      dome: float32[W], y of the diaphragm.
      distance: float32[H, W], depth inside a lung, < 0 outside.
      lung: float32[H, W], 1 inside the lungs, heart included, with a soft edge.
      heart: float32[H, W], 1 inside the heart.
      aorta: float32[H, W], 1 inside the aortic knob, left of the midline.
    """

    x: np.ndarray
    y: np.ndarray
    px_per_mm: float
    half_width: float
    lung_height: float
    shift: float
    heart_width: float
    outer: np.ndarray
    inner: np.ndarray
    dome: np.ndarray
    distance: np.ndarray
    lung: np.ndarray
    heart: np.ndarray
    aorta: np.ndarray

    def half(self, side: str) -> slice:
        """Returns the columns of a side of the patient; the left is the right half of the image."""
        middle = int(np.searchsorted(self.x, 0.0))
        return slice(middle, None) if side == "left" else slice(0, middle)

    def pixel(self, x, y):
        """Returns the pixel coordinates (column, row) of a point in millimetres."""
        return (
            (x - float(self.x[0])) * self.px_per_mm,
            (y - float(self.y[0])) * self.px_per_mm,
        )

    def row(self, y: float) -> int:
        """Returns the index of the row at height y, clipped to the image."""
        return int(np.clip(np.searchsorted(self.y, y), 0, len(self.y) - 1))

    def place(self, finding: cases.Finding) -> tuple[float, float]:
        """Returns the centre of a finding inside its lung, (x, y) in millimetres."""
        sign = sign_of(finding.side)
        y = finding.height * self.lung_height
        row = self.row(y)
        inner, outer = float(self.inner[row]), float(self.outer[row])
        return sign * (inner + finding.lateral * (outer - inner)), y


def sign_of(side: str) -> int:
    """Returns +1 for the patient's left, which is the right of the image; -1 for the right."""
    return {"left": 1, "right": -1}[side]


@functools.cache
def _tiles() -> tuple[np.ndarray, np.ndarray]:
    """Draws grain and clouds once for each process: float32[1024, 1024], mean 0, deviation 1."""
    rng = np.random.default_rng(20_230_712)
    grain = rng.standard_normal((1024, 1024), dtype=np.float32)
    clouds = np.zeros((1024, 1024), np.float32)
    for cells, weight in ((48, 1.0), (112, 0.7), (240, 0.5), (512, 0.3)):
        coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
        fine = coarse.resize((1024, 1024), Image.Resampling.BICUBIC)
        clouds += np.float32(weight) * np.asarray(fine)
    return grain, (clouds / clouds.std()).astype(np.float32)


def grain(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Returns pixel noise float32[shape] with mean 0 and deviation 1."""
    return _crop(rng, _tiles()[0], shape)


def clouds(rng: np.random.Generator, shape: tuple[int, int], *, px_per_mm: float) -> np.ndarray:
    """Returns smooth noise float32[shape] with lumps of about 10 to 40 mm at any resolution."""
    # A cell of the tile is 2 mm: coarse enough that resizing enlarges, which is cheaper.
    rows, columns = (max(8, int(side / px_per_mm / 2)) for side in shape)
    patch = _crop(rng, _tiles()[1], (min(rows, 1024), min(columns, 1024)))
    resized = Image.fromarray(patch).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _crop(rng, tile, shape) -> np.ndarray:
    repeats = [-(-side // 1024) for side in shape]
    if max(repeats) > 1:
        tile = np.tile(tile, repeats)
    top, left = (int(rng.integers(0, tile.shape[i] - shape[i] + 1)) for i in (0, 1))
    return np.ascontiguousarray(tile[top : top + shape[0], left : left + shape[1]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """The pose of the patient in one exposure.

    Attributes:
      magnification: magnification of the heart; above 1 in AP images.
      inspiration: factor on the lung height.
      raised: extra height of each dome, by side, in millimetres.
      shift: shift of the mediastinum, in millimetres.
      margin: width of the visible chest wall beyond the lungs, in millimetres.
      top: visible height above the apex, in millimetres.
    """

    magnification: float
    inspiration: float
    raised: dict[str, float]
    shift: float
    margin: float
    top: float


def build_chest(study, pose: Pose, *, shape: tuple[int, int], rng) -> Chest:
    """Lays out the lungs and the heart of one frontal exposure.

    Args:
      study: study to draw, a `cases.Study`.
      pose: pose of the patient in this exposure.
      shape: rows and columns of the image.
      rng: random stream of the image.
    """
    patient = study.patient
    half, height = patient.half_width, patient.lung_height * pose.inspiration
    px_per_mm = min(shape[1] / (2 * (half + pose.margin)), shape[0] / (pose.top + height + 74))
    x = ((np.arange(shape[1]) + 0.5) / px_per_mm - shape[1] / px_per_mm / 2).astype(np.float32)
    y = ((np.arange(shape[0]) + 0.5) / px_per_mm - pose.top).astype(np.float32)
    t = np.clip(y / np.float32(height), 0, None)
    reach = np.clip(t / 0.78, 0, 1)
    outer = half * (0.5 + 0.5 * np.sqrt(1 - (1 - reach) ** 2.1))
    inner = half * (0.165 + 0.335 * np.exp(-t / 0.06) + 0.03 * np.cos(7.5 * t))
    # All arrays are float32 from here on: a float64 border would double the cost of every pass over
    # the image.
    outer, inner = outer.astype(np.float32), inner.astype(np.float32)
    dome = _domes(x, half=half, height=height, drop=patient.left_dome_drop, raised=pose.raised)
    distance = np.minimum(outer[:, None] - np.abs(x)[None], np.abs(x)[None] - inner[:, None])
    distance = np.minimum(distance, dome[None] - y[:, None])
    heart_width = study.heart_ratio * 2 * half
    if not study.of("Cardiomegaly"):
        heart_width *= pose.magnification
    tilt = rng.uniform(0.3, 0.5)
    at = x - np.float32(pose.shift)
    heart = _heart(at, y, width=heart_width, floor=height + 14, tilt=tilt)
    knob = 1 - ((at - 17) / 19)[None] ** 2 - ((y - np.float32(0.23 * height)) / 22)[:, None] ** 2
    aorta = np.clip(knob * 3, 0, 1).astype(np.float32)
    return Chest(
        x=x,
        y=y,
        px_per_mm=px_per_mm,
        half_width=half,
        lung_height=height,
        shift=pose.shift,
        heart_width=heart_width,
        outer=outer,
        inner=inner,
        dome=dome,
        distance=distance,
        lung=np.clip(distance / np.float32(EDGE_MM), 0, 1),
        heart=heart,
        aorta=aorta,
    )


def _domes(x, *, half, height, drop, raised) -> np.ndarray:
    """Returns y of the diaphragm by column: right dome higher, costophrenic angles lowest."""
    away = (np.abs(x) - 0.46 * half) / (0.54 * half)
    fall = np.where(away > 0, 48 * np.abs(away) ** 2.3, 16 * away**2)
    top = np.where(x < 0, height - raised["right"], height + drop - raised["left"])
    # The costophrenic angles of a raised dome stay at their height.
    return (top + fall * np.where(x < 0, 1 + raised["right"] / 60, 1 + raised["left"] / 60)).astype(
        np.float32
    )


def _heart(x, y, *, width, floor, tilt) -> np.ndarray:
    """Draws a tilted ellipse on the diaphragm, with two thirds of it left of the midline."""
    short = 0.37 * width + 14
    cos, sin = math.cos(tilt), math.sin(tilt)
    # The half-extent of the tilted ellipse along x is width / 2.
    long = np.sqrt(max((width / 2) ** 2 - (short * sin) ** 2, 1.0)) / cos
    dx = x - np.float32(0.14 * width)
    dy = y - np.float32(floor - 0.8 * short)
    along = (dx * cos)[None] + (dy * sin)[:, None]
    across = (dy * cos)[:, None] - (dx * sin)[None]
    inside = 1 - (along / np.float32(long)) ** 2 - (across / np.float32(short)) ** 2
    return np.clip(inside * np.float32(short / 2 / EDGE_MM), 0, 1).astype(np.float32)


def body(chest: Chest, *, habitus: float) -> np.ndarray:
    """Draws the soft tissue of neck, shoulders and trunk, float32[H, W] in 0..1."""
    slope = np.clip((chest.y + 42) / 46, 0, 1)
    half = 62 + (chest.half_width + 34 + 22 * habitus - 62) * np.sqrt(slope) + 0.03 * chest.y
    depth = (half[:, None] - np.abs(chest.x)[None]) / np.float32(26)
    return np.clip(depth, 0, 1).astype(np.float32)


def spine_and_trachea(chest: Chest) -> np.ndarray:
    """Draws the additive shadow of vertebrae, darkened by the trachea's air, float32[H, W]."""
    across = np.clip((20 - np.abs(chest.x)) / 5, 0, 1)
    discs = 0.1 + 0.022 * np.cos(chest.y * (2 * np.pi / 23))
    fade = np.clip(1.1 - chest.y / 420, 0.5, 1)
    column = np.outer(discs * fade, across)
    tube = np.clip((9 - np.abs(chest.x - np.float32(0.6 * chest.shift))) / 3, 0, 1)
    air = np.clip((66 - chest.y) / 12, 0, 1)
    return (column - np.outer(0.13 * air, tube)).astype(np.float32)


@functools.cache
def _rib_profile(width: float) -> np.ndarray:
    """Returns one period of ribs: a flat band with brighter cortex, float32[256]."""
    phase = np.abs(np.arange(256) / 256 - 0.5) * 2
    band = np.clip((width - phase) / 0.1, 0, 1)
    cortex = np.exp(-(((phase - width) / 0.08) ** 2))
    return (0.7 * band + 0.5 * cortex).astype(np.float32)


def ribs(chest: Chest, rng) -> np.ndarray:
    """Draws the additive shadow of posterior and anterior ribs, float32[H, W] in about 0..1.4."""
    away = np.abs(chest.x)[None] / np.float32(chest.half_width)
    spacing = chest.lung_height / 9.5
    start = rng.uniform(0, 1)
    rise = (
        0.35
        * chest.half_width
        * (away - 0.45) ** 2
        * np.where(away > 0.45, np.float32(2.4), np.float32(-0.4))
    )
    posterior = (chest.y[:, None] - rise) / np.float32(spacing) + np.float32(start + 8)
    anterior = (chest.y[:, None] + (away - 1) * np.float32(0.55 * chest.half_width)) / np.float32(
        spacing * 1.15
    ) + np.float32(start + 8.4)
    shadow = _rib_profile(0.3).take((posterior * 256).astype(np.int32) & 255)
    front = _rib_profile(0.38).take((anterior * 256).astype(np.int32) & 255)
    shadow += np.float32(0.45) * front * np.clip((away - 0.42) * 5, 0, 1).astype(np.float32)
    cage = np.clip((chest.outer[:, None] + 9 - np.abs(chest.x)[None]) / 4, 0, 1)
    cage *= np.clip((chest.y + 6) / 10, 0, 1)[:, None]
    # Below the diaphragm the contrast between bone and abdomen is small.
    cage *= np.clip(1 + (chest.dome[None] - chest.y[:, None]) / 30, 0.25, 1)
    return shadow * cage.astype(np.float32)


def vessels(chest: Chest, rng, *, plethora: float) -> np.ndarray:
    """Draws branching markings that fan out from both hila, float32[H, W] in 0..1.

    Args:
      chest: geometry of the chest.
      rng: random stream of the image.
      plethora: fullness of the vessels: 0 for a normal chest; 1 draws twice the branches, wider
        and further out.
    """
    size = len(chest.x), len(chest.y)
    layer = Image.new("L", size, 0)
    draw = ImageDraw.Draw(layer)
    scale = chest.px_per_mm
    width = (2.4 + 2.4 * plethora) * scale
    for sign in (-1, 1):
        origin = np.array((sign * 0.24 * chest.half_width + chest.shift, 0.43 * chest.lung_height))
        count = int(22 * (1 + plethora))
        angle = np.linspace(-1.45, 1.35, count) + rng.uniform(-0.1, 0.1, count)
        length = rng.uniform(0.5, 1.0, count) * (0.8 + 0.25 * plethora) * chest.half_width
        step = np.stack((sign * np.cos(angle), 1.15 * np.sin(angle)), 1) * length[:, None]
        turn = np.stack((-step[:, 1], step[:, 0]), 1) * rng.uniform(-0.13, 0.13, (count, 1))
        path = np.stack((0 * step, 0.5 * step, step + turn, 0.95 * step - 1.4 * turn), 1) + origin
        start, middle, end, fork = (
            list(map(tuple, np.stack(chest.pixel(path[:, i, 0], path[:, i, 1]), 1).tolist()))
            for i in range(4)
        )
        for ends, fill, share in (
            ((start, middle), 150, 1.5),
            ((middle, end), 95, 0.8),
            ((middle, fork), 80, 0.6),
        ):
            for pair in zip(*ends, strict=True):
                draw.line(pair, fill=fill, width=max(1, round(share * width)))
        hilum = [chest.pixel(origin[0] + i * 10, origin[1] + i * 22) for i in (-1, 1)]
        draw.ellipse([hilum[0], hilum[1]], fill=150)
    soft = layer.filter(ImageFilter.BoxBlur(max(0.5, 0.6 * scale)))
    return np.asarray(soft, np.float32) * np.float32(1 / 255)
