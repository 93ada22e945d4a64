"""Splits the text of a report section into sentences without losing a character of it.

pysbd does the splitting (F1 .90 on radiology reports), and its known errors are corrected (.98):
pieces after "3 cm.", "approx.", "Dr." or the "1." of an enumeration are joined again, de-identified
names ("___", "XXXX") count as words, and a missing blank after a full stop is recognised. The
release uses stanza's neural tokenizer (codes/prior/data/pretrain/text_process.py), whose weights
need a download and which is about a hundred times slower.

The cost of pysbd grows faster than the text, so a paragraph is first cut where any splitter would
cut (a full stop after a plain word, then a capitalised word), unless brackets, quotes or an
enumeration make the context relevant. Most pieces are then single plain sentences, for which pysbd
is not called.
"""

import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

from prior_jax.data import gloria_text
from prior_jax.data.quiet import without_warnings

_BULLETS = "-*\u2022\u2013\u2014\u00b7\u25aa\u25cf\u2023"
_PARAGRAPH = re.compile(r"\r?\n(?:[ \t]*\r?\n)+")
# The blank behind the number may be missing before a letter, as in "2.SMALL EFFUSION".
_ENUMERATED_LINE = re.compile(
    r"\r?\n(?=[ \t]*(?:(?P<number>\d{1,2})[.)](?=[ \t]|[^\W\d_])"
    rf"|[{_BULLETS}][ \t]))"
)
_SPACE = re.compile(r"\s+")

# Words of four letters or more that end with a full stop without ending a sentence.
_LONG_ABBREVIATIONS = frozenset(
    "approx prev resp inferolat posterolat anterolat diam measur dept univ prof capt corp "
    "assoc asst admin supt gen govt natl intl".split()
)
# A full stop after these belongs to the word, even if a capital follows.
_TITLES = frozenset("dr drs mr mrs ms prof st vs".split())
# A full stop after these ends the sentence only if a capital follows, as in "Effusion: No. Edema:
# Yes."; a number is theirs, as in "rib no. 5. Ok."
_BEFORE_NUMBERS = frozenset("no nos fig figs".split())
# The same, but in capitals they are the subject: "PT. IS ROTATED."
_PATIENTS = frozenset("pt pts".split())
# A full stop after these ends the sentence only if a capital follows, and in capitals if no word
# follows that goes on with a measure.
_MEASURES = frozenset(
    "cm mm m ml cc kg g mg in ft approx ca wk wks hr hrs yr yrs mo mos min mins sec secs "
    "resp incl excl ext int inf sup ant post lat med prev bilat diam temp e.g i.e a.m p.m".split()
)
_MEASURED = re.compile(
    r"(?:ABOVE|BELOW|BEYOND|FROM|INTO|WITHIN|WITH|AND|OR|BY|OF|TO"
    r"|(?:PROXIMAL|DISTAL|SUPERIOR|INFERIOR|LATERAL|MEDIAL|CEPHALAD|CAUDAD|DEEP) TO"
    r"|IN (?:DIAMETER|LENGTH|SIZE|THICKNESS|WIDTH))\b"
)

_SAFE_END = re.compile(r"(?<=[a-z]{4})\.\s+(?=[A-Z][a-z]+[ ,])")
_CONTEXT = re.compile(r"[\"'“”‘’()\[\]{}:;!?•\t]|\d[.)]|[.]{2}|[^\x00-\x7f]")
_INNER_STOP = re.compile(r"[.!?:;](?=.)", re.DOTALL)
_MISSING_BLANK = re.compile(
    r"(?<=[a-z]{3}\.)(?=[A-Z][a-z]+[ ,])|(?<=[A-Z]{3}\.)(?=[A-Z]{2,}[ ,])"
    r"|(?<=[A-Za-z]{3}\.)(?=\d{1,2}\.[A-Z])"
)
_LAST_WORD = re.compile(r"(?:^|[\s(\[/])([A-Za-z](?:[A-Za-z.]*[A-Za-z])?)\.$")
_ENUMERATOR = re.compile(rf"(?:\(?\d{{1,2}}[.)]|[A-Za-z][.)]|[{_BULLETS}])$")
_NEXT_ITEM = re.compile(r"\d{1,2}[.)](?=[ \t]|[^\W\d_])")
_BROKEN_DECIMAL = re.compile(r"\w .*\b\d{1,2}\.$", re.DOTALL), re.compile(r"\d{1,2} ?(?:cm|mm|%)")
_DEIDENTIFIED = re.compile(r"_{3,}|X{3,}")

CACHE_SIZE = 65_536
GLORIA_WORDS = 97  # GLoRIA's release, word_num in its configs: the limit of its text encoder


def split_sentences(text: str) -> list[str]:
    """Splits a section's text into sentences.

    Args:
      text: raw text of the section, including wrapped lines and blank lines.

    Returns:
      Sentences in order, stripped, with runs of white space collapsed to a blank, none empty.
      Without white space, their concatenation equals the text.
    """
    sentences = []
    for paragraph in _PARAGRAPH.split(text):
        for item in _cut(paragraph, _items(paragraph)):
            line = _SPACE.sub(" ", item).strip()
            if line:
                sentences.extend(_joined(_pieces(line)))
    return sentences


