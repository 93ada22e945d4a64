"""Id tables and lists of the published lengths give the published sizes of every split."""

import numpy as np
import pytest

from data_prep import chexpert, chexpert_5x200, covidx, mimic_listed, tbx11k
from data_prep.kit import labelled, published_splits
from data_prep.kit.published_splits import PUBLISHED
from prior_jax.data.schema import SPLITS
from tests.data_prep.test_chexpert import HEADER, path_of, row

# Rows of CheXpert's train.csv and valid.csv; valid.csv has 202 frontal images of 234.
TRAIN_ROWS, VALID_ROWS, VALID_FRONTAL = 223_414, 234, 202
# Lines of COVID-Net's train_COVIDx9A.txt and test_COVIDx9A.txt, and images of NIH ChestX-ray14.
COVIDX9A, NIH_IMAGES = (30_130, 400), 112_120


def case_of(name):
    return labelled.Case(id=name, path=f"{name}.png", patient=name, labels=(0,))


def test_the_lists_of_nih_are_of_all_its_images():
    assert sum(PUBLISHED["nih"]["benchx"].sizes) == sum(PUBLISHED["nih"]["mrm"].sizes) == NIH_IMAGES


@pytest.mark.parametrize(
    ("split", "lengths", "expected"),
    [
        ("benchx", covidx.CXR4_SIZES, (67_862, 8_472, 8_481)),
        ("official", covidx.CXR4_SIZES, covidx.CXR4_SIZES),
        ("mgca", (COVIDX9A[0], 0, COVIDX9A[1]), (24_104, 6_026, 400)),
    ],
)
def test_covidx_s_lists_of_the_published_lengths(split, lengths, expected):
    names = [name for name, count in zip(SPLITS, lengths, strict=True) for _ in range(count)]
    cases = [case_of(str(place)) for place in range(len(names))]
    classes = covidx.THREE if split == "mgca" else covidx.BINARY
    paths = covidx.Paths(train_list="", test_list="", images_dir="")
    found = covidx._assigned(
        cases, names, paths=paths, settings=covidx.Settings(split=split, classes=classes)
    )
    assert tuple(len(found.members[name]) for name in SPLITS) == expected
    assert not any(note.startswith("Warning") for note in found.notes)


def test_tbx11k_s_own_lists_of_the_published_lengths():
    names = ["train"] * 6_600 + ["validate"] * 1_800
    cases = [case_of(str(place)) for place in range(len(names))]
    members = tbx11k.split_tables.members_of(names)
    found = labelled.assigned(
        cases,
        data_set="tbx11k",
        settings=tbx11k.Settings(split="official"),
        official=published_splits.Assignment(members=members),
    )
    assert any("6,600 / 1,800 / 0" in note and "as published" in note for note in found.notes)


def test_a_list_of_mimic_5x200_has_a_thousand_images(tmp_path):
    ids = [f"{place:08x}-0123abcd-0123abcd-0123abcd-0123abcd" for place in range(1_000)]
    (tmp_path / "MIMIC_5x200.txt").write_text("\n".join(ids))
    found = mimic_listed.Listed.read(tmp_path / "MIMIC_5x200.txt")
    assert list(found.lines) == ids and found.repeated == 0
    assert found.lines[ids[-1]] == 1_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """CheXpert's tables at their full lengths, with a third of the images of one finding alone."""
    root = tmp_path_factory.mktemp("chexpert")
    tasks = chexpert_5x200.LABELS
    lines = [HEADER]
    for place in range(TRAIN_ROWS):
        alone = {tasks[place // 3 % 5].replace(" ", "_"): "1.0"} if place % 3 == 0 else {}
        lines.append(row(path_of(place // 4, view=f"view{place % 4 + 1}_frontal"), **alone))
    (root / "train.csv").write_text("\n".join(lines))
    lines = [HEADER]
    for place in range(VALID_ROWS):
        side = "Frontal" if place < VALID_FRONTAL else "Lateral"
        lines.append(row(path_of(90_000 + place, folder="valid"), side=side))
    (root / "valid.csv").write_text("\n".join(lines))
    return chexpert.read_cases(root, lateral=False, encoding="utf-8", reject=pytest.fail)


@pytest.mark.slow
@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("paper", ["gloria", "mgca"])
def test_chexpert_s_tables_of_the_published_lengths(whole, paper, released):
    cases, of_table, table = whole
    assert table.read == TRAIN_ROWS + VALID_ROWS
    settings = chexpert.Settings(split=paper, split_as_released=released)
    marked, found = chexpert._by_paper(cases, of_table, settings)
    held = [case for case in marked if case.problem and case.problem[0] == chexpert.HELD_OUT]
    assert len(held) == 1_000
    positive = np.array([case.labels for case in held]) == 1
    counts = dict(zip(chexpert.LABELS, positive.sum(axis=0).tolist(), strict=True))
    assert [counts[task] for task in chexpert_5x200.LABELS] == [200] * 5
    test = [marked[place] for place in found.members["test"]]
    assert sum(case.problem is None for case in test) == VALID_FRONTAL
    train, validate = (found.members[name] for name in ("train", "validate"))
    if released:  # 5,000 are drawn, of which most are trained on too (quirk G48)
        assert len(validate) == 5_000
        assert TRAIN_ROWS - 6_000 <= len(train) <= TRAIN_ROWS - 1_000
        assert len(set(train) & set(validate)) > 4_000
    else:
        assert 5_000 <= len(validate) < 5_004 and not set(train) & set(validate)
