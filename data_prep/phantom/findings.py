"""Samples the findings of a phantom study: their kinds, sides, sizes and places.

Lengths are in millimetres on the detector. `side` is always the patient's side: the patient's left
is in the right half of the image.
"""

import dataclasses

import numpy as np

KINDS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Lesion",
    "Pleural Effusion",
    "Pneumothorax",
)
"""CheXpert labels of the findings that the phantom draws, in the order of the mask's bits."""

SIZES = ("small", "moderate", "large")

NORMAL_SHARE = 0.31
HEDGED_SHARE = 0.3

_PRIMARY = {
    "Atelectasis": 0.13,
    "Cardiomegaly": 0.11,
    "Consolidation": 0.17,
    "Edema": 0.16,
    "Lung Lesion": 0.17,
    "Pleural Effusion": 0.12,
    "Pneumothorax": 0.16,
}
# P(second finding | primary finding), after common clinical combinations.
_COMPANIONS = {
    "Atelectasis": {"Pleural Effusion": 0.25, "Cardiomegaly": 0.05, "Lung Lesion": 0.04},
    "Cardiomegaly": {"Edema": 0.28, "Pleural Effusion": 0.2, "Atelectasis": 0.08},
    "Consolidation": {"Pleural Effusion": 0.18, "Atelectasis": 0.06, "Cardiomegaly": 0.06},
    "Edema": {"Cardiomegaly": 0.45, "Pleural Effusion": 0.3, "Atelectasis": 0.08},
    "Lung Lesion": {"Pleural Effusion": 0.1, "Atelectasis": 0.08, "Consolidation": 0.05},
    "Pleural Effusion": {"Atelectasis": 0.4, "Cardiomegaly": 0.12, "Consolidation": 0.08},
    "Pneumothorax": {"Atelectasis": 0.12, "Pleural Effusion": 0.1, "Lung Lesion": 0.05},
}

# Extent by size word: cardiothoracic ratio for the heart, millimetres for the others (height of the
# fluid at the chest wall, width of the air rim, diameter of the opacity, radius of the haze, length
# of the band).
EXTENTS = {
    "Atelectasis": {"small": (40, 58), "moderate": (66, 84), "large": (92, 112)},
    "Cardiomegaly": {"small": (0.545, 0.58), "moderate": (0.595, 0.635), "large": (0.65, 0.71)},
    "Consolidation": {"small": (34, 46), "moderate": (56, 72), "large": (84, 108)},
    "Edema": {"small": (52, 60), "moderate": (66, 76), "large": (84, 98)},
    "Lung Lesion": {"small": (9, 15), "moderate": (17, 28), "large": (31, 48)},
    "Pleural Effusion": {"small": (52, 70), "moderate": (92, 122), "large": (148, 190)},
    "Pneumothorax": {"small": (15, 23), "moderate": (30, 42), "large": (52, 74)},
}
_SIZE_SHARES = {
    "Lung Lesion": (0.22, 0.43, 0.35),
    "Pleural Effusion": (0.4, 0.38, 0.22),
    "Pneumothorax": (0.3, 0.4, 0.3),
}
_DEFAULT_SHARES = (0.3, 0.42, 0.28)

