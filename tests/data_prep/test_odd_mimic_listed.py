"""Lists of images of MIMIC-CXR, such as MIMIC 5x200, as people have them: right, or refused."""

import shutil

import pytest

from data_prep import mimic_cxr
from data_prep.kit import cli
from tests.data_prep import hospital, label_sets, mimic_runs
from tests.data_prep.odd_files import Odd, append, both, check, content, damaged, nothing, table
from tests.data_prep.odd_files import tables as odd_tables

FIRST = 50_000_001  # the first study has no labels
SUBJECTS = tuple(10_000_000 + place // 2 * 7_370_003 % 9_999_991 for place in range(1, 4))
ONE, TWO, OTHER = (hospital.dicom(FIRST + place, "PA") for place in (0, 1, 2))
SIDE = hospital.dicom(FIRST, "LATERAL")
LIST, CSV = "only.txt", "only.csv"
OF_TWO = f"s{FIRST + 1}/{TWO}"
FOLDER = f"files/p{str(SUBJECTS[1])[:2]}/p{SUBJECTS[1]}/s{FIRST + 1}"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    base = tmp_path_factory.mktemp("hospital") / "mimic"
    base.mkdir()
    hospital.draw(base, studies=4)
    (base / LIST).write_text(f"{ONE}\n{TWO}\n")
    (base / CSV).write_text(f"dicom_id,other\n{ONE},1\n{TWO},2\n")
    return base


@pytest.fixture
def root(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "mimic")


def prepare(root, *, only=LIST, **settings):
    return mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(root), only=str(root / only)),
        mimic_cxr.Settings(**{"short_side": 32, "min_sentences": 1, **settings}),
        cli.RunOptions(out=str(root / "out"), workers=1),
    )


# Each row of an image that is not listed is only counted, and the lines of others are not.
def listed(name, *lines, wrong=None, **expected):
    return Odd(name, append(LIST, *lines), rejected=wrong or {}, **expected)


def of_table(name, kind, change, **expected):
    return Odd(name, lambda root: mimic_runs.edit_table(root, kind, change), **expected)


def of_image(case):
    """A case of a damaged image, which has a line for its study as well."""
    (pattern,) = case.rejected.values() if case.rejected else ("",)
    wrong = {OF_TWO: rf"({pattern}).*: only\.txt:2: ", TWO: r"no_usable_image: only\.txt:2: "}
    return Odd(case.name, case.change, rejected=wrong if pattern else {})


def of_report(name, change, reason):
    wrong = {OF_TWO: rf"({reason}): only\.txt:2: "}
    return Odd(name, content(f"{FOLDER}.txt", change), rejected=wrong, without=[TWO])


