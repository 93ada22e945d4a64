"""Tables of damaged and odd inputs: what a preparer must make of each of them, or must say of it.

A case is an image of its own, called by the case's name. All cases of a preparer are one data set,
so that hundreds of them take seconds. What concerns a whole table is read, but no set is written.
"""

import dataclasses
import io
import json
import pathlib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from data_prep.kit import preparer
from data_prep.kit.planned import read_image
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import regions, schema
from tests.data_prep import label_sets

SIZE = label_sets.SIZE
TRAIN = {"split_fractions": ("1", "0", "0"), "short_side": SIZE}
"""Settings by which every record is in one split, and no image is shrunk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """What the record must hold; None stands for anything. Masks are bool[H, W]."""

    labels: Sequence[int] | None = None
    boxes: Sequence[Sequence[float]] | None = None
    masks: Sequence[np.ndarray] | None = None
    phrases: Sequence[str] | None = None
    inverted: bool = False
    counted: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Refused:
    """Under which reason the case must be rejected, and what the line must say, as a regex.

    `at` is the id of the rejection, where it is that of a row and not of the image; `{line}` stands
    for the line of the case's last row.
    """

    reason: str | Sequence[str]
    words: str = ""
    at: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Rows of the table, in which `{n}` stands for the name of the case, and a way to draw it."""

    rows: Sequence[str] = ()
    expect: Kept | Refused
    draw: Callable[[pathlib.Path], Any] | None = None
    extra: Any = None


@dataclasses.dataclass(frozen=True)
class Found:
    """A prepared set: its records, the lines of what was rejected, and its manifest."""

    records: Mapping[str, schema.Record]
    rejected: Sequence[Mapping[str, Any]]
    manifest: manifest_lib.Manifest


def rows_of(cases: Mapping[str, Case]) -> list[str]:
    return [row.format(n=name) for name, case in cases.items() for row in case.rows]


def line_of(cases: Mapping[str, Case], name: str) -> int:
    """The line of the last row of a case in a table with a header."""
    names = list(cases)
    return 1 + sum(len(cases[other].rows) for other in names[: names.index(name) + 1])


def found_in(out: pathlib.Path, manifest: manifest_lib.Manifest) -> Found:
    lines = (out / schema.REJECTED_NAME).read_text().splitlines()
    label_sets.assert_sound(out)
    return Found(label_sets.every(out), list(map(json.loads, lines)), manifest)


def check(found: Found, name: str, case: Case, *, line: int = 0) -> None:
    """Asserts that the set says of a case what it must."""
    expect = case.expect
    if isinstance(expect, Refused):
        wanted = expect.at.format(line=line) or name
        of_id = [said for said in found.rejected if said["id"] == wanted]
        assert name not in found.records, f"{name} was kept"
        assert len(of_id) == 1, (of_id, [said for said in found.rejected if name in str(said)])
        (said,) = of_id
        reasons = [expect.reason] if isinstance(expect.reason, str) else expect.reason
        assert said["reason"] in reasons, said
        assert re.search(expect.words, said["detail"]), said
        return
    record = found.records.get(name)
    assert record is not None, [said for said in found.rejected if name in said["id"]]
    _check_record(record, expect)
    for reason in expect.counted:
        rows = [said for said in found.rejected if said["id"].endswith(f":{line}")]
        assert [said["reason"] for said in rows] == [reason]


def _check_record(record: schema.Record, expect: Kept) -> None:
    if expect.labels is not None:
        assert record.labels == tuple(expect.labels)
    if expect.boxes is not None:
        assert len(record.region_boxes) == len(expect.boxes)
        for box, wanted in zip(record.region_boxes, expect.boxes, strict=True):
            np.testing.assert_allclose(box, wanted)
    if expect.masks is not None:
        masks = [regions.decoded_mask(content) for content in record.region_masks if content]
        assert len(masks) == len(expect.masks)
        for mask, wanted in zip(masks, expect.masks, strict=True):
            np.testing.assert_array_equal(mask, wanted)
    if expect.phrases is not None:
        assert record.region_phrases == tuple(expect.phrases)
    if expect.inverted:
        left, right = np.split(pixels_of(record), 2, axis=1)
        assert left.mean() > 200 and right.mean() < 50


def pixels_of(record: schema.Record) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record.images[0]))).astype(float)


# Whole tables ---------------------------------------------------------------------------------


def planned(monkeypatch, tmp_path, prepare: Callable[[], Any]) -> tuple[list[Any], list[Any]]:
    """Returns the planned images and the rejections of a set that is not written.

    Args:
      monkeypatch: fixture of pytest.
      tmp_path: empty folder.
      prepare: function that prepares the set.
    """
    rejected: list[Any] = []

    def plan_only(make_plan, options, **_):
        del options
        folder = tmp_path / "index"
        make_plan(folder, rejected.append)
        offsets = np.load(folder / "offsets.npy")
        return [read_image(folder, int(offset)) for offset in offsets]

    with monkeypatch.context() as patched:
        patched.setattr(preparer, "prepare_set", plan_only)
        return prepare(), rejected


