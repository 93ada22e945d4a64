"""Reads the prompts of classes from a file of the user's.

A JSON file maps each class to a list of sentences that affirm it, or to an object with the lists
`positive` and `negative`:

    {"Edema": ["Pulmonary edema."], "Mass": {"positive": ["A mass."], "negative": ["No mass."]}}

A text file names each class in brackets, with one sentence in each line below it. A line that
begins with "- " denies the class, and one that begins with "#" is a comment:

    [Mass]
    A mass is seen.
    - No mass.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.prompt_tables import ClassPrompts

SUFFIXES = (".json", ".txt")
"""Endings by which a path is told from the name of a set of prompts."""
_DASHES = tuple("-\N{HYPHEN}\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}\N{BULLET}")
"""Signs with which a denial may have been meant, also as other programs replace a hyphen."""


def is_path(name: str) -> bool:
    """Returns whether a name of a set of prompts is the path of a file."""
    return name.lower().endswith(SUFFIXES)


def read_prompts(path: os.PathLike[str] | str) -> dict[str, ClassPrompts]:
    """Reads the prompts of a file.

    Args:
      path: file that ends in ".json" or ".txt", in UTF-8.

    Returns:
      Prompts by class, with the classes in the order of the file.

    Raises:
      ConfigError: if there is no such file.
      DataError: if the file is not of the form above, names no class or a class twice, or a class
        has no affirming sentence, an empty one, one with a brace or one that denies it as well; the
        message names the class.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no file of prompts {path}.", "Give the path of a .json or .txt file."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The file cannot be read: {error}.", "Save it as a text in UTF-8.", where=str(path)
        ) from error
    read = _from_json if path.suffix.lower() == ".json" else _from_text
    found = read(text, where=str(path))
    if not found:
        raise DataError("The file names no class.", "Add a class with sentences.", where=str(path))
    return {name: _checked(name, given, where=str(path)) for name, given in found.items()}


def _from_json(text: str, *, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, where=where))
    except ValueError as error:
        raise DataError(
            f"The file is no JSON: {error}.", "Write a JSON object of classes.", where=where
        ) from error
    if not isinstance(content, Mapping):
        raise DataError(
            f"The file holds a {type(content).__name__}, not an object.",
            "Write a JSON object that maps each class to a list of sentences.",
            where=where,
        )
    return dict(content)


def _object(pairs: list[tuple[str, Any]], *, where: str) -> dict[str, Any]:
    """Builds a JSON object; a name that occurs twice would silently replace the first."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DataError(f"{name!r} occurs twice.", "Join the two lists.", where=where)
        found[name] = value
    return found


def _from_text(text: str, *, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    current: dict[str, list[str]] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        opened = line.startswith("[")
        if opened != line.endswith("]") and (opened or "[" not in line):
            raise DataError(
                f"Line {number} has one bracket, so that it is neither a class nor a sentence: "
                f"{line!r}.",
                "Write the name of a class alone in its line, as in [Mass].",
                where=where,
            )
        if opened:
            name = line[1:-1].strip()
            if name in found:
                raise DataError(f"{name!r} occurs twice.", "Join the two lists.", where=where)
            current = found[name] = {"positive": [], "negative": []}
        elif current is None:
            raise DataError(
                f"Line {number} belongs to no class: {line!r}.",
                "Write the name of a class in brackets above it.",
                where=where,
            )
        elif line.startswith(_DASHES):
            if line[:1] != "-" or not line[1:2].isspace():
                raise DataError(
                    f"Line {number} begins with a dash, but not with '- ': {line!r}.",
                    "Write '- ' before a sentence that denies, and no dash before another.",
                    where=where,
                )
            current["negative"].append(line[2:].strip())
        else:
            current["positive"].append(line)
    return found


def _checked(name: str, given: Any, *, where: str) -> ClassPrompts:
    """Returns the prompts of one class; refuses those that are not lists of sentences."""
    parts = {"positive": given} if isinstance(given, list) else given
    if not isinstance(parts, Mapping) or parts.keys() - {"positive", "negative"}:
        raise DataError(
            f"{name!r} has neither a list of sentences nor the lists positive and negative.",
            "Give it one of the two.",
            where=where,
        )
    lists = {kind: parts.get(kind, []) for kind in ("positive", "negative")}
    for kind, sentences in lists.items():
        if not isinstance(sentences, list) or not all(
            isinstance(sentence, str) and sentence.strip() for sentence in sentences
        ):
            raise DataError(
                f"The {kind} prompts of {name!r} are {sentences!r}.",
                "Write a list of sentences that are not empty.",
                where=where,
            )
    for sentence in (*lists["positive"], *lists["negative"]):
        if "{" in sentence or "}" in sentence:
            raise DataError(
                f"The sentence {sentence!r} of {name!r} has a brace, and nothing is filled in.",
                "Write the sentence out, with the name of the finding.",
                where=where,
            )
    both = [one for one in lists["positive"] if _plain(one) in map(_plain, lists["negative"])]
    if both:
        raise DataError(
            f"The sentence {both[0]!r} both affirms and denies {name!r}.",
            "Leave it in one of the two lists.",
            where=where,
        )
    if not name.strip() or not lists["positive"]:
        raise DataError(
            f"The class {name!r} has no affirming sentence.",
            "Give each class a name and at least one sentence.",
            where=where,
        )
    return ClassPrompts(positive=tuple(lists["positive"]), negative=tuple(lists["negative"]))


def _plain(sentence: str) -> str:
    """Returns a sentence without what makes no other sentence of it: case, blanks, a full stop."""
    return " ".join(sentence.casefold().split()).rstrip(".")
