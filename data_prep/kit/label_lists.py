"""Reads cells that hold several labels: a list of positive ones, or a mapping to 1, 0, -1.

`labels_in` reads a cell. `found_separators` finds the mark of a column whose cells are not all
written in the same way, and `study_labels` merges the labels of the rows of a study.
"""

import ast
import io
import json
import tokenize
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.kit import spreadsheets, values
from data_prep.kit.plan import RowProblem
from data_prep.kit.tables import TableRow
from prior_jax.data.schema import LABEL_NEGATIVE, LABEL_NOT_MENTIONED, LABEL_POSITIVE

SEPARATORS = ("|", ";", ",")
_TRUTHS = frozenset(("true", "false", "yes", "no"))


def found_separators(rows: Iterable[TableRow], columns: Sequence[str]) -> dict[str, str]:
    """Returns column -> separators that occur in its cells, the one to split at first.

    One separator applies to a whole column: a cell "Effusion, pleural" is one name if another cell
    of the column is "Effusion, pleural|Edema".

    Args:
      rows: all rows of the table.
      columns: columns that may hold lists.
    """
    found: dict[str, set[str]] = {name: set() for name in columns}
    for row in rows:
        for name, marks in found.items():
            cell = row.cells.get(name)
            if isinstance(cell, str) and len(marks) < len(SEPARATORS) and not is_code(cell):
                marks.update(mark for mark in SEPARATORS if mark in cell)
    return {
        name: "".join(mark for mark in SEPARATORS if mark in marks) for name, marks in found.items()
    }


def labels_in(cell: Any, *, field: str, separators: str = "|") -> dict[str, int]:
    """Returns label -> schema.LABEL_* of a cell that holds several labels, {} for a missing one.

    A list gives its labels as positive; whether it denies what it does not name is known to the
    preparer alone. A mapping may say 0 and -1 too.

    Args:
      cell: text "A|B", a list or mapping, or a text that writes one in Python or JSON.
      field: name of the column, for the message.
      separators: separators of the column, of which the first one counts.

    Raises:
      RowProblem: malformed_labels if the cell is any other; the detail names the column.
    """
    if values.is_missing(cell):
        return {}
    try:
        found = names_in(cell, separators=separators) if isinstance(cell, str) else cell
        return labels_of(found)[0]
    except (RowProblem, values.CellProblem) as problem:
        raise _malformed(f"column {field!r}: {problem.detail}") from problem


def names_in(text: str, *, separators: str) -> list[str] | Mapping[str, Any]:
    """Returns the labels in a text: the names in "A|B", or a list or mapping in Python or JSON.

    Data frames write lists and mappings like this: "['Edema', 'Mass']", '{"Edema": 0}'.

    Args:
      text: text of the cell.
      separators: separators of the cell's column, from `found_separators`.

    Raises:
      RowProblem: malformed_labels if a list or mapping cannot be read.
    """
    text = text.strip()
    mark = separators[:1] or SEPARATORS[0]
    if is_code(text):
        return written_out(text, advice=f"the names as A{mark}B, or as ['A', 'B']")
    return [part.strip() for part in text.split(mark)]


def labels_of(value: Any) -> tuple[dict[str, int], bool]:
    """Returns (label -> schema.LABEL_*, whether the labels came as a list of positive ones).

    Args:
      value: list of names, or mapping to 1, 0, -1, truth values and missing values.

    Raises:
      RowProblem: malformed_labels if the value is any other.
    """
    if isinstance(value, Mapping):
        found: dict[str, int] = {}
        for name, entry in value.items():
            name = _name(name, value)
            label = values.label_of(entry, field=name)
            if not name or found.get(name, label) != label:
                raise _malformed(f"label {name!r} has no name or two values")
            found[name] = label
        return found, False
    if not isinstance(value, list):
        raise _malformed(f"{value!r} is not a list of names")
    names = [_name(name, value) for name in value if not values.is_missing(name)]
    return dict.fromkeys(names, LABEL_POSITIVE), True