def _lines(text: str) -> list[str]:
    return text.splitlines()


SAME: Mapping[str, Callable[[str], bytes]] = {
    "byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "lines end with CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "no newline at the end": lambda text: text.rstrip("\n").encode(),
    "blank lines": lambda text: text.replace("\n", "\n\n").encode(),
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "semicolons, as Excel declares them": lambda text: b"sep=;\n" + text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "an index column": lambda text: "".join(
        f"{place - 1 if place else ''},{line}\n" for place, line in enumerate(_lines(text))
    ).encode(),
    "a comma at the end of every line": lambda text: text.replace("\n", ",\n").encode(),
    "blanks behind commas": lambda text: text.replace(",", ", ").encode(),
    "quotation marks around cells": lambda text: "".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in _lines(text)
    ).encode(),
    "a column more": lambda text: "".join(
        f"{line},{'note' if not place else 'x'}\n" for place, line in enumerate(_lines(text))
    ).encode(),
}
"""Ways to write one table, whose cells hold no quotation marks or commas."""

REFUSED: Mapping[str, tuple[Callable[[str], bytes], str]] = {
    "UTF-16": (lambda text: text.encode("utf-16"), "UTF-16.*Save the table as text in UTF-8"),
    "a spreadsheet": (lambda _: b"PK\x03\x04" + b"\0" * 60, "cannot be read.*Save the table"),
    "an empty file": (lambda _: b"", "is empty.*first line names its columns"),
    "only the header": (lambda text: (_lines(text)[0] + "\n").encode(), "No study|no row"),
    "an open quotation mark": (
        lambda text: text.replace("\n", '\n"', 1).encode(),
        "quotation mark that opens .* line 2|quotation mark opens on line 2",
    ),
    "a column twice": (
        lambda text: "".join(f"{line},{line.split(',')[0]}\n" for line in _lines(text)).encode(),
        "More than one column .* is called .*a name of its own",
    ),
    "no first column": (
        lambda text: "".join(line.partition(",")[2] + "\n" for line in _lines(text)).encode(),
        "has no column.*Give a table that has the column",
    ),
    "another name of the first column": (
        lambda text: f"x{text}".encode(),
        "has no column.*did you mean",
    ),
}
"""Ways to spoil a table, and what the error must say."""


# DICOM ----------------------------------------------------------------------------------------


