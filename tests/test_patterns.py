"""Regular expressions mean the same in every Python that the project supports."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("prior_jax", "configs", "launch", "data_prep")
# A group that is repeated possessively; braces are doubled in formatted strings.
POSSESSIVE_GROUP = re.compile(r"(?<!\\)\)(?:[*+?]|\{{1,2}\d*,?\d*\}{1,2})\+")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_group_is_repeated_possessively(folder):
    """Python before 3.11.5 goes on behind a repetition that fails half-way.

    There the pattern of a run-length mask matched "1 2 3" (cpython, issue 106052).
    """
    for path in sorted((ROOT / folder).rglob("*.py")):
        lines = path.read_text().splitlines()
        found = [n for n, line in enumerate(lines, 1) if POSSESSIVE_GROUP.search(line)]
        assert not found, f"{path.relative_to(ROOT)}: lines {found}"


def test_the_search_finds_what_it_looks_for():
    for text in ("(?:a)*+", "(a)++", "(a)?+", "(a){2,3}+", "(a){{2}}+"):
        assert POSSESSIVE_GROUP.search(text), text
    for text in ("[ab]*+", "(a)*", "(a)+", "a)+b", "[)]*+", r"\)*+"):
        assert not POSSESSIVE_GROUP.search(text), text
