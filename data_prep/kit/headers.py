"""Finds the headers of a radiology report, such as "FINDINGS:", which begin its sections.

The same words also occur in ordinary sentences: "the impression is" and "in summary" are no
headers. So a header has to stand at the beginning of a line. Only the few headers of reports that
are written onto one line are also found in the middle of it.
"""

import re

from data_prep.kit import section_tables as tables

PREAMBLE = "preamble"
END = "end of impression"

_CANONICAL = {name: key for key, names in tables.HEADERS.items() for name in names}
RELEASE_NAMES = {**_CANONICAL, tables.TRUNCATED_INDICATION: "impression"}
PAPER_NAMES = {
    **_CANONICAL,
    **{name: key for key, names in tables.EXTRA_HEADERS.items() for name in names},
}
_LOWER_CASE_HEADERS = frozenset(
    ("findings", "impression", "conclusion", "indication", "comparison", "technique", "examination")
)
_DESCRIPTIONS = ("findings", "impression")
_VIEW = re.compile("|".join(tables.VIEW_PHRASES))
# The title of a study has only these words, and not only those that name a part of the chest.
_PARTS = frozenset("chest ribs right left lateral upright of the and with".split())
_TITLE_WORDS = _PARTS | frozenset(
    "portable pa ap lat frontal semi erect supine one two single v view views xr x ray film films"
    " radiograph radiographs radiographic exam examination".split()
)
_IMPRESSION = re.compile(tables.IMPRESSION_PHRASE)
# "SUMMARY: 2-ABNORMAL", a code for the whole report, as CheXpert Plus has it.
_CODE = re.compile(r"[ \t]*\d+[ \t]*-[ \t]*[A-Z]")

# Blanks that are not ASCII, and line ends of other systems; one character each: places stay.
_MARKS = {
    **dict.fromkeys(
        map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
            "\u200b\u202f\u205f\u3000\ufeff"),
        " ",
    ),
    **dict.fromkeys(map(ord, "\v\u0085\u2028\u2029"), "\n"),
}  # fmt: skip
# Repetitions are possessive, so that a line of 10,000 spaces is not tried in every division. Those
# of groups are not: Python before 3.11.5 goes on behind a repetition that fails half-way.
_TAG = r"</?(?:b|i|u|p|em|strong|div|font|span|h[1-6])[ \t]*+>"
_BEGIN = (
    r"(?:\A|(?<=[\n\r\f]))[ \t]*+"
    r"(?P<bullet>[-\u2013\u2014=\u2022\u00b7\u25aa\u25cf\u2023>]*+)[ \t]*+"
    r"(?P<mark>(?:\d{1,2}[.)][ \t]*+)?[*_#]{0,3}+[ \t]*+)"
    rf"(?:{_TAG}[ \t]*+)*(?P<open>[\[(][ \t]*+)?"
)
_CLOSE = rf"(?(open)[ \t]*+[\])])[*_]{{0,3}}+(?:[ \t]*+{_TAG})*"
# Marks directly after a header, and a line of marks below it.
_RULE = (
    r"(?:[-\u2013\u2014=~]++(?=\s|\Z|[A-Za-z]))?"
    r"(?:[ \t]*+(?:\r\n|\n|\r)[ \t]*+[-\u2013\u2014\u2500=~]{3,}+(?=\s|\Z))?"
)
_LINE_HEADER = re.compile(
    rf"{_BEGIN}(?P<name>[A-Za-z][A-Za-z0-9 \t()/,.&#'-]{{0,79}}?){_CLOSE}[ \t]*+[*_]{{0,3}}+[ \t]*+"
    rf"[:\uff1a][*_]{{0,3}}+(?:[ \t]*+{_TAG})*{_RULE}"
)
_LINE_END = r"[ \t]*+(?=[\r\n\f]|\Z)"
_BARE_HEADER = re.compile(
    rf"{_BEGIN}"
    r"(?P<name>FINDINGS|IMPRESSIONS?|CONCLUSIONS?|INDICATION|TECHNIQUE|COMPARISON|EXAMINATION"
    r"|HISTORY|RECOMMENDATIONS?|NOTIFICATION|ADDENDUM|END OF IMPRESSION"
    rf"|Findings|Impression|Conclusion|Indication|Technique|Comparison)\b{_CLOSE}"
    rf"(?:[ \t]*+[-\u2013\u2014=~>]*+{_LINE_END}{_RULE}"
    r"|(?:[ \t]++-|[ \t]*+[\u2013\u2014]|-)[-\u2013\u2014]*+[ \t]+|[ \t]*+=++>?(?=[ \t]|[A-Za-z])"
    rf"|(?P<stop>[ \t]*+[.;>](?:{_LINE_END}|[ \t]++)|[ \t]++(?=[A-Z][a-z]|\d[.)]))"
    r"|(?<=\])[ \t]*+)"
)
_INLINE_NAMES = (
    "Findings/Impression", "Findings and Impression", "End of Impression", "Findings", "Impression",
    "Conclusion", "Clinical Indication", "Indication", "Technique", "Comparison", "Examination",
    "Clinical History", "Clinical Information", "Patient History", "History",
    "Reason for Examination", "Reason for Exam", "Recommendations", "Recommendation",
    "Notification",
)  # fmt: skip
_INLINE_LOWER = frozenset(map(str.lower, _INLINE_NAMES))
_INLINE_HEADER = re.compile(
    r"(?:(?<=[.!?)_])[ \t]*|(?<=[^\s])[ \t]+)[*_]{0,3}(?P<name>"
    + "|".join(f"{name.upper()}|{name}" for name in _INLINE_NAMES)
    + rf")[*_]{{0,3}}[ \t]*[:\uff1a][*_]{{0,3}}{_RULE}"
)
# "No acute findings: ..." is prose, in whatever case.
_QUALIFIED = re.compile(
    r"\b(?:acute|additional|other|incidental|significant|abnormal|radiographic|clinical|imaging|key"
    r"|associated|cardiopulmonary|these|following|above|no|of|and|the|with|my|our|in)[ \t]*\Z",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"[\t ]+")
