"""CheXpert's preparers on files in its own layout, full and small, whole and odd."""

import json

import numpy as np
import pandas as pd
import pytest

from data_prep import chexpert, chexpert_5x200
from data_prep.kit import cli
from prior_jax.data.fractions import FractionConfig, Identity, chosen_records
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import label_sets

HEADER = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *chexpert.LABELS])
TASKS = chexpert_5x200.LABELS


def path_of(patient, *, folder="train", view="view1_frontal", base="CheXpert-v1.0-small"):
    return f"{base}/{folder}/patient{patient:05d}/study1/{view}.jpg"


def row(path, *, sex="Female", age="68", side="Frontal", view="AP", **labels):
    names = {name.replace(" ", "_"): name for name in chexpert.LABELS}
    said = {names[name]: value for name, value in labels.items()}
    return ",".join([path, sex, age, side, view, *(said.get(n, "") for n in chexpert.LABELS)])


def alone(patient, task, **rest):
    """A row with one finding alone."""
    return row(path_of(patient), **{task.replace(" ", "_"): "1.0"}, **rest)


def write(root, *, absent=(), **tables):
    """Writes tables, and an image for each of their rows."""
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (root / f"{name}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        for place, line in enumerate(rows):
            path = chexpert.within(line.partition(",")[0])
            if path.endswith(".jpg") and path not in absent:
                label_sets.write_png(root / path, hash((name, place)) % 2**32)
    return root


def prepare(root, *, lists="", **settings):
    return chexpert.prepare(
        chexpert.Paths(root=str(root), split_lists=str(lists)),
        chexpert.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


@pytest.mark.parametrize("base", ["CheXpert-v1.0", "CheXpert-v1.0-small"])
def test_labels_sex_age_and_view_are_kept_of_both_layouts(tmp_path, base):
    rows = [
        row(path_of(1, base=base), Edema="-1.0", No_Finding="0.0", Cardiomegaly="1.0"),
        row(path_of(1, base=base, view="view2_lateral"), side="Lateral", view=""),
        row(path_of(2, base=base), sex="Male", age="0", view="PA"),
    ]
    write(tmp_path, train=rows, valid=[row(path_of(9, folder="valid", base=base))])
    manifest = prepare(tmp_path, split="official")
    found = label_sets.records(tmp_path / "out")
    assert {split: len(records) for split, records in found.items()} == {"train": 2, "validate": 1}
    one = found["train"]["train/patient00001/study1/view1_frontal"]
    labels = dict(zip(manifest.label_names, one.labels, strict=True))
    assert labels["Edema"] == -1 and labels["Cardiomegaly"] == 1 and labels["No Finding"] == 0
    assert labels["Fracture"] == -2
    assert (one.sex, one.age, one.views, one.subject_id) == ("F", 68.0, ("AP",), "patient00001")
    two = found["train"]["train/patient00002/study1/view1_frontal"]
    assert (two.sex, two.views) == ("M", ("PA",))
    assert manifest.rejected == {"wrong_view": 1}
    rows = manifest.tables[chexpert.ROWS]
    assert (rows.read, rows.kept) == (4, 3)
    label_sets.assert_sound(tmp_path / "out")


def test_lateral_images_are_kept_on_demand(tmp_path):
    rows = [row(path_of(1)), row(path_of(1, view="view2_lateral"), side="Lateral", view="")]
    write(tmp_path, train=rows)
    prepare(tmp_path, lateral=True, split_fractions=("1", "0", "0"))
    views = {record.views for record in label_sets.every(tmp_path / "out").values()}
    assert views == {("AP",), ("LATERAL",)}


def test_what_is_odd_is_right_or_refused_by_name_and_counted(tmp_path):
    rows = [
        row(path_of(1)),
        row(path_of(1)),
        row("elsewhere/view1.jpg"),
        row(""),
        row(path_of(2), Edema="2"),
        row(path_of(3), sex="?"),
        row(path_of(4), age="many"),
        row(path_of(5), side="Oblique"),
        row(path_of(6)),
        f"{path_of(7)},Female",
        row(path_of(8)),
        row(path_of(9), sex="Unknown", age="", side=""),
    ]
    write(tmp_path, train=rows, absent=[chexpert.within(path_of(6))])
    label_sets.truncate(tmp_path / chexpert.within(path_of(8)))
    manifest = prepare(tmp_path, split_fractions=("1", "0", "0"))
    assert manifest.tables[chexpert.ROWS].rejected == {
        "duplicate_row": 1,
        "incomplete_row": 1,
        "malformed_row": 5,
        "missing_image": 1,
        "truncated_image": 1,
        "unknown_path": 1,
    }
    patients = sorted(record.subject_id for record in label_sets.every(tmp_path / "out").values())
    assert patients == ["patient00001", "patient00009"]
    label_sets.assert_sound(tmp_path / "out")


def table(*, more=40, each=3):
    """Images of each finding alone, and others; a second image for every third patient."""
    rows = [alone(100 + 10 * p + t, task) for p in range(each) for t, task in enumerate(TASKS)]
    rows += [row(path_of(300 + place)) for place in range(more)]
    rows += [row(path_of(300 + place, view="view2_frontal")) for place in range(0, more, 3)]
    return [*rows, row(path_of(100, view="view2_frontal"))]


SMALL = {"validation_images": 8, "exclusive_images": 2}


@pytest.mark.parametrize("paper", ["gloria", "mgca"])
def test_the_papers_splits_keep_patients_apart_unless_released(tmp_path, paper):
    valid = [row(path_of(900 + place, folder="valid")) for place in range(3)]
    root = write(tmp_path / "right", train=table(), valid=valid)
    manifest = prepare(root, split=paper, **SMALL)
    found = label_sets.records(root / "out")
    assert len(found["test"]) == 3 and len(found["validate"]) >= 8
    assert manifest.rejected["held_out_for_5x200"] == 10
    label_sets.assert_sound(root / "out")

    root = write(tmp_path / "released", train=table(), valid=valid)
    manifest = prepare(root, split=paper, split_as_released=True, **SMALL)
    found = label_sets.records(root / "out")
    validate = {name.partition("@")[0] for name in found["validate"]}
    train = {name.partition("@")[0] for name in found["train"]}
    assert len(validate) == 8 and validate & train, "as released, most are trained on too"
    assert any("stand in two splits" in note for note in manifest.notes)
    label_sets.assert_sound(root / "out", leaks=True)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("paper", ["gloria", "mgca"])
def test_the_papers_splits_hold_out_the_5x200_that_their_rule_draws(tmp_path, paper, released):
    write(tmp_path / "split", train=table(each=12))
    prepare(tmp_path / "split", split=paper, split_as_released=released, **SMALL)
    write(tmp_path / "drawn", train=table(each=12))
    select(tmp_path / "drawn", rule=paper, as_released=released, count=2)
    trained = {name for name in label_sets.every(tmp_path / "split" / "out")}
    drawn = {name for name in label_sets.every(tmp_path / "drawn" / "out")}
    assert len(drawn) == 10 and not drawn & trained


def test_the_released_splits_have_the_authors_seeds_alone():
    with pytest.raises(ConfigError, match=r"--split_seed.*authors' seeds"):
        chexpert.Settings(split="gloria", split_as_released=True, split_seed=1)


@pytest.mark.parametrize("paper", ["gloria", "mgca"])
def test_images_to_validate_on_are_counted_without_those_that_are_rejected(tmp_path, paper):
    sides = [
        row(path_of(300 + place, view=view), side=side)
        for place in range(40)
        for view, side in (("view1_frontal", "Frontal"), ("view2_lateral", "Lateral"))
    ]
    other = path_of(900, folder="valid", view="view2_lateral")
    valid = [row(path_of(900, folder="valid")), row(other, side="Lateral", view="")]
    root = write(tmp_path, train=[*table(more=0), *sides], valid=valid)
    manifest = prepare(root, split=paper, validation_images=20, exclusive_images=2)
    found = {split: len(records) for split, records in label_sets.records(root / "out").items()}
    # Two images of a patient are taken together, so that there may be one more.
    assert 20 <= found["validate"] <= 21 and found["test"] == 1
    told = f"{found['train']} / {found['validate']} / {found['test']} images for"
    assert any(told in note for note in manifest.notes)
    assert manifest.rejected["wrong_view"] == 41
    label_sets.assert_sound(root / "out")


@pytest.mark.parametrize("paper", ["gloria", "mgca"])
def test_mgca_draws_a_part_of_the_frontal_images_and_gloria_of_all(tmp_path, paper):
    sides = [
        row(path_of(300 + place, view=view), side=side)
        for place in range(20)
        for view, side in (("view1_frontal", "Frontal"), ("view2_lateral", "Lateral"))
    ]
    rows = [*table(more=0), *sides]
    root = write(tmp_path, train=rows)
    prepare(root, split=paper, split_as_released=True, **SMALL)
    ids = root / "out" / "split_order.train.txt"
    order = ids.read_text().split()
    assert any("lateral" in name for name in order) == (paper == "gloria")
    if paper == "gloria":
        return
    records = list(label_sets.records(root / "out")["train"])
    kept = {name.partition("@")[0]: name for name in records}
    names = [chexpert.within(line.partition(",")[0]).removesuffix(".jpg") for line in rows]
    frontal = pd.DataFrame({"Path": [kept[name] for name in names if name in kept]})
    assert order == frontal["Path"].tolist()
    wanted = frontal.sample(frac=0.3, random_state=42)["Path"]  # as the release draws them
    part = FractionConfig(share=0.3, rule="sample", seed=42, ids=str(ids))
    identities = [Identity(study=name, subject="", images=(name,)) for name in records]
    found = [records[place] for place in chosen_records(part, identities)]
    assert sorted(found) == sorted(wanted)


def test_a_table_too_small_for_the_5x200_is_refused_by_name(tmp_path):
    write(tmp_path, train=table())
    with pytest.raises(DataError, match="images with Atelectasis alone"):
        prepare(tmp_path, split="gloria")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="--root"):
        prepare(tmp_path / "empty")


def select(root, *, selection=None, **settings):
    return chexpert_5x200.prepare(
        chexpert_5x200.Paths(root=str(root), selection=str(selection or "")),
        chexpert_5x200.Settings(short_side=48, **settings),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


def test_5x200_from_prior_s_json(tmp_path):
    root = write(tmp_path, train=[row(path_of(1), sex="Male"), row(path_of(2))])
    entries = {
        "7": {
            "image_path": "train/patient00001/study1/view1_frontal.jpg",
            "label": [0, 1, 0, 0, 0],
        },
        "9": {"image_path": path_of(2), "label": [0, 0, 0, 0, 1.0]},
        "10": {"image_path": path_of(2), "label": [0, 0, 0, 0, 1]},
        "11": {"image_path": path_of(3), "label": [1, 0, 0, 0, 1]},
        "12": {"image_path": path_of(4), "label": [1, 0, 0, 0, 0]},
        "13": {"image_path": "somewhere.jpg", "label": [1, 0, 0, 0, 0]},
    }
    (tmp_path / "prior.json").write_text(json.dumps(entries))
    manifest = select(root, selection=tmp_path / "prior.json")
    found = label_sets.records(tmp_path / "out")
    assert set(found) == {"test"} and manifest.label_names == TASKS
    one = found["test"]["train/patient00001/study1/view1_frontal"]
    assert one.labels == (0, 1, 0, 0, 0) and one.sex == "M"
    assert manifest.rejected == {
        "duplicate_row": 1,
        "malformed_labels": 1,
        "missing_image": 1,
        "unknown_path": 1,
    }
    assert any("200 of each are expected" in note for note in manifest.notes)
    label_sets.assert_sound(tmp_path / "out")


def test_5x200_from_a_list_takes_the_labels_of_the_table(tmp_path):
    rows = [alone(1, "Edema"), row(path_of(2), Edema="1.0", Cardiomegaly="1.0"), row(path_of(3))]
    root = write(tmp_path, train=rows)
    (tmp_path / "ids.txt").write_text("\n".join([path_of(1), path_of(2), path_of(3), path_of(8)]))
    manifest = select(root, selection=tmp_path / "ids.txt")
    (record,) = label_sets.every(tmp_path / "out").values()
    assert record.labels == tuple(int(name == "Edema") for name in TASKS)
    assert manifest.rejected == {"listed_without_row": 1, "not_one_finding": 2}


@pytest.mark.parametrize("rule", ["gloria", "mgca"])
def test_5x200_by_rule_has_so_many_of_each_finding(tmp_path, rule):
    root = write(tmp_path, train=table())
    manifest = select(root, rule=rule, count=2)
    assert [manifest.labels[name].positive for name in TASKS] == [2] * 5
    assert manifest.rejected == {}
    assert any("10 images of" in note and "Warning" not in note for note in manifest.notes)
    label_sets.assert_sound(tmp_path / "out")


def test_a_selection_that_is_none_is_refused_by_name(tmp_path):
    root = write(tmp_path, train=[row(path_of(1))])
    for content in ("[]", "{", '{"1": {"label": []}}'):
        (tmp_path / "odd.json").write_text(content)
        with pytest.raises(DataError, match=r"odd\.json"):
            select(root, selection=tmp_path / "odd.json")
    with pytest.raises(ConfigError, match="--rule"):
        chexpert_5x200.Settings(rule="mine")
    assert np.isnan(chexpert.label_array([])).sum() == 0
