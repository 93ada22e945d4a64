"""SIIM-ACR's preparer on damaged and odd tables, masks and DICOM files, one case each."""

import numpy as np
import pytest

from data_prep import siim
from data_prep.kit import cli
from prior_jax.errors import DataError
from tests.data_prep import label_sets, odd_cases
from tests.data_prep.odd_cases import Case, Kept, Refused

SIZE = label_sets.SIZE
PIXELS = SIZE * SIZE
HEADER = "ImageId, EncodedPixels"
MALFORMED = "malformed_annotation"
NO_RUNS = 'is not a run-length mask. Write it as "offset length offset length ...", or as "-1"'


def rectangle(x1, y1, x2, y2, *, height=SIZE, width=SIZE):
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def down(*pixels, height=SIZE, width=SIZE):
    """A mask of pixels that are counted down the columns."""
    mask = np.zeros(height * width, bool)
    mask[list(pixels)] = True
    return mask.reshape(width, height).T


FIRST, SECOND = rectangle(10, 20, 30, 60), rectangle(60, 2, 90, 8)
ACROSS = rectangle(20, 50, 40, 90)  # overlaps the first
RUNS = label_sets.write_rle(FIRST)
ROW = f"{{n}}, {RUNS}"
ONE, NONE = Kept(labels=(1,), masks=[FIRST]), Kept(labels=(0,), masks=[])
WIDE = rectangle(70, 5, 95, 30, height=64, width=96)


def cell(text, expect):
    return Case(rows=[f"{{n}},{text}"], expect=expect)


def malformed(text, words=NO_RUNS):
    return cell(text, Refused(MALFORMED, words))


def outside(text, words="has a run up to pixel"):
    return cell(text, Refused("mask_outside_image", words))


CASES = {
    "one_mask": Case(rows=[ROW], expect=ONE),
    "two_masks": Case(
        rows=[ROW, f"{{n}}, {label_sets.write_rle(SECOND)}"],
        expect=Kept(labels=(1,), masks=[FIRST, SECOND]),
    ),
    "masks_that_overlap": Case(
        rows=[ROW, f"{{n}}, {label_sets.write_rle(ACROSS)}"], expect=Kept(masks=[FIRST, ACROSS])
    ),
    "a_mask_twice": Case(rows=[ROW, ROW], expect=Kept(masks=[FIRST], counted=["duplicate_row"])),
    "no_mask": cell(" -1", NONE),
    "no_mask_without_blank": cell("-1", NONE),
    "no_mask_as_a_data_frame_writes_it": cell("-1.0", NONE),
    "no_mask_in_marks": cell('" -1 "', NONE),
    "no_mask_twice": Case(
        rows=["{n}, -1"] * 2, expect=Kept(labels=(0,), masks=[], counted=["duplicate_row"])
    ),
    "a_mask_and_none": Case(
        rows=["{n}, -1", ROW], expect=Refused(MALFORMED, "-1 and a mask.*Leave out the wrong row")
    ),
    "the_last_pixel": cell(f"{PIXELS - 1} 1", Kept(masks=[down(PIXELS - 1)])),
    "the_whole_image": cell(f"0 {PIXELS}", Kept(masks=[np.ones((SIZE, SIZE), bool)])),
    "past_the_end": outside(
        f"{PIXELS - 2} 3", f"up to pixel {PIXELS + 1}, but the image has {PIXELS} pixels"
    ),
    "absolute_offsets": outside("100 5 9000 5 9100 5", "distance from the end of the run before"),
    "far_past_the_end": outside("1 99999999999999999999999"),
    "past_what_64_bits_hold": outside("9223372036854775807 1 9223372036854775807 1"),
    "thousands_of_digits": cell(
        f"1 {'9' * 5000}", Refused(("mask_outside_image", MALFORMED), "run-length mask")
    ),
    "a_zero_run": cell("5 0 5 3", Kept(masks=[down(10, 11, 12)])),
    "only_zero_runs": cell("5 0 7 0", Refused("empty_mask", "has no pixel")),
    "runs_that_touch": cell("10 3 0 2", Kept(masks=[down(10, 11, 12, 13, 14)])),
    "leading_zeros": cell("010 003", Kept(masks=[down(10, 11, 12)])),
    "several_blanks": cell("10   3 ", Kept(masks=[down(10, 11, 12)])),
    "a_tab": cell("10\t3", Kept(masks=[down(10, 11, 12)])),
    "an_image_that_is_not_square": Case(
        rows=[f"{{n}}, {label_sets.write_rle(WIDE)}"],
        draw=odd_cases.dicom(lambda file: None, height=64, width=96),
        expect=Kept(masks=[WIDE]),
    ),
    "odd_length": malformed("1 2 3"),
    "one_number": malformed("5"),
    "blank": malformed(""),
    "a_mask_that_is_nan": malformed("nan"),
    "a_mask_that_is_none": malformed("None"),
    "words": malformed("a b"),
    "a_negative_length": malformed("5 -2"),
    "a_negative_offset": malformed("-5 2"),
    "fractions": malformed("10.5 3"),
    "python_s_underscore": malformed("1_0 3"),
    "wide_digits": malformed("\uff11\uff10 3"),
    "a_list": malformed('"[10, 3]"'),
    "commas": malformed('"10,3"'),
    "semicolons": malformed("10;3"),
    "a_compressed_mask": malformed("UGQwUzFtVjEwMDAw"),
    "minus_one_and_runs": malformed("-1 10 3"),
    "minus_one_twice_in_a_cell": malformed("-1 -1"),
    "one_row_of_two_too_long": Case(
        rows=[ROW, "{n}, 10, 3"], expect=Refused("row_left_out", r"line \d+, cannot be read")
    ),
    "only_row_too_long": Case(
        rows=["{n}, 10, 3"], expect=Refused("malformed_row", "3 cells for 2", "rle.csv:{line}")
    ),
    "no_id": Case(
        rows=[", -1"], expect=Refused("incomplete_row", "'ImageId' is blank", "rle.csv:{line}")
    ),
    "id_with_suffix": Case(rows=[f"{{n}}.dcm, {RUNS}"], expect=ONE),
    "id_with_windows_folder": Case(rows=[f"train\\{{n}}.dcm, {RUNS}"], expect=ONE),
    "missing": Case(
        rows=[ROW], draw=lambda path: None, expect=Refused("missing_image", "missing.dcm")
    ),
    **odd_cases.dicom_cases([ROW], ONE),
}


