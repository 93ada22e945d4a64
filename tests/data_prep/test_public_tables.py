"""CheXpert, RSNA and SIIM tables read rightly: no leak, no mask lost, bad rows named."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn import model_selection

from data_prep import chexpert_table, rsna, siim
from data_prep.kit import rle, splits
from prior_jax.errors import DataError

NAMES = ["No Finding", "Fracture", *chexpert_table.UNCERTAIN]


def encode(mask):
    """The run-length text of a mask, by definition."""
    runs, end = [], 0
    flat = np.flatnonzero(np.diff(np.r_[0, mask.T.reshape(-1).astype(int), 0]))
    for start, stop in flat.reshape(-1, 2):
        runs += [start - end, stop - start]
        end = stop
    return " ".join(map(str, runs)) or "-1"


@hypothesis.given(
    bits=st.lists(st.booleans(), min_size=12, max_size=12), wide=st.sampled_from([(3, 4), (4, 3)])
)
@hypothesis.settings(deadline=None)
def test_a_mask_is_what_was_written(bits, wide):
    mask = np.array(bits).reshape(wide)
    got = rle.decode(encode(mask), height=wide[0], width=wide[1], name="x")
    np.testing.assert_array_equal(got, mask)


@pytest.mark.parametrize("text", ["3", "1 a", "", "-1 2", "10 5"])
def test_masks_that_are_none_are_refused_with_the_image(text):
    with pytest.raises(DataError, match="mask of image im7"):
        rle.union(["0 1", text], height=3, width=4, mode="paper", name="im7")


@hypothesis.given(groups=st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=40))
@hypothesis.settings(deadline=None)
def test_groups_stay_together_and_every_row_is_somewhere(groups):
    drawn = splits.shuffled_splits(groups, held_out=0.3, seed=0)
    assert sorted(np.concatenate(list(drawn.values())).tolist()) == list(range(len(groups)))
    found = [{groups[row] for row in rows} for rows in drawn.values()]
    assert sum(map(len, found)) == len(set(groups))


def test_the_cut_is_that_of_scikit_learn():
    rows = np.arange(101)
    train, rest = model_selection.train_test_split(rows, test_size=0.3, random_state=0)
    test, valid = model_selection.train_test_split(rest, test_size=0.5, random_state=0)
    drawn = splits.shuffled_splits([str(row) for row in rows], held_out=0.3, seed=0)
    for name, expected in (("train", train), ("validate", valid), ("test", test)):
        assert drawn[name].tolist() == expected.tolist()


def test_rsna_has_the_splits_the_papers_count():
    drawn = splits.shuffled_splits([str(i) for i in range(26684)], held_out=0.3, seed=0)
    assert [len(rows) for rows in drawn.values()] == [18678, 4003, 4003]


def rsna_row(patient="p", target="1", **sides):
    return {"patientId": patient, "x": "1", "y": "2", "width": "3", "height": "4"} | sides | {
        "Target": target
    }  # fmt: skip


NO_BOX = {"x": "", "y": "", "width": "", "height": ""}


def test_an_rsna_row_that_stands_twice_counts_once():
    (found,) = rsna.patients([rsna_row("a"), rsna_row("a", x="9"), rsna_row("a")])
    (once,) = rsna.patients([rsna_row("a"), rsna_row("a", x="9")])
    assert found.boxes == once.boxes and len(found.boxes) == 2


def test_rsna_boxes_have_corners_and_bad_rows_are_named():
    found = rsna.patients([rsna_row("b"), rsna_row("a", "0", **NO_BOX), rsna_row("b", x="9")])
    assert [(p.patient_id, p.target) for p in found] == [("a", 0), ("b", 1)]
    assert found[1].boxes == ((1, 2, 4, 6), (9, 2, 12, 6))
    for rows, field in (
        ([rsna_row(target="2")], "p: Target is '2'"),
        ([rsna_row(), rsna_row(target="0", **NO_BOX)], "p: .*Target 0 and 1"),
        ([rsna_row(width="")], "p: The box"),
        ([rsna_row(height="0")], "p: The box"),
        ([rsna_row(x="-1")], "p: The box"),
        ([rsna_row(width="nan")], "p: The box"),
        ([rsna_row(height="inf")], "p: The box"),
        ([rsna_row(target="0")], "p: A row with Target 0 has the box"),
        ([rsna_row(target="")], "p: Target is ''"),
        ([rsna_row(target="-1")], "p: Target is '-1'"),
        ([rsna_row(), rsna_row("")], "row 2: Column 'patientId'"),
        ([rsna_row(" ")], "row 1: Column 'patientId'"),
        ([rsna_row("nan")], "row 1: Column 'patientId'"),
        ([rsna_row(), rsna_row(" p ", "0", **NO_BOX)], "p: .*Target 0 and 1"),
        ([{"patientId": "p", "Target": "1"}], "row 1: .*no column 'x'.*'Target', 'patientId'"),
        ([rsna_row(height=None)], "row 1: .*fewer cells.*'height'"),
        ([{**rsna_row(), None: ["7"]}], "row 1.*more cells"),
    ):
        with pytest.raises(DataError, match=field):
            rsna.patients(rows)


def test_rsna_is_read_as_a_data_frame_writes_it():
    nan = float("nan")
    rows = [rsna_row("a", 0, **dict.fromkeys(NO_BOX, nan)), rsna_row("b", 1.0, x=1.5)]
    found = rsna.patients(rows)
    assert [p.boxes for p in found] == [(), ((1.5, 2, 4.5, 6),)]


SIIM_PROBLEMS = {
    "a missing mask": ([{"ImageId": "a", "EncodedPixels": "nan"}], "a: EncodedPixels"),
    "no mask": ([{"ImageId": "a", "EncodedPixels": "-2"}], "a: EncodedPixels"),
    "half a run": ([{"ImageId": "a", "EncodedPixels": "1 2 3"}], "a: EncodedPixels"),
    "a short row": (
        [{"ImageId": "a", "EncodedPixels": None}],
        "row 1: .*fewer cells.*'EncodedPixels'",
    ),
    "a long row": ([{"ImageId": "a", "EncodedPixels": "-1", None: ["x"]}], "row 1.*more cells"),
    "no image": ([{"ImageId": " ", "EncodedPixels": "-1"}], "row 1: Column 'ImageId'"),
    "an absent column": (
        [{"imageid": "a", "EncodedPixels": "-1"}],
        "row 1: .*no column 'ImageId'.*imageid",
    ),
    "both": (
        [{"ImageId": "a", "EncodedPixels": "-1"}, {"ImageId": " a", "EncodedPixels": "1 2"}],
        "a: .*EncodedPixels with -1 and a mask",
    ),
}


@pytest.mark.parametrize("kind", SIIM_PROBLEMS)
def test_rows_of_siim_that_are_none_are_named(kind):
    rows, match = SIIM_PROBLEMS[kind]
    with pytest.raises(DataError, match=match):
        siim.annotations(rows)


@pytest.mark.parametrize("written", ["-1", " -1", "-1.0", -1, -1.0])
def test_an_image_without_a_mask_is_known_in_every_spelling(written):
    (found,) = siim.annotations([{"ImageId": "a", "EncodedPixels": written}])
    assert (found.rle, found.target) == ("-1", 0)


def siim_rows(blank):
    masks = {"a": ["0 5", "9 2"], "b": ["-1"], "c": ["1 1"], "d": ["-1"], "e": ["-1"]}
    name = f"{blank}EncodedPixels"
    return [{"ImageId": i, name: blank + mask} for i, own in masks.items() for mask in own]


@pytest.mark.parametrize("blank", ["", " "])
def test_both_stages_of_siim_are_read_alike(blank):
    found = siim.annotations(siim_rows(blank))
    assert [a.target for a in found] == [1, 1, 0, 1, 0, 0]
    assert found == siim.annotations(siim_rows(""))
    with pytest.raises(DataError, match="EncodedPixels"):
        siim.annotations([{"ImageId": "a"}])


def test_siim_images_stand_in_one_split_with_all_their_masks():
    rows = [
        {"ImageId": f"im{i}", "EncodedPixels": f"{j} 1"} for i in range(40) for j in range(i % 4)
    ]
    found = siim.annotations(rows)

    def leaks(mode):
        drawn = siim.drawn_splits(found, mode=mode)
        images = {name: {found[r].image_id for r in rows} for name, rows in drawn.items()}
        return any(one & other for one, other in itertools.combinations(images.values(), 2))

    assert not leaks("paper") and leaks("release")


def test_siim_samples_are_balanced_and_in_order():
    found = siim.annotations(siim_rows(""))
    for rng in (np.random.default_rng(1), np.random.RandomState(1)):
        images = siim.balanced_images(found, rng=rng)
        assert images[:2] == ["a", "c"] and sorted(images[2:]) == images[2:]
        assert set(images[2:]) < {"b", "d", "e"} and len(images) == 4
        part = siim.part_of_images(images, fraction=0.8, rng=rng)
        assert len(part) == 3 and [i for i in images if i in part] == part
    with pytest.raises(DataError, match="without a mask"):
        siim.balanced_images([a for a in found if a.target], rng=np.random.default_rng(0))


def chexpert_labels(rows=600, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.full((rows, len(NAMES)), np.nan)
    labels[np.arange(rows), 2 + np.arange(rows) % 5] = 1
    labels[rng.random(rows) < 0.2, 0] = 1
    labels[rng.random(rows) < 0.1, 1] = -1
    return labels, rng.random(rows) < 0.8


def test_5x200_has_one_finding_alone():
    labels, frontal = chexpert_labels()
    drawn = chexpert_table.draw_5x200(
        labels, names=NAMES, frontal=frontal, rng=np.random.default_rng(0), mode="paper", count=30
    )
    assert len(set(drawn.tolist())) == 150 and frontal[drawn].all()
    np.testing.assert_array_equal(np.nansum(labels[drawn], axis=1), 1)
    assert (labels[drawn, 2 + np.repeat(np.arange(5), 30)] == 1).all()
    released = chexpert_table.candidates_5x200(labels, names=NAMES, frontal=frontal, mode="release")
    assert any((labels[rows, 0] == 1).any() for rows in released.values())
    with pytest.raises(DataError, match=r"Atelectasis alone"):
        chexpert_table.draw_5x200(
            labels, names=NAMES, frontal=frontal, rng=np.random.default_rng(0), mode="paper"
        )
    with pytest.raises(DataError, match="'Edema'"):
        chexpert_table.mapped_labels(
            labels[:, :3], names=["Atelectasis", "Cardiomegaly", "Consolidation"]
        )


def test_no_patient_stands_in_two_parts_of_chexpert():
    rng = np.random.default_rng(2)
    patients = [
        chexpert_table.patient_of(f"CheXpert-v1.0/train/patient{i:05d}/study1/view1_frontal.jpg")
        for i in rng.integers(0, 90, 400)
    ]
    test = rng.choice(400, 20, replace=False)
    train, validate = chexpert_table.split_by_patient(patients, test=test, count=60, rng=rng)
    owners = [{patients[row] for row in rows} for rows in (train, validate, test)]
    assert not (owners[0] & owners[1] or owners[0] & owners[2] or owners[1] & owners[2])
    assert 60 <= len(validate) < 75
    left = [row for row in range(400) if patients[row] not in owners[2]]
    assert sorted([*train, *validate]) == left
    with pytest.raises(DataError, match="validate on"):
        chexpert_table.split_by_patient(patients, test=test, count=400, rng=rng)
    with pytest.raises(DataError, match=r"Path.*view1"):
        chexpert_table.patient_of("view1.jpg")


def test_a_fraction_is_of_the_frontal_images():
    frontal = np.arange(100) % 4 > 0
    rng = np.random.default_rng(5)
    drawn = chexpert_table.training_rows(frontal, fraction=0.4, rng=rng, mode="paper")
    assert len(set(drawn.tolist())) == 30 and frontal[drawn].all()
