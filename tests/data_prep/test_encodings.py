"""Tables in another encoding than UTF-8 are read as they are meant, or refused with advice."""

import json
import pathlib

import pytest

from data_prep import iu_xray, manifest
from data_prep.kit import encodings, finish
from data_prep.kit.tables import Table
from prior_jax.data import manifest as manifest_lib
from prior_jax.data.reader import RecordReader
from prior_jax.errors import ConfigError, DataError
from tests.data_prep.test_manifest import prepare_table, table

# Reports as hospitals in Spain, France and Germany write them; every third has no accent.
REPORTS = (
    "Infiltrado en base derecha.",
    "Cardiomegalia. Elongación aórtica, sin cambios.",
    "Pas d'épanchement. Cœur normal, opacité à gauche.",
    "Kein Erguß. Herz nicht vergrößert.",
)
WESTERN = ("cp1252", "mac_roman", "cp850")


def accented(tmp_path, encoding, *, name="rows.csv", plain=0, texts=REPORTS):
    texts = [text for text in texts if _writable(text, encoding)]
    rows = [(f"{n}.jpg", texts[n % len(texts)]) for n in range(24)]
    rows += [(f"p{n}.jpg", "Clear lungs.") for n in range(plain)]
    path = tmp_path / name
    if name.endswith(".jsonl"):
        lines = [json.dumps({"image": i, "text": t}, ensure_ascii=False) for i, t in rows]
    else:
        lines = ["image,text", *(f'{image},"{text}"' for image, text in rows)]
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def _writable(text, encoding):
    try:
        return bool(text.encode(encoding))
    except UnicodeEncodeError:
        return False


def read(path, encoding=None):
    found = Table(path, flag="--manifest", key="image", encoding=encoding)
    rejected = []
    rows = list(found.rows(reject=lambda *row: rejected.append(row)))
    return [row.cells["text"] for row in rows], rejected


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
@pytest.mark.parametrize("encoding", WESTERN)
def test_a_table_in_another_encoding_is_refused_and_read_by_the_flag_that_is_named(
    tmp_path, encoding, name
):
    path = accented(tmp_path, encoding, name=name)
    column = " in column 'text'" if name.endswith("csv") else ""
    line = 3 if name.endswith("csv") else 2
    said = rf"--manifest: .*of 24 rows are not UTF-8; the first is line {line}{column}\. "
    with pytest.raises(DataError, match=rf"{said}Set --encoding={encoding}, .*or save the table"):
        read(path, "utf-8")
    texts, rejected = read(path, encoding)
    assert not rejected and set(texts) <= set(REPORTS) and len(texts) == 24


def test_a_program_without_the_flag_is_not_told_of_it(tmp_path):
    with pytest.raises(DataError, match=r"not UTF-8.* Save the table again in UTF-8\.$"):
        read(accented(tmp_path, "latin-1"))


@pytest.mark.parametrize("encoding", ["cp1252", "cp850", "latin-1"])
def test_a_table_in_utf_8_is_not_read_as_another_encoding(tmp_path, encoding):
    said = rf"rows are UTF-8, and not {encoding}; .* Leave out --encoding"
    with pytest.raises(DataError, match=said):
        read(accented(tmp_path, "utf-8"), encoding)


def test_a_wrong_encoding_that_lacks_bytes_of_the_table_is_refused(tmp_path):
    path = accented(
        tmp_path, "cp437", texts=("aìa", "üb")
    )  # 0x8d and 0x81 are no letters of cp1252
    with pytest.raises(DataError, match=r"rows are not CP1252; .* Set --encoding"):
        read(path, "cp1252")


def test_letters_that_are_not_western_are_not_guessed(tmp_path):
    path = accented(tmp_path, "cp1251", texts=("Без патологии", "Норма"))
    with pytest.raises(DataError, match=r"to the one that it was saved in, such as cp1251"):
        read(path, "utf-8")
    assert read(path, "cp1251")[1] == []
    assert not read(accented(tmp_path, "gb18030", texts=("双肺纹理清晰", "心影增大")), "gb18030")[1]


@pytest.mark.parametrize(("broken", "refused"), [(2, False), (3, True)])
def test_a_few_damaged_rows_are_counted(tmp_path, broken, refused):
    path = tmp_path / "rows.csv"
    rows = [b"%d.jpg,37\xb0" % n for n in range(broken)] + [b"%d.jpg,37" % n for n in range(20)]
    path.write_bytes(b"\n".join([b"image,text", *rows]))
    if refused:
        with pytest.raises(DataError, match="3 of 23 rows"):
            read(path)
        return
    assert len(read(path)[1]) == broken


def test_one_row_in_a_hundred_is_no_other_encoding(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [b"%d.jpg,37\xb0" % n for n in range(5)] + [b"%d.jpg,37" % n for n in range(495)]
    path.write_bytes(b"\n".join([b"image,text", *rows]))
    assert len(read(path)[1]) == 5


def test_a_header_in_another_encoding_is_read_by_the_flag(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("image,text,größe\na.jpg,Klar.,1\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"header of .* is not UTF-8\. Set --encoding=cp1252"):
        Table(path, flag="--manifest", encoding="utf-8")
    assert "größe" in Table(path, flag="--manifest", encoding="cp1252").names


def test_a_set_of_a_table_in_latin_1_has_every_report(tmp_path):
    path = table(tmp_path, ("image", "text"), *((f"{n}.jpg", REPORTS[n % 2]) for n in range(8)))
    pathlib.Path(path).write_bytes(pathlib.Path(path).read_text("utf-8").encode("latin-1"))
    with pytest.raises(DataError, match=r"--manifest: .*4 of 8 rows are not UTF-8"):
        prepare_table(tmp_path, path)
    assert not (tmp_path / "out").exists()
    fractions = ("1", "0", "0")
    found = prepare_table(tmp_path, path, encoding="latin-1", split_fractions=fractions)
    assert found.splits["train"].studies == 8 and not found.rejected
    reader = RecordReader(tmp_path / "out", "train")
    assert {reader.read(n).findings for n in range(8)} == set(REPORTS[:2])


@pytest.mark.parametrize("name", ["utf-17", "utf-16", "base64", "hex", ""])
def test_encodings_that_no_table_can_be_read_in_are_refused(name):
    assert not encodings.is_known(name)
    with pytest.raises(ConfigError, match=r"--encoding: .*It must be an encoding of texts"):
        manifest.Settings(encoding=name)


def test_a_data_set_without_a_table_has_no_encoding_to_set():
    with pytest.raises(ConfigError, match=r"--encoding: .*this data set has no table"):
        iu_xray.Settings(encoding="cp1252")


@pytest.mark.parametrize(("undecoded", "warned"), [(3, True), (2, False), (0, False)])
def test_a_set_without_its_reports_in_another_encoding_is_said_to_be_one(undecoded, warned):
    counts = manifest_lib.SplitCounts(studies=60, images=60, subjects=60, sentences=60)
    found = manifest_lib.Manifest(
        format=1,
        program="data_prep.mimic_cxr",
        settings={"report_encoding": "utf-8"},
        versions={},
        label_names=(),
        splits={"train": counts},
        rejected={"report_not_decodable": undecoded},
        inputs={},
        shards={},
        image=manifest_lib.ImageStatistics(short_side=256, mean=0.5, std=0.2),
        text_sources={},
    )
    text = finish.summary(found, out="out")
    assert ("Warning: 3 reports are not in utf-8" in text) is warned