_SPACED = re.compile(r"(?:[A-Z] )+[A-Z]")


def normalized(name: str, table: dict[str, str]) -> str:
    """Returns the canonical name of a header in lower case, or the header if it is not known."""
    if name in table:
        return table[name]
    for word in tables.MAIN_WORDS:
        if word in name:
            return word
    return "findings" if _VIEW.search(name) else name


def paper_heads(report: str) -> list[tuple[int, int, str]]:
    """Returns (start of header, start of body, name) of each header that opens a section."""
    report = report.translate(_MARKS)
    candidates = [
        (match.start("name"), rank, match)
        for rank, matches in enumerate(
            (
                _LINE_HEADER.finditer(report),
                _BARE_HEADER.finditer(report),
                _inline_matches(report),
            )
        )
        for match in matches
    ]
    heads = []
    current, end, described = PREAMBLE, 0, False
    for _, _, match in sorted(candidates, key=lambda found: found[:2]):
        if match.start() < end:
            continue  # another match of the previous header
        name = _opened_by(match, report, current=current, described=described)
        if name is not None:
            heads.append((match.start(), match.end(), name))
            current, end = name, match.end()
            described |= name == "findings"
    return heads


def _inline_matches(report: str) -> list[re.Match[str]]:
    """Returns the headers in the middle of lines.

    Capitals are a header anywhere. A word in mixed case could be part of a sentence: "Findings:" or
    "Impression:" is a header only if no line of the report begins with it, and other words are
    headers only if one of these two is. A wrapped line such as "no effusion. Impression:" does not
    begin with it.
    """
    at_line_starts = {
        _named(_BLANKS.sub(" ", match["name"]).strip())
        for pattern in (_LINE_HEADER, _BARE_HEADER)
        for match in pattern.finditer(report)
    }
    capitals, descriptions, others = [], [], []
    for match in _INLINE_HEADER.finditer(report):
        if _QUALIFIED.search(report, max(match.start() - 20, 0), match.start()):
            continue
        name = PAPER_NAMES[match["name"].lower()]
        if match["name"].isupper() or name == END:
            capitals.append(match)
        elif name not in _DESCRIPTIONS:
            others.append(match)
        elif name not in at_line_starts:
            descriptions.append(match)
    return capitals + descriptions + (others if descriptions else [])


