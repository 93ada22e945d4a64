"""What a plan says of rows that contradict each other, that are excluded, and of unnamed files."""

import os

import pytest

from data_prep.kit import folders, unnamed_files
from data_prep.kit.plan import PlannedImage, Planner
from data_prep.kit.tables import Table
from prior_jax.errors import DataError


def plan(tmp_path, *images):
    """Returns the number of studies that are kept, and (id, reason, detail) of the rest."""
    rejected = []
    with Planner(tmp_path / "plan", reject=rejected.append, table="t.csv") as planner:
        for line, image in enumerate(images, 2):
            fields = {"study": "s", "patient": "p", "split": 0, "line": line, **image}
            planner.add(PlannedImage(**fields))
        jobs = planner.finish(studies_per_shard=8)
    assert all((one.rows, one.table) == (1, "t.csv") for one in rejected)
    found = [(one.id, one.reason, one.detail) for one in rejected]
    return sum(job.end - job.begin for job in jobs), found


LATERAL = ("wrong_view", "view 'L'")


def test_rows_that_contradict_others_name_their_lines(tmp_path):
    kept, rejected = plan(
        tmp_path,
        {"id": "a"},
        {"id": "a"},
        {"id": "b", "data": {"label": 1}},
        {"id": "b", "data": {"label": 0}},
        {"id": "c", "study": "two", "patient": "p1"},
        {"id": "d", "study": "two", "patient": "p2"},
    )
    assert kept == 1
    details = {(name, reason): detail for name, reason, detail in rejected}
    assert details["a", "duplicate_row"] == "it repeats the row of line 2; line 3"
    assert details["c", "study_in_two_patients"] == "patient p1, study two, train; line 6"
    assert [d.rpartition("; ")[2] for n, _, d in rejected if n == "b"] == ["line 4", "line 5"]


def test_an_excluded_row_is_rejected_for_its_own_reason(tmp_path):
    kept, rejected = plan(tmp_path, {"id": "a"}, {"id": "b", "excluded": LATERAL})
    assert (kept, rejected) == (1, [("b", "wrong_view", "view 'L'; line 3")])
    kept, rejected = plan(tmp_path, {"id": "b", "excluded": LATERAL})
    assert (kept, len(rejected)) == (0, 1)


def test_an_excluded_row_that_names_another_patient_is_noticed(tmp_path):
    kept, rejected = plan(
        tmp_path, {"id": "a"}, {"id": "b", "patient": "other", "excluded": LATERAL}
    )
    assert kept == 0 and {reason for _, reason, _ in rejected} == {"study_in_two_patients"}


def test_an_excluded_row_names_the_patient_and_the_split_of_others(tmp_path):
    image = {"id": "a", "patient": "s", "patient_given": False, "split_given": False}
    kept, rejected = plan(tmp_path, image, {"id": "b", "split": 2, "excluded": LATERAL})
    assert kept == 1 and [name for name, _, _ in rejected] == ["b"]
    text = (tmp_path / "plan" / "rows.jsonl").read_text().splitlines()[-1]
    assert '"patient": "p", "split": 2' in text


def test_a_row_that_is_excluded_once_and_kept_once_contradicts_itself(tmp_path):
    kept, rejected = plan(tmp_path, {"id": "a"}, {"id": "a", "excluded": LATERAL})
    assert kept == 0 and {reason for _, reason, _ in rejected} == {"conflicting_rows"}


def test_images_that_no_row_names_are_found_however_deep(tmp_path):
    (tmp_path / "1" / "2").mkdir(parents=True)
    for name in ("a.png", "1/b.PNG", "1/2/c.png", "1/2/d.txt", "e.png"):
        (tmp_path / name).write_bytes(b"")
    found = unnamed_files.files_without_row(
        tmp_path, named={"./a.png", "1/2/c.png ", "absent.png"}, suffixes=(".png",)
    )
    assert [(one.id, one.reason, one.rows) for one in found] == [
        ("e.png", "file_without_row", 0),
        ("1/b.PNG", "file_without_row", 0),
    ]


def test_folders_that_are_links_are_visited_once_after_the_others(tmp_path):
    inside, disk = tmp_path / "in", tmp_path / "disk"
    (inside / "z").mkdir(parents=True)
    (disk / "deep").mkdir(parents=True)
    for path in (inside / "b.png", inside / "z" / "a.png", disk / "deep" / "c.png"):
        path.write_bytes(b"")
    (inside / "a").symlink_to(disk)
    (inside / "again").symlink_to(disk / "deep")
    (inside / "y").symlink_to(inside / "z")
    (inside / "z" / "above").symlink_to(inside)
    (inside / "nowhere").symlink_to(tmp_path / "absent")
    found = [os.path.relpath(root, inside) for root, _ in folders.walked(inside)]
    assert found == [".", "z", "a", "a/deep"]
    (one,) = unnamed_files.files_without_row(inside, named={"b.png", "z/a.png"}, suffixes=(".png",))
    assert one.id == "a/deep/c.png"


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_the_columns_that_nothing_was_read_from_are_named(tmp_path, name):
    content = "image,age,sex,site\na.png,3,F,x\n"
    if name == "t.jsonl":
        content = '{"image": "a.png", "age": 3, "sex": "F", "site": "x"}\n'
    (tmp_path / name).write_text(content)
    table = Table(tmp_path / name, flag="--root")
    table.require([("--root", "image")])
    for row in table.rows(reject=print):
        assert row.cells["age"] and row.cells.get("sex") == "F" and row.cells.get("absent") is None
        assert dict(row.cells)["site"] == "x"  # what goes over all cells has read none of them
    assert table.notes() == (f"{name}: not read: 'site'.",)
    assert table.notes(unread=False) == ()


def test_many_columns_that_were_not_read_are_counted(tmp_path):
    names = [f"c{n}" for n in range(30)]
    (tmp_path / "t.csv").write_text(f"{','.join(names)}\n")
    (note,) = Table(tmp_path / "t.csv", flag="--root").notes()
    assert "'c19' and 10 more." in note and "'c20'" not in note


@pytest.mark.parametrize(
    ("flag", "remedy"),
    [
        ("--root", "Give a table that has the column, or rename the column that it means."),
        ("--id_column", "Name a column that the table has, or add the column to the table."),
    ],
)
def test_the_remedy_for_a_missing_column_is_one_that_the_program_has(tmp_path, flag, remedy):
    (tmp_path / "t.csv").write_text("case\n")
    with pytest.raises(DataError, match=r"no column 'Case' \(did you mean 'case'\?\)") as error:
        Table(tmp_path / "t.csv", flag="--root").require([(flag, "Case")])
    assert error.value.remedy == remedy and error.value.where == flag
