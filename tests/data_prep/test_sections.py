"""Properties of the report parser; its equality with the release is in tests/golden."""

import dataclasses
import xml.etree.ElementTree

import hypothesis
import pytest
from hypothesis import strategies as st

from data_prep.kit import section_tables, sections
from data_prep.kit.text import TextProblem, TextSettings, study_text
from prior_jax.errors import ConfigError
from tests.data_prep.report_styles import STYLES


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


FINDINGS, IMPRESSION = "The lungs are clear. No effusion.", "1. Large heart. 2. No edema."
# What stands around them: (report, what is missing of them).
AROUND = {
    "no-break blanks": "\u00a0FINDINGS:\u00a0{f}\n\u2003IMPRESSION:\u202f{i}",
    "a mark at the beginning": "\ufeffFINDINGS: {f}\nIMPRESSION: {i}",
    "bold": "**FINDINGS**:\n{f}\n**IMPRESSION**:\n{i}",
    "bold with the colon": "**Findings:** {f}\n\n**Impression:** {i}",
    "underlined": "__FINDINGS__: {f}\n__IMPRESSION:__ {i}",
    "headings": "## FINDINGS\n{f}\n## IMPRESSION\n{i}",
    "numbered": "1. FINDINGS: {f}\n2. IMPRESSION: {i}",
    "numbered with brackets": "1) Findings: {f}\n2) Impression: {i}",
    "full-width colons": "FINDINGS\uff1a{f}\nIMPRESSION\uff1a{i}",
    "dashes": "FINDINGS - {f}\nIMPRESSION \u2013 {i}",
    "alone on a line": "Findings\n{f}\nImpression\n{i}",
    "lone carriage returns": "FINDINGS: {f}\rIMPRESSION: {i}",
    "form feeds": "FINDINGS: {f}\n\fIMPRESSION: {i}",
    "a title with a date": "CHEST 1 VIEW: 1/2/2003\n\nFINDINGS: {f}\nIMPRESSION: {i}",
    "a title with a month": "CHEST, PA AND LATERAL: May 3, 2010 at 10:15 PM\nFINDINGS: {f}\n"
    "IMPRESSION: {i}",
    "no full stop before a header": "INDICATION: chest pain FINDINGS: {f} IMPRESSION: {i}",
    "no full stop, mixed case": "Clinical History: chest pain Findings: {f} Impression: {i}",
    "no blank before a header": "INDICATION: Pain.FINDINGS: {f}IMPRESSION: {i}",
    "a comparison on the line": "Comparison: ___ Indication: Cough Findings: {f} Impression: {i}",
    "end of impression": "FINDINGS: {f}\nIMPRESSION:\n{i}\nEND OF IMPRESSION:\n\nSUMMARY:2-ABNORMAL"
    "\n\nThe images were reviewed.\n\nACCESSION NUMBER:\n\n1234\n",
    "end of impression on the line": "FINDINGS: {f} IMPRESSION: {i} END OF IMPRESSION: SUMMARY 2",
    "who dictated": "FINDINGS: {f}\nIMPRESSION: {i}\nDictated by: ___\nElectronically signed by: X",
}


@pytest.mark.parametrize("kind", AROUND)
def test_both_sections_come_back_whatever_stands_around_them(kind):
    got = parsed(AROUND[kind].format(f=FINDINGS, i=IMPRESSION))
    assert (got.findings.strip(), got.impression.strip()) == (FINDINGS, IMPRESSION)


PROSE = {
    "no acute findings": "FINDINGS: No acute findings: stable.\n",
    "other findings": "FINDINGS: Clear. Other Findings: a nodule.\n",
    "in capitals": "FINDINGS: NO ACUTE FINDINGS: STABLE.\n",
    "an impression of": "FINDINGS: There is the impression of a mass. My impression: none.\n",
    "a comparison within": " FINDINGS:  Clear.  Comparison: none.\n \n IMPRESSION:  Ok.\n",
    "a list": "FINDINGS:\n1. HEART: large.\n2. LUNGS: clear.\n",
    "a bold sub-heading": "FINDINGS:\n**Lungs:** clear.\n",
}


@pytest.mark.parametrize("kind", PROSE)
def test_a_word_of_a_sentence_opens_no_section(kind):
    report = PROSE[kind]
    begin, end = report.index("FINDINGS:") + 9, report.find("\n \n IMPRESSION")
    assert parsed(report).findings.strip() == report[begin : end if end > 0 else None].strip()


SENTENCES = (
    "Heart size normal", "No pneumothorax.", "XXXX opacity, left base", "2.5 cm nodule; stable?",
    "Lungs: clear", "(See above)", "1. Edema 2. Effusion", "Dr. XXXX was told at 10:15.", "None",
)  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
@hypothesis.given(st.lists(st.sampled_from(SENTENCES), min_size=4, max_size=4))
@hypothesis.settings(max_examples=60, deadline=None)
def test_sections_come_back_in_every_style(style, bodies):
    written = dict(zip(("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION"), bodies, strict=True))
    got = parsed(STYLES[style](written))
    assert got.findings.split() == written["FINDINGS"].split()
    assert got.impression.split() == written["IMPRESSION"].split()