HEX = "0123abcd-0123abcd-0123abcd-0123abcd-0123abcd"
BOTH = {ONE: {"views": ("PA",)}, TWO: {"views": ("PA",)}}
CASES = [
    *map(of_image, damaged(f"{FOLDER}/{TWO}.jpg", name=OF_TWO)),
    *(
        Odd(f"csv_{case.name}", case.change, refused=case.refused, settings={"only": CSV})
        for case in odd_tables(CSV, flag="--only")
        if case.name not in ("table_without_rows", "rows_with_one_cell_more")
    ),
    Odd(
        "csv_without_header",
        content(CSV, lambda b: b.split(b"\n", 1)[1]),
        settings={"only": CSV},
        refused=r"only\.csv: Its first line should name its columns, and holds",
    ),
    Odd(
        "csv_without_rows",
        content(CSV, lambda b: b.split(b"\n")[0]),
        settings={"only": CSV},
        refused=r"only\.csv: It holds no id",
    ),
    Odd(
        "csv_with_a_cut_row",
        append(CSV, HEX),
        settings={"only": CSV},
        refused=r"only\.csv: Line 4 cannot",
    ),
    Odd("list_with_bom", content(LIST, lambda b: b"\xef\xbb\xbf" + b), records=BOTH),
    Odd("list_with_crlf", content(LIST, lambda b: b.replace(b"\n", b"\r\n")), records=BOTH),
    Odd(
        "list_in_utf16",
        content(LIST, lambda b: b.decode().encode("utf-16")),
        refused=r"only\.txt: It is not UTF-8",
    ),
    Odd("list_empty", content(LIST, lambda _: b" \n"), refused=r"only\.txt: It holds no id"),
    Odd("list_absent", lambda root: (root / LIST).unlink(), refused="--only"),
    Odd(
        "list_of_another_kind",
        lambda root: (root / LIST).rename(root / "only.json"),
        settings={"only": "only.json"},
        refused="--only: .*not a table",
    ),
    listed("blank_lines", "", "  ", records=BOTH),
    listed("image_twice", ONE, f"{TWO}.jpg", notes=[r"only\.txt: 2 lines name an image again"]),
    listed("with_suffix_and_labels", f"{OTHER}.dcm 1 0", records={OTHER: {}}),
    listed("with_a_comma", f"{OTHER},1", records={OTHER: {}}),
    listed("with_a_folder", f"files/p10/p10000032/s5/{OTHER}.jpg", records={OTHER: {}}),
    listed("with_windows_folders", rf"files\p10\{OTHER}.jpg", records={OTHER: {}}),
    listed(
        "lateral_image",
        SIDE,
        wrong={f"s{FIRST}/{SIDE}": r"wrong_view: only\.txt:3: the view is LATERAL"},
    ),
    listed(
        "lateral_image_on_demand",
        SIDE,
        settings={"views": ("PA", "LATERAL")},
        records={SIDE: {"views": ("LATERAL",)}},
    ),
    listed(
        "image_without_row", HEX, wrong={HEX: r"listed_without_row: only\.txt:3: the list names it"}
    ),
    listed(
        "id_in_capitals", OTHER.upper(), wrong={OTHER.upper(): r"listed_without_row: only\.txt:3"}
    ),
    listed("id_cut", OTHER[:-9], wrong={OTHER[:-9]: "listed_without_row"}),
    listed("id_too_long", "x" * 90, wrong={"x" * 90: "listed_without_row"}),
    listed("id_with_an_umlaut", "Ärger", wrong={"Ärger": "listed_without_row"}),
    listed("header", "dicom_id", wrong={"dicom_id": r"listed_without_row: only\.txt:3"}),
    of_report("report_empty", lambda _: b"", "empty_report"),
    of_report("report_without_section", lambda _: b"FINAL REPORT\n", "no_section|empty_report"),
    of_report(
        "report_in_latin_1", lambda b: b + "Müller".encode("latin-1"), "report_not_decodable"
    ),
    Odd(
        "report_absent",
        lambda root: (root / f"{FOLDER}.txt").unlink(),
        rejected={OF_TWO: r"missing_report: only\.txt:2"},
        without=[TWO],
    ),
    of_table(
        "image_without_split",
        "split",
        lambda lines: [line for line in lines if TWO not in line],
        rejected={
            OF_TWO: r"row_without_split: only\.txt:2: row without split",
            f"s{FIRST + 1}": "study_without_image",
        },
        without=[TWO],
    ),
    of_table(
        "row_of_metadata_twice",
        "metadata",
        lambda lines: [*lines, *(line for line in lines if ONE in line)],
        rejected={f"s{FIRST}/{ONE}": r"duplicate_row: only\.txt:1: duplicate row"},
        records=BOTH,
    ),
    Odd("nothing_odd", nothing, records=BOTH),
    of_table(
        "no_labels_of_the_study",
        "chexpert",
        lambda lines: [line for line in lines if str(FIRST + 1) not in line],
        records={TWO: {"labels": (-2, -2, -2)}},
    ),
    Odd(
        "images_of_other_studies_absent",
        lambda root: (
            root
            / "files"
            / f"p{str(SUBJECTS[2])[:2]}"
            / f"p{SUBJECTS[2]}"
            / f"s{FIRST + 2}"
            / f"{OTHER}.jpg"
        ).unlink(),
        records=BOTH,
    ),
    Odd(
        "nothing_of_the_list_is_there",
        both(content(LIST, lambda _: f"{HEX}\n".encode())),
        refused="1 listed_without_row",
    ),
]


@table(CASES)
def test_odd_lists(odd, root):
    check(odd, root, prepare, everything=(ONE, TWO))


def test_all_of_the_list_is_there(root):
    prepare(root)
    assert len(CASES) >= 30
    label_sets.assert_sound(root / "out")