def _items(paragraph: str) -> list[int]:
    """Returns the ends of lines behind which an item of a list begins."""
    return [
        match.start()
        for match in _ENUMERATED_LINE.finditer(paragraph)
        if match["number"] is None
        or gloria_text.begins_item(paragraph[: match.start()], match["number"])
    ]


def _pieces(line: str) -> list[str]:
    """Cuts a line at every possible sentence end; pieces keep the blanks after them."""
    pieces = []
    for part in _cut(line, [match.start() for match in _MISSING_BLANK.finditer(line)]):
        for chunk in _cut(part, _safe_ends(part)):
            pieces.extend(_segment(chunk))
    return pieces


def _cut(text: str, positions: list[int]) -> list[str]:
    bounds = [0, *positions, len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(bounds) if end > begin]


def _safe_ends(text: str) -> list[int]:
    """Returns positions where pysbd always cuts, whatever the surrounding text."""
    if _CONTEXT.search(text):
        return []
    return [
        match.end()
        for match in _SAFE_END.finditer(text)
        if text[: match.start()].rsplit(" ", 1)[-1].lower() not in _LONG_ABBREVIATIONS
    ]


def _needs_pysbd(text: str) -> bool:
    return _INNER_STOP.search(text.rstrip()) is not None


@functools.lru_cache(maxsize=1)
def _segmenter() -> Any:
    # The source of pysbd has escapes that Python 3.12 warns of when it first compiles them.
    with without_warnings():
        import pysbd
    return pysbd.Segmenter(language="en", clean=False)


@functools.lru_cache(maxsize=CACHE_SIZE)
def _segment(text: str) -> tuple[str, ...]:
    """Cuts a text as pysbd does; the concatenated pieces are the text.

    pysbd may lose or repeat characters of unusual input. Only the number of characters in its
    pieces is used, and only if the concatenated pieces are the text; otherwise the text stays
    whole.
    """
    if not _needs_pysbd(text):
        return (text,)
    # Capitalised stand-ins of the same length, which pysbd treats as names.
    masked = _DEIDENTIFIED.sub(lambda match: "N" + "a" * (len(match[0]) - 1), text)
    pieces = _segmenter().processor(masked).process()
    counts = [len(_SPACE.sub("", piece)) for piece in pieces]
    if _SPACE.sub("", "".join(pieces)) != _SPACE.sub("", masked):
        return (text,)
    positions, begin = [], -1
    characters = iter(match.start() for match in re.finditer(r"\S", text))
    for count in counts[:-1]:
        for _ in range(count):
            begin = next(characters)
        positions.append(begin + 1)
    return tuple(_cut(text, positions))


def _joined(pieces: list[str]) -> list[str]:
    """Joins pieces that were cut at a full stop that does not end a sentence."""
    sentences: list[str] = []
    for piece in pieces:
        if sentences and _continues(sentences[-1], piece):
            sentences[-1] += piece
        else:
            sentences.append(piece)
    return [stripped for sentence in sentences if (stripped := sentence.strip())]


def _continues(before: str, after: str) -> bool:
    """Returns whether `after` continues the sentence that `before` begins."""
    start = after.lstrip()
    end = before.strip()
    if not start or not end:
        return True
    if _ENUMERATOR.fullmatch(end) or not any(character.isalnum() for character in start):
        return True
    whole, fraction = _BROKEN_DECIMAL
    if whole.search(end) and fraction.match(start):
        return True
    word = _LAST_WORD.search(end)
    if word is None:
        return False
    name = word[1].lower()
    if name in _TITLES or (name in _PATIENTS and word[1].isupper()):
        return True
    if name in _MEASURES and _NEXT_ITEM.match(start):
        return False
    if name not in _MEASURES | _BEFORE_NUMBERS | _PATIENTS:
        return False
    return not start[0].isupper() or bool(word[1].isupper() and _MEASURED.match(start))


# Functions that split a section into sentences, by name; both of GLoRIA's return bare words.
SPLITTERS: dict[str, Callable[[str], list[str]]] = {
    "pysbd": split_sentences,
    "gloria_paper": functools.partial(
        gloria_text.split_report, mode="paper", max_words=GLORIA_WORDS
    ),
    # The release's limit is 5, by mistake, and ends only a report that reaches it exactly.
    "gloria_release": functools.partial(gloria_text.split_report, mode="release", max_words=5),
    # Its process_text (gloria/models/gloria_model.py), which reads what a loaded model is given.
    "gloria_inference": functools.partial(gloria_text.split_report, mode="release"),
}
SPLITTER_HELP = (
    "How sections become sentences: pysbd, or gloria_paper or gloria_release for GLoRIA's bare "
    "lower-case words, put right or as its code makes them for training (gloria_inference: as it "
    "makes them for a trained model, without a limit)."
)