# Reports of Open-i whose own sections hold headers: "Chest Comparison: There is a ..." within
# findings, and a whole second report within an impression.
AMBIGUOUS = {
    "mixed case, one line": {"206", "2415"},
    "mixed case, one line, wrapped": {"206", "2415"},
}


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_real_reports_come_back_in_every_style(style, request):
    """3,955 reports of Open-i, 3,927 of which have findings or an impression."""
    folder = request.config.getoption("--iu_xray")
    if folder is None:
        pytest.skip("--iu_xray names no folder of reports")
    different, read = set(), 0
    for path in folder.glob("*.xml"):
        root = xml.etree.ElementTree.parse(path).getroot()
        written = {
            part.get("Label"): " ".join((part.text or "").split())
            for part in root.iter("AbstractText")
        }
        expected = written.get("FINDINGS", ""), written.get("IMPRESSION", "")
        if not any(expected):
            continue
        read += 1
        got = parsed(STYLES[style](written))
        found = got and tuple(" ".join(text.split()) for text in (got.findings, got.impression))
        if found != expected:
            different.add(path.stem)
    assert read > 0
    assert different <= AMBIGUOUS.get(style, {"2415"})


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


FREE = TextSettings(parser="paper", splitter="pysbd", min_sentences=1, free_text=True)
BEGINNINGS = {
    "Infiltrado en base derecha. Derrame pleural. Conclusion: neumonia.": (
        "Infiltrado en base derecha. Derrame pleural.",
        "neumonia.",
    ),
    "The heart is enlarged.\nIMPRESSION: Heart failure.": (
        "The heart is enlarged.",
        "Heart failure.",
    ),
    "Heart enlarged\n\nFINDINGS: No effusion.": ("Heart enlarged\n\nNo effusion.", ""),
    "HEART ENLARGED\nIMPRESSION: Heart failure.": ("HEART ENLARGED", "Heart failure."),
    "HEART ENLARGED\nIMPRESSION: HEART FAILURE.": ("HEART ENLARGED", "HEART FAILURE."),
    "CHEST TUBE REMOVED.\nIMPRESSION: Better.": ("CHEST TUBE REMOVED.", "Better."),
    "FINAL REPORT\nFINDINGS: No effusion.": ("No effusion.", ""),
    "Final report\n12/3/2019\nPORTABLE CHEST\n____\nFINDINGS: Clear.": ("Clear.", ""),
    "The heart is enlarged.\nTECHNIQUE: AP.\n\nBones normal.": (
        "The heart is enlarged.\n\nBones normal.",
        "",
    ),
    "Heart enlarged.\nNOTIFICATION: Told at 3 pm.": ("Heart enlarged.", ""),
    "HALLAZGOS: Infiltrado en base derecha.\nCONCLUSION: Neumonia.": (
        "HALLAZGOS: Infiltrado en base derecha.",
        "Neumonia.",
    ),
    "NAME: DOE\nLUNGS: Clear.\nHEART: Normal in size.\nIMPRESSION: Normal.": (
        "LUNGS: Clear.\n\nHEART: Normal in size.",
        "Normal.",
    ),
    "NOTE: Seen before.\nFINDINGS: Clear.\nTECHNIQUE: AP view.": ("Clear.", ""),
    "The lungs are clear.\nSUMA: Normal study.\n\nSeen by two.": (
        "The lungs are clear.\n\nSUMA: Normal study.\n\nSeen by two.",
        "",
    ),
    "Heart enlarged. No effusion.": ("Heart enlarged. No effusion.", ""),
    "CHEST\nThe heart is enlarged.": ("CHEST\nThe heart is enlarged.", ""),
    "INDICATION: Pneumonia?\nREPORT: Lungs are clear. No effusion.\n": (
        "REPORT: Lungs are clear. No effusion.",
        "",
    ),
    "The lungs are clear.\nTECHNIQUE: AP view.": ("The lungs are clear.", ""),
    "INDICATION: Cough.\nWET READ: Lungs are clear.": ("WET READ: Lungs are clear.", ""),
    "EXAM: Lungs are clear.": ("EXAM: Lungs are clear.", ""),
    "EXAM: clear": ("EXAM: clear", ""),
}


@pytest.mark.parametrize("report", BEGINNINGS)
def test_a_free_text_keeps_what_stands_before_its_first_header(report):
    found = study_text(report, study="", settings=FREE)
    assert (found.findings.strip(), found.impression.strip()) == BEGINNINGS[report]
    assert len(found.sentences) == len(set(found.sentences))


@pytest.mark.parametrize(
    "report", ["INDICATION: Pneumonia?", "HISTORY: A cough.\nCOMPARISON: None.\nEXAM: CHEST"]
)
def test_a_free_text_that_holds_nothing_but_its_history_is_rejected(report):
    with pytest.raises(TextProblem) as caught:
        study_text(report, settings=FREE)
    assert caught.value.reason == "no_section"


@pytest.mark.parametrize("report", BEGINNINGS)
def test_a_report_in_mimic_s_layout_leaves_out_what_stands_before_its_first_header(report):
    settings = dataclasses.replace(FREE, free_text=False, min_sentences=0)
    sections_found = sections.split_into_sections(report, "")
    if sections_found is None:
        return
    found = study_text(report, study="", settings=settings)
    assert found.findings == sections_found.findings


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("absent", ["", "FINDINGS", "IMPRESSION", "INDICATION"])
def test_a_report_whose_headers_are_known_is_read_in_the_same_way_as_a_free_text(style, absent):
    written = dict.fromkeys(
        ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION"), "None is known."
    )
    written["FINDINGS"], written["IMPRESSION"] = "The heart is enlarged.", "No edema is seen."
    written.pop(absent, None)
    report = STYLES[style](written)
    strict = dataclasses.replace(FREE, free_text=False)
    assert study_text(report, settings=FREE) == study_text(report, settings=strict)