def _opened_by(match: re.Match[str], report: str, *, current: str, described: bool) -> str | None:
    """Returns the section that a candidate opens, or None if it is prose.

    Args:
      match: match of one of the three patterns.
      report: whole text of the report.
      current: section that contains the candidate.
      described: whether findings precede the candidate.
    """
    written = _BLANKS.sub(" ", match["name"]).strip()
    written = written.replace(" ", "") if _SPACED.fullmatch(written) else written
    groups = match.groupdict()
    bullet, mark = groups.get("bullet") or "", (groups.get("mark") or "").strip()
    if groups.get("stop") is not None and not (
        written.isupper() and _begins_sentence(report, match.start())
    ):
        return None  # a line of wrapped prose that begins with "FINDINGS."
    if written.lower() in tables.SUMMARIES:
        name = _summary(written, report[match.end() :], current=current, described=described)
        return None if bullet or any(map(str.isdigit, mark)) else name
    name = _section(written, current=current, followed=report[match.end() : match.end() + 1])
    if (mark or bullet) and name not in PAPER_NAMES.values():
        return None  # a numbered or bold line of a list
    if bullet and not (written.isupper() or name in _DESCRIPTIONS):
        return None
    return name


def _named(written: str) -> str | None:
    """Returns the section whose header a phrase is as a whole, or None if it is none."""
    name = written.lower()
    # A wrapped line of prose may begin with "study:", but hardly ever with "impression:".
    if written[0].islower() and not written[1:].isupper():
        return PAPER_NAMES[name] if name in _LOWER_CASE_HEADERS else None
    if _IMPRESSION.fullmatch(name) or _nearly(name, "impression"):
        return "impression"
    return PAPER_NAMES.get(name)


def _section(written: str, *, current: str, followed: str) -> str | None:
    """Returns the section that a phrase like a header opens, or None if it opens no section."""
    named = _named(written)
    if named or written != written.upper() or (followed and not followed.isspace()):
        return named  # "The chest:", "12:30" and the like are prose
    name = written.lower()
    if name.rpartition(". ")[2] in _INLINE_LOWER:
        return None  # "NO EFFUSION. IMPRESSION:" is the end of a sentence and an inline header
    known = normalized(name, PAPER_NAMES)
    # A sub-heading ("ET TUBE", "RIBS") belongs to the description that contains it.
    if current in _DESCRIPTIONS and (known == name or not _is_title(name)):
        return None
    return known


def _is_title(name: str) -> bool:
    """Tells whether a header within a description begins another one.

    "lung findings", "portable chest" and "chest, 1 view" do; "ribs" and "right chest tube" name the
    part that the text behind them is about.
    """
    words = set(re.findall("[a-z]+", name))
    titled = words <= _TITLE_WORDS and not words <= _PARTS
    return titled or any(word in name for word in tables.MAIN_WORDS)


def _summary(written: str, rest: str, *, current: str, described: bool) -> str | None:
    """Returns the section that "SUMMARY:" and the like open: after findings, the impression."""
    if current == END or written[0].islower():
        return None
    if _CODE.match(rest):
        return END
    if described:
        return "impression"
    if written.lower() == "interpretation":
        return "findings"
    return written.lower() if written.isupper() and current not in _DESCRIPTIONS else None


def _begins_sentence(report: str, place: int) -> bool:
    """Tells whether a line begins a sentence: after the end of another, or after a blank line."""
    before = report[:place].rstrip()
    gap = report[len(before) : place].replace("\r\n", "\n")
    return not before or before[-1] in ".!?:;)]_" or sum(map(gap.count, "\n\r\f")) > 1


def _nearly(word: str, target: str) -> bool:
    """Tells whether a word has one letter more, less or different, or two letters swapped."""
    same = next((i for i, (a, b) in enumerate(zip(word, target)) if a != b), len(target))  # noqa: B905
    left, right = word[same:], target[same:]
    swapped = left[:2] == right[:2][::-1] and left[2:] == right[2:]
    return swapped or left[1:] == right[1:] or left[1:] == right or left == right[1:]
