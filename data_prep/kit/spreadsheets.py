"""Detects changes by spreadsheets: rounded or grouped numbers, errors, text kept by a formula."""

import re
import unicodedata

# Zero-width characters and byte-order marks, which no viewer shows.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
# Text in a formula, which keeps a spreadsheet from reading it as a number.
_FORMULA = re.compile(r'="([^"]*)"')
# A whole number that a data frame or a spreadsheet has written as a decimal number.
_WHOLE_DECIMAL = re.compile(r"(\d+)[.,]0+")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:(?:,\d{2,3})*,\d{3}(?:\.\d+)?|\.000)")
_ERROR = re.compile(
    r"#{3,}|#(?:name\?|(?:ref|value|div/0|num|null|spill|calc|field|blocked|connect|unknown|busy)!"
    r"|getting_data)|err:\d+",
    re.IGNORECASE,
)
_SCIENTIFIC = re.compile(r"\d+(?:[.,]\d*)?[eE][+-]?\d+")
_MANTISSA_OR_SIGN = re.compile(r"[.,+]")


def plain_id(text: str) -> str:
    """Returns an id without spaces, invisible marks, enclosing formula and the ".0" of a number.

    Args:
      text: id as written: ' 00123 ', '="00123"', '10000032.0' or '10000032,0'.
    """
    text = unicodedata.normalize("NFC", text).translate(_INVISIBLE).strip()
    formula = _FORMULA.fullmatch(text)
    text = formula[1].strip() if formula else text
    whole = None if _GROUPED.fullmatch(text) else _WHOLE_DECIMAL.fullmatch(text)
    return whole[1] if whole else text


def is_grouped(text: str) -> bool:
    """Tells whether a number's digits are grouped, as in 10,000,032; 10.000 may be 10 or 10000."""
    return _GROUPED.fullmatch(text) is not None


def is_error(text: str) -> bool:
    """Tells whether a text is a spreadsheet's substitute for a value: #NAME?, ########, #REF!."""
    return _ERROR.fullmatch(text.strip()) is not None


def is_scientific(text: str) -> bool:
    """Tells whether a text could be in scientific notation: 1.00E+07, 1,23457E+11, 12e5."""
    return _SCIENTIFIC.fullmatch(text) is not None


def is_rounded(text: str) -> bool:
    """Tells whether a text is in scientific notation, unlike an id such as 12e5 that looks like it.

    Spreadsheets write a fraction or the exponent's sign, data frames the sign.
    """
    return is_scientific(text) and _MANTISSA_OR_SIGN.search(text) is not None
