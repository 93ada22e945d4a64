"""The differently de-identified copies that CheXpert Plus has of one report, one for each image.

Source: issues 4 and 13 of Stanford-AIMI/chexpert-plus. The reports were joined with the images
before they were de-identified, so that dates, numbers and names of one report differ between the
rows of a study, and with them now and then the labels that CheXbert gives the copies.
"""

import contextlib
import difflib
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from data_prep.kit.plan import RowProblem
from data_prep.kit.planned import PlannedImage, read_image

TEXTS, REPORT, LABELS = "texts", "report", "labels"
_TITLES = frozenset("dr drs doctor mr mrs ms miss nurse prof professor".split())
_CALENDAR = frozenset(
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday "
    "saturday sunday mon tue wed thu fri sat sun".split()
)
_MOST_NAMES = 3  # words of a name behind a title
_ENDS = (".", ":", "!", "?", ")", "\n")


def differing(images: Sequence[PlannedImage]) -> frozenset[str]:
    """Returns what differs between the copies of a study's report: "texts", "labels", or nothing.

    What counts for the study is what its first image says. Labels may differ where the copies do,
    since they were read from them; labels that differ between equal copies contradict each other.

    Args:
      images: images of the study; their data has the `texts` of the sections, a digest of the whole
        `report` and the `labels`.

    Raises:
      RowProblem: `conflicting_text`, if texts differ in more than numbers, dates and names;
        `conflicting_labels`, if labels differ between equal copies.
    """
    found = set()
    first = images[0].data
    for image in images[1:]:
        said = image.data
        if not all(map(same_report, first[TEXTS], said[TEXTS])):
            detail = "the rows of the study differ in texts, and not in numbers and names alone"
            raise RowProblem("conflicting_text", detail)
        if said[TEXTS] != first[TEXTS]:
            found.add(TEXTS)
        if said[LABELS] == first[LABELS]:
            continue
        if (said[TEXTS], said[REPORT]) == (first[TEXTS], first[REPORT]):
            raise RowProblem(
                "conflicting_labels", "the rows of the study have one report and differ in labels"
            )
        found.add(LABELS)
    return frozenset(found)


def same_report(one: str, other: str) -> bool:
    """Tells whether two texts may be copies of one text that was de-identified twice.

    They are if they differ in these words alone: words with a digit, months and days, up to three
    words behind a title such as "Dr.", and words in another style than the text around them:
    capitalised within a sentence, or with small letters in a text of capitals. How the texts are
    divided into lines does not count.
    """
    if one == other:
        return True
    left, right = (re.findall(r"\n|\S+", text) for text in (one, other))
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    return all(
        _replaced(left, i, end_i) and _replaced(right, j, end_j)
        for tag, i, end_i, j, end_j in matcher.get_opcodes()
        if tag != "equal"
    )


def _replaced(words: Sequence[str], begin: int, end: int) -> bool:
    """Tells whether each word from `begin` to before `end` may stand for a number, date or name."""
    around = "".join((*words[:begin], *words[end:]))
    letters = list(filter(str.isalpha, around))
    capitals = 2 * sum(map(str.isupper, letters)) > len(letters)
    titled = begin > 0 and _plain(words[begin - 1]) in _TITLES
    for place in range(begin, end):
        word = words[place]
        plain = _plain(word)
        if not plain or any(map(str.isdigit, plain)) or plain in _TITLES | _CALENDAR:
            continue
        if titled and place < begin + _MOST_NAMES:
            continue
        within = place > 0 and not words[place - 1].endswith(_ENDS)
        named = within and plain[0] != word.strip("\"'(,")[0]
        if word.isupper() or not (capitals or named):
            return False
    return True


def _plain(word: str) -> str:
    """Returns a word in small letters, without the marks around it."""
    return re.sub(r"^\W+|\W+$", "", word).casefold()


def notes(directory: pathlib.Path) -> list[str]:
    """Returns a sentence on the studies of a finished plan whose copies differ, if there are any.

    Args:
      directory: folder of the plan.
    """
    starts, offsets = (np.load(directory / f"{name}.npy") for name in ("starts", "offsets"))
    texts = labels = 0
    for study in np.flatnonzero(np.diff(starts) > 1):
        places = offsets[starts[study] : starts[study + 1]]
        images = [read_image(directory, int(offset)) for offset in places]
        with contextlib.suppress(RowProblem):
            found = differing(images)
            texts += TEXTS in found
            labels += LABELS in found
    if not texts and not labels:
        return []
    return [
        f"The report of {texts:,} studies stands in the table in copies that differ in numbers, "
        f"dates or names, and the labels of {labels:,} studies differ between the copies: text "
        "and labels are those of the first image that is kept."
    ]
