"""VinDr-CXR's preparer on damaged and odd labels, boxes and DICOM files, one case each."""

import pytest

from data_prep import vindr
from data_prep.kit import cli
from prior_jax.errors import DataError
from tests.data_prep import odd_cases
from tests.data_prep.odd_cases import Case, Kept, Refused
from tests.data_prep.test_vindr import BOX_HEADER, LABELS, said

HEADER = ",".join(["image_id", "rad_id", *LABELS, "Other diseases"])
WHOLE = (10, 20, 40, 60)
EDEMA = said("{n}", "R1", "Edema")
THREE = [said("{n}", f"R{reader}", "Edema") for reader in (1, 2, 3)]
BOX = "{n},R1,Edema,10,20,40,60"
ROWS = "rows of the tables"


def labels(*positive):
    return tuple(int(label in positive) for label in vindr.LABELS)


SICK = Kept(labels=labels("Edema"), boxes=[WHOLE])
WELL = Kept(labels=labels("No finding"), boxes=[])


def box(cells, expect, **more):
    """A case of one reader who sees an edema, and of one row in the table of boxes."""
    return Case(rows=[EDEMA], extra=[f"{{n}},{cells}"], expect=expect, **more)


def left_out(cells, words):
    return box(cells, Refused("box_left_out", words))


def readers(expect, *several, boxes=()):
    rows = [said("{n}", f"R{place}", *found) for place, found in enumerate(several)]
    return Case(rows=rows, extra=boxes, expect=expect)


