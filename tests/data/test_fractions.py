"""The part of a training split that is trained on."""

import dataclasses
import time

import numpy as np
import pytest

from prior_jax.data.fractions import (
    FractionConfig,
    Identity,
    chosen_records,
    list_digest,
    read_ids,
    rows,
)
from prior_jax.errors import ConfigError, DataError

RECORDS = [
    Identity(study=f"s{number}", subject=f"p{number // 3}", images=(f"i{number}.png",))
    for number in range(20)
]


def config_of(**changes):
    return FractionConfig(**(dict(share=0.5, rule="sample") | changes))


def written(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("rule", ["first_rounded", "sample", "choice"])
def test_a_share_of_one_keeps_every_record(rule):
    found = chosen_records(config_of(share=1.0, rule=rule), RECORDS)
    np.testing.assert_array_equal(found, np.arange(len(RECORDS)))


@pytest.mark.parametrize("rule", ["sample", "choice"])
def test_a_draw_is_of_its_seed(rule):
    one, same, other = (rows(config_of(rule=rule, seed=seed), 50) for seed in (1, 1, 2))
    assert one.tolist() == same.tolist() != other.tolist()
    assert len(set(one.tolist())) == 25


def test_a_pandas_sample_has_the_same_rows():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"row": range(101)})
    for share in (0.01, 0.1, 0.25, 0.5):
        wanted = frame.sample(frac=share, random_state=7)["row"].tolist()
        assert rows(config_of(share=share, seed=7), len(frame)).tolist() == wanted


def test_patients_come_with_all_of_their_records():
    found = chosen_records(config_of(rule="patients", share=0.3, seed=5), RECORDS)
    subjects = {RECORDS[row].subject for row in found}
    assert len(subjects) == round(0.3 * 7)
    whole = [row for row, one in enumerate(RECORDS) if one.subject in subjects]
    assert found.tolist() == whole
    assert len(chosen_records(config_of(rule="patients", share=1e-6), RECORDS)) >= 1


def test_a_stratified_part_has_whole_patients_and_the_share_of_each_finding():
    records = [
        dataclasses.replace(one, findings=("Edema",) if row < 9 else ("Mass",) * (row == 19))
        for row, one in enumerate(RECORDS)
    ]
    for seed in range(5):
        found = chosen_records(config_of(rule="stratified", share=0.6, seed=seed), records)
        subjects = {RECORDS[row].subject for row in found}
        assert len(subjects) == round(0.6 * 7)
        assert found.tolist() == [row for row, one in enumerate(RECORDS) if one.subject in subjects]
        assert len(subjects & {"p0", "p1", "p2"}) == 2 and "p6" in subjects


def test_a_byte_order_mark_is_no_part_of_the_first_id(tmp_path):
    plain, marked = written(tmp_path / "ids.txt", "s3", "s7"), tmp_path / "marked.txt"
    marked.write_text("s3\r\ns7\r\n", encoding="utf-8-sig")
    assert read_ids(marked) == ["s3", "s7"]
    config = config_of(rule="list", ids=str(marked))
    assert chosen_records(config, RECORDS).tolist() == [3, 7]
    assert list_digest(config) == list_digest(config_of(rule="list", ids=plain))


def test_listed_ids_are_of_studies_or_images_with_or_without_a_suffix(tmp_path):
    path = written(tmp_path / "ids.txt", "s3", "", "i7.png", "i9", "s1.jpg")
    found = chosen_records(config_of(rule="list", ids=path), RECORDS)
    assert found.tolist() == [1, 3, 7, 9]


def test_the_lists_of_mrm_are_read_as_they_are(tmp_path):
    images = [
        "00003547_001",
        "f1d1ceac-9e6d-4ca8-b0da-f918df585511",
        "train/patient09193/study2/view1_frontal",
        "view1_frontal",
    ]
    records = [
        Identity(study=f"s{row}", subject="p", images=(one,)) for row, one in enumerate(images)
    ]
    path = written(
        tmp_path / "ids.txt",
        "00003547_001.png 0 0 0 0 0 1 0",
        "stage_2_train_images/f1d1ceac-9e6d-4ca8-b0da-f918df585511.dcm 0 ",
        "CheXpert-v1.0-small/train/patient09193/study2/view1_frontal.jpg 0 0 0 1 1",
    )
    assert chosen_records(config_of(rule="list", ids=path), records).tolist() == [0, 1, 2]


def test_numbers_behind_a_blank_are_labels_only_where_no_id_has_them(tmp_path):
    records = [Identity(study=name, subject="p", images=()) for name in ("a 1", "a", "a 2", "b")]
    found = written(tmp_path / "ids.txt", "a 2", "b,-1,0.0;")
    assert chosen_records(config_of(rule="list", ids=found), records).tolist() == [2, 3]
    missing = config_of(rule="list", ids=written(tmp_path / "other.txt", "b and more"))
    with pytest.raises(DataError, match="'b and more'"):
        chosen_records(missing, records)


def test_a_long_list_with_an_id_twice_is_refused_at_once(tmp_path):
    ids = [f"s{number}" for number in range(50_000)]
    start = time.process_time()
    with pytest.raises(DataError, match="1 ids are listed twice, among them 's7'"):
        read_ids(written(tmp_path / "ids.txt", *ids, "s7"))
    assert time.process_time() - start < 5  # comparing every two took half a minute


def test_another_rule_chooses_lines_of_the_list(tmp_path):
    path = written(tmp_path / "ids.txt", *(f"s{number}" for number in range(19, -1, -1)))
    found = chosen_records(config_of(rule="first_rounded", share=0.1, ids=path), RECORDS)
    assert found.tolist() == [18, 19]


def test_ids_that_the_set_lacks_are_refused_by_name_or_left_out(tmp_path):
    path = written(tmp_path / "ids.txt", "s3", "elsewhere")
    with pytest.raises(DataError, match=r"1 of 2 ids .*'elsewhere'.*absent=leave_out"):
        chosen_records(config_of(rule="list", ids=path), RECORDS)
    found = chosen_records(config_of(rule="list", ids=path, absent="leave_out"), RECORDS)
    assert found.tolist() == [3]


def test_a_damaged_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_ids(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="no id"):
        read_ids(written(tmp_path / "empty.txt", ""))
    with pytest.raises(DataError, match="'s1'"):
        read_ids(written(tmp_path / "twice.txt", "s1", "s2", "s1"))


def test_the_digest_is_of_the_ids_and_not_of_the_path(tmp_path):
    one = written(tmp_path / "one.txt", "s1", "s2")
    same = written(tmp_path / "same.txt", "s1", "s2", "")
    other = written(tmp_path / "other.txt", "s1", "s3")
    digests = [list_digest(config_of(rule="list", ids=path)) for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    assert list_digest(None) is None and list_digest(config_of()) is None


def test_a_share_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"config\.data\.fraction\.share: .*leaves none"):
        chosen_records(config_of(share=0.01, rule="choice"), RECORDS)


@pytest.mark.parametrize(
    "change",
    [{"share": 0.0}, {"share": 1.1}, {"rule": "all"}, {"seed": -1}, {"draws": 0}, {"rule": "list"}],
)
def test_wrong_settings_are_refused_by_name(change):
    with pytest.raises(ConfigError):
        config_of(**change)
