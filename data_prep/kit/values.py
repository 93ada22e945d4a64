"""Interprets the cells of tables: missing values, texts, ids and labels.

Every preparer reads its cells with these functions, so that a blank cell, a `null` and the NaN
that a data frame writes mean the same in every field of every format.
"""

import math
import numbers
import unicodedata
from collections.abc import Mapping
from typing import Any

from data_prep.kit import spreadsheets
from prior_jax.data.schema import (
    LABEL_NEGATIVE,
    LABEL_NOT_MENTIONED,
    LABEL_POSITIVE,
    LABEL_UNCERTAIN,
)

# Words that programs write for a missing value, in lower case. A blank cell is missing as well.
MISSING_WORDS = frozenset(
    ("", "nan", "-nan", "nat", "none", "null", "<na>", "na", "n/a", "#n/a", "#na", "(null)", "\\n",
     "#n/a n/a", "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind")
)  # fmt: skip

# Values of a label's cell; a blank cell means that the label is not mentioned.
_SAID = (LABEL_POSITIVE, LABEL_NEGATIVE, LABEL_UNCERTAIN)
_TRUTH = {"true": 1, "false": 0}


class CellProblem(Exception):
    """A cell with a value that its field does not accept; `detail` describes the problem."""

    def __init__(self, detail: str):
        """Takes the detail."""
        super().__init__(detail)
        self.detail = detail


def is_missing(value: Any) -> bool:
    """Tells whether a value is missing: None, NaN, NaT, blank, or a word for it in any case."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in MISSING_WORDS


def text_of(value: Any, *, field: str) -> str:
    """Returns a text without surrounding spaces, "" if the text is missing.

    Args:
      value: cell; a text or a missing value.
      field: name of the column, for the message.

    Raises:
      CellProblem: if the value is a number, a list or any other value that is no text, or a
        spreadsheet's substitute for a value, such as #NAME?.
    """
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise CellProblem(f"column {field!r} holds {_kind(value)} where a text is expected")
    _refuse_error(value, field=field)
    return value.strip()


def id_of(value: Any, *, field: str) -> str:
    """Returns an id as text, "" if the id is missing.

    Surrounding spaces and invisible characters are removed. Whole numbers lose the ".0" that a data
    frame adds to a column with gaps, so that 10000032, 10000032.0 and "10000032,0" are one id.
    Leading zeros are kept, also those in a formula: ="00123" is 00123.

    Args:
      value: cell; a text, a whole number or a missing value.
      field: name of the column, for the message.

    Raises:
      CellProblem: if the value is a fraction, a truth value, a list or any other value that is no
        id, a number with a mark between its thousands, a number too large to be exact, or a
        spreadsheet's substitute for a value, such as ########.
    """
    if is_missing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise CellProblem(f"column {field!r} holds {_kind(value)} where an id is expected")
    if isinstance(value, float):
        if not value.is_integer() or abs(value) >= 2**53:
            raise CellProblem(f"column {field!r} holds {value!r}, which is not an exact id")
        return str(int(value))
    text = spreadsheets.plain_id(str(value))
    if is_missing(text):
        return ""
    _refuse_error(text, field=field)
    if spreadsheets.is_grouped(text):
        raise CellProblem(
            f"column {field!r} holds {text!r}, a number with a mark between its thousands; write "
            "its digits without marks"
        )
    return text


def comparable_id(text: str) -> str:
    """Returns a form of a patient's id that is equal for different spellings of the id.

    Letters lose their case and width, spaces are removed, and numbers lose their leading zeros, so
    that "P 1" equals "p1" and 00123 equals 123. A patient in two splits is thus found even if the
    spellings differ. Records keep the id as written.
    """
    plain = unicodedata.normalize("NFKC", spreadsheets.plain_id(text)).casefold()
    plain = "".join(plain.split())
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain


def label_of(value: Any, *, field: str) -> int:
    """Returns one of `schema.LABEL_VALUES`.

    Args:
      value: 1, 0, or -1 for uncertain, as a number or as text ("1.0"), a truth value, or a missing
        value for a label that is not mentioned.
      field: name of the label, for the message.

    Raises:
      CellProblem: if the value is any other.
    """
    if is_missing(value):
        return LABEL_NOT_MENTIONED
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUTH:
            return _TRUTH[word]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if number not in _SAID:
        raise CellProblem(
            f"label {field!r} is {str(value)[:80]!r}, which is not 1, 0, -1, True, False or blank"
        )
    return int(number)


def number_of(value: Any) -> float:
    """Returns a finite number, or NaN for anything else.

    Args:
      value: cell; a number, or a text in ASCII with a decimal point. What Python alone reads as a
        number, such as "1_000", and truth values are none.
    """
    if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
        return math.nan
    if isinstance(value, str) and not (value.isascii() and "_" not in value):
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def is_prose(text: str) -> bool:
    """Tells whether a text looks like a sentence rather than like the name of a label."""
    words = text.split()
    return len(words) > 7 or (len(words) > 1 and text.rstrip()[-1:] in (".", "!", "?"))


def without_nan(value: Any) -> Any:
    """Returns a JSON value with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [without_nan(entry) for entry in value]
    if isinstance(value, dict):
        return {name: without_nan(entry) for name, entry in value.items()}
    return value


def simplified(name: str) -> str:
    """Returns the letters and digits of a column's name in lower case."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _refuse_error(text: str, *, field: str) -> None:
    if spreadsheets.is_error(text):
        raise CellProblem(
            f"column {field!r} holds {text.strip()[:40]!r}, which a spreadsheet shows instead of a "
            "value; save the table again from the original values"
        )


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return "a truth value"
    return f"the number {value!r}" if isinstance(value, int | float) else type(value).__name__
