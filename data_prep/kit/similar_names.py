"""Finds names of labels that are probably meant to be one."""

from collections.abc import Iterable

from data_prep.kit import values


def notes(names: Iterable[str]) -> list[str]:
    """Returns a warning for each group of names that differ in case or punctuation alone.

    "Mass" and "mass" are two classes to whatever is trained on the set, each with a part of the
    findings.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(values.simplified(name) or name, []).append(name)
    return [
        f"Warning: the labels {' and '.join(map(repr, group))} differ in case or punctuation "
        "alone, and count as different labels. If they are one finding, write one name for it and "
        "prepare the set again with --overwrite."
        for group in groups.values()
        if len(group) > 1
    ]
