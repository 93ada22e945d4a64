"""Properties of the report parser; its equality with the release is in tests/golden."""

import hypothesis
import pytest
from hypothesis import strategies as st

from data_prep.kit import section_tables, sections
from prior_jax.errors import ConfigError


def parsed(report, study="s1"):
    return sections.split_into_sections(report, study, mode="paper")


def test_truncated_indication_is_no_impression():
    report = " FINAL REPORT\n NDICATION:  Cough.\n \n FINDINGS:  Clear.\n"
    assert parsed(report).impression == ""
    assert sections.split_into_sections(report, "s1", mode="release").impression.strip() == "Cough."


def test_repeated_sections_are_joined_in_order():
    got = parsed(" x\n IMPRESSION:  First.\n \n FINDINGS:  A.\n \n IMPRESSION:  Second.\n")
    assert got.impression.split() == ["First.", "Second."]


def test_header_with_nothing_on_its_line_does_not_swallow_the_next():
    got = parsed(" x\n FINDINGS:\n IMPRESSION:  Only this.\n")
    assert got.impression.strip() == "Only this."
    assert got.findings == ""


@pytest.mark.parametrize(
    "header",
    [
        "Findings:",
        "findings:",
        "FINDINGS :",
        "FINDINGS:Clear",
        "CHEST 2 VIEWS:",
        "FINDINGS\n",
        "PORTABLE CHEST, 1 VIEW:",
    ],
)
def test_headers_the_release_misses_are_seen(header):
    got = parsed(f"FINAL REPORT\n{header} The lungs are clear.\n Impression:  Normal.\n")
    assert got.findings.strip().endswith("The lungs are clear.")
    assert got.impression.strip() == "Normal."


def test_header_after_the_end_of_a_sentence_on_one_line_is_seen():
    got = parsed("INDICATION: Cough. FINDINGS: The lungs are clear. IMPRESSION: Normal.")
    assert got == sections.ReportText(impression=" Normal.", findings=" The lungs are clear.")


def test_sub_heading_stays_in_the_findings():
    got = parsed(
        " x\n FINDINGS:  Lines.\n ET TUBE:  4 cm above the carina.\n \n IMPRESSION:  Ok.\n"
    )
    assert "ET TUBE:  4 cm above the carina." in got.findings
    assert got.impression.strip() == "Ok."


def test_prose_with_a_colon_is_no_header():
    text = " x\n FINDINGS:  Compared with the prior\n study: same.  At 12:30\n The heart: normal.\n"
    assert [s.name for s in sections.split_report(text, mode="paper")] == ["preamble", "findings"]


def test_last_paragraph_is_used_where_there_is_no_header_for_it():
    report = (
        " FINAL REPORT\n INDICATION:  Check.\n \n COMPARISON:  None.\n \n"
        " Clear lungs.\n \n Normal heart.\n"
    )
    assert parsed(report).findings.split() == ["Clear", "lungs.", "Normal", "heart."]
    assert sections.split_into_sections(report, "s1", mode="release") is None


def test_report_without_any_header_is_findings_without_its_title():
    assert (
        parsed("      FINAL REPORT\n The lungs are clear.\n").findings == "The lungs are clear.\n"
    )


@pytest.mark.parametrize(
    "report", ["", "  \n", " x\n INDICATION:  Cough.\n", "FINAL REPORT\n ____\n"]
)
def test_report_that_describes_nothing_is_none(report):
    assert parsed(report) is None


def test_special_studies_are_read_by_hand():
    study, (begin, end) = "s50525523", section_tables.FINDINGS_AT[50525523]
    report = "".join(chr(97 + i % 26) for i in range(end + 50))
    assert parsed(report, study).findings == report[begin:end]
    assert parsed(report, "s50798377") is None  # nothing described at all
    report = " x\n INDICATION:  Tube ends well.\n \n FINDINGS:  Other.\n"
    assert parsed(report, "s57936451").findings.strip() == "Tube ends well."
    assert sections.is_excluded_study("s57936451") and not sections.is_excluded_study("ss57936451")
    assert len({**section_tables.FINDINGS_AT, **section_tables.FINDINGS_UNDER}) == 54


def test_unknown_mode_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"sections\.mode.*'papr'.*paper or release"):
        sections.split_report("x", mode="papr")


HEADERS = [name for names in section_tables.HEADERS.values() for name in names]
PIECES = st.one_of(
    st.sampled_from([*HEADERS, "et tube", "chest 2 views", "x: y", "12:30"]).flatmap(
        lambda name: st.sampled_from([name.upper(), name, name.title()])
    ),
    st.sampled_from(
        [":", ": ", ":\n", "\n ", "\n", "\r\n ", " ", "\t", "\n \n", ". ", "FINAL REPORT"]
    ),
    st.sampled_from(
        ["The lungs are clear. ", "___", "1. No change.\n 2. Stable", "\x00", "é", "\u2028"]
    ),
    st.text(max_size=12),
)
REPORTS = st.lists(PIECES, max_size=25).map("".join)
STUDIES = st.sampled_from(["s1", "", "s50525523", "s50798377", "s57936451", "ss50525523"])


def check_that_nothing_is_lost(report, study):
    for mode in sections.MODES:
        parts = sections.split_report(report, mode=mode)
        assert "".join(part.header + part.text for part in parts) == report
        for part in parts:
            assert report[part.start : part.start + len(part.text)] == part.text
        found = sections.split_into_sections(report, study, mode=mode)
        if found is not None:
            assert found.impression or found.findings
            for text in (found.impression, found.findings):
                for paragraph in text.split("\n\n") if mode == "paper" else [text]:
                    assert paragraph in report
    texts, names, starts = sections.section_text(report)
    assert len(texts) == len(names) == len(starts)


@hypothesis.given(REPORTS, STUDIES)
@hypothesis.settings(max_examples=400, deadline=None)
def test_no_text_is_lost_and_nothing_crashes(report, study):
    check_that_nothing_is_lost(report, study)


@pytest.mark.slow
@hypothesis.given(REPORTS, STUDIES)
@hypothesis.settings(max_examples=10_000, deadline=None)
def test_no_text_is_lost_in_ten_thousand_reports(report, study):
    check_that_nothing_is_lost(report, study)