def dicom(change: Callable[[Dataset], Any], *, halves: bool = False, **size: int):
    """Returns a function that draws a DICOM file and changes it.

    Args:
      change: function that changes the data set before it is written.
      halves: whether the stored values are 0 on the left and 255 on the right.
      size: height and width.
    """
    import pydicom

    def draw(path: pathlib.Path) -> None:
        label_sets.write_dicom(path, **size)
        file = pydicom.dcmread(path)
        if halves:
            stored = np.zeros((file.Rows, file.Columns), np.uint8)
            stored[:, file.Columns // 2 :] = 255
            file.PixelData = stored.tobytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the values that are odd here
            change(file)
            content = io.BytesIO()
            pydicom.dcmwrite(content, file)
        path.write_bytes(content.getvalue())

    return draw


def with_tags(**tags: Any):
    def change(file: Dataset) -> None:
        for name, value in tags.items():
            setattr(file, name, value)

    return change


def without(*names: str):
    def change(file: Dataset) -> None:
        for name in names:
            delattr(file.file_meta if name in file.file_meta else file, name)

    return change


def lossless_jpeg(file: Dataset) -> None:
    """Says that the pixels are JPEG, lossless, and stores a frame that ends behind its header."""
    header = bytes.fromhex("ffd8ffc3000b08") + bytes([0, SIZE, 0, SIZE]) + bytes.fromhex("01011100")
    file.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    file.PixelData = encapsulate([header + b"\xff\xd9"])
    file["PixelData"].is_undefined_length = True


def written(content: bytes):
    """Returns a function that writes a file of this content."""

    def draw(path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return draw


def cut(draw: Callable[[pathlib.Path], Any], *, at: int = 900):
    """Returns a function that draws a file and cuts it off behind so many bytes."""

    def drawn(path: pathlib.Path) -> None:
        draw(path)
        path.write_bytes(path.read_bytes()[:at])

    return drawn


def moved(draw: Callable[[pathlib.Path], Any], name: str):
    """Returns a function that draws a file under another name; {stem} stands for its own."""

    def drawn(path: pathlib.Path) -> None:
        draw(path.parent / name.format(stem=path.stem))

    return drawn


def beside(draw: Callable[[pathlib.Path], Any], name: str, content: bytes):
    """Returns a function that draws a file and writes another beside it."""

    def drawn(path: pathlib.Path) -> None:
        draw(path)
        written(content)(path.parent / name.format(stem=path.stem))

    return drawn


def copied(draw: Callable[[pathlib.Path], Any], name: str):
    """Returns a function that draws a file and copies it to another name."""

    def drawn(path: pathlib.Path) -> None:
        draw(path)
        written(path.read_bytes())(path.parent / name.format(stem=path.stem))

    return drawn


def without_preamble(path: pathlib.Path) -> None:
    label_sets.write_dicom(path)
    path.write_bytes(path.read_bytes()[132:])


PLAIN = dicom(lambda file: None)
UNDECODED = ("dicom_without_decoder", "undecodable_image")
APPLE_DOUBLE = bytes.fromhex("00051607") + b"\0" * 28
DICOM_KEPT: Mapping[str, Callable[[pathlib.Path], Any]] = {
    "no_transfer_syntax": dicom(without("TransferSyntaxUID")),  # vindr-cxr#3
    "no_preamble": without_preamble,
    "no_patient_id": dicom(with_tags(PatientID="")),
    "another_patient_id": dicom(with_tags(PatientID="somebody")),
    "another_instance": dicom(with_tags(SOPInstanceUID="1.2.3.4")),
    "one_frame_said": dicom(with_tags(NumberOfFrames="1")),
    "upper_case_suffix": moved(PLAIN, "{stem}.DCM"),
    "deep_folders": moved(PLAIN, "a/b c/d/{stem}.dcm"),
    "apple_double_beside": beside(PLAIN, "._{stem}.dcm", APPLE_DOUBLE),
    "copied": copied(PLAIN, "zcopy/{stem}.dcm"),
    "odd_age": dicom(with_tags(PatientAge="old")),
}
"""Ways to write a DICOM file that is to be read."""

DICOM_REFUSED: Mapping[str, tuple[Callable[[pathlib.Path], Any], Refused]] = {
    "no_pixels": (
        dicom(without("PixelData")),  # vindr-cxr#3
        Refused("undecodable_image", "PixelData is missing"),
    ),
    "two_frames": (
        dicom(lambda f: with_tags(NumberOfFrames="2", PixelData=f.PixelData * 2)(f)),
        Refused("several_frames", "2 frames. Give each as an image"),
    ),
    "cut_off": (cut(PLAIN), Refused("undecodable_image", "pixel data|bytes|EOF")),
    "cut_in_header": (cut(PLAIN, at=200), Refused("undecodable_image", "cannot be read|missing")),
    "lossless_jpeg": (dicom(lossless_jpeg), Refused(UNDECODED, "JPEG Lossless")),
    "no_photometric": (
        dicom(without("PhotometricInterpretation")),
        Refused("undecodable_image", "PhotometricInterpretation is missing"),
    ),
    "colour": (
        dicom(
            lambda f: with_tags(
                PhotometricInterpretation="RGB", SamplesPerPixel=3, PixelData=f.PixelData * 3
            )(f)
        ),
        Refused("colour_dicom", "RGB"),
    ),
    "more_rows_than_pixels": (
        dicom(with_tags(Rows=SIZE + 1)),
        Refused("undecodable_image", "pixel data|bytes|length"),
    ),
    "tiny": (
        dicom(lambda f: None, height=20, width=20),
        Refused("absurd_image_size", "20x20 pixels"),
    ),
    "empty_file": (written(b""), Refused("zero_byte_image", "empty")),
    "text_file": (written(b"no image"), Refused("undecodable_image", "cannot be read|missing")),
    "apple_double_alone": (
        moved(written(APPLE_DOUBLE), "._{stem}.dcm"),
        Refused("missing_image", "apple_double_alone"),
    ),
}
"""Ways to write a DICOM file that is to be refused."""


def dicom_cases(rows: Sequence[str], kept: Kept) -> dict[str, Case]:
    """Returns a case for each way to write a DICOM file, with rows that are right.

    Args:
      rows: rows of a case.
      kept: what the record holds if the file can be read.
    """
    found = {n: Case(rows=rows, draw=draw, expect=kept) for n, draw in DICOM_KEPT.items()}
    found["monochrome1"] = Case(
        rows=rows,
        draw=dicom(with_tags(PhotometricInterpretation="MONOCHROME1"), halves=True),
        expect=dataclasses.replace(kept, inverted=True),
    )
    for name, (draw, refused) in DICOM_REFUSED.items():
        found[name] = Case(rows=rows, draw=draw, expect=refused)
    return found