SIDES = "x_min, y_min, x_max, y_max of Edema are"
CASES = {
    "one_box": box("R1,Edema,10,20,40,60", SICK),
    "reversed": left_out("R1,Edema,40,60,10,20", f"{SIDES} 40, 60, 10, 20"),  # bstld#20
    "reversed_in_x": left_out("R1,Edema,40,20,10,60", SIDES),
    "no_width": left_out("R1,Edema,10,20,10,60", SIDES),
    "no_height": left_out("R1,Edema,10,20,40,20.0", SIDES),
    "half_a_box": left_out("R1,Edema,10,20,,60", SIDES),
    "no_box": left_out("R1,Edema,,,,", SIDES),
    "nan_box": left_out("R1,Edema,nan,NaN,nan,nan", SIDES),
    "infinite": left_out("R1,Edema,10,20,inf,60", SIDES),
    "words": left_out("R1,Edema,left,20,40,60", SIDES),
    "decimal_comma": left_out('R1,Edema,"10,5",20,40,60', SIDES),
    "python_s_underscore": left_out("R1,Edema,1_0,20,40,60", SIDES),
    "outside": box("R1,Edema,97,20,120,60", Refused("box_outside_image", "x 97 to 120.*96x96")),
    "over_the_edge": box("R1,Edema,80,80,120,110", Kept(boxes=[(80, 80, 96, 96)])),
    "left_of_the_image": box("R1,Edema,-9,-9,20,20", Kept(boxes=[(0, 0, 20, 20)])),
    "x_and_y_exchanged": box(
        "R1,Edema,10,70,20,90",
        Refused("box_outside_image", "y 70 to 90.*96x64"),
        draw=odd_cases.dicom(lambda file: None, height=64, width=96),
    ),
    "decimals": box("R1,Edema,10.5,20.25,40,60", Kept(boxes=[(10.5, 20.25, 40, 60)])),
    "unknown_finding": left_out("R1,Sarcoidosis,10,20,40,60", "'Sarcoidosis' is none of"),
    "no_name_of_the_finding": left_out("R1,,10,20,40,60", "'' is none of"),
    "number_of_the_finding": left_out("R1,6,10,20,40,60", "'6' is none of"),
    "name_in_other_letters": box("R1, edema ,10,20,40,60", SICK),
    "a_box_twice": Case(rows=[EDEMA], extra=[BOX, BOX], expect=SICK),
    "box_row_too_long": Case(
        rows=[EDEMA], extra=[BOX, f"{BOX},1"], expect=Refused("box_left_out", "cannot be read")
    ),
    "only_box_row_too_short": Case(
        rows=[EDEMA], extra=["{n},R1,Edema,10"], expect=Refused("box_left_out", "cannot be read")
    ),
    "box_of_an_id_with_suffix": Case(
        rows=[EDEMA], extra=["{n}.dicom,R1,Edema,10,20,40,60"], expect=SICK
    ),
    "label_without_box": Case(rows=[EDEMA], expect=Kept(labels=labels("Edema"), boxes=[])),
    "box_without_label": Case(
        rows=[EDEMA],
        extra=[BOX, "{n},R1,Atelectasis,1,2,3,4"],
        expect=Kept(labels=labels("Edema"), boxes=[WHOLE]),
    ),
    "fused": readers(
        Kept(labels=labels("Edema"), boxes=[(10, 20, 41, 60)]),
        ["Edema"],
        ["Edema"],
        [],
        boxes=["{n},R0,Edema,10,20,40,60", "{n},R1,Edema,10,20,42,60"],
    ),
    "fused_apart": readers(
        Kept(labels=labels("Edema"), boxes=[(60, 60, 80, 80), WHOLE]),
        ["Edema"],
        ["Edema"],
        boxes=["{n},R0,Edema,10,20,40,60", "{n},R1,Edema,60,60,80,80"],
    ),
    "one_reader_of_three": readers(
        WELL, ["Edema"], [], [], boxes=["{n},R0,Edema,10,20,40,60", "{n},R1,No finding,,,,"]
    ),
    "one_reader_of_two": readers(
        Kept(labels=labels(), boxes=[]), ["Edema"], [], boxes=["{n},R0,Edema,10,20,40,60"]
    ),
    "no_finding": readers(WELL, [], [], [], boxes=["{n},R0,No finding,,,,"]),
    "no_finding_nan": readers(WELL, [], boxes=["{n},R0,No finding,nan,nan,nan,nan"]),
    "no_finding_without_row": readers(WELL, [], []),
    "no_finding_with_a_box": readers(  # as Kaggle's submissions write it
        Refused("box_left_out", "of No finding are 0, 0, 1, 1"),
        [],
        boxes=["{n},R0,No finding,0,0,1,1"],
    ),
    "no_finding_beside_a_finding": Case(
        rows=[said("{n}", "R1", "Edema", "No finding")],
        extra=[BOX],
        expect=Refused("conflicting_labels", r"line \d+ says No finding and Edema"),
    ),
    "disease_of_the_whole_image": readers(
        Kept(labels=labels("COPD"), boxes=[]), ["COPD"], boxes=["{n},R0,COPD,,,,"]
    ),
    "other_disease": readers(Kept(labels=labels("Other disease")), ["Other diseases"]),
    "two_rows_of_a_reader": Case(
        rows=[EDEMA, said("{n}", "R1", "COPD")],
        expect=Refused("conflicting_rows", "two rows of one reader differ"),
    ),
    "a_row_twice": Case(
        rows=[EDEMA, EDEMA], extra=[BOX], expect=Kept(boxes=[WHOLE], counted=["duplicate_row"])
    ),
    "value_2": Case(
        rows=[EDEMA.replace(",1", ",2")], expect=Refused("malformed_row", "'Edema' is '2'")
    ),
    "value_minus_1": Case(
        rows=[EDEMA.replace(",1", ",-1")], expect=Refused("malformed_row", "'Edema' is -1")
    ),
    "value_word": Case(rows=[EDEMA.replace(",1", ",yes")], expect=Refused("malformed_row", "yes")),
    "values_as_a_data_frame_writes_them": Case(
        rows=[EDEMA.replace(",1", ",1.0").replace(",0", ",0.0")], extra=[BOX], expect=SICK
    ),
    "values_true_and_false": Case(
        rows=[EDEMA.replace(",1", ",True").replace(",0", ",False")], extra=[BOX], expect=SICK
    ),
    "reader_s_row_too_short": Case(
        rows=[*THREE[:2], "{n},R3,0"], extra=[BOX], expect=Refused("row_left_out", r"line \d+")
    ),
    "only_row_too_short": Case(
        rows=["{n},R1,0"],
        expect=Refused("malformed_row", "3 cells for 30", "image_labels_train.csv:{line}"),
    ),
    "no_id": Case(
        rows=[said("", "R1", "Edema")],
        expect=Refused("incomplete_row", "'image_id'", "image_labels_train.csv:{line}"),
    ),
    "id_with_suffix": Case(rows=[EDEMA.replace("{n}", "{n}.dicom")], extra=[BOX], expect=SICK),
    "id_with_windows_folder": Case(
        rows=[EDEMA.replace("{n}", "train\\{n}.dicom")], extra=[BOX], expect=SICK
    ),
    "missing": Case(rows=[EDEMA], expect=Refused("missing_image"), draw=lambda path: None),
    **{
        name: Case(rows=case.rows, extra=[BOX], draw=case.draw, expect=case.expect)
        for name, case in odd_cases.dicom_cases([EDEMA], SICK).items()
    },
}


