"""Turns the text of a report into the sentences of a record, for every preparer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from data_prep.kit import sections
from prior_jax.data import schema, sentences
from prior_jax.errors import ConfigError, InputProblem

# The order of sentences in a record: impression first, as in the release.
SECTION_CODES = {
    "impression": schema.SECTION_IMPRESSION,
    "findings": schema.SECTION_FINDINGS,
}


class TextProblem(InputProblem):
    """A report whose study cannot be kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings:
    """The settings for reading reports.

    Attributes:
      parser: "paper", or "release" for the authors' parser with its faults.
      splitter: name of a sentence splitter in `prior_jax.data.sentences.SPLITTERS`.
      sections: sections that are kept, "findings" and "impression" or one of them.
      min_sentences: least number of sentences of a report.
      free_text: whether text under no known header counts as findings, such as what stands before
        the first one. False for data sets whose reports have headers, such as MIMIC-CXR, in which
        an institution's own lines stand there.
    """

    parser: str
    splitter: str
    sections: Sequence[str] = ("findings", "impression")
    min_sentences: int
    free_text: bool

    def __post_init__(self):
        """Refuses invalid values; the error names the flag."""
        known = set(self.sections) <= set(SECTION_CODES)
        checks = {
            "parser": (self.parser in sections.MODES, " or ".join(sections.MODES)),
            "splitter": (self.splitter in sentences.SPLITTERS, " or ".join(sentences.SPLITTERS)),
            "sections": (bool(self.sections) and known, f"some of {sorted(SECTION_CODES)}"),
            "min_sentences": (self.min_sentences >= 0, "0 or more"),
        }
        for name, (valid, must_be) in checks.items():
            if not valid:
                raise ConfigError.of_value(f"--{name}", getattr(self, name), must_be)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyText:
    """The text of a study.

    Attributes:
      impression: raw text of the impression, "" if the section is not kept or not present.
      findings: raw text of the findings, "" if the section is not kept or not present.
      sentences: sentences of both sections, those of the impression first.
      codes: section of each sentence, schema.SECTION_*.
    """

    impression: str
    findings: str
    sentences: tuple[str, ...]
    codes: tuple[int, ...]

    def fields(self) -> dict[str, Any]:
        """Returns the fields of a `schema.Record` that hold the text."""
        return {
            "impression": self.impression,
            "findings": self.findings,
            "sentences": self.sentences,
            "sentence_sections": self.codes,
            "text_source": schema.TEXT_REPORT if self.sentences else schema.TEXT_NONE,
        }


def decoded_report(content: bytes, *, encoding: str) -> str:
    """Returns the text of a report's file, without byte-order mark and with Unix line ends.

    Raises:
      TextProblem: report_not_decodable or empty_report.
    """
    try:
        report = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextProblem("report_not_decodable", str(error)) from error
    if "\0" in report:
        detail = "the report holds NUL characters, as a report in UTF-16 or UTF-32 does"
        raise TextProblem("report_not_decodable", detail)
    report = report.removeprefix("\ufeff").replace("\r\n", "\n")
    if not report.strip():
        raise TextProblem("empty_report", f"the {len(content)} bytes of the report hold no text")
    return report


def study_text(report: str, *, study: str = "", settings: TextSettings) -> StudyText:
    """Finds the sections of a report and splits them into sentences.

    Args:
      report: whole text of the report.
      study: id of a study of MIMIC-CXR, "s" and eight digits, for which 54 reports have exceptions;
        "" for any other data set.
      settings: parser, splitter and sections for reading reports.

    Raises:
      TextProblem: no_section, or too_few_sentences.
    """
    # The release looks studies up with one "s" too many (quirk P37).
    name = f"s{study}" if settings.parser == "release" else study
    found = sections.split_into_sections(report, name, mode=settings.parser)
    if settings.free_text:
        if settings.parser == "paper" and not sections.is_excluded_study(name):
            found = sections.with_free_text(found, report)
        found = found or sections.ReportText(impression="", findings=report)
    return sections_text(
        impression=found.impression if found else "",
        findings=found.findings if found else "",
        settings=settings,
    )


def sections_text(*, impression: str, findings: str, settings: TextSettings) -> StudyText:
    """Splits sections that are already separate into sentences.

    Args:
      impression: text of the impression, "" for none.
      findings: text of the findings, "" for none.
      settings: parser, splitter and sections for reading reports.

    Raises:
      TextProblem: no_section, or too_few_sentences.
    """
    texts = {"impression": impression, "findings": findings}
    chosen = {name: texts[name] if name in settings.sections else "" for name in SECTION_CODES}
    if not any(text.strip() for text in chosen.values()):
        detail = f"the report has no text under {' or '.join(settings.sections)}"
        raise TextProblem("no_section", detail)
    splitter = sentences.SPLITTERS[settings.splitter]
    split = {name: splitter(text) for name, text in chosen.items()}
    count = sum(map(len, split.values()))
    if count < settings.min_sentences:
        detail = f"the report has {count} sentences, --min_sentences is {settings.min_sentences}"
        raise TextProblem("too_few_sentences", detail)
    return StudyText(
        **chosen,
        sentences=tuple(sentence for part in split.values() for sentence in part),
        codes=tuple(code for name, code in SECTION_CODES.items() for _ in split[name]),
    )
