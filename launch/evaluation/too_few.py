"""Names the classes that a task leaves out because the set has too few of them.

Every task with `min_positives` says it in the same words: `settings.left_out` of its results file,
a line of the console for each class, and a sentence in the report.
"""

from collections.abc import Mapping, Sequence

import numpy as np

_WORDS = {
    "positive": ("positive record", "positive records"),
    "negative": ("negative record", "negative records"),
    "other": ("other record", "other records"),
    "phrase": ("phrase with a region", "phrases with a region"),
    "finding": ("record with a finding", "records with a finding"),
    "mask": ("image with a mask", "images with a mask"),
    "box": ("image with a box", "images with a box"),
}
"""Words for one and for several of each kind that is counted."""


def reason(counts: Mapping[str, int], *, least: int, split: str) -> str:
    """Returns why a class is left out, or "" if it is not.

    Args:
      counts: kind of what is counted, a key of `_WORDS`, -> number of the class.
      least: least number of each kind.
      split: name of the split in which they are counted.
    """
    for kind, count in counts.items():
        if count < least:
            one, several = _WORDS[kind]
            need = "is" if least == 1 else "are"
            return f"{count} {one if count == 1 else several} in {split}, and {least} {need} needed"
    return ""


def reasons(
    counts: Mapping[str, Mapping[str, int]], *, least: int, split: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the classes that have enough, and the reason for each other one.

    Args:
      counts: class -> kind -> number, see `reason`.
      least: least number of each kind.
      split: name of the split in which they are counted.
    """
    found = {name: reason(each, least=least, split=split) for name, each in counts.items()}
    kept = tuple(name for name, why in found.items() if not why)
    return kept, {name: why for name, why in found.items() if why}


def sentences(left_out: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each class that is left out, without its full stop."""
    return [f"{name} is left out: {why}" for name, why in left_out.items()]


def of_labels(
    labels: np.ndarray, label_names: Sequence[str], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Counts the positives of labels, and all other records, whatever is known of them.

    Args:
      labels: label states of the split, int8[N, C].
      label_names: names of the C labels.
      names: those of them that are counted.
    """
    positives = dict(zip(label_names, (labels == 1).sum(axis=0).tolist(), strict=True))
    return {
        name: {"positive": positives[name], "other": len(labels) - positives[name]}
        for name in names
    }
