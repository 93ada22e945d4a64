"""Text processing of GLoRIA: splits a raw report into sentences of bare lower-case words.

There are two modes:

- "release": gloria/datasets/pretraining_dataset.py (create_path_2_sent_mapping) and
  gloria/models/gloria_model.py (process_text). Every number with a full stop counts as the number
  of a list item, so "3.5 cm" becomes "5 cm" in a separate sentence; one-word sentences are
  dropped, including "Normal."; letters outside ASCII are removed from words; "_" counts as a
  letter; a report ends early only if its number of words so far equals the limit exactly
  (quirks G32, G34, G35).
- "paper": decimals are not split, only numbers that begin a sentence, or a line where a list begins
  or goes on, count as numbers of list items, one-word sentences are kept, accents are removed from
  letters, and a report ends with the sentence that reaches the limit.

Training uses one of the sentences or all of them joined by blanks; inference uses all of them.
"""

import re
import unicodedata
from typing import Literal

from prior_jax.errors import ConfigError

MODES = ("paper", "release")

_RELEASE_BREAK = re.compile(r"[0-9]+\.|\.")
_RELEASE_WORD = re.compile(r"\w+")
_RELEASE_LEAST_WORDS = 2
_BROKEN_BYTES = "\ufffd\ufffd"

_LIST_NUMBER = re.compile(
    r"(?:^|(?<=[.:;!?\n]))[ \t]*(?P<number>\d{1,2})\.(?!\d)|\b\d{1,2}\.(?=[a-z])"
)
_SENTENCE_ENDS = tuple(".:;!?")
_BREAK = re.compile(r"(?<!\d)\.|\.(?!\d)|[!?]")
_WORD = re.compile(r"\d+(?:\.\d+)+|[a-z0-9]+")


def split_report(
    text: str, *, mode: Literal["paper", "release"], max_words: int | None = None
) -> list[str]:
    """Splits a report into sentences of words joined by single blanks.

    Args:
      text: raw report; lines may be wrapped.
      mode: mode of the processing, "paper" or "release", see the module.
      max_words: number of words after which a report ends with the current sentence, see the
        module; None for no limit, as at inference. The release intends 97 and passes 5.

    Returns:
      Sentences in order. In mode "paper" none is empty; in mode "release" a sentence of words
      without an ASCII letter is "".

    Raises:
      ConfigError: if the mode is unknown.
    """
    if mode not in MODES:
        raise ConfigError.of_value("mode", mode, " or ".join(map(repr, MODES)))
    split, ends = (_release, _is_equal) if mode == "release" else (_paper, _is_reached)
    sentences, count = [], 0
    for words in split(text):
        sentences.append(" ".join(words))
        count += len(words)
        if max_words is not None and ends(count, max_words):
            break
    return sentences


def begins_item(before: str, number: str) -> bool:
    """Tells whether a number at the beginning of a line is that of a list item.

    It is not in "between ribs 8 and" with "9. No effusion." below. It is if it is 1, if the number
    before it is that of an item as well, or if the line before is blank or ends a sentence.

    Args:
      before: text before the number.
      number: digits of the number, without the mark behind it.
    """
    text = before.rstrip()
    if int(number) == 1 or not text or text.endswith(_SENTENCE_ENDS):
        return True
    if before.count("\n", len(text)) > 1:
        return True
    return re.search(rf"(?<![\w.]){int(number) - 1}[.)](?!\d)", text) is not None


def _is_equal(count: int, limit: int) -> bool:
    return count == limit


def _is_reached(count: int, limit: int) -> bool:
    return count >= limit


def _release(text: str) -> list[list[str]]:
    found = []
    for part in _RELEASE_BREAK.split(text):
        words = _RELEASE_WORD.findall(part.replace(_BROKEN_BYTES, " ").lower())
        if len(words) >= _RELEASE_LEAST_WORDS:
            plain = (word.encode("ascii", "ignore").decode("ascii") for word in words)
            found.append([word for word in plain if word])
    return found


def _paper(text: str) -> list[list[str]]:
    plain = _LIST_NUMBER.sub(_without_number, _without_accents(text).lower())
    found = (_WORD.findall(part) for part in _BREAK.split(plain))
    return [words for words in found if words]


def _without_number(match: re.Match[str]) -> str:
    before, number = match.string[: match.start()], match["number"]
    return "." if number is None or begins_item(before, number) else match[0]


def _without_accents(text: str) -> str:
    """Removes accents from letters; other characters outside ASCII become blanks."""
    letters = unicodedata.normalize("NFKD", text)
    kept = (letter for letter in letters if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else " " for letter in kept)
