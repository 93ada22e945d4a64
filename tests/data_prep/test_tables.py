"""The one reader of tables: headers, quotation marks, encodings, and what becomes of every row."""

import csv
import gzip
import io
import json

import pandas
import pytest

from data_prep.kit.ids import IdColumn
from data_prep.kit.tables import Table
from prior_jax.errors import DataError


def read(folder, content, *, name="t.csv", key="image"):
    """Returns (rows, rejections, table) of a table with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rejected = []
    table = Table(path, flag="--manifest", key=key)
    rows = list(table.rows(reject=lambda *row: rejected.append(row)))
    assert table.read == len(rows) + len(rejected)
    return [row.cells for row in rows], rejected, table


@pytest.mark.parametrize(
    "header", ["image,text", "\ufeffimage,text", " image , text\t", "image,text,", ",image,text",
               "Unnamed: 0,image,text"],
)  # fmt: skip
def test_header_names_lose_blanks_marks_and_index_columns(tmp_path, header):
    place = [name.strip("\ufeff \t") for name in header.split(",")].index("image")
    cells = ["0"] * len(header.split(","))
    cells[place : place + 2] = "a.png", "Clear."
    rows, rejected, table = read(tmp_path, f"{header}\n{','.join(cells)}\n")
    assert rows == [{"image": "a.png", "text": "Clear."}] and not rejected
    assert table.unnamed == len(cells) - 2


RAGGED = {
    "without the unnamed cells": ("a.png,Clear.", {"image": "a.png", "text": "Clear."}),
    "with one of them": ("a.png,Clear.,", {"image": "a.png", "text": "Clear."}),
    "with both": ("a.png,Clear.,,", {"image": "a.png", "text": "Clear."}),
    "short of a named column": ("a.png", None),
    "too long": ("a.png,Clear.,,,", None),
}


@pytest.mark.parametrize("kind", RAGGED)
def test_a_row_may_end_before_columns_without_a_name(tmp_path, kind):
    row, expected = RAGGED[kind]
    rows, rejected, _ = read(tmp_path, f"image,text,,\n{row}\nb.png,Wet.,,\n")
    assert rows[-1] == {"image": "b.png", "text": "Wet."}
    assert rows[:-1] == ([expected] if expected else [])
    assert [row[:2] for row in rejected] == ([] if expected else [(2, "malformed_row")])


def test_swallowed_rows_that_end_before_columns_without_a_name_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"line 2 .*which is a row itself"):
        read(tmp_path, 'image,text,,\na.png,"Clear.\nb.png,Wet"\nc.png,Wet.\n')


@pytest.mark.parametrize("lineterminator", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter, name", [(",", "t.csv"), ("\t", "t.tsv"), (";", "t.csv")])
def test_what_pandas_and_csv_write_is_read_back(tmp_path, delimiter, name, lineterminator):
    """Cells with every mark in them; pandas and the csv module stand beside the reader.

    Only blanks before a cell that is not quoted are none of it.
    """
    rows = [
        {"image": "a.png", "text": 'He said "ah".\nNo, "oh".'},
        {"image": "b.png", "text": "Edema; mild, or\tnot | so."},
        {"image": "ü.png", "text": "  "},
        {"image": "c.png", "text": '"'},
    ]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ["image", "text"], delimiter=delimiter, lineterminator=lineterminator
    )
    writer.writeheader()
    writer.writerows(rows)
    found, rejected, _ = read(tmp_path, text.getvalue(), name=name)
    frame = pandas.DataFrame(rows)
    rows[2]["text"] = ""
    assert found == rows and not rejected
    content = frame.to_csv(index=False, sep=delimiter, lineterminator=lineterminator)
    assert read(tmp_path, content, name=name)[0] == rows
    assert read(tmp_path, gzip.compress(content.encode()), name=f"{name}.gz")[0] == rows


def test_an_index_that_pandas_wrote_is_not_a_column(tmp_path):
    frame = pandas.DataFrame({"image": ["a.png"], "text": ["Clear."]})
    rows, _, table = read(tmp_path, frame.to_csv())
    assert rows == [{"image": "a.png", "text": "Clear."}] and table.unnamed == 1


BEGIN = "image,text,patient,split\na.png,Clear.,p1,train\n"
SWALLOWED = {
    "to the end": 'b.png,"Heart,p2,train\nc.png,Edema,p3,test\n',
    "to the next quoted word": 'b.png,"Heart,p2,train\nc.png,He said "ah".,p3,test\n',
    "to the next opening": 'b.png,"Heart,p2,train\nc.png,"Edema, mild.",p3,test\n',
    "to a cell's end": 'b.png,"Heart,p2,train\nc.png,Clear.,p3,train\nd.png,Wet",p4,test\n',
    "over an empty quoted cell": 'b.png,"Heart,p2,train\nc.png,"",p3,test\nd.png,x,p4,test\n',
    "in the last cell": 'b.png,Heart,p2,"train\nc.png,Edema,p3,test\n',
    "in the first cell": '"b.png,Heart,p2,train\nc.png,Edema,p3,test\n',
    "to a first cell's end": 'b.png,Heart,p2,"train\nc.png,Edema,p3,test\nd.png",x,p4,test\n',
}


@pytest.mark.parametrize("kind", SWALLOWED)
def test_rows_that_a_quotation_mark_swallows_are_an_error_with_its_line(tmp_path, kind):
    with pytest.raises(DataError, match=r"line 3\b"):
        read(tmp_path, BEGIN + SWALLOWED[kind])


MORE_SWALLOWED = {
    "with commas in both texts": 'b.png,"Heart, big,p2,train\nc.png,Left, small",p3,train\n',
    "an image of another kind": 'b.png,"Heart,p2,train\nc.dcm,Left",p3,train\n',
    "two rows": 'b.png,"Heart,p2,train\nc.png,Wet,p3,test\nd.png,Left",p4,test\n',
    "with a path": 'x/b.png,"Heart,p2,train\nx/c.JPG,Left",p3,test\n',
}


@pytest.mark.parametrize("kind", MORE_SWALLOWED)
def test_rows_that_two_stray_marks_swallow_are_an_error(tmp_path, kind):
    """Each of these is good CSV: the second mark stands at the end of a cell."""
    with pytest.raises(DataError, match=r"line 3 .*which is a row itself"):
        read(tmp_path, BEGIN + MORE_SWALLOWED[kind])


UID = "1.2.826.0.1.3680043.8.498"
MANY = "image,text\n"
NAMES = "name,image,text\n"
ONE_INNER_ROW = {
    "images named by uids": f'{MANY}{UID}.1,"No\n{UID}.202,Big\n{UID}.33,Wet"\n{UID}.4,Clear\n',
    "names of unequal length": f'{MANY}img9,"No\nimg10,Big\nimg11,Wet"\nimg12,Clear\n',
    "another style of name": f'{MANY}img9,"No\nIMG_10,Big"\n',
    "a name with a blank": f'{MANY}a.png,"No\nchest 2.png,Big"\nc.png,Clear\n',
    "a comma before and behind": f'{NAMES}"Doe, A",a.png,"No, so.\nRoe,b.png,Big."\nP,c.png,x\n',
    "commas on both sides": f'{NAMES}Doe,a.png,"No.\n""Roe, B"",b.png,Big, so."\nP,c.png,x\n',
    "the first of two": 'text,image\n"Big,b.png\nWet",c.png\n',
    "a blank behind every comma": 'image,view,text\nimg9, PA,"No\nimg10, AP,Big"\n',
}


@pytest.mark.parametrize("kind", ONE_INNER_ROW)
def test_one_inner_line_with_a_key_of_its_own_is_enough(tmp_path, kind):
    with pytest.raises(DataError, match=r"line 2 .*which is a row itself"):
        read(tmp_path, ONE_INNER_ROW[kind])


@pytest.mark.parametrize(
    "text",
    [
        "See film 2.png, no change\n2003, stable\n12, 13, 14",
        "T12, L1\n3 cm, left\n1. Edema, 2. mass",
        "a,b\nimg, so\n1,2",
    ],
)
@pytest.mark.parametrize("image", ["img{}.png", "img{:07d}", f"{UID}.{{}}"])
def test_numbers_and_files_in_prose_are_no_rows(tmp_path, text, image):
    rows = [{"image": image.format(n), "text": f"First.\n{text}"} for n in range(3)]
    found, rejected, _ = read(tmp_path, pandas.DataFrame(rows).to_csv(index=False))
    assert found == rows and not rejected


def test_quoted_delimiters_before_the_key_do_not_make_the_first_line_a_row(tmp_path):
    row = {"labels": "a|b|c", "study": "s-06.png", "image": "06.png", "text": "1|2\n3|4"}
    content = pandas.DataFrame([row]).to_csv(index=False, sep="|", quoting=csv.QUOTE_ALL)
    assert read(tmp_path, content)[0] == [row]


def test_a_header_that_swallows_rows_is_refused(tmp_path):
    rows = 'a.png,Edema,x\nb.png,Mass,y"\nc.png,Edema,z\n'
    with pytest.raises(DataError, match=r"header runs on to line 3"):
        read(tmp_path, f'image,labels,"text\n{rows}')
    found, _, _ = read(tmp_path, 'image,"text of\nthe report",view\na.png,Clear.,PA\n')
    assert found == [{"image": "a.png", "text of\nthe report": "Clear.", "view": "PA"}]
    with pytest.raises(DataError, match="header"):
        Table(tmp_path / "t.csv", flag="--metadata_table", single_lines=True)


@pytest.mark.parametrize("mark", [";", ",", "|", "\t"])
@pytest.mark.parametrize("line", ["sep={}\n", "\ufeffsep={}\r\n", '"sep={}"\n', "SEP={}\n\n"])
def test_a_first_line_may_name_the_delimiter(tmp_path, mark, line):
    content = line.format(mark) + mark.join(("image", "text")) + f'\na.png{mark}"So; a, b"\n'
    found, rejected, table = read(tmp_path, content)
    assert found == [{"image": "a.png", "text": "So; a, b"}] and not rejected
    assert bool(table.notes(unread=False)) == (mark != ",")


def test_columns_of_json_lines_are_known_before_its_rows(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"image": "a.png"}\nbroken\n{"image": "b.png", "x": 1}\n')
    table, rejected = Table(tmp_path / "t.jsonl", flag="--labels_table"), []
    table.require([("--labels_table", "x")])
    assert list(table.names) == ["image", "x"] and table.read == 0
    assert len(list(table.rows(reject=lambda *row: rejected.append(row)))) == 2
    assert table.read == 3 and len(rejected) == 1
    with pytest.raises(DataError, match=r"--id_column.*'image', 'x'"):
        table.require([("--id_column", "absent")])


def test_rows_are_known_by_their_last_cells_too(tmp_path):
    content = 'text,image\nClear.,a.png\n"Heart, big,b.png\nLeft, small,c.png\nWet",d.png\n'
    with pytest.raises(DataError, match=r"line 3 .*which is a row itself"):
        read(tmp_path, content)


def test_the_line_is_that_where_the_mark_opens(tmp_path):
    row = 'b.png,"One\ntwo","p2\nc.png,Wet,p3,test\n'
    with pytest.raises(DataError, match=r"opens on line 4: a quotation mark is never closed"):
        read(tmp_path, BEGIN + row)


@pytest.mark.parametrize(
    "text", ["last line,\nso.", "a\nheart, normal", "one\n, two", "1,2\n3,4", "x\ny,z,w\nu,v"]
)
@pytest.mark.parametrize("columns", [("text", "image"), ("id", "text", "image", "split")])
def test_cells_behind_a_report_of_many_lines_do_not_make_its_last_line_a_row(
    tmp_path, text, columns
):
    rows = [
        {name: {"text": text, "image": f"{n}.png"}.get(name, f"s{n}.png") for name in columns}
        for n in range(3)
    ]
    found, rejected, _ = read(tmp_path, pandas.DataFrame(rows).to_csv(index=False))
    assert found == rows and not rejected


def test_no_row_of_a_table_of_single_lines_has_several(tmp_path):
    (tmp_path / "t.csv").write_text('id,view\n1,"PA\n\nup"\n4,AP\n')
    table = Table(tmp_path / "t.csv", flag="--metadata_table", single_lines=True)
    with pytest.raises(DataError, match=r"--metadata_table.*line 2 runs on to line 4"):
        list(table.rows(reject=print))


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_another_delimiter_is_followed_in_a_quoted_header_too(tmp_path, delimiter):
    frame = pandas.DataFrame({"image": ["a.png"], "text, or note": ["Wet, large."]})
    content = frame.to_csv(index=False, sep=delimiter, quoting=csv.QUOTE_ALL)
    rows, rejected, table = read(tmp_path, content)
    assert rows == frame.to_dict("records") and not rejected
    assert table.notes(unread=False) == (f"t.csv: cells are separated by {delimiter!r}.",)


def test_reports_of_many_lines_are_no_swallowed_rows(tmp_path):
    """Inner lines with as many commas as the header, in prose, are prose."""
    text = "FINDINGS: Lungs clear, heart normal, no edema, no mass.\n\nA, b, c, d\nx, y.png, z, w\n"
    rows = [{"image": f"{n}.png", "text": text, "patient": "p", "split": "train"} for n in range(3)]
    found, rejected, _ = read(tmp_path, pandas.DataFrame(rows).to_csv(index=False))
    assert found == rows and not rejected


BROKEN_ROWS = {
    "too few cells": b"b.png",
    "too many cells": b"b.png,x,y",
    "not UTF-8": b"b.png,37\xb0",
    "a NUL": b"b.png,x\0y",
    "the header again": b"image, text",
}


@pytest.mark.parametrize("kind", BROKEN_ROWS)
def test_a_row_that_cannot_be_read_is_counted_with_its_line(tmp_path, kind):
    content = b"image,text\na.png,Clear.\n\n" + BROKEN_ROWS[kind] + b"\nc.png,Clear.\n"
    rows, rejected, _ = read(tmp_path, content)
    assert [row["image"] for row in rows] == ["a.png", "c.png"]
    assert [row[:2] for row in rejected] == [(4, "malformed_row")]


BROKEN_LINES = {
    "no JSON": "{not json",
    "a list": "[1]",
    "half a pair": '{"image": "\\ud800"}',
    "a key twice": '{"image": "a.png", "image": "b.png"}',
    "a key twice but for blanks": '{"image": "a.png", "image ": "b.png"}',
    "cut off": '{"image": "a.p',
}


@pytest.mark.parametrize("kind", BROKEN_LINES)
def test_a_line_that_is_no_object_is_counted(tmp_path, kind):
    content = f'\ufeff{{" image": "a.png"}}\n{BROKEN_LINES[kind]}\n'
    rows, rejected, _ = read(tmp_path, content, name="t.jsonl")
    assert rows == [{"image": "a.png"}]
    assert [row[:2] for row in rejected] == [(2, "malformed_row")]


WHOLE_FILES = {
    "no file": (None, r"absent\.csv does not exist"),
    "empty": (b"", "empty"),
    "UTF-16": ("image,text\na,b\n".encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ("image,text\na,b\n".encode("utf-16-le"), "UTF-16"),
    "UTF-32": ("image,text\na,b\n".encode("utf-32-le"), "UTF-16 or a binary file"),
    "a spreadsheet": (b"PK\x03\x04 and so on", "a spreadsheet"),
    "Parquet": (b"PAR1 and so on", "Parquet"),
    "an open mark in the header": (b'image,"text\na,b\n', "header .*: a quotation mark is never"),
    "a header in latin-1": (b"image,gr\xf6\xdfe\n", "not UTF-8"),
    "two columns of one name": (b"image,text,image\n", "'image'"),
    "two columns that differ in blanks": (b"image,text, text\n", "'text'"),
    "half a gzip": (gzip.compress(b"image,text\n" * 999)[:60], "cannot be read to its end"),
}


@pytest.mark.parametrize("kind", WHOLE_FILES)
def test_a_table_that_is_none_is_refused_by_name(tmp_path, kind):
    content, match = WHOLE_FILES[kind]
    if content is None:
        with pytest.raises(DataError, match=match):
            Table(tmp_path / "absent.csv", flag="--manifest")
        return
    with pytest.raises(DataError, match=match):
        read(tmp_path, content)


def test_tables_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"--manifest.*rows\.xlsx.*\.csv, \.tsv, \.jsonl"):
        read(tmp_path, b"x", name="rows.xlsx")


def test_a_column_that_is_not_there_is_refused_with_the_nearest_name(tmp_path):
    table = read(tmp_path, "image,report_text\na,b\n")[2]
    table.require([("--image_column", "image")])
    with pytest.raises(DataError, match=r"--text_column.*'report_txt'.*did you mean 'report_text'"):
        table.require([("--text_column", "report_txt")])
    with pytest.raises(DataError, match="did you mean 'image'"):
        table.require([("--image_column", "Image")])
    with pytest.raises(DataError, match="did you mean 'report_text'"):
        table.require([("--text_column", "ReportText")])


IDS = {
    "digits stay": (["10000032", "007"], ["10000032", "007"]),
    "decimals of a data frame": (["10000032.0", " 7.00 "], ["10000032", "7"]),
    "numbers of a .jsonl": ([10000032, 7.0], ["10000032", "7"]),
    "missing in any form": ([None, float("nan"), "NaN", " ", "null", "NaT"], [""] * 6),
    "hexadecimal": (["12e5", "ab3f"], ["12e5", "ab3f"]),
    "invisible marks": (["p1\u200b", "\ufeffp2"], ["p1", "p2"]),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_are_text(tmp_path, kind):
    written, expected = IDS[kind]
    content = "".join(json.dumps({"id": value}) + "\n" for value in written)
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    table = Table(path, flag="--manifest")
    column = IdColumn(table, flag="--id_column", name="id")
    assert [column.read(row) for row in table.rows(reject=print)] == expected
    column.check()


def test_blanks_before_a_quotation_mark_are_no_part_of_the_cell(tmp_path):
    """One that is read as text would leave the marks in it, and cut it at its comma."""
    content = '"image", "text"\na.png,  "Edema, mild."\nb.png, Clear.\n'
    rows, rejected, _ = read(tmp_path, content)
    assert [row["text"] for row in rows] == ["Edema, mild.", "Clear."] and not rejected
    with pytest.raises(DataError, match=r"opens on line 3: a quotation mark is never closed"):
        read(tmp_path, 'image,text\na.png,x\nb.png, "Edema\nc.png,Clear.\n')


@pytest.mark.parametrize("written", ["1e7", "1E+07", "1.00E+07", "5.12e+07"])
def test_ids_that_a_spreadsheet_rounded_are_refused(tmp_path, written):
    path = tmp_path / "t.csv"
    path.write_text(f"id\n10000032\n{written}\n")
    table = Table(path, flag="--manifest")
    column = IdColumn(table, flag="--id_column", name="id")
    for row in table.rows(reject=print):
        column.read(row)
    with pytest.raises(DataError, match=r"--id_column.*line 3"):
        column.check()
