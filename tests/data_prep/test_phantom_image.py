"""What the phantom draws: findings visible, on the side and of the size that are claimed."""

import dataclasses

import numpy as np
import pytest

from data_prep.phantom import cases, radiographs
from prior_jax.errors import DataError

SHARES = cases.SplitShares(train=0.75, validate=0.1, test=0.15)
SEED = 5
SIZE = 128
FORMS = {"Atelectasis": "linear"}
PLACES = {
    "Atelectasis": ("lower", 0.6, 0.8),
    "Consolidation": ("mid", 0.55, 0.52),
    "Edema": ("perihilar", 0.2, 0.45),
    "Lung Lesion": ("mid", 0.55, 0.45),
    "Pleural Effusion": ("pleura", 1.0, 1.0),
    "Pneumothorax": ("apex", 0.9, 0.1),
}


@pytest.fixture(scope="module")
def normal():
    numbers = range(500)
    studies = (cases.sample_study(SEED, number, SHARES) for number in numbers)
    return next(s for s in studies if not s.findings and s.views[0] == "PA" and not s.devices)


def with_finding(study, kind, side, size, *, hedged=False):
    zone, lateral, height = PLACES.get(kind, ("heart", 0.5, 0.8))
    extent = float(np.mean(cases.EXTENTS[kind][size]))
    finding = cases.Finding(
        kind=kind,
        side=side,
        zone=zone,
        form=FORMS.get(kind, "plain"),
        size=size,
        extent=extent,
        hedged=hedged,
        lateral=lateral,
        height=height,
        shape=3,
    )
    ratio = extent if kind == "Cardiomegaly" else study.heart_ratio
    return dataclasses.replace(study, findings=(finding,), heart_ratio=ratio)


def expose(study):
    return radiographs.expose(SEED, study, 0, size=SIZE)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_the_mask_grows_with_the_stated_size(normal, kind):
    side = "midline" if kind == "Cardiomegaly" else "right"
    areas = []
    for size in cases.SIZES:
        exposure = expose(with_finding(normal, kind, side, size))
        areas.append(exposure.mask(0).sum() / exposure.px_per_mm**2)
    assert 0 < areas[0] * 1.15 < areas[1] < areas[2] / 1.15


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", sorted(PLACES))
def test_the_patients_left_is_the_right_half_of_the_image(normal, kind, side):
    mask = expose(with_finding(normal, kind, side, "moderate")).mask(0)
    share = mask[:, mask.shape[1] // 2 :].sum() / mask.sum()
    assert share > 0.95 if side == "left" else share < 0.05


@pytest.mark.parametrize("size", cases.SIZES)
@pytest.mark.parametrize("kind", sorted(PLACES))
def test_a_finding_shows_inside_its_mask(normal, kind, size):
    before = expose(normal).pixels.astype(np.float32)
    exposure = expose(with_finding(normal, kind, "right", size))
    mask = exposure.mask(0)
    change = exposure.pixels.astype(np.float32)[mask].mean() - before[mask].mean()
    assert change < -8 if kind == "Pneumothorax" else change > 18


def test_mask_and_image_lie_on_top_of_each_other_however_the_patient_is_turned():
    compared = 0
    for number in range(60):
        study = cases.sample_study(SEED, number, SHARES)
        if study.findings or study.views[0] != "PA":
            continue
        before = expose(study).pixels.astype(int)
        exposure = expose(with_finding(study, "Lung Lesion", "right", "large"))
        mask, changed = exposure.mask(0), abs(exposure.pixels.astype(int) - before) > 12
        assert (mask & changed).sum() / (mask | changed).sum() > 0.82
        compared += 1
    assert compared > 3


def test_doubtful_findings_are_fainter(normal):
    for kind in ("Consolidation", "Lung Lesion", "Pleural Effusion"):
        sure, doubtful = (
            expose(with_finding(normal, kind, "left", "small", hedged=hedged))
            for hedged in (False, True)
        )
        mask = sure.mask(0)
        assert doubtful.pixels[mask].mean() < sure.pixels[mask].mean() - 5


def test_the_heart_has_the_stated_ratio(normal):
    for size in cases.SIZES:
        study = with_finding(normal, "Cardiomegaly", "midline", size)
        exposure = expose(study)
        columns = np.flatnonzero(exposure.mask(0).any(0))
        width = (columns[-1] - columns[0] + 1) / exposure.px_per_mm
        assert width / (2 * study.patient.half_width) == pytest.approx(study.heart_ratio, abs=0.035)


def test_a_nodule_has_the_stated_diameter(normal):
    exposure = expose(with_finding(normal, "Lung Lesion", "right", "moderate"))
    diameter = 2 * np.sqrt(exposure.mask(0).sum() / np.pi) / exposure.px_per_mm
    assert diameter == pytest.approx(np.mean(cases.EXTENTS["Lung Lesion"]["moderate"]), abs=3)


def test_both_images_of_a_study_show_the_same_findings(normal):
    study = with_finding(normal, "Consolidation", "left", "large")
    study = dataclasses.replace(study, views=("PA", "AP"), dicom_ids=("a", "b"))
    first, second = (radiographs.expose(SEED, study, i, size=SIZE) for i in (0, 1))
    assert first.pixels.shape != second.pixels.shape or (first.pixels != second.pixels).any()
    areas = [image.mask(0).sum() / image.px_per_mm**2 for image in (first, second)]
    assert areas[0] == pytest.approx(areas[1], rel=0.25)


def test_every_sampled_finding_has_a_mask_on_its_side_at_any_size():
    checked = 0
    for number in range(120):
        study = cases.sample_study(SEED, number, SHARES)
        for index, view in enumerate(study.views):
            if view in radiographs.LATERAL_VIEWS:
                continue
            exposure = radiographs.expose(SEED, study, index, size=64)
            assert exposure.pixels.dtype == np.uint8
            assert min(exposure.pixels.shape) == 64
            assert exposure.mask(radiographs.LUNGS).mean() > 0.12
            for bit, finding in enumerate(study.findings):
                columns = np.nonzero(exposure.mask(bit))[1]
                assert len(columns), finding
                left = columns.mean() > exposure.pixels.shape[1] / 2
                assert finding.side == "midline" or left == (finding.side == "left")
                checked += 1
    assert checked > 100


def test_brightness_alone_does_not_tell_ill_from_well():
    means = {True: [], False: []}
    for number in range(150):
        study = cases.sample_study(SEED, number, SHARES)
        if study.views[0] in ("PA", "AP"):
            pixels = radiographs.expose(SEED, study, 0, size=48).pixels
            means[bool(study.findings)].append(pixels.mean())
    ill, well = (np.array(means[key]) for key in (True, False))
    auc = (ill[:, None] > well[None]).mean()
    assert 0.3 < auc < 0.75


def test_a_lateral_view_has_no_masks(normal):
    study = dataclasses.replace(normal, views=("LATERAL",))
    exposure = expose(study)
    assert exposure.regions is None
    with pytest.raises(DataError, match="view"):
        exposure.mask(0)
