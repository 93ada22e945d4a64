"""Tables of damaged and odd files: what is done to a small raw data set, and what comes of it."""

import dataclasses
import gzip
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prior_jax.data import schema
from prior_jax.errors import PriorJaxError
from tests.data_prep import label_sets

Change = Callable[[pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Odd:
    """A case.

    Attributes:
      name: short name of the case.
      change: function that damages the raw data set in a folder.
      refused: pattern of the error for a set that is refused as a whole, "" for one that is made.
      rejected: id -> pattern of "reason: detail" of each thing that is left out, all of them.
      records: id -> field -> expected value, of records that must be there, rejected or not.
      without: ids that the set must not have.
      notes: patterns, each of which one of the notes must have.
      settings: settings of the preparer.
    """

    name: str
    change: Change
    _: dataclasses.KW_ONLY
    refused: str = ""
    rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)
    records: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    without: Sequence[str] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def table(cases: Sequence[Odd]):
    """Returns the mark that runs a test on each case."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    return pytest.mark.parametrize("odd", cases, ids=names)


def check(odd: Odd, root: pathlib.Path, prepare: Callable[..., Any], *, everything: Sequence[str]):
    """Damages the set in `root`, prepares it, and compares.

    Args:
      odd: case.
      root: folder of the sound raw data set; the prepared set is written to root/out.
      prepare: function from the folder and settings to the manifest.
      everything: ids of the records of the sound set.
    """
    odd.change(root)
    if odd.refused:
        with pytest.raises(PriorJaxError, match=odd.refused):
            prepare(root, **odd.settings)
        assert not (root / "out").exists(), "a refused set leaves nothing behind"
        return
    manifest = prepare(root, **odd.settings)
    records = label_sets.every(root / "out")
    lines = (root / "out" / schema.REJECTED_NAME).read_text().splitlines()
    found = {
        one["id"]: f"{one['reason']}: {one.get('detail', '')}" for one in map(json.loads, lines)
    }
    assert found.keys() == odd.rejected.keys(), found
    for name, pattern in odd.rejected.items():
        assert re.search(pattern, found[name]), found[name]
    gone = {*odd.without, *odd.rejected}
    assert records.keys() == ({*everything} - gone) | odd.records.keys()
    for name, fields in odd.records.items():
        for field, value in fields.items():
            got = getattr(records[name], field)
            assert _same(got, value), (name, field, got)
    for pattern in odd.notes:
        assert any(re.search(pattern, note) for note in manifest.notes), manifest.notes


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, str) or not np.size(value) or isinstance(np.ravel(value)[0], str):
        return found == value
    return np.shape(found) == np.shape(value) and np.allclose(found, value, equal_nan=True)


def edit(path: str, *pairs: tuple[str, str]) -> Change:
    """A change of a text file; each old text must stand in it."""

    def change(root):
        text = (root / path).read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        (root / path).write_text(text)

    return change


def append(path: str, *lines: str) -> Change:
    """A change that adds lines at the end of a text file."""
    return lambda root: (root / path).write_text(
        (root / path).read_text() + "".join(f"{line}\n" for line in lines)
    )


def content(path: str, make: Callable[[bytes], bytes]) -> Change:
    """A change of the bytes of a file."""
    return lambda root: (root / path).write_bytes(make((root / path).read_bytes())) and None


def both(*changes: Change) -> Change:
    def change(root):
        for one in changes:
            one(root)

    return change


def nothing(root):
    del root


def rows(path: str, make: Callable[[str], str]) -> Change:
    """A change of every line of a table."""
    return lambda root: (root / path).write_text(
        "".join(f"{make(line)}\n" for line in (root / path).read_text().splitlines())
    )


def tables(path: str, *, flag: str, alone: bool = True) -> list[Odd]:
    """Ways in which a comma-separated table is saved and damaged, whatever it holds.

    Args:
      path: path of the table.
      flag: flag that names it.
      alone: whether nothing can be kept without the rows of this table.
    """
    file = path.rpartition("/")[2]
    useless = [
        Odd(
            "table_without_rows", content(path, lambda b: b.split(b"\n")[0] + b"\n"), refused="row"
        ),
        Odd("rows_with_one_cell_more", content(path, _longer_rows), refused="cells for"),
    ]
    return [
        *(useless if alone else ()),
        Odd("table_with_bom", content(path, lambda b: b"\xef\xbb\xbf" + b)),
        Odd("table_with_crlf", content(path, lambda b: b.replace(b"\n", b"\r\n"))),
        Odd("table_with_blank_lines", content(path, lambda b: b"\n" + b.replace(b"\n", b"\n\n"))),
        Odd("table_packed_under_its_name", content(path, gzip.compress)),
        Odd("table_empty", content(path, lambda _: b""), refused=rf"{flag}.*{file} is empty"),
        Odd("table_in_utf16", content(path, lambda b: b.decode().encode("utf-16")), refused=file),
        Odd("table_is_a_spreadsheet", content(path, lambda _: b"PK\x03\x04rest"), refused=flag),
        Odd("table_cut_in_gzip", content(path, lambda b: gzip.compress(b)[:-9]), refused=file),
        Odd("table_absent", lambda root: (root / path).unlink(), refused=flag),
    ]


def _longer_rows(content: bytes) -> bytes:
    first, *rest = content.rstrip(b"\n").split(b"\n")
    return b"\n".join([first, *(line + b",more,more" for line in rest)]) + b"\n"


def damaged(path: str, *, name: str) -> list[Odd]:
    """Ways in which the file of an image is odd: those that are read, and those that are refused.

    Args:
      path: path of the file.
      name: id under which the image is rejected.
    """

    def write(image):
        return lambda root: image.save(root / path, "PNG")

    def broken(pattern, change):
        return {"change": change, "rejected": {name: pattern}}

    grey = Image.fromarray(label_sets.pixels(5, height=40, width=40))
    deep = Image.fromarray((np.arange(1600, dtype=np.uint16) * 40).reshape(40, 40))
    return [
        Odd("image_with_alpha", write(grey.convert("RGBA"))),
        Odd("image_with_grey_and_alpha", write(grey.convert("LA"))),
        Odd("image_with_palette", write(grey.convert("P"))),
        Odd("image_of_16_bits", write(deep)),
        Odd("image_of_1_bit", write(grey.convert("1"))),
        Odd("image_is_a_jpeg_by_content", lambda root: grey.save(root / path, "JPEG")),
        Odd("image_is_a_link", _linked(path)),
        Odd("image_without_bytes", **broken("zero_byte_image", content(path, lambda _: b""))),
        Odd("image_cut", **broken("truncated|undecodable", content(path, lambda b: b[:300]))),
        Odd(
            "image_is_a_web_page", **broken("undecodable_image", content(path, lambda _: b"<html>"))
        ),
        Odd("image_absent", **broken("missing_image", lambda root: (root / path).unlink())),
        Odd("image_link_leads_nowhere", **broken("missing_image", _dangling(path))),
        Odd("image_is_a_folder", **broken("missing_image|unreadable_image", _folder(path))),
        Odd("image_of_3_pixels", **broken("absurd_image_size", write(grey.resize((3, 3))))),
    ]


def _linked(path: str) -> Change:
    def change(root):
        (root / "elsewhere").mkdir()
        os.replace(root / path, root / "elsewhere" / "x.png")
        (root / path).symlink_to(root / "elsewhere" / "x.png")

    return change


def _dangling(path: str) -> Change:
    def change(root):
        (root / path).unlink()
        (root / path).symlink_to(root / "nowhere.png")

    return change


def _folder(path: str) -> Change:
    def change(root):
        (root / path).unlink()
        (root / path).mkdir()

    return change


def write_image(path: pathlib.Path, seed: int = 0):
    label_sets.write_png(path, seed, height=40, width=40)
