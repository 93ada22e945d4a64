"""MS-CXR's preparer on damaged and odd rows, phrases, boxes and files, one case each."""

import json

import pytest

from data_prep import ms_cxr
from data_prep.kit import cli
from prior_jax.errors import DataError
from tests.data_prep import label_sets, odd_cases
from tests.data_prep.odd_cases import Case, Kept, Refused
from tests.data_prep.test_ms_cxr import HEIGHT, WIDTH, row, write_csv, write_json

WHOLE = (10, 20, 40, 36)
ONE = Kept(boxes=[WHOLE], phrases=["a nodule"])
MALFORMED = "malformed_annotation"


def one(expect=ONE, *, draw=None, **changes):
    return Case(rows=[changes], expect=expect, draw=draw)


def refused(reason, words, **changes):
    return one(Refused(reason, words, "rows.csv:{line}"), **changes)


def malformed(words, **changes):
    return refused(MALFORMED, words, **changes)


def png(**size):
    return lambda path: label_sets.write_png(path, 1, **size)


SHAPE = {"height": HEIGHT, "width": WIDTH}
SHRUNK = png(height=HEIGHT // 2, width=WIDTH // 2)
PATH = "files/p10/p10000032/s50000001/{n}.jpg"
CASES = {
    "one_box": one(),
    "two_boxes_of_a_phrase": Case(
        rows=[{}, {"box": (40, 2, 10, 8)}],
        expect=Kept(boxes=[WHOLE, (40, 2, 50, 10)], phrases=["a nodule"] * 2),
    ),
    "two_phrases_of_a_box": Case(
        rows=[{}, {"phrase": "a mass"}],
        expect=Kept(boxes=[WHOLE] * 2, phrases=["a nodule", "a mass"]),
    ),
    "two_findings_of_a_phrase": Case(
        rows=[{}, {"label": "Edema"}], expect=Kept(boxes=[WHOLE] * 2, phrases=["a nodule"] * 2)
    ),
    "a_row_twice": Case(
        rows=[{}, {}], expect=Kept(boxes=[WHOLE], phrases=["a nodule"], counted=["duplicate_row"])
    ),
    "a_row_twice_in_other_words": Case(
        rows=[{}, {"box": ("10.0", "2e1", "30", "16.0")}],
        expect=Kept(boxes=[WHOLE], counted=["duplicate_row"]),
    ),
    "decimals": one(Kept(boxes=[(10.5, 20.25, 40.5, 36.25)]), box=(10.5, 20.25, 30, 16)),
    "negative_width": malformed("a box of -30x16", box=(10, 20, -30, 16)),
    "negative_height": malformed("a box of 30x-16", box=(10, 20, 30, -16)),
    "no_area": malformed("a box of 0x16", box=(10, 20, 0, 16)),
    "half_a_box": malformed("column 'w' is ''", box=(10, 20, "", 16)),
    "nan_box": malformed("column 'x' is 'nan'", box=("nan", "nan", "nan", "nan")),
    "infinite": malformed("column 'w' is 'inf'", box=(10, 20, "inf", 16)),
    "words": malformed("column 'x' is 'left'", box=("left", 20, 30, 16)),
    "decimal_comma": malformed("column 'x' is '10,5'", box=("10,5", 20, 30, 16)),
    "python_s_underscore": malformed("column 'x' is '1_0'", box=("1_0", 20, 30, 16)),
    "over_the_edge": one(Kept(boxes=[(70, 50, WIDTH, HEIGHT)]), box=(70, 50, 30, 30)),
    "left_of_the_image": one(Kept(boxes=[(0, 0, 20, 20)]), box=(-5, -5, 25, 25)),
    "outside": one(Refused("box_outside_image", "x 90 to 99.*88x64"), box=(90, 5, 9, 9)),
    "x_and_y_exchanged": one(
        Refused("box_outside_image", "y 70 to 80.*88x64"), box=(20, 70, 16, 10)
    ),
    "image_shrunk": one(Kept(boxes=[(5, 10, 20, 18)]), draw=SHRUNK),
    "image_of_other_proportions": one(
        Refused("image_of_another_size", "88x64 pixels, and the file has 64x64"),
        draw=png(height=64, width=64),
    ),
    "image_turned": one(
        Refused("image_of_another_size", "other proportions"), draw=png(height=WIDTH, width=HEIGHT)
    ),
    "size_exchanged": one(
        Refused("image_of_another_size", "64x88 pixels, and the file has 88x64"),
        image_width=HEIGHT,
        image_height=WIDTH,
    ),
    "size_blank": malformed("column 'image_width' is ''", image_width=""),
    "size_zero": malformed("0x64 pixels", image_width=0),
    "size_negative": malformed("-88x64 pixels", image_width=-WIDTH),
    "size_word": malformed("column 'image_height' is 'tall'", image_height="tall"),
    "size_as_a_decimal": one(image_width=f"{WIDTH}.0"),
    "sizes_of_two_rows_differ": Case(
        rows=[{}, {"image_width": WIDTH + 1}],
        expect=Refused("conflicting_rows", "differ in path, size"),
    ),
    "no_phrase": malformed("'label_text' is blank", phrase=""),
    "phrase_nan": malformed("'label_text' is blank", phrase="nan"),
    "phrase_of_blanks": malformed("'label_text' is blank", phrase=" \n "),
    "phrase_over_lines": one(
        Kept(phrases=["an edema, bilateral"]), phrase="an  edema,\n bilateral"
    ),
    "phrase_with_marks": one(Kept(phrases=['a "mass"; left, low']), phrase='a "mass"; left, low'),
    "unknown_finding": refused("unknown_label", "'Fracture' is none of", label="Fracture"),
    "no_finding": refused("unknown_label", "'' is none of", label=""),
    "finding_with_blanks": one(label=" Pneumonia "),
    "unknown_split": refused("unknown_split", "'fold 3'", split="fold 3"),
    "split_in_other_letters": one(split="Test"),
    "splits_of_two_rows_differ": Case(
        rows=[{"split": "train"}, {"box": (1, 2, 3, 4)}],
        expect=Refused("conflicting_rows", "split"),
    ),
    "one_row_of_two_broken": Case(
        rows=[{}, {"box": (1, 2, "", 4)}], expect=Refused("box_left_out", "one of its rows")
    ),
    "another_image_s_path": refused("unknown_path", "no path of image", path=PATH.format(n="b")),
    "path_outside_of_mimic": refused("unknown_path", "no path of image", path="images/x.jpg"),
    "path_without_patient": refused(
        "unknown_path", "no path of image", path="files/p10/s1/path_without_patient.jpg"
    ),
    "no_path": refused("unknown_path", "no path of image", path=""),
    "windows_path": one(path=PATH.format(n="windows_path").replace("/", "\\")),
    "no_dicom": refused("unknown_path", "no path of image ''", dicom_id=""),
    "missing": one(Refused("missing_image"), draw=lambda path: None),
    "cut_off": one(Refused("truncated_image"), draw=odd_cases.cut(png(**SHAPE))),
    "empty_file": one(Refused("zero_byte_image"), draw=odd_cases.written(b"")),
    "text_file": one(Refused("undecodable_image"), draw=odd_cases.written(b"<html>")),
    "tiny": one(
        Refused("absurd_image_size", "22x16"), draw=png(height=HEIGHT // 4, width=WIDTH // 4)
    ),
}


def rows_of(cases):
    return [row(name, **changes) for name, case in cases.items() for changes in case.rows]


def prepare(folder, table, **settings):
    return ms_cxr.prepare(
        ms_cxr.Paths(annotations=str(table), images_dir=str(folder)),
        ms_cxr.Settings(**{**odd_cases.TRAIN, "short_side": HEIGHT, **settings}),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ms_cxr")
    for name, case in CASES.items():
        path = row(name, **case.rows[0])["path"].replace("\\", "/")
        if path.startswith("files/p10/p"):
            (case.draw or png(**SHAPE))(folder / path)
    # A phrase that goes over two lines moves the lines of the rows behind it.
    table = write_csv(folder, rows_of(CASES))
    return odd_cases.found_in(folder / "out", prepare(folder, table))


def line_of(name):
    """The line on which the last row of a case begins."""
    names = list(CASES)
    before = [c for n in names[: names.index(name) + 1] for c in CASES[n].rows]
    return 1 + len(before) + sum(str(c.get("phrase")).count("\n") for c in before[:-1])


@pytest.mark.parametrize("name", CASES)
def test_each_odd_case_is_right_or_refused_by_name(found, name):
    odd_cases.check(found, name, CASES[name], line=line_of(name))


def test_every_row_is_counted(found):
    rows = found.manifest.tables["rows.csv"]
    assert rows.read == len(rows_of(CASES)) == rows.kept + sum(rows.rejected.values())


PLAIN = [row("a"), row("b", split="train")]


@pytest.mark.parametrize("way", odd_cases.SAME)
def test_a_table_says_the_same_however_it_is_written(tmp_path, monkeypatch, way):
    table = write_csv(tmp_path, PLAIN)
    table.write_bytes(odd_cases.SAME[way](table.read_text()))
    images, rejected = odd_cases.planned(monkeypatch, tmp_path, lambda: prepare(tmp_path, table))
    assert rejected == []
    regions = [["Pneumonia", "a nodule", list(WHOLE), [HEIGHT, WIDTH]]]
    assert [(image.id, image.data["regions"]) for image in images] == [
        ("a", regions),
        ("b", regions),
    ]


@pytest.mark.parametrize("way", odd_cases.REFUSED)
def test_a_table_that_cannot_be_read_is_refused_by_name(tmp_path, way):
    spoil, words = odd_cases.REFUSED[way]
    table = write_csv(tmp_path, PLAIN)
    table.write_bytes(spoil(table.read_text()))
    with pytest.raises(DataError, match=rf"(?s)(--annotations|rows).*({words})"):
        prepare(tmp_path, table)


def first(name, /, **changes):
    """Returns a change of the first entry of a list of the .json."""
    return lambda content: content[name][0].update(changes)


def added(name, /, **changes):
    """Returns a change that appends a copy of the first entry, changed, to a list."""
    return lambda content: content[name].append({**content[name][0], **changes})


JSON_KEPT = {
    "as it is": (lambda content: None, ["a", "b"], []),
    "keys that nobody reads": (lambda c: c.update(info={}, licenses=[]), ["a", "b"], []),
    "an image twice": (added("images"), ["a", "b"], []),
    "annotations of one id": (first("annotations", id=1), ["a", "b"], []),  # mmdetection#4897
    "an annotation twice": (added("annotations", id=9), ["a", "b"], ["duplicate_row"]),
    "a box of three sides": (first("annotations", bbox=[1, 2, 3]), ["b"], [MALFORMED]),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), ["b"], [MALFORMED]),
    "truth values": (first("annotations", bbox=[True, 2, 3, 4]), ["b"], [MALFORMED]),
    "texts for numbers": (first("annotations", bbox=["10", "20", "30", "16"]), ["a", "b"], []),
    "several phrases": (first("annotations", label_text=["x", "y"]), ["b"], [MALFORMED]),
    "a phrase that is no list": (first("annotations", label_text="a nodule"), ["a", "b"], []),
    "an image that is not there": (first("annotations", image_id=99), ["b"], ["unknown_path"]),
    "an id as a text": (first("annotations", image_id="7"), ["b"], ["unknown_path"]),
    "an unknown category": (first("annotations", category_id=99), ["b"], ["unknown_label"]),
    "a category of another set": (
        lambda c: c["categories"][6].update(name="Fracture"),
        [],
        ["unknown_label"] * 2,
    ),
    "no size": (lambda c: c["images"][0].pop("width"), ["b"], [MALFORMED]),
    "byte-order mark": (None, ["a", "b"], []),
}


@pytest.mark.parametrize("way", JSON_KEPT)
def test_a_json_is_read_or_its_annotations_are_refused(tmp_path, monkeypatch, way):
    change, kept, reasons = JSON_KEPT[way]
    table = write_json(tmp_path, PLAIN)
    content = json.loads(table.read_text())
    if change:
        change(content)
        table.write_text(json.dumps(content))
    else:
        table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    images, rejected = odd_cases.planned(monkeypatch, tmp_path, lambda: prepare(tmp_path, table))
    assert [image.id for image in images] == kept
    assert [one.reason for one in rejected] == reasons
    assert all(one.id.startswith("rows.json:") for one in rejected)


JSON_REFUSED = {
    "two images of one id": (
        added("images", file_name="z.jpg"),
        "two different images have the id",
    ),
    "two categories of one id": (added("categories", name="Edema"), "two different categories"),
    "an image without id": (lambda c: c["images"][0].pop("id"), "KeyError: 'id'"),
    "an image that is a text": (lambda c: c["images"].append("a.jpg"), "images is no object"),
    "an annotation that is a list": (lambda c: c["annotations"].append([1]), "annotation is no"),
    "no categories": (lambda c: c.pop("categories"), "KeyError: 'categories'"),
}


@pytest.mark.parametrize("way", JSON_REFUSED)
def test_a_json_that_contradicts_itself_is_refused_by_name(tmp_path, way):
    change, words = JSON_REFUSED[way]
    table = write_json(tmp_path, PLAIN)
    content = json.loads(table.read_text())
    change(content)
    table.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"--annotations: .*rows\.json .*{words}.*or the \.csv"):
        prepare(tmp_path, table)


def test_images_of_a_json_without_a_box_are_told(tmp_path):
    table = write_json(tmp_path, PLAIN)
    content = json.loads(table.read_text())
    added("images", id=99, file_name="idle.jpg", path="files/idle.jpg")(content)
    table.write_text(json.dumps(content))
    for one in PLAIN:
        label_sets.write_png(tmp_path / one["path"], 1, **SHAPE)
    notes = prepare(tmp_path, table).notes
    assert any("1 images have no box and are not read: files/idle.jpg" in note for note in notes)
