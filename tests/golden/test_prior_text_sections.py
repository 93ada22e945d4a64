"""Report parsing against what the authors' parser returned."""

import pytest

from data_prep.kit import headers, sections
from tests.golden import reader

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return reader.load_json(golden_dir, "prior", "text_sections")


def test_sections_names_and_starts_equal_the_release(recorded):
    for name, case in recorded["sections"].items():
        texts, names, starts = sections.section_text(case["report"])
        expected = case["section_text"]
        assert texts == expected["sections"], name
        assert names == expected["names"], name
        assert starts == expected["starts"], name


def test_findings_and_impression_equal_the_release(recorded):
    for name, case in recorded["sections"].items():
        got = sections.split_into_sections(case["report"], "ss50000000", mode="release")
        expected = case["split_into_sections"]
        if expected is None:
            assert got is None, name
        else:
            assert got is not None, name
            assert {"impression": got.impression, "findings": got.findings} == expected, name


def test_excluded_studies_equal_the_release(recorded):
    report = "x\n FINDINGS:  Clear.\n"
    for study, excluded in recorded["excluded_study"].items():
        assert sections.is_excluded_study(study) == excluded, study
        got = sections.split_into_sections(report, study, mode="release")
        assert (got is None) == excluded, study


def test_section_names_equal_the_release(recorded):
    for written, canonical in recorded["normalize_section_names"]:
        assert headers.normalized(written.lower().strip(), headers.RELEASE_NAMES) == canonical
