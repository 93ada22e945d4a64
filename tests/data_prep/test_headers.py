"""Headers of the impression in every spelling and dress, and the prose that looks like them."""

import pytest

from data_prep import mimic_cxr
from data_prep.kit import headers, sections
from data_prep.kit.text import TextProblem, decoded_report

FINDINGS, IMPRESSION = "Lungs are clear.", "No acute process."


def parsed(report):
    return sections.split_into_sections(report, "s1", mode="paper")


def both(report):
    got = parsed(report)
    return got and (got.findings.strip(), got.impression.strip())


WORDS = (
    "Final Impression", "Final impression", "Overall Impression", "Radiographic Impression",
    "Impression and plan", "Impression & Plan", "Impression/Plan", "Impression/Recommendation",
    "Impression/Recommendations", "Impression (final)", "Impression #1", "Impressions",
    "Conclusions", "Interpretation", "Summary", "Diagnosis", "Assessment", "Assessment and Plan",
    "Imp", "Impresssion", "Impresion", "Imperssion",
)  # fmt: skip
DRESSED = (
    "IMPRESSION", "IMPRESSION -", "IMPRESSION --", "IMPRESSION;", "IMPRESSION.", "IMPRESSION=",
    "IMPRESSION>", "IMPRESSION\u2014", "Impression \u2013", "IMPRESSION :", "IMPRESSION:-",
    "IMPRESSION :-", "[IMPRESSION]", "[Impression]:", "(IMPRESSION):", "( Impression ):",
    "<b>IMPRESSION:</b>", "<strong>Impression</strong>:", "<h2>IMPRESSION:</h2>",
    "**IMPRESSION:**", "## IMPRESSION:", "I M P R E S S I O N:", "lMPRESSION:", "- IMPRESSION:",
    "\u2022 Impression:", "> IMPRESSION:", "* Impression:", "3. IMPRESSION:", "=== IMPRESSION:",
)  # fmt: skip


@pytest.mark.parametrize(
    "header", [*(f"{word}:" for word in WORDS), *(f"{word.upper()}:" for word in WORDS), *DRESSED]
)
@pytest.mark.parametrize("layout", ["FINDINGS:\n{f}\n\n{h}\n{i}\n", "FINDINGS: {f}\n{h} {i}\n"])
def test_an_impression_is_found_and_nothing_of_its_header_is_left(header, layout):
    report = layout.format(h=header, f=FINDINGS, i=IMPRESSION)
    assert both(report) == (FINDINGS, IMPRESSION)


@pytest.mark.parametrize(
    "header", ["Impression\n----------", "IMPRESSION:\n=======", "IMPRESSION -"]
)
def test_a_line_of_marks_below_a_header_is_no_text(header):
    assert both(f"FINDINGS\n---\n{FINDINGS}\n{header}\n{IMPRESSION}\n") == (FINDINGS, IMPRESSION)


@pytest.mark.parametrize(
    "end", ["\n", "\r\n", "\r", "\f", "\v", "\u2028", "\u2029", "\x85", "\r\r", "\v\v"]
)
def test_line_ends_of_every_kind_end_a_line(end):
    report = end.join(["FINDINGS:", FINDINGS, "Final Impression:", IMPRESSION])
    assert both(report) == (FINDINGS, IMPRESSION)


PROSE = (
    "The impression is normal.",
    "In summary: clear.",
    "in summary, the lungs\nsummary: clear.",
    "Compared with the prior\nimpression and plan: same.",
    "NO ACUTE\nFINDINGS. NO EFFUSION.",
    "THIS AGREES WITH THE\nIMPRESSION; NO CHANGE.",
    "Impression. A word of a list.",
    "1. Diagnosis: none.\n2. Summary: none.",
    "- Comparison: none.\n- Lungs: clear.",
    "Compression: none.\nExpression: none.",
    "The diagnosis: none. The assessment: none.",
    "FINDINGS were told to Dr. X.",
    "[Lungs] clear.\n(Heart): normal.\n<b>Bones:</b> intact.",
    "L5-S1 -- clear = normal",
)


@pytest.mark.parametrize("prose", PROSE)
def test_prose_stays_in_the_findings_whole(prose):
    assert both(f"FINDINGS: A {prose}\nIMPRESSION: {IMPRESSION}") == (f"A {prose}", IMPRESSION)


WRAPPED = {
    "Findings: The lungs are clear and there is\nno effusion. Impression: No acute disease.": (
        "The lungs are clear and there is\nno effusion.",
        "No acute disease.",
    ),
    "FINDINGS: THE LUNGS ARE CLEAR AND THERE IS\nNO EFFUSION. IMPRESSION: NO ACUTE DISEASE.": (
        "THE LUNGS ARE CLEAR AND THERE IS\nNO EFFUSION.",
        "NO ACUTE DISEASE.",
    ),
    "Findings: Clear lungs.\nThe heart is large. Impression: CHF.": (
        "Clear lungs.\nThe heart is large.",
        "CHF.",
    ),
    "Indication: Cough. Comparison: None. Findings: Clear\nlungs. No effusion. Impression: Ok.": (
        "Clear\nlungs. No effusion.",
        "Ok.",
    ),
    "Findings: Clear.\nIn summary. My impression: none. Normal.": (
        "Clear.\nIn summary. My impression: none. Normal.",
        "",
    ),
    "Findings: Clear.\nThe heart is normal. No acute findings: stable.": (
        "Clear.\nThe heart is normal. No acute findings: stable.",
        "",
    ),
}


