"""Samples the facts of phantom studies: patient, views, findings and devices.

A study is a pure function of (seed, study number), so studies may be made in any order, by any
number of workers, and give the same bytes. Lengths are in millimetres on the detector. `side` is
always the patient's side: the patient's left is in the right half of the image.
"""

import dataclasses

import numpy as np

from data_prep.phantom.findings import EXTENTS, KINDS, SIZES, Finding, pick, sample_findings

__all__ = [
    "BLOCK",
    "EXTENTS",
    "KINDS",
    "SIZES",
    "SPLITS",
    "Finding",
    "Patient",
    "SplitShares",
    "Study",
    "pick",
    "sample_study",
    "stream",
]

SPLITS = ("train", "validate", "test")

# Studies come in blocks, each of which is divided among whole patients, so that the patient of a
# study follows from its block alone.
BLOCK = 6

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
    findings = sample_findings(rng)
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
