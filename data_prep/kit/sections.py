"""Splits a radiology report into its sections, as the release does or as it should be done.

`mode="release"` repeats codes/prior/data/pretrain/text_process.py exactly. `mode="paper"`, the
default of every preparer, differs where the release loses or misplaces text:

* headers in any case, with digits, numbered, in bold, without a leading blank, behind no-break
  blanks, without a colon on a line of their own, or in the middle of a line are seen;
* what stands behind "END OF IMPRESSION", and lines such as "Dictated by:", belong to no section;
* a header with nothing on its line does not swallow the header below it;
* a sub-heading such as "ET TUBE:" stays in the FINDINGS that hold it;
* sections that occur twice are joined, where the release keeps the last;
* "NDICATION" is an indication, not an impression;
* a report without either section gives its last paragraphs, where the release drops it;
* the 54 reports that MIMIC-CXR's own parser treats by hand are treated so, where the release's
  list never matches (it looks for "ss5..." instead of "s5...").

In both modes headers and bodies together are the report, character for character.
"""

import dataclasses
import re
from collections.abc import Sequence

from data_prep.kit import section_tables as tables
from prior_jax.errors import ConfigError

MODES = ("paper", "release")
PREAMBLE = "preamble"
FULL_REPORT = "full report"
LAST_PARAGRAPH = "last_paragraph"
END = "end of impression"

_CANONICAL = {name: key for key, names in tables.HEADERS.items() for name in names}
_CANONICAL_RELEASE = {**_CANONICAL, tables.TRUNCATED_INDICATION: "impression"}
_CANONICAL_PAPER = {
    **_CANONICAL,
    **{name: key for key, names in tables.EXTRA_HEADERS.items() for name in names},
}
_LOWER_CASE_HEADERS = frozenset(
    ("findings", "impression", "conclusion", "indication", "comparison", "technique", "examination")
)
_VIEW = re.compile("|".join(tables.VIEW_PHRASES))

_RELEASE_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_RELEASE_PARAGRAPH = "\n \n"

# Blanks that are no line ends and not ASCII; each is one character, so that places stay.
_BLANK_MARKS = dict.fromkeys(
    map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
        "\u200b\u202f\u205f\u3000\ufeff"),
    " ",
)  # fmt: skip
_LINE_START = r"(?:\A|(?<=\n)|(?<=\r)|(?<=\f))[ \t]*"
_LINE_HEADER = re.compile(
    _LINE_START + r"(?P<mark>(?:\d{1,2}[.)][ \t]*)?[*_#]{0,3}[ \t]*)"
    r"(?P<name>[A-Za-z][A-Za-z0-9 \t()/,.&'-]{0,79}?)[ \t]*[*_]{0,3}[ \t]*[:\uff1a][*_]{0,3}"
)
_BARE_HEADER = re.compile(
    _LINE_START + r"(?P<mark>(?:\d{1,2}[.)][ \t]*)?[*_#]{0,3}[ \t]*)"
    r"(?P<name>FINDINGS|IMPRESSION|CONCLUSION|INDICATION|TECHNIQUE|COMPARISON|EXAMINATION|HISTORY"
    r"|RECOMMENDATIONS?|NOTIFICATION|ADDENDUM|END OF IMPRESSION|Findings|Impression|Conclusion"
    r"|Indication|Technique|Comparison)[*_]{0,3}(?:[ \t]*(?=[\r\n]|\Z)|[ \t]+[-\u2013\u2014]+[ \t])"
)
_INLINE_NAMES = (
    "Findings/Impression", "Findings and Impression", "End of Impression", "Findings", "Impression",
    "Conclusion", "Clinical Indication", "Indication", "Technique", "Comparison", "Examination",
    "Clinical History", "Clinical Information", "Patient History", "History",
    "Reason for Examination", "Reason for Exam", "Recommendations", "Recommendation",
    "Notification",
)  # fmt: skip
_INLINE_HEADER = re.compile(
    r"(?:(?<=[.!?)_])[ \t]*|(?<=[^\s])[ \t]+)[*_]{0,3}(?P<name>"
    + "|".join(f"{name.upper()}|{name}" for name in _INLINE_NAMES)
    + r")[*_]{0,3}[ \t]*[:\uff1a][*_]{0,3}"
)
# "No acute findings: ..." is prose, in whatever case.
_QUALIFIED = re.compile(
    r"\b(?:acute|additional|other|incidental|significant|abnormal|radiographic|clinical|imaging|key"
    r"|associated|cardiopulmonary|these|following|above|no|of|and|the|with|my|our|in)[ \t]*\Z",
    re.IGNORECASE,
)
# A blank, or what stands behind a title such as "CHEST 1 VIEW: 1/2/2003".
_DATE = re.compile(
    r"[\W\d_]*(?:(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec|january|february|march|april"
    r"|august|september|october|november|december|am|pm|at|hours|hrs)\b[\W\d_]*)*",
    re.IGNORECASE,
)
_DESCRIPTIONS = ("findings", "impression")
_BLANK_LINE = re.compile(r"\r?\n[ \t]*\r?\n")
_BOILERPLATE = re.compile(r"(?:FINAL REPORT|FINAL ADDENDUM|_{3,}|[ \t\r\n])+")

