"""What a cell of labels says: a list of what is positive, or a mapping to 1, 0, -1 and missing."""

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
    """Returns column -> the separators that stand in its cells, the one that it is split at first.

    One separator holds for a whole column: a cell "Effusion, pleural" has one name where another
    cell of the column is "Effusion, pleural|Edema".

    Args:
      rows: all rows of the table.
      columns: the columns that may hold lists.
    """
    found: dict[str, set[str]] = {name: set() for name in columns}
    for row in rows:
        for name, marks in found.items():
            cell = row.cells.get(name)
            if isinstance(cell, str) and len(marks) < len(SEPARATORS) and not _is_code(cell):
                marks.update(mark for mark in SEPARATORS if mark in cell)
    return {
        name: "".join(mark for mark in SEPARATORS if mark in marks) for name, marks in found.items()
    }


def names_in(text: str, *, separators: str) -> list[str] | Mapping[str, Any]:
    """Returns what a text says: the names of "A|B", or the list or mapping that it writes out.

    Data frames write lists and mappings as Python or JSON: "['Edema', 'Mass']", '{"Edema": 0}'.

    Args:
      text: the cell.
      separators: those of its column, as `found_separators` gives them.

    Raises:
      RowProblem: malformed_labels for a list or mapping that cannot be read.
    """
    text = text.strip()
    if _is_code(text):
        return _written_out(text)
    mark = separators[:1] or SEPARATORS[0]
    return [part.strip() for part in text.split(mark)]


def labels_of(value: Any) -> tuple[dict[str, int], bool]:
    """Returns (label -> schema.LABEL_*, whether they came as a list of what is positive).

    Args:
      value: a list of names, or a mapping to 1, 0, -1, truth values and missing values.

    Raises:
      RowProblem: malformed_labels for any other value.
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
        raise _malformed(f"{value!r} is no list of names")
    names = [_name(name, value) for name in value if not values.is_missing(name)]
    return dict.fromkeys(names, LABEL_POSITIVE), True


def are_numbers(names: Iterable[str]) -> bool:
    """Whether each name of a label is a number or a truth value, and there is one at all."""
    names = list(names)
    return bool(names) and all(_is_number(name) for name in names)


def study_labels(
    rows: Sequence[tuple[Mapping[str, int], bool, str]],
    names: Sequence[str],
    *,
    exhaustive: frozenset[str],
    seen: Mapping[str, Sequence[str]],
) -> np.ndarray:
    """Returns int8[C], what the rows of a study say together, in the set's order.

    Lists of what is positive are put together before what they do not name counts as negative: two
    images of a study may each list what they show.

    Args:
      rows: (labels, whether they came as a list, source) of each row.
      names: the C label names of the set.
      exhaustive: sources whose lists name everything that is positive: what such lists do not name,
        of the labels their source uses, is negative. Of other sources, and of empty lists, it is
        not mentioned.
      seen: source -> labels its rows use.

    Raises:
      RowProblem: conflicting_labels where two rows say different things of one label.
    """
    said: dict[str, int] = {}
    clashes: dict[str, None] = {}
    for labels, _, _ in rows:
        for name, value in labels.items():
            if value != LABEL_NOT_MENTIONED and said.setdefault(name, value) != value:
                clashes[name] = None
    if clashes:
        raise RowProblem("conflicting_labels", ", ".join(name for name in names if name in clashes))
    for labels, listed, source in rows:
        if listed and labels and source in exhaustive:
            for name in seen[source]:
                said.setdefault(name, LABEL_NEGATIVE)
    return np.asarray([said.get(name, LABEL_NOT_MENTIONED) for name in names], np.int8)


def _is_code(text: str) -> bool:
    """Whether a cell writes a list or mapping out, as code does."""
    text = text.strip()
    return text[:1] in ("[", "{") or (text[:2] in ("('", '("') and text[-1:] == ")")


def _written_out(text: str) -> list[Any] | dict[Any, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        value = _python_literal(text)
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    value = list(value) if isinstance(value, tuple) else value
    if not isinstance(value, list | dict):
        raise _malformed(f"{text!r} writes out neither a list nor a mapping")
    return value


def _python_literal(text: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes that are no escapes
            tree = ast.parse(text, mode="eval").body
        value = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _malformed(
            f"{text[:120]!r} begins as a list or mapping does, and is neither JSON nor a value of "
            "Python; write names as A|B"
        ) from error
    if _has_joined_texts(text):
        raise _malformed(
            f"{text[:120]!r} has no commas between its names, as numpy prints arrays; save lists, "
            "or write names as A|B"
        )
    if isinstance(tree, ast.Dict) and len(tree.keys) != len(value):
        raise _malformed(f"{text[:120]!r} has a label twice")
    return value


def _has_joined_texts(text: str) -> bool:
    """Whether two texts stand side by side, which Python would join to one: 'A' 'B'."""
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
        raise ValueError("a key stands twice in it")
    return found


def _name(name: Any, value: Any) -> str:
    if not isinstance(name, str):
        raise _malformed(f"{value!r} is no list of names")
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