def prepare(folder, **settings):
    return vindr.prepare(
        vindr.Paths(tables=str(folder), images_dir=str(folder)),
        vindr.Settings(**{**odd_cases.TRAIN, **settings}),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


def tables(folder, rows, boxes):
    (folder / "image_labels_train.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "annotations_train.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vindr")
    boxes = [row.format(n=name) for name, case in CASES.items() for row in case.extra or ()]
    tables(folder, odd_cases.rows_of(CASES), boxes)
    for name, case in CASES.items():
        (case.draw or odd_cases.PLAIN)(folder / "train" / f"{name}.dicom")
    return odd_cases.found_in(folder / "out", prepare(folder))


@pytest.mark.parametrize("name", CASES)
def test_each_odd_case_is_right_or_refused_by_name(found, name):
    # The rows of an image's boxes are rejected under the name of the image too.
    own = [said for said in found.rejected if said.get("table") != vindr.BOXES]
    own = odd_cases.Found(found.records, own, found.manifest)
    odd_cases.check(own, name, CASES[name], line=odd_cases.line_of(CASES, name))


def test_every_row_is_counted(found):
    rows = found.manifest.tables[ROWS]
    assert rows.read == len(odd_cases.rows_of(CASES)) == rows.kept + sum(rows.rejected.values())
    boxes = found.manifest.tables[vindr.BOXES]
    assert boxes.read == sum(len(case.extra or ()) for case in CASES.values())
    assert boxes.read == boxes.kept + sum(boxes.rejected.values())


def test_labels_and_boxes_that_do_not_fit_are_told(found):
    notes = " ".join(found.manifest.notes)
    assert "findings that have a place are seen by a reader and have no box, such as Edema" in notes
    assert "the boxes of 1 findings are left out" in notes
    assert "such as Atelectasis of box_without_label" in notes


@pytest.mark.parametrize("way", odd_cases.SAME)
@pytest.mark.parametrize("stem", ["image_labels", "annotations"])
def test_a_table_says_the_same_however_it_is_written(tmp_path, monkeypatch, way, stem):
    rows = [row.format(n="a") for row in (EDEMA, BOX)]
    path = tables(tmp_path, [rows[0], said("b", "R1")], rows[1:]) / f"{stem}_train.csv"
    path.write_bytes(odd_cases.SAME[way](path.read_text()))
    images, rejected = odd_cases.planned(monkeypatch, tmp_path, lambda: prepare(tmp_path))
    assert rejected == []
    assert [(image.id, image.data["labels"], image.data["regions"]) for image in images] == [
        ("a", list(labels("Edema")), [["Edema", *WHOLE]]),
        ("b", list(labels("No finding")), []),
    ]


@pytest.mark.parametrize("way", odd_cases.REFUSED)
def test_a_table_that_cannot_be_read_is_refused_by_name(tmp_path, way):
    spoil, words = odd_cases.REFUSED[way]
    path = tables(tmp_path, [EDEMA.format(n="a")], []) / "image_labels_train.csv"
    path.write_bytes(spoil(path.read_text()))
    with pytest.raises(DataError, match=rf"(?s)(--tables|image_labels).*({words})"):
        prepare(tmp_path)
