"""Draws the images of a phantom study, with masks and boxes for each view."""

import dataclasses

import numpy as np
from PIL import Image

from data_prep.phantom import anatomy, cases, device_layer, finding_layer
from prior_jax.errors import DataError

LUNGS = 7
"""Bit of the lungs in `Exposure.regions`; the lower bits belong to the findings."""

LATERAL_VIEWS = ("LATERAL", "LL")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exposure:
    """One image of a study.

    Attributes:
      pixels: uint8[H, W].
      regions: uint8[H, W], bit k is set inside finding k of the study, bit 7 inside the lungs
        (heart excluded); None for a lateral view.
      px_per_mm: pixels per millimetre.
    """

    pixels: np.ndarray
    regions: np.ndarray | None
    px_per_mm: float

    def mask(self, index: int) -> np.ndarray:
        """Returns the mask bool[H, W] of finding `index` of the study; `LUNGS` for the lungs."""
        if self.regions is None:
            raise DataError(
                "A lateral view has no masks.", "Ask for the mask of a frontal view.", where="view"
            )
        return (self.regions >> index) & 1 > 0


def expose(seed: int, study: cases.Study, index: int, *, size: int) -> Exposure:
    """Draws image `index` of a study.

    Args:
      seed: seed of the data set.
      study: study that the image belongs to.
      index: index of the image in `study.views`.
      size: pixels of the shorter side, >= 32.

    Returns:
      The image and its masks, which are a pure function of the arguments.
    """
    rng = cases.stream(seed, 4, study.number, index)
    aspect = float(rng.uniform(1.0, 1.2))
    shape = (round(size * aspect), size) if rng.random() < 0.6 else (size, round(size * aspect))
    if study.views[index] in LATERAL_VIEWS:
        pixels, px_per_mm = _lateral(study, shape, rng)
        return Exposure(pixels=pixels, regions=None, px_per_mm=px_per_mm)
    return _frontal(study, shape, rng, bedside=study.views[index] == "AP")


def _frontal(study, shape, rng, *, bedside) -> Exposure:
    raised, shift = finding_layer.effects_on_pose(study)
    pose = anatomy.Pose(
        magnification=1.06 if bedside else 1.0,
        inspiration=float(rng.uniform(0.86, 0.95) if bedside else rng.uniform(0.95, 1.03)),
        raised=raised,
        shift=shift + float(rng.uniform(-4, 4)),
        margin=float(rng.uniform(14, 40)),
        top=float(rng.uniform(24, 48)),
    )
    chest = anatomy.build_chest(study, pose, shape=shape, rng=rng)
    layers, masks = finding_layer.paint(chest, study, rng)
    density = _density(chest, layers, study, rng)
    frame = _Frame.random(rng, shape=shape, px_per_mm=chest.px_per_mm)
    pixels = frame.warp(_develop(density, rng), Image.Resampling.BILINEAR)
    lungs = (chest.distance > 0) & (chest.heart < 0.5)
    regions = lungs.astype(np.uint8) << LUNGS
    for index, mask in enumerate(masks):
        regions |= mask.astype(np.uint8) << index
    return Exposure(
        pixels=pixels,
        regions=frame.warp(regions, Image.Resampling.NEAREST),
        px_per_mm=chest.px_per_mm,
    )


def _density(chest, layers, study, rng) -> np.ndarray:
    """Returns the attenuation float32[H, W]: about 0 in the outside air, 1 in the densest bone."""
    patient = study.patient
    trunk = anatomy.body(chest, habitus=patient.habitus)
    air = chest.lung * (1 - np.float32(0.94) * np.maximum(chest.heart, chest.aorta))
    aerated = air * (1 - layers.opacity)
    density = (anatomy.TISSUE - anatomy.AIR * aerated) * trunk
    markings = anatomy.vessels(chest, rng, plethora=finding_layer.haze_from_edema(study))
    density += np.float32(0.2) * markings * layers.markings * aerated
    density += layers.extra * air
    density += np.float32(0.075) * anatomy.ribs(chest, rng)
    density += anatomy.spine_and_trachea(chest)
    density += _clavicles(chest, rng)
    if patient.woman:
        density += _breasts(chest, patient.habitus)
    noise = anatomy.clouds(rng, density.shape, px_per_mm=chest.px_per_mm)
    density += np.float32(0.013) * noise * trunk
    density += np.float32(0.3) * device_layer.overlay(chest, study.devices, rng)
    return density


