"""Splits a radiology report into its sections, as the release does or as it should be done.

`mode="release"` repeats codes/prior/data/pretrain/text_process.py exactly. `mode="paper"`, the
default of every preparer, differs where the release loses or misplaces text:

* headers in any case, with digits, numbered, in bold, in brackets, after bullets and no-break
  spaces, misspelt, without a colon or in the middle of a line are found (`headers.py`);
* text after "END OF IMPRESSION", and lines such as "Dictated by:", belong to no section;
* a header that has a line to itself does not swallow the header below it;
* a sub-heading such as "ET TUBE:" or "RIBS:" remains a part of the section that contains it;
* sections that occur twice are joined; the release keeps only the last one;
* "NDICATION" is an indication, not an impression;
* a report without either section gives its last paragraphs, without a notification, recommendation
  or addendum after them; the release drops such a report;
* the 54 reports for which MIMIC-CXR's own parser has exceptions are treated by these exceptions;
  the list of the release never matches (it looks for "ss5..." instead of "s5...").

In both modes, headers and bodies together are the report, character for character.
"""

import dataclasses
import re
from collections.abc import Container, Sequence

from data_prep.kit import headers
from data_prep.kit import section_tables as tables
from data_prep.kit.values import is_prose
from prior_jax.errors import ConfigError

MODES = ("paper", "release")
FULL_REPORT = "full report"
LAST_PARAGRAPH = "last_paragraph"

_RELEASE_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_RELEASE_PARAGRAPH = "\n \n"