# Bands of atelectasis on the left are further out, clear of the heart.
_BAND_CENTRE = {"left": 0.66, "right": 0.48}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding on one side.

    Attributes:
      kind: label in `KINDS`.
      side: side of the patient: "left", "right" or "midline" (the heart).
      zone: "upper", "mid" or "lower" lung; "pleura", "apex", "perihilar" or "heart".
      form: variant of the drawing and wording, e.g. "linear" or "lobar" atelectasis.
      size: word in `SIZES`.
      extent: number drawn from `EXTENTS[kind][size]`.
      hedged: whether the report is uncertain about the finding (label -1).
      lateral: position from the mediastinal (0) to the outer (1) border of the lung.
      height: position from the apex (0) to the dome of the diaphragm (1).
      shape: number of the random stream for the texture, which the study's images share.
    """

    kind: str
    side: str
    zone: str
    form: str
    size: str
    extent: float
    hedged: bool
    lateral: float
    height: float
    shape: int


def pick(rng: np.random.Generator, table: dict):
    """Draws a key of `table`, whose values are its relative weights."""
    weights = np.fromiter(table.values(), float)
    return list(table)[_index(rng, weights)]


def _index(rng: np.random.Generator, weights) -> int:
    edges = np.cumsum(weights)
    return min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(edges) - 1)


def sample_findings(rng) -> tuple[Finding, ...]:
    """Samples the findings of a study, placed so that none hides another.

    Fluid and air are placed first; opacities go into the lung zones, of six, that remain free.
    """
    kinds = _sample_kinds(rng)
    free = {(side, zone) for side in ("left", "right") for zone in ("upper", "mid", "lower")}
    found: list[Finding] = []
    if "Pleural Effusion" in kinds:
        found += _effusions(rng, free, one_side="Pneumothorax" in kinds)
    if "Pneumothorax" in kinds:
        found.append(_pneumothorax(rng, free, found))
    if "Cardiomegaly" in kinds:
        # A large heart hides the left base.
        free.discard(("left", "lower"))
    if "Atelectasis" in kinds:
        found += _atelectasis(rng, free, found)
    for kind in ("Consolidation", "Lung Lesion"):
        if kind in kinds and free:
            found.append(_opacity(rng, free, kind))
    if "Edema" in kinds:
        first = _finding(rng, "Edema", "left", "perihilar", lateral=0.2, height=0.45)
        found += [first, dataclasses.replace(first, side="right")]
    if "Cardiomegaly" in kinds:
        found.append(_finding(rng, "Cardiomegaly", "midline", "heart", lateral=0.5, height=0.8))
    return tuple(sorted(found, key=lambda finding: (finding.kind, finding.side)))


def _sample_kinds(rng) -> set[str]:
    if rng.random() < NORMAL_SHARE:
        return set()
    primary = pick(rng, _PRIMARY)
    extra = [kind for kind, chance in _COMPANIONS[primary].items() if rng.random() < chance]
    return {primary, *extra}


def _finding(rng, kind, side, zone, *, lateral, height, form="plain", size=None) -> Finding:
    if size is None:
        size = SIZES[_index(rng, _SIZE_SHARES.get(kind, _DEFAULT_SHARES))]
    return Finding(
        kind=kind,
        side=side,
        zone=zone,
        form=form,
        size=size,
        extent=float(rng.uniform(*EXTENTS[kind][size])),
        hedged=bool(size == "small" and kind != "Pneumothorax" and rng.random() < HEDGED_SHARE),
        lateral=float(lateral),
        height=float(height),
        shape=int(rng.integers(0, 2**31)),
    )


def _effusions(rng, free, *, one_side) -> list[Finding]:
    both = not one_side and rng.random() < 0.28
    sides = ("left", "right") if both else (pick(rng, {"left": 0.55, "right": 0.45}),)
    found = []
    for side in sides:
        fluid = _finding(rng, "Pleural Effusion", side, "pleura", lateral=1.0, height=1.0)
        # Two large effusions would leave no visible lung.
        if found and fluid.size == "large":
            fluid = _finding(
                rng, "Pleural Effusion", side, "pleura", lateral=1.0, height=1.0, size="small"
            )
        free.discard((side, "lower"))
        if fluid.size != "small":
            free.discard((side, "mid"))
        if fluid.size == "large":
            free.discard((side, "upper"))
        found.append(fluid)
    if both:
        # The pair is described in one sentence, which is never uncertain.
        found = [dataclasses.replace(fluid, hedged=False) for fluid in found]
    return found


def _pneumothorax(rng, free, found) -> Finding:
    sides = [side for side in ("left", "right") if all(f.side != side for f in found)]
    side = sides[int(rng.integers(len(sides)))]
    air = _finding(rng, "Pneumothorax", side, "apex", lateral=0.9, height=0.1)
    if found and air.size == "large":
        # Fluid on one side and a collapsed lung on the other would leave no visible lung.
        air = _finding(rng, "Pneumothorax", side, "apex", lateral=0.9, height=0.1, size="moderate")
    free.discard((side, "upper"))
    if air.size == "large":
        free.difference_update({(side, "mid"), (side, "lower")})
    return air


def _atelectasis(rng, free, found) -> list[Finding]:
    fluid = {f.side: f.size for f in found if f.kind == "Pleural Effusion"}
    wet = [side for side, size in fluid.items() if size != "large"]
    if wet and rng.random() < 0.85:
        side = wet[int(rng.integers(len(wet)))]
        height = {"small": 0.68, "moderate": 0.47}[fluid[side]]
        zone = {"small": "lower", "moderate": "mid"}[fluid[side]]
        free.discard((side, zone))
        return [
            _finding(
                rng,
                "Atelectasis",
                side,
                zone,
                lateral=_BAND_CENTRE[side],
                height=height,
                form="linear",
            )
        ]
    dry = sorted(side for side, zone in free if zone == "lower")
    if not dry and not free:
        return []
    if not dry:
        side = sorted(free)[int(rng.integers(len(free)))][0]
        free.discard((side, "mid"))
        centre = _BAND_CENTRE[side]
        return [
            _finding(rng, "Atelectasis", side, "mid", lateral=centre, height=0.5, form="linear")
        ]
    if rng.random() < 0.3:
        side = dry[int(rng.integers(len(dry)))]
        free.discard((side, "lower"))
        return [
            _finding(
                rng, "Atelectasis", side, "lower", lateral=0.3, height=0.85, form="lobar",
                size="moderate" if rng.random() < 0.5 else "large",
            )
        ]  # fmt: skip
    both = len(dry) == 2 and rng.random() < 0.3
    sides = dry if both else [dry[int(rng.integers(len(dry)))]]
    first = _finding(rng, "Atelectasis", sides[0], "lower", lateral=0.45, height=0.8, form="linear")
    free.difference_update({(side, "lower") for side in sides})
    return [
        dataclasses.replace(
            first, side=side, lateral=_BAND_CENTRE[side], hedged=first.hedged and not both
        )
        for side in sorted(sides)
    ]


def _opacity(rng, free, kind) -> Finding:
    places = sorted(free)
    side, zone = places[int(rng.integers(len(places)))]
    free.discard((side, zone))
    height = {"upper": 0.25, "mid": 0.52, "lower": 0.78}[zone] + rng.uniform(-0.04, 0.04)
    # The lower medial zone on the left is behind the heart.
    behind_heart = (side, zone) == ("left", "lower")
    lateral = rng.uniform(0.7, 0.82) if behind_heart else rng.uniform(0.4, 0.7)
    finding = _finding(rng, kind, side, zone, lateral=lateral, height=height)
    if kind == "Lung Lesion" and finding.size == "large":
        return dataclasses.replace(finding, form="mass")
    return finding