def _clavicles(chest, rng) -> np.ndarray:
    shadow = np.zeros_like(chest.lung)
    level = float(rng.uniform(14, 26))
    rows = slice(0, chest.row(level + 30))
    for sign in (-1, 1):
        inner = (sign * 16 + chest.shift * 0.5, level + 10)
        outer = (sign * 1.05 * chest.half_width, level - 14)
        bone = finding_layer.band(chest.x, chest.y[rows], start=inner, end=outer, width=10)
        shadow[rows] += np.float32(0.085) * bone
    return shadow


def _breasts(chest, habitus) -> np.ndarray:
    away = (np.abs(chest.x) - 0.58 * chest.half_width) / (0.5 * chest.half_width)
    down = (chest.y - 0.72 * chest.lung_height) / (0.36 * chest.lung_height)
    inside = np.clip((1 - (away**2)[None] - (down**2)[:, None]) * 2.5, 0, 1)
    return inside.astype(np.float32) * np.float32(0.025 + 0.04 * habitus)


def _develop(density, rng) -> np.ndarray:
    """Applies film curve, exposure and grain, and returns uint8[H, W]."""
    gain, offset = rng.uniform(0.88, 1.12), rng.uniform(-0.05, 0.05)
    gamma, noise = rng.uniform(0.8, 1.25), rng.uniform(0.008, 0.028)
    grainy = density + np.float32(noise) * anatomy.grain(rng, density.shape)
    level = np.clip(grainy * np.float32(gain * 1020) + np.float32(offset * 1020), 0, 1023)
    curve = 250.0 * (np.arange(1024) / 1023) ** gamma
    return curve.astype(np.uint8).take(level.astype(np.int16))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frame:
    """A rotation and shift of the patient relative to the plate; lengths do not change."""

    matrix: tuple[float, ...]

    @classmethod
    def random(cls, rng, *, shape, px_per_mm):
        angle = float(np.clip(rng.normal(0, 1.6), -4, 4)) * np.pi / 180
        dx, dy = rng.uniform(-6, 6, 2) * px_per_mm
        cos, sin = np.cos(angle), np.sin(angle)
        cx, cy = shape[1] / 2, shape[0] / 2
        return cls(
            matrix=(
                cos, sin, cx - cos * cx - sin * cy + dx,
                -sin, cos, cy + sin * cx - cos * cy + dy,
            )
        )  # fmt: skip

    def warp(self, array, resample) -> np.ndarray:
        image = Image.fromarray(array)
        return np.asarray(
            image.transform(image.size, Image.Transform.AFFINE, self.matrix, resample)
        )


def _lateral(study, shape, rng) -> tuple[np.ndarray, float]:
    """Draws a side view, breastbone on the image's left, with heart and fluid but no masks."""
    patient = study.patient
    px_per_mm = min(shape[1] / 300, shape[0] / 330)
    x = (((np.arange(shape[1]) + 0.5) - shape[1] / 2) / px_per_mm).astype(np.float32)
    y = ((np.arange(shape[0]) + 0.5) / px_per_mm - 40).astype(np.float32)
    height = patient.lung_height
    t = np.clip(y / height, 0, 1)
    front = -6 - 90 * np.sqrt(np.clip(t / 0.9, 0, 1))
    back = 18 + 80 * np.sqrt(np.clip(t / 0.35, 0, 1))
    dome = height - 6 + 0.0065 * np.where(x > -40, (x + 40) ** 2, 0)
    depth = np.minimum(x[None] - front[:, None], back[:, None] - x[None])
    depth = np.minimum(depth, np.minimum(dome[None] - y[:, None], y[:, None] + 4))
    lung = np.clip(depth / 6, 0, 1)
    width = 2 * patient.half_width * study.heart_ratio * 0.42
    heart = 1 - ((x + 46) / width)[None] ** 2 - ((y - height + 0.75 * width) / width)[:, None] ** 2
    lung = lung * (1 - 0.85 * np.clip(heart * 5, 0, 1))
    for fluid in study.of("Pleural Effusion"):
        surface = dome.max() - fluid.extent + 30 * np.clip((60 - x) / 120, 0, 1)
        lung = lung * (1 - 0.8 * np.clip((y[:, None] - surface[None]) / 6, 0, 1))
    trunk = np.clip((132 + 0.06 * y[:, None] - np.abs(x)[None]) / 14, 0, 1)
    discs = 0.1 + 0.04 * np.cos(y * (2 * np.pi / 24))
    spine = np.outer(discs, np.clip((17 - np.abs(x - 78)) / 4, 0, 1))
    noise = anatomy.clouds(rng, shape, px_per_mm=px_per_mm)
    density = (0.64 - 0.4 * lung + 0.02 * noise) * trunk + spine
    return _develop(density.astype(np.float32), rng), px_per_mm