def prepare(folder, **settings):
    return siim.prepare(
        siim.Paths(rle=str(folder / "rle.csv"), images_dir=str(folder / "images")),
        siim.Settings(**{**odd_cases.TRAIN, **settings}),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siim")
    (folder / "rle.csv").write_text("\n".join([HEADER, *odd_cases.rows_of(CASES)]) + "\n")
    for name, case in CASES.items():
        (case.draw or odd_cases.PLAIN)(folder / "images" / f"{name}.dcm")
    odd_cases.PLAIN(folder / "images" / "unannotated.dcm")  # as 37 of the competition's images
    return odd_cases.found_in(folder / "out", prepare(folder))


@pytest.mark.parametrize("name", CASES)
def test_each_odd_case_is_right_or_refused_by_name(found, name):
    odd_cases.check(found, name, CASES[name], line=odd_cases.line_of(CASES, name))


def test_every_row_is_counted_and_an_image_without_a_row_is_told(found):
    rows = found.manifest.tables["rle.csv"]
    assert rows.read == len(odd_cases.rows_of(CASES)) == rows.kept + sum(rows.rejected.values())
    assert any("no row names" in note for note in found.manifest.notes)


TABLE = f"{HEADER}\na, {RUNS}\nb, -1\n"


@pytest.mark.parametrize("way", odd_cases.SAME)
@pytest.mark.parametrize("header", [HEADER, "ImageId,EncodedPixels"])
def test_a_table_says_the_same_however_it_is_written(tmp_path, monkeypatch, way, header):
    (tmp_path / "images").mkdir()
    (tmp_path / "rle.csv").write_bytes(odd_cases.SAME[way](TABLE.replace(HEADER, header)))
    images, rejected = odd_cases.planned(monkeypatch, tmp_path, lambda: prepare(tmp_path))
    assert rejected == []
    assert [(image.id, image.data["labels"], image.data["regions"]) for image in images] == [
        ("a", [1], [RUNS]),
        ("b", [0], []),
    ]


@pytest.mark.parametrize("way", odd_cases.REFUSED)
def test_a_table_that_cannot_be_read_is_refused_by_name(tmp_path, way):
    spoil, words = odd_cases.REFUSED[way]
    (tmp_path / "images").mkdir()
    (tmp_path / "rle.csv").write_bytes(spoil(TABLE))
    with pytest.raises(DataError, match=rf"(?s)rle.*({words})"):
        prepare(tmp_path)
