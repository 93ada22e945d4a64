"""Samples the facts of phantom studies: patient, views, findings and devices.

A study is a pure function of (seed, study number), so studies may be made in any order, by any
number of workers, and give the same bytes. Lengths are in millimetres on the detector. `side` is
always the patient's side: the patient's left is in the right half of the image.
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
SPLITS = ("train", "validate", "test")

NORMAL_SHARE = 0.31
HEDGED_SHARE = 0.3

# Studies come in blocks, each of which is divided among whole patients, so that the patient of a
# study follows from its block alone.
BLOCK = 6

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

_VIEWS = {
    ("AP",): 0.36,
    ("PA",): 0.2,
    ("PA", "LATERAL"): 0.2,
    ("PA", "LL"): 0.07,
    ("AP", "AP"): 0.09,
    ("PA", "AP"): 0.06,
    ("LATERAL",): 0.02,
}


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """The shared facts of a patient's studies: ids, split, and the chest's size in millimetres."""

    subject_id: int
    split: str
    woman: bool
    age: int
    half_width: float
    lung_height: float
    habitus: float
    heart_ratio: float
    left_dome_drop: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One study: the patient, the views taken, findings and devices in the chest."""

    number: int
    study_id: int
    patient: Patient
    date: int
    time: str
    views: tuple[str, ...]
    dicom_ids: tuple[str, ...]
    findings: tuple[Finding, ...]
    heart_ratio: float
    devices: tuple[str, ...]

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Returns the findings of one kind, at most one on each side."""
        return tuple(finding for finding in self.findings if finding.kind == kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitShares:
    """Shares of patients in train, validate and test; they add up to 1."""

    train: float
    validate: float
    test: float


def stream(seed: int, *path: int) -> np.random.Generator:
    """Returns the random stream of a path in the data set; equal paths give equal numbers."""
    return np.random.default_rng(np.random.SeedSequence((seed, *path)))


def pick(rng: np.random.Generator, table: dict):
    """Draws a key of `table`, whose values are its relative weights."""
    weights = np.fromiter(table.values(), float)
    return list(table)[_index(rng, weights)]


def _index(rng: np.random.Generator, weights) -> int:
    edges = np.cumsum(weights)
    return min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(edges) - 1)


def sample_study(seed: int, number: int, shares: SplitShares) -> Study:
    """Samples the study of a number.

    Args:
      seed: seed of the whole data set, >= 0.
      number: number of the study, from 0.
      shares: shares of patients by split.

    Returns:
      The study, which is a pure function of the arguments.
    """
    rng = stream(seed, 1, number)
    patient = _patient(seed, _patient_index(seed, number), shares)
    views = pick(rng, _VIEWS)
    findings = _sample_findings(rng)
    heart = next((f.extent for f in findings if f.kind == "Cardiomegaly"), None)
    dicom_ids = tuple(
        "-".join(f"{group:08x}" for group in rng.integers(0, 2**32, 5)) for _ in views
    )
    clock = rng.integers(0, (24, 60, 60, 1000))
    return Study(
        number=number,
        study_id=50_000_000 + _scatter(number, seed, 3_141_593),
        patient=patient,
        date=int(rng.integers(2110, 2200)) * 10_000
        + int(rng.integers(1, 13)) * 100
        + int(rng.integers(1, 29)),
        time=f"{clock[0]:02d}{clock[1]:02d}{clock[2]:02d}.{clock[3]:03d}",
        views=views,
        dicom_ids=dicom_ids,
        findings=findings,
        heart_ratio=patient.heart_ratio if heart is None else heart,
        devices=_sample_devices(rng, views, findings),
    )


def _scatter(index: int, seed: int, step: int) -> int:
    """Permutes 0..9,999,999, so that ids are unique and fill all ten folders p10..p19."""
    return (index * step + seed * 7_654_321 + 1_234_567) % 10_000_000


def _patient_index(seed: int, number: int) -> int:
    """Returns the index of a study's patient; a block is divided into runs of one to three."""
    block, place = divmod(number, BLOCK)
    runs = stream(seed, 2, block).integers(1, 4, BLOCK)
    return block * BLOCK + int(np.searchsorted(np.cumsum(runs), place, side="right"))


def _patient(seed: int, index: int, shares: SplitShares) -> Patient:
    rng = stream(seed, 3, index)
    # The golden-ratio sequence is evenly spread, so that even few patients fill all three splits.
    place = ((index * 618_033_989 + seed * 381_966_011) % 1_000_000_000) / 1e9
    split = "test"
    if place < shares.train:
        split = "train"
    elif place < shares.train + shares.validate:
        split = "validate"
    woman = bool(rng.random() < 0.48)
    return Patient(
        subject_id=10_000_000 + _scatter(index, seed, 6_180_339),
        split=split,
        woman=woman,
        age=int(rng.integers(20, 92)),
        half_width=float(rng.uniform(122, 142) - (6 if woman else 0)),
        lung_height=float(rng.uniform(208, 240) - (8 if woman else 0)),
        habitus=float(rng.uniform(0, 1)),
        heart_ratio=float(rng.uniform(0.40, 0.495)),
        left_dome_drop=float(rng.uniform(7, 16)),
    )


def _sample_devices(rng, views, findings) -> tuple[str, ...]:
    bedside = "PA" not in views and "AP" in views
    chances = {
        "pacemaker": 0.07,
        "sternotomy": 0.07,
        "central_line": 0.28 if bedside else 0.04,
        "endotracheal_tube": 0.2 if bedside else 0.0,
        "leads": 0.45 if bedside else 0.05,
    }
    drawn = [name for name, chance in chances.items() if rng.random() < chance]
    for finding in findings:
        if finding.kind == "Pneumothorax" and rng.random() < 0.2:
            drawn.append(f"chest_tube_{finding.side}")
    return tuple(drawn)


def _sample_kinds(rng) -> set[str]:
    if rng.random() < NORMAL_SHARE:
        return set()
    primary = pick(rng, _PRIMARY)
    extra = [kind for kind, chance in _COMPANIONS[primary].items() if rng.random() < chance]
    return {primary, *extra}


def _sample_findings(rng) -> tuple[Finding, ...]:
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
