"""Sex and age in the cells of tables and in DICOM headers."""

from typing import Any

from data_prep.kit import values

OLDEST = 120.0
"""Largest age in years that is taken for one; NIH's table has ages such as 414."""


def sex_of(cell: Any, *, field: str) -> str:
    """Returns "F", "M", or "" for a missing or unknown sex.

    Raises:
      CellProblem: if the cell is any other word.
    """
    word = values.text_of(cell, field=field).casefold()
    known = {"f": "F", "female": "F", "m": "M", "male": "M"}
    if word in known or word in ("", "unknown", "u", "o", "other"):
        return known.get(word, "")
    said = str(cell).strip()
    raise values.CellProblem(f"column {field!r} holds {said!r}, which is none of F, M and blank")


def age_of(cell: Any, *, field: str) -> float | None:
    """Returns an age in years, None where it is missing or no age, such as 414.

    Args:
      cell: years, as 58 or "58", or with a unit as DICOM writes it: 058Y, 011M, 002W, 030D.
      field: name of the column, for the message.

    Raises:
      CellProblem: if the cell is no number.
    """
    if values.is_missing(cell):
        return None
    text = str(cell).strip().upper()
    units = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    unit = units.get(text[-1:], 0.0)
    try:
        years = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        said = str(cell).strip()
        raise values.CellProblem(f"column {field!r} holds {said!r}, which is no age") from None
    return years if 0 <= years <= OLDEST else None
