"""Reads cells of boxes: a list of boxes in JSON or Python, or a text such as "Mass 10 20 60 90"."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.kit import label_lists, values
from data_prep.kit.image_regions import ImageRegion
from data_prep.kit.plan import RowProblem

SEPARATOR = "|"
_TEXT = re.compile(r"(\S.*?)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)")
_SIZED = ("x", "y", "width", "height")
_CORNERS = ("x1", "y1", "x2", "y2")
# Numbers that all lie between these are shares of the image's sides, rounded or not.
_SHARES = (-0.01, 1.01)
# A box between these, in pixels, of which an edge is no whole number, is so too: a share of a width
# or height added to one of x or y may be above 1.
_NEAR_SHARES = (-1.0, 2.0)
_SAME = 1e-3  # pixels; edges so near to each other differ in how they were written alone
# What may stand between a label and its box, or between two boxes, but not at a label's end.
_NO_ENDS = (":", ";", ",", "=")
_ADVICE = (
    f"boxes are separated by {SEPARATOR}, scores are not read, and a label that ends with a number "
    "is written in a list, as JSON"
)

Found = tuple[str, str, float, float, float, float]
"""Label, phrase, x1, y1, x2, y2 of a box, in pixels of the image's file."""


def boxes_in(cell: Any) -> list[Found] | None:
    """Returns the boxes of a row, None if the row says nothing about boxes.

    Args:
      cell: list of boxes, of which each is a mapping of `label` and either `x`, `y`, `width` and
        `height`, or `x1`, `y1`, `x2` and `y2`, or `bbox`, which is [x, y, width, height]; or a list
        [label, x1, y1, x2, y2]. A mapping may have a `phrase`; its other keys are not read. A text
        is such a list as JSON or Python, or "label x1 y1 x2 y2" with `|` between boxes, where a
        label neither ends with a number nor holds four of them. An empty list says that the image
        has no box.

    Raises:
      RowProblem: `malformed_boxes`, if it is none of these.
    """
    if values.is_missing(cell):
        return None
    if isinstance(cell, str):
        cell = _of_text(cell.strip())
    if isinstance(cell, Mapping):
        cell = [cell]
    if not isinstance(cell, list | tuple):
        raise _malformed(f"{str(cell)[:80]!r} is not a list of boxes")
    found = [_box(one) for one in cell]
    for place, box in enumerate(found):
        if any(_is_same(box, other) for other in found[:place]):
            raise _malformed(f"{_said(cell[place])} stands twice, and two boxes are two findings")
    return found


def _is_same(box: Found, other: Found) -> bool:
    edges = zip(box[2:], other[2:], strict=True)
    return box[:2] == other[:2] and all(abs(a - b) <= _SAME for a, b in edges)


def regions_of(boxes: Sequence[Found]) -> list[ImageRegion]:
    """Returns the regions of an image from its boxes."""
    return [
        ImageRegion(label=label, phrase=phrase, box=(x1, y1, x2, y2))
        for label, phrase, x1, y1, x2, y2 in boxes
    ]


def _of_text(text: str) -> Any:
    if label_lists.is_code(text):
        try:
            return label_lists.written_out(text, advice="each box as Mass 10 20 60 90")
        except RowProblem as problem:
            raise _malformed(problem.detail) from problem
    found = []
    for part in text.split(SEPARATOR):
        match = _TEXT.fullmatch(part.strip())
        if match is None:
            raise _malformed(
                f"{part.strip()[:80]!r} is not a label with four numbers behind it, x1 y1 x2 y2"
            )
        _refuse_several(match[1], part.strip())
        found.append(list(match.groups()))
    return found


def _refuse_several(label: str, text: str) -> None:
    """Refuses a label that seems to hold another box, or a score."""
    words = label.split()
    said = f"the label {label[:80]!r} of {text[:80]!r}"
    if label.endswith(_NO_ENDS):
        raise _malformed(f"{said} ends with {label[-1]!r}; {_ADVICE}")
    numbers = [_is_number(word.strip("".join(_NO_ENDS))) for word in words]
    if numbers[-1]:
        raise _malformed(f"{said} ends with the number {words[-1]!r}; {_ADVICE}")
    if any(all(numbers[place : place + 4]) for place in range(len(numbers) - 3)):
        raise _malformed(f"{said} holds four numbers, as a box has; {_ADVICE}")


def _is_number(word: str) -> bool:
    return math.isfinite(values.number_of(word))


def _box(box: Any) -> Found:
    phrase = ""
    if isinstance(box, Mapping):
        label, phrase = box.get("label"), box.get("phrase", "")
        edges = _edges(box)
    elif isinstance(box, list | tuple) and len(box) == 5:
        label, edges = box[0], _numbers(box[1:], box)
    else:
        raise _malformed(f"{_said(box)} is neither a mapping nor [label, x1, y1, x2, y2]")
    if not isinstance(label, str) or values.is_missing(label):
        raise _malformed(f"{_said(box)} has no label")
    if not values.is_missing(phrase) and not isinstance(phrase, str):
        raise _malformed(f"the phrase of {_said(box)} is no text")
    x1, y1, x2, y2 = edges
    low, high = _NEAR_SHARES
    if all(low <= edge <= high for edge in edges) and any(edge % 1 for edge in edges):
        raise _relative(box)
    return label.strip(), "" if values.is_missing(phrase) else phrase.strip(), x1, y1, x2, y2


def _edges(box: Mapping[str, Any]) -> Sequence[float]:
    """Returns x1, y1, x2, y2 of a mapping, whichever way it says them."""
    said = [names for names in (_SIZED, _CORNERS, ("bbox",)) if any(name in box for name in names)]
    if len(said) != 1 or not all(name in box for name in said[0]):
        raise _malformed(
            f"{_said(box)} has not one of x, y, width, height; x1, y1, x2, y2; and bbox"
        )
    (names,) = said
    if names == _CORNERS:
        return _numbers([box[name] for name in names], box)
    sized = box["bbox"] if names == ("bbox",) else [box[name] for name in names]
    if not isinstance(sized, list | tuple) or len(sized) != 4:
        raise _malformed(f"the bbox of {_said(box)} is not [x, y, width, height]")
    x, y, width, height = _numbers(sized, box)
    return x, y, x + width, y + height


def _numbers(cells: Sequence[Any], box: Any) -> list[float]:
    numbers = []
    for cell in cells:
        number = values.number_of(cell)
        if not math.isfinite(number):
            raise _malformed(f"{str(cell)[:40]!r} in {_said(box)} is no number of pixels")
        numbers.append(number)
    low, high = _SHARES
    if all(low <= number <= high for number in numbers):
        raise _relative(box)
    return numbers


def _relative(box: Any) -> RowProblem:
    return _malformed(
        f"{_said(box)} looks relative, as shares of the image's width and height, since it lies "
        "within the first pixels; boxes are written in pixels"
    )


def _said(box: Any) -> str:
    return f"the box {str(box)[:120]}"


def _malformed(detail: str) -> RowProblem:
    return RowProblem("malformed_boxes", detail)