def are_numbers(names: Iterable[str]) -> bool:
    """Tells whether there are names of labels and each of them is a number or a truth value."""
    names = list(names)
    return bool(names) and all(_is_number(name) for name in names)


def study_labels(
    rows: Sequence[tuple[Mapping[str, int], bool, str]],
    names: Sequence[str],
    *,
    exhaustive: frozenset[str],
    seen: Mapping[str, Sequence[str]],
) -> np.ndarray:
    """Returns the labels of a study from all its rows, int8[C], in the set's order.

    Lists of positive labels are merged before labels that they do not name count as negative: two
    images of a study may each list only what they show.

    Args:
      rows: (labels, whether they came as a list, source) of each row.
      names: names of the set's C labels.
      exhaustive: sources whose lists name all positive labels. A label that their rows use but a
        list does not name is negative. For other sources, and for empty lists, such a label is not
        mentioned.
      seen: source -> labels that the source's rows use.

    Raises:
      RowProblem: conflicting_labels if two rows give a label different values.
    """
    said: dict[str, int] = {}
    clashes: dict[str, None] = {}
    for labels, _, _ in rows:
        for name, value in labels.items():
            if value != LABEL_NOT_MENTIONED and said.setdefault(name, value) != value:
                clashes[name] = None
    if clashes:
        labels = ", ".join(name for name in names if name in clashes)
        raise RowProblem("conflicting_labels", f"the rows of the study differ in {labels}")
    for labels, listed, source in rows:
        if listed and labels and source in exhaustive:
            for name in seen[source]:
                said.setdefault(name, LABEL_NEGATIVE)
    return np.asarray([said.get(name, LABEL_NOT_MENTIONED) for name in names], np.int8)


def is_code(text: str) -> bool:
    """Tells whether a cell holds a list or mapping written as code."""
    text = text.strip()
    return text[:1] in ("[", "{") or (text[:2] in ("('", '("') and text[-1:] == ")")


def written_out(text: str, *, advice: str) -> list[Any] | dict[Any, Any]:
    """Returns the list or mapping that a cell holds as JSON or as a value of Python.

    Args:
      text: text of the cell.
      advice: words for messages that say how such a cell may be written; they follow "write".

    Raises:
      RowProblem: `malformed_labels`, if it is neither.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        value = _python_literal(text, advice=advice)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    value = list(value) if isinstance(value, tuple) else value
    if not isinstance(value, list | dict):
        raise _malformed(f"{text!r} is neither a list nor a mapping")
    return value


def _python_literal(text: str, *, advice: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on backslashes that are no escapes
            tree = ast.parse(text, mode="eval").body
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _malformed(
            f"{text[:120]!r} begins as a list or mapping does, and is neither JSON nor a value of "
            f"Python; write {advice}"
        ) from error
    if _has_joined_texts(text):
        raise _malformed(
            f"{text[:120]!r} has no commas between its names, as numpy prints arrays; write "
            f"{advice}"
        )
    if isinstance(tree, ast.Dict) and len(tree.keys) != len(value):
        raise _malformed(f"{text[:120]!r} has a label twice")
    return value


def _has_joined_texts(text: str) -> bool:
    """Tells whether two adjacent texts occur, which Python would join into one: 'A' 'B'."""
    before = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.COMMENT):
            continue
        if token.type == before == tokenize.STRING:
            return True
        before = token.type
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _name(name: Any, value: Any) -> str:
    if not isinstance(name, str):
        raise _malformed(f"{value!r} is not a list of names")
    if spreadsheets.is_error(name):
        raise _malformed(f"label {name!r} is what a spreadsheet shows instead of a value")
    return name.strip()


def _is_number(name: str) -> bool:
    try:
        float(name.replace(",", "."))
    except ValueError:
        return name.lower() in _TRUTHS
    return True


def _malformed(detail: str) -> RowProblem:
    return RowProblem("malformed_labels", detail[:300])