# White space, or a date after a title such as "CHEST 1 VIEW: 1/2/2003".
_DATE = re.compile(
    r"[\W\d_]*(?:(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec|january|february|march|april"
    r"|august|september|october|november|december|am|pm|at|hours|hrs)\b[\W\d_]*)*",
    re.IGNORECASE,
)
_BLANK_LINE = re.compile(r"(?:\r\n|[\n\v\u2028\u2029])[ \t]*(?:\r\n|[\n\v\u2028\u2029])")
# Sections that follow a description; they address the reader, and do not describe the patient.
_ENDS = frozenset(("notification", "recommendations", "addendum", headers.END))
# Sections that say why and how the patient was examined, and what else they are compared with.
_HISTORY = _ENDS | {"indication", "history", "comparison", "technique", "date"}
# Words of a title in capitals, such as "PORTABLE CHEST RADIOGRAPH" and "RADIOLOGY REPORT".
_TITLE = re.compile(
    "|".join((*tables.VIEW_PHRASES, "report", "radiolog", "radiograph", "x-?ray", "hospital")),
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(r"(?:FINAL REPORT|FINAL ADDENDUM|_{3,}|[ \t\r\n])+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report; the sections in order make up the report.

    Attributes:
      name: canonical name, or the header in lower case if it is not known.
      header: characters of the header before the body, "" for the first section.
      text: body with the spaces and line ends around it.
      start: index of the body's first character in the report.
    """

    name: str
    header: str
    text: str
    start: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportText:
    """The two sections that PRIOR reads.

    Attributes:
      impression: raw text, "" if the report has no impression.
      findings: raw text, "" if the report has no findings.
    """

    impression: str
    findings: str


def _checked(mode: str) -> str:
    if mode not in MODES:
        raise ConfigError.of_value("sections.mode", mode, " or ".join(MODES))
    return mode


def is_excluded_study(study: str) -> bool:
    """Tells whether MIMIC-CXR's own parser has an exception for a study.

    The release passes the id with a doubled "s", for which the answer is always no (quirk P37).

    Args:
      study: id of the study, "s" and eight digits.
    """
    number = _study_number(study)
    return number in tables.FINDINGS_UNDER or number in tables.FINDINGS_AT


def _study_number(study: str) -> int | None:
    match = re.fullmatch(r"s(\d{8})", study, re.ASCII)
    return int(match.group(1)) if match else None


def split_report(report: str, *, mode: str) -> tuple[Section, ...]:
    """Divides a report at its headers; empty sections are kept.

    Args:
      report: whole text of the report.
      mode: "paper" or "release".

    Returns:
      Sections in order. `"".join(s.header + s.text for s in sections) == report`.
    """
    heads = _release_heads(report) if _checked(mode) == "release" else headers.paper_heads(report)
    if not heads:
        return (Section(name=FULL_REPORT, header="", text=report, start=0),)
    sections = [Section(name=headers.PREAMBLE, header="", text=report[: heads[0][0]], start=0)]
    ends = [begin for begin, _, _ in heads[1:]] + [len(report)]
    for (begin, start, name), end in zip(heads, ends, strict=True):
        sections.append(
            Section(name=name, header=report[begin:start], text=report[start:end], start=start)
        )
    return tuple(sections)


def _release_heads(report: str) -> list[tuple[int, int, str]]:
    """Returns (start of header, start of body, name) of each header that the release finds."""
    heads = []
    match = _RELEASE_HEADER.search(report)
    while match:
        # The first separator ("\n ") belongs to the preamble, later ones to no section.
        begin = match.start() if heads else match.start(1)
        heads.append(
            (
                begin,
                match.end(),
                headers.normalized(match[1].lower().strip(), headers.RELEASE_NAMES),
            )
        )
        # The rest of the header's line, and a header on the next line, are not examined.
        newline = report.find("\n", match.end())
        match = _RELEASE_HEADER.search(report, max(newline, match.end()))
    return heads


def section_text(report: str) -> tuple[list[str], list[str], list[int]]:
    """Returns (texts, names, starts) of a report's sections exactly as the release does.

    Empty findings and impressions are left out. If neither is left, the paragraphs after the first
    paragraph of the last section become "last_paragraph".

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
      report: whole text of the report.
      study: id of the study, "s" and eight digits for MIMIC-CXR; other ids have no exceptions. In
        release mode, the caller passes the id with a second "s", as the release does.
      mode: "paper" or "release".

    Returns:
      The sections, or None if the report has neither.

    Source: release, codes/prior/data/pretrain/text_process.py, `split_into_sections`; MIMIC-CXR's
    parser for the special studies.
    """
    if _checked(mode) == "release":
        if is_excluded_study(study):
            return None
        texts, names, _ = section_text(report)
        found = dict(zip(names, texts, strict=True))  # the last of equal names is kept
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
    rest = _last_paragraphs(sections)
    return ReportText(impression="", findings=rest) if rest.strip() else None


def with_free_text(found: ReportText | None, report: str) -> ReportText | None:
    """Adds text under no known header to the findings, for free texts.

    Before the first header of a report of MIMIC-CXR stand an institution's own lines, and
    `split_into_sections` leaves them out. In a free text it is the description: "The heart is
    enlarged. IMPRESSION: Heart failure." Titles in capitals, dates and lines of marks are left out
    here too. Where there are no findings, prose under headers that are not known is kept with its
    header: "LUNGS: Clear.", "HALLAZGOS: ...". If nothing else is left, so is prose under headers
    such as "WET READ:" and "EXAM:", but never the history.

    Args:
      found: sections of the report, from `split_into_sections` in mode "paper".
      report: whole text of the report.

    Returns:
      The sections, both "" if the report holds nothing but its history, or None if `found` is None
      and the report has no header of its history either: then its whole text is the description.
    """
    first, *others = split_report(report, mode="paper")
    if first.name != headers.PREAMBLE:
        return found
    capitals = report.upper() != report  # titles are known by them only if the rest has others
    lines = first.text.splitlines()
    text = "\n".join(line for line in lines if not _is_title(line, capitals=capitals)).strip()
    parts = [] if _DATE.fullmatch(text) else [text]
    if not _joined(others, "findings"):
        parts += _prose(others, without=headers.PAPER_NAMES.values())
    parts = list(filter(None, parts))
    if found is None:
        parts = parts or _prose(others, without=_HISTORY)
        if not parts and not any(one.name in _HISTORY for one in others):
            return None
        found = ReportText(impression="", findings="")
    own = found.findings.strip()
    if not parts:
        return found
    if own and not any(own in part for part in (first.text, *parts)):
        parts.append(own)
    return dataclasses.replace(found, findings="\n\n".join(parts))


def _is_title(line: str, *, capitals: bool) -> bool:
    """Tells whether a line is a title in capitals, a date or marks, and no sentence.

    Args:
      line: line of a report.
      capitals: whether the report has small letters, so that capitals stand out.
    """
    line = line.strip()
    if not line:
        return False
    if not any(map(str.isalpha, line)) or _BOILERPLATE.fullmatch(line.upper()):
        return True
    written = capitals and line == line.upper() and line[-1] not in ".!?;,"
    return written and bool(_TITLE.search(line))


def _prose(sections: Sequence[Section], *, without: Container[str]) -> list[str]:
    """Returns the sections that hold sentences, with their headers, without those of some names."""
    texts = [(one.header + one.text).strip() for one in sections if one.name not in without]
    return list(filter(is_prose, texts))


def _joined(sections: Sequence[Section], name: str) -> str:
    texts = [section.text for section in sections if section.name == name]
    return "\n\n".join(text for text in texts if not _DATE.fullmatch(text))


def _special_findings(report: str, study: str) -> str | None:
    """Returns the findings of a report with an exception, or None for any other report."""
    number = _study_number(study)
    if number in tables.FINDINGS_AT:
        begin, end = tables.FINDINGS_AT[number]
        return report[begin:end]
    if number in tables.FINDINGS_UNDER:
        return _joined(split_report(report, mode="paper"), tables.FINDINGS_UNDER[number]) or None
    return None


def _last_paragraphs(sections: Sequence[Section]) -> str:
    """Returns the paragraphs after the first of the last section that has more than one.

    Notifications, recommendations, addenda and the text after the impression's end are skipped. A
    report without other headers is returned whole, without its title.
    """
    rest = [section for section in sections if section.name not in _ENDS]
    if len(rest) == 1 and rest[0].name in (FULL_REPORT, headers.PREAMBLE):
        title = _BOILERPLATE.match(rest[0].text)
        return rest[0].text[title.end() :] if title else rest[0].text
    for section in reversed(rest):
        body = section.text.lstrip()
        blank = _BLANK_LINE.search(body)
        if section.name != headers.PREAMBLE and blank and body[blank.end() :].strip():
            return body[blank.end() :]
    return ""
