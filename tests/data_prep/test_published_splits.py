"""Published splits equal scikit-learn's, and have the published sizes at the published lengths."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from data_prep.kit import id_lists, labelled, published_splits, subgroups, values
from data_prep.kit.published_splits import PUBLISHED
from data_prep.kit.splits import SPLITS
from prior_jax.errors import ConfigError, DataError

RULES = [
    (name, split, published)
    for name, found in PUBLISHED.items()
    for split, published in found.items()
    if published.rule is not None
]


@pytest.mark.parametrize("case", [c for c in RULES if c[2].sizes], ids=lambda c: f"{c[0]}-{c[1]}")
def test_rules_reproduce_the_published_sizes(case):
    _, split, published = case
    members = published.rule(sum(published.sizes))
    assert tuple(len(members[part]) for part in SPLITS) == published.sizes
    everyone = sorted(row for rows in members.values() for row in rows)
    assert everyone == list(range(sum(published.sizes)))
    (note,) = published_splits.size_notes(
        split, members, count=len(everyone), sizes=published.sizes
    )
    assert "as published" in note and not note.startswith("Warning")


@pytest.mark.parametrize("count", [11, 53, 100, 211, 1000])
def test_rules_equal_scikit_learn(count):
    rows = list(range(count))
    train, rest = train_test_split(rows, test_size=0.3, random_state=0)
    test, validate = train_test_split(rest, test_size=0.5, random_state=0)
    expected = {"train": train, "validate": validate, "test": test}
    assert PUBLISHED["rsna"]["gloria"].rule(count) == expected
    train, rest = train_test_split(rows, test_size=6, random_state=0)
    test, validate = train_test_split(rest, test_size=0.5, random_state=0)
    expected = {"train": train, "validate": validate, "test": test}
    assert published_splits.thirds(count, held=6) == expected
    train, validate = train_test_split(rows, train_size=0.8, random_state=0)
    assert PUBLISHED["covidx"]["mgca"].rule(count) == {"train": train, "validate": validate}
    train, validate = train_test_split(rows, test_size=0.1, random_state=0)
    assert PUBLISHED["object_cxr"]["mgca"].rule(count) == {"train": train, "validate": validate}


def test_other_sizes_are_told_with_both_numbers():
    members = {"train": [0, 1], "validate": [2], "test": [3]}
    (short,) = published_splits.size_notes("lovt", members, count=4, sizes=(3, 1, 1))
    assert short.startswith("Warning") and "2 / 1 / 1" in short and "3 / 1 / 1" in short
    assert "the table has 4 images, the published split 5" in short
    (other,) = published_splits.size_notes("lovt", members, count=5, sizes=(3, 1, 1))
    assert "its members differ" in other


def test_images_that_are_rejected_are_no_members_of_the_size_beside_the_published_one():
    # LoVT's split of NIH with --boxed_only: an image without a finding stands in its list.
    problems = [None, ("image_without_box", ""), None, None]
    cases = [
        labelled.Case(id=f"i{n}", path="x", patient=f"p{n}", labels=(0,), problem=problem)
        for n, problem in enumerate(problems)
    ]
    assignment = published_splits.Assignment(
        members={"train": [0, 1], "validate": [2], "test": [3]}
    )
    settings = labelled.LabelledSettings(split="lovt")
    published = published_splits.Published(sizes=(2, 1, 1))
    found = labelled.described(assignment, cases, settings=settings, published=published)
    assert found.members == assignment.members
    (note,) = found.notes
    assert note.startswith("Warning") and "1 / 1 / 1" in note and "2 / 1 / 1" in note
    assert "1 images of it are rejected" in note and "the table" not in note


def test_a_split_whose_images_are_in_another_table_is_told_with_a_way_out():
    # MRM tests RSNA on images of the second stage, which the table of labels does not have.
    lists = {"train": ["a.dcm"], "validate": ["b"], "test": ["stage_2_test_images/c.dcm"]}
    members, unknown = published_splits.by_lists(["a", "b"], lists)
    assert unknown == [("stage_2_test_images/c.dcm", "test")]
    sizes, empty = published_splits.size_notes("mrm", members, count=2, sizes=(1, 1, 1))
    assert "1 / 1 / 0" in sizes and "Nothing is in test" in empty
    assert "data_prep.manifest" in empty
    del members["test"]
    assert empty in published_splits.size_notes("mrm", members, count=2, sizes=(1, 1, 1))
    assert len(published_splits.size_notes("x", members, count=2, sizes=(2, 1, 0))) == 1


def test_lists_may_overlap_only_where_they_are_published_so():
    lists = {"train": ["b", "a"], "validate": ["c", "a"], "test": ["b", "d"]}
    with pytest.raises(DataError, match="'a' is in the list of train and in that of validate"):
        published_splits.by_lists(list("abcd"), lists)
    members, unknown = published_splits.by_lists(list("abcd"), lists, overlapping=True)
    assert members == {"train": [1, 0], "validate": [2, 0], "test": [1, 3]} and not unknown
    overlapping = {
        (data_set, name)
        for data_set, found in PUBLISHED.items()
        for name, published in found.items()
        if published.overlapping
    }
    assert overlapping == {("siim", "mrm")}


def test_patients_in_two_splits_are_counted_and_named():
    members = {"train": [0, 1, 2], "validate": [3], "test": [4, 5]}
    assert published_splits.leak_notes("x", members, list("abcdef")) == []
    (note,) = published_splits.leak_notes("x", members, ["p1", "p2", "p3", "p1", "p2", "p9"])
    assert "2 patients stand in two splits" in note and "p1, p2" in note and "p9" not in note


def test_every_data_set_says_what_splits_it_has():
    for name, found in PUBLISHED.items():
        assert set(found) <= set(published_splits.NAMES)
        with pytest.raises(ConfigError, match="--split"):
            published_splits.checked_name("nobody", data_set=name)
        assert published_splits.checked_name("seeded", data_set=name) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png", "a"),
        ("folder/a.DCM ", "a"),
        ("b\\a.jpg", "a"),
        ("1.2.276.0.5", "1.2.276.0.5"),
        ("00000001_000", "00000001_000"),
    ],
)
def test_ids_of_lists_lose_folders_and_suffixes(text, expected):
    assert id_lists.plain_id(text) == expected


def test_lists_are_read_in_the_forms_in_which_papers_ship_them(tmp_path):
    (tmp_path / "train.txt").write_text("\ufeffb.png 0 1\n\na.png,1\n")
    (tmp_path / "val.csv").write_text("label,Image Index\n1,c.png\n0,d.png\n")
    (tmp_path / "test.csv").write_text("anything\ne\n")
    (tmp_path / "train_1.txt").write_text("b.png\n")
    (tmp_path / "notes.md").write_text("x")
    assert id_lists.read_lists(str(tmp_path)) == {
        "train": ["b.png", "a.png"],
        "validate": ["c.png", "d.png"],
        "test": ["e"],
    }
    (tmp_path / "test.csv").write_text("ID,x\ne\n")
    with pytest.raises(DataError, match=r"test\.csv: Line 2"):
        id_lists.read_lists(str(tmp_path))
    (tmp_path / "test.csv").write_text("ID\n")
    with pytest.raises(DataError, match=r"test\.csv: It holds no id"):
        id_lists.read_lists(str(tmp_path))
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"train\.txt: It is not UTF-8"):
        id_lists.read_lists(str(tmp_path))
    for folder in ("", str(tmp_path / "absent")):
        with pytest.raises(ConfigError, match="--split_lists"):
            id_lists.read_lists(folder)


def test_an_image_that_is_left_out_does_not_move_the_others_to_another_split():
    def case(place, problem=None):
        return labelled.Case(
            id=f"i{place}", path="x", patient=f"p{place}", labels=(0,), problem=problem
        )

    settings = labelled.LabelledSettings(split="gloria")
    whole = [case(place) for place in range(20)]
    odd = [case(place, ("odd", "") if place == 3 else None) for place in range(20)]
    one, two = (labelled.assigned(c, data_set="rsna", settings=settings) for c in (whole, odd))
    assert one.members == two.members


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("58", 58.0),
        (58, 58.0),
        ("058Y", 58.0),
        ("006M", 0.5),
        ("", None),
        (None, None),
        ("414", None),
        ("-3", None),
        ("nan", None),
    ],
)
def test_ages(cell, expected):
    assert subgroups.age_of(cell, field="Age") == expected


@pytest.mark.parametrize("cell", ["old", "Y", "5 5"])
def test_what_is_no_age_is_refused(cell):
    with pytest.raises(values.CellProblem, match="Age"):
        subgroups.age_of(cell, field="Age")


def test_sexes():
    words = ("F", "female", "M", "Male ", "", None, "Unknown", "O")
    assert [subgroups.sex_of(word, field="Sex") for word in words] == [*"FFMM", *[""] * 4]
    with pytest.raises(values.CellProblem, match="Sex"):
        subgroups.sex_of("x", field="Sex")
    assert np.isfinite(subgroups.OLDEST)