_NEWLINES = re.compile(r"(?:[\t ]*(?:\r\n|\n)+)+")
_BLANKS = re.compile(r"[\t ]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report; sections in order tile the report.

    Attributes:
      name: canonical name, or the header in lower case where it is not known.
      header: the characters before the body that belong to its header, "" for a first section.
      text: the body, with the blanks and line ends around it.
      start: index of the body's first character in the report.
    """

    name: str
    header: str
    text: str
    start: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportText:
    """The two sections PRIOR reads.

    Attributes:
      impression: raw text, "" where the report has none.
      findings: raw text, "" where the report has none.
    """

    impression: str
    findings: str


def clean_text(text: str, *, replace_newlines: bool = False, newline_token: str = " ") -> str:
    r"""Collapses runs of line ends to one "\n" and runs of blanks to one blank, and strips.

    Args:
      text: any text.
      replace_newlines: whether line ends become `newline_token`.
      newline_token: what a line end becomes.

    Source: release, codes/prior/data/pretrain/text_process.py, `clean_text`.
    """
    text = _NEWLINES.sub("\n", text)
    if replace_newlines:
        text = text.replace("\n", newline_token)
    return _BLANKS.sub(" ", text).strip()


def normalize_section_names(names: Sequence[str], *, mode: str) -> list[str]:
    """Maps headers as written onto canonical section names.

    Args:
      names: headers without their colon, in any case.
      mode: "release", or "paper", which knows more spellings and reads "ndication" rightly.

    Returns:
      One name for each header; a header that means nothing known comes back in lower case.

    Source: release, codes/prior/data/pretrain/text_process.py, `normalize_section_names`.
    """
    table = _CANONICAL_RELEASE if _checked(mode) == "release" else _CANONICAL_PAPER
    return [_normalize(name.lower().strip(), table) for name in names]


def _checked(mode: str) -> str:
    if mode not in MODES:
        raise ConfigError("sections.mode", received=mode, accepted=" or ".join(MODES))
    return mode


def _normalize(name: str, table: dict[str, str]) -> str:
    if name in table:
        return table[name]
    for word in tables.MAIN_WORDS:
        if word in name:
            return word
    return "findings" if _VIEW.search(name) else name


def is_excluded_study(study: str) -> bool:
    """Whether a study, as "s" and eight digits, is one MIMIC-CXR's parser treats by hand.

    The release asks this with a doubled "s" and so always hears no (quirk P37).
    """
    number = _study_number(study)
    return number in tables.FINDINGS_UNDER or number in tables.FINDINGS_AT


def _study_number(study: str) -> int | None:
    match = re.fullmatch(r"s(\d{8})", study, re.ASCII)
    return int(match.group(1)) if match else None


def split_report(report: str, *, mode: str) -> tuple[Section, ...]:
    """Cuts a report at its headers, keeping every section, the empty ones too.

    Args:
      report: the whole text.
      mode: "paper" or "release".

    Returns:
      Sections in order. `"".join(s.header + s.text for s in sections) == report`.
    """
    heads = _release_heads(report) if _checked(mode) == "release" else _paper_heads(report)
    if not heads:
        return (Section(name=FULL_REPORT, header="", text=report, start=0),)
    sections = [Section(name=PREAMBLE, header="", text=report[: heads[0][0]], start=0)]
    ends = [begin for begin, _, _ in heads[1:]] + [len(report)]
    for (begin, start, name), end in zip(heads, ends, strict=True):
        sections.append(
            Section(name=name, header=report[begin:start], text=report[start:end], start=start)
        )
    return tuple(sections)


def _release_heads(report: str) -> list[tuple[int, int, str]]:
    """Returns (begin of header, start of body, name) of each header the release sees."""
    heads = []
    match = _RELEASE_HEADER.search(report)
    while match:
        # The first separator ("\n ") counts to the preamble, later ones to no section.
        begin = match.start() if heads else match.start(1)
        heads.append((begin, match.end(), _normalize(match[1].lower().strip(), _CANONICAL_RELEASE)))
        # The rest of the header's own line, and a header right below it, are not looked at.
        newline = report.find("\n", match.end())
        match = _RELEASE_HEADER.search(report, max(newline, match.end()))
    return heads


def _paper_heads(report: str) -> list[tuple[int, int, str]]:
    """Returns (begin of header, start of body, name) of each header that opens a section."""
    report = report.translate(_BLANK_MARKS)
    candidates = {}
    for match in _inline_matches(report):
        candidates[match.start("name")] = match
    for pattern in (_BARE_HEADER, _LINE_HEADER):
        for match in pattern.finditer(report):
            candidates[match.start("name")] = match
    heads = []
    current, end = PREAMBLE, 0
    for _, match in sorted(candidates.items()):
        if match.start() < end:
            continue  # a shorter reading of the header just taken
        written, start = match["name"], match.end()
        name = _paper_section(written, current=current, followed=report[start : start + 1])
        if match.groupdict().get("mark") and name not in _CANONICAL_PAPER.values():
            continue  # a numbered or bold line of a list
        if name is not None:
            heads.append((match.start(), start, name))
            current, end = name, start
    return heads


def _inline_matches(report: str) -> list[re.Match[str]]:
    """Returns the headers in the middle of lines.

    A header in capitals is one wherever it stands. One in mixed case could be a word of a sentence:
    "Findings:" or "Impression:" is a header where no line of the report begins with it, and the
    others are where one of these two is.
    """
    at_line_starts = {
        _normalize(_BLANKS.sub(" ", match["name"]).lower(), _CANONICAL_PAPER)
        for pattern in (_LINE_HEADER, _BARE_HEADER)
        for match in pattern.finditer(report)
    }
    capitals, descriptions, others = [], [], []
    for match in _INLINE_HEADER.finditer(report):
        if _QUALIFIED.search(report, max(match.start() - 20, 0), match.start()):
            continue
        name = _CANONICAL_PAPER[match["name"].lower()]
        if match["name"].isupper() or name == END:
            capitals.append(match)
        elif name not in _DESCRIPTIONS:
            others.append(match)
        elif name not in at_line_starts:
            descriptions.append(match)
    return capitals + descriptions + (others if descriptions else [])


def _paper_section(written: str, *, current: str, followed: str) -> str | None:
    """Returns the section a header-like phrase opens, or None where it opens none."""
    name = _BLANKS.sub(" ", written).strip().lower()
    if name in _CANONICAL_PAPER:
        # A wrapped line of prose may begin with "study:"; hardly ever with "impression:".
        plain = written[0].islower() and name not in _LOWER_CASE_HEADERS
        return None if plain else _CANONICAL_PAPER[name]
    if written != written.upper() or (followed and not followed.isspace()):
        return None  # "The chest:", "12:30" and the like are prose
    known = _normalize(name, _CANONICAL_PAPER)
    if known != name:
        return known
    # A sub-heading ("ET TUBE", "LUNGS") belongs to the description it stands in.
    return None if current in _DESCRIPTIONS else name


def section_text(report: str) -> tuple[list[str], list[str], list[int]]:
    """Returns (texts, names, starts) of a report's sections exactly as the release does.

    Empty findings and impressions are left out, and where neither is left, the paragraphs after
    the first of the last section become "last_paragraph".

    Source: release, codes/prior/data/pretrain/text_process.py, `section_text`.
    """
    kept = [
        section
        for section in split_report(report, mode="release")
        if section.name not in ("findings", "impression") or section.text.strip()
    ]
    texts = [section.text for section in kept]
    names = [section.name for section in kept]
    starts = [section.start for section in kept]
    if not {"findings", "impression"} & set(names) and _RELEASE_PARAGRAPH in texts[-1]:
        texts[-1], last = texts[-1].split(_RELEASE_PARAGRAPH, 1)
        texts.append(last)
        names.append(LAST_PARAGRAPH)
        starts.append(starts[-1] + len(texts[-2]))
    return texts, names, starts


def split_into_sections(report: str, study: str, *, mode: str = "paper") -> ReportText | None:
    """Returns the findings and impression of a report.

    Args:
      report: the whole text.
      study: the study's id, "s" and eight digits for MIMIC-CXR; other ids have no special cases.
        In release mode the caller passes what the release does, the id with one more "s".
      mode: "paper" or "release".

    Returns:
      None where the report has neither section.

    Source: release, codes/prior/data/pretrain/text_process.py, `split_into_sections`; MIMIC-CXR's
    parser for the special studies.
    """
    if _checked(mode) == "release":
        if is_excluded_study(study):
            return None
        texts, names, _ = section_text(report)
        found = dict(zip(names, texts, strict=True))  # of equal names the last one stays
        if not {"findings", "impression"} & found.keys():
            return None
        return ReportText(
            impression=found.get("impression", ""), findings=found.get("findings", "")
        )
    special = _special_findings(report, study)
    if special is not None:
        return ReportText(impression="", findings=special) if special.strip() else None
    sections = split_report(report, mode=mode)
    text = ReportText(
        impression=_joined(sections, "impression"), findings=_joined(sections, "findings")
    )
    if text.impression or text.findings:
        return text
    rest = _last_paragraphs(sections[-1])
    return ReportText(impression="", findings=rest) if rest.strip() else None


def _joined(sections: Sequence[Section], name: str) -> str:
    texts = [section.text for section in sections if section.name == name]
    return "\n\n".join(text for text in texts if not _DATE.fullmatch(text))


def _special_findings(report: str, study: str) -> str | None:
    """Returns the findings of a report treated by hand, or None for any other report."""
    number = _study_number(study)
    if number in tables.FINDINGS_AT:
        begin, end = tables.FINDINGS_AT[number]
        return report[begin:end]
    if number in tables.FINDINGS_UNDER:
        return _joined(split_report(report, mode="paper"), tables.FINDINGS_UNDER[number]) or None
    return None


def _last_paragraphs(section: Section) -> str:
    """Returns what follows the first paragraph of the last section, or a report without headers."""
    if section.name in (FULL_REPORT, PREAMBLE):
        title = _BOILERPLATE.match(section.text)
        return section.text[title.end() :] if title else section.text
    body = section.text.lstrip()
    blank = _BLANK_LINE.search(body)
    return body[blank.end() :] if blank else ""