@pytest.mark.parametrize("report", WRAPPED)
def test_a_header_is_found_within_a_wrapped_line(report):
    assert both(report) == WRAPPED[report]


@pytest.mark.parametrize(
    "sub_heading", ["RIBS", "RIGHT CHEST TUBE", "CHEST WALL", "BONE WINDOWS", "CHEST", "LEFT RIBS"]
)
@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_a_sub_heading_with_the_word_of_a_view_stays_where_it_is(sub_heading, gap):
    line = f"{gap}{sub_heading}: Has no fracture."
    report = f"FINDINGS:\n{FINDINGS}{line}\nIMPRESSION:\n{IMPRESSION}{line}"
    assert both(report) == (FINDINGS + line, IMPRESSION + line)


@pytest.mark.parametrize(
    "title", ["CHEST, 1 VIEW", "PORTABLE CHEST RADIOGRAPH", "RIBS, TWO VIEWS", "LUNG FINDINGS"]
)
def test_the_title_of_another_study_ends_an_impression(title):
    got = both(f"IMPRESSION: {IMPRESSION}\n\n{title}: {FINDINGS}")
    assert got == (FINDINGS, IMPRESSION)


def test_titles_with_dates_are_no_findings():
    report = f"CHEST 1 VIEW: 1/2/2003\nRIBS 2 VIEWS: 1/2/2003\nFINDINGS: {FINDINGS}"
    assert both(report) == (FINDINGS, "")


@pytest.mark.parametrize("word", ["Diagnosis", "DIAGNOSIS", "Assessment", "SUMMARY"])
def test_what_the_patient_came_with_is_no_impression(word):
    got = both(f"{word}: Asthma.\nFINDINGS: {FINDINGS}\nIMPRESSION: {IMPRESSION}")
    assert got == (FINDINGS, IMPRESSION)


def test_an_interpretation_without_findings_describes_the_study():
    assert both(f"EXAM: Chest.\nINTERPRETATION: {FINDINGS}\nIMPRESSION: {IMPRESSION}") == (
        FINDINGS,
        IMPRESSION,
    )


def test_a_code_of_the_report_is_no_impression():
    assert both(f"FINDINGS: {FINDINGS}\nIMPRESSION: {IMPRESSION}\nSUMMARY: 2-ABNORMAL\nText.") == (
        FINDINGS,
        IMPRESSION,
    )


@pytest.mark.parametrize(
    "word", ["impression", "impresssion", "imprssion", "inpression", "ipmression", "mpression"]
)
def test_a_word_is_nearly_another(word):
    assert headers._nearly(word, "impression")
    assert not headers._nearly("compression", word)


LAST = {
    "a notification": (
        "EXAM: CHEST\n\nLungs are clear.\n\nNOTIFICATION: Dr. X.\n\nThank you.",
        "Lungs are clear.",
    ),
    "recommendations": (
        "INDICATION: Cough.\n\nCOMPARISON: None.\n\nClear.\n\nHeart normal.\n\n"
        "RECOMMENDATION(S): CT.\n\nDictated at 5 PM.",
        "Clear.\n\nHeart normal.",
    ),
    "an addendum": ("EXAM: CHEST\n\nClear.\n\nADDENDUM: Spelling.\n\nNothing more.", "Clear."),
    "a section without text": (
        "INDICATION: Cough.\n\nClear.\n\nCOMPARISON: None.\n\n",
        "Clear.",
    ),
    "no other header": ("Clear.\n\nNOTIFICATION: Dr. X.\n\nThank you.", "Clear."),
    "nothing described": ("EXAM: CHEST\n\nNOTIFICATION: Dr. X.\n\nThank you.", None),
    "a title alone": ("CHEST FILM OF ___\n\nHISTORY: Cough.\n\nNOTIFICATION: X.\n\nBye.", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAST)
def test_the_last_paragraphs_are_those_that_describe(kind):
    report, expected = LAST[kind]
    got = parsed(report)
    assert (got and got.findings.strip()) == expected


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-16"])
def test_a_report_of_another_encoding_is_not_read_as_text(encoding):
    with pytest.raises(TextProblem) as caught:
        mimic_cxr.read_report(
            "FINDINGS: Clear.".encode(encoding), study="s1", settings=mimic_cxr.Settings()
        )
    assert caught.value.reason == "report_not_decodable"
    assert decoded_report("\ufeffClear.".encode(encoding[:6]), encoding=encoding[:6]).strip()


@pytest.mark.parametrize("unit", [" ", "-", "> ", "<b>", "\n", "A ", "(", "1. ", "IMPRESSION "])
def test_a_long_run_of_one_mark_takes_no_time(unit):
    """A pattern that tried every division of such a run would not come back."""
    assert sections.split_report(unit * 20_000, mode="paper")
