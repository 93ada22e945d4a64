"""Names that a user may have meant instead of one that is not there, or that are too near."""

import difflib
import pathlib
from collections.abc import Sequence

from prior_jax.errors import ConfigError

_CONFIGS = "configs"
_MOST = 3
_ALIKE = 0.6  # as of difflib.get_close_matches


def meant(name: str, known: Sequence[str]) -> str:
    """Returns " Did you mean 'x' or 'y'?" with the known names closest to a name, or ""."""
    return _question(difflib.get_close_matches(name, known, n=_MOST, cutoff=_ALIKE))


def slug(name: str) -> str:
    """Returns a class's part of a metric's name, e.g. `pleural_effusion`."""
    return "_".join(name.replace("_", " ").replace("-", " ").lower().split())


def check_classes(names: Sequence[str], *, where: str) -> None:
    """Refuses names of classes that the name of a metric does not tell apart, or no name at all.

    Args:
      names: names of the classes.
      where: setting that names them, for the error.

    Raises:
      ConfigError: naming the two classes.
    """
    if not names:
        raise ConfigError.of_value(where, names, "one or more different names")
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        first = seen.setdefault(slug(name), place)
        if first != place:
            raise ConfigError(
                f"The classes {names[first]!r} and {name!r} have one name in the results, "
                f"{slug(name)!r}, where case, blanks, hyphens and underscores do not count.",
                "Leave one of them out, or prepare the set with one name for both.",
                where=where,
            )


def no_config(path: str) -> str:
    """Returns the sentence that a config's file is absent, with the nearest files that are there.

    Args:
      path: path of the absent file. It is compared with the files beside it and with all under
        `configs`, by the name of the file first and by the whole path second.
    """
    given = pathlib.Path(path)
    there = {*given.parent.glob("*.py"), *pathlib.Path(_CONFIGS).rglob("*.py")}
    ranked = sorted(
        (
            (-_likeness(given.stem, one.stem), -_likeness(path, str(one)), str(one))
            for one in there
            if one.stem != "__init__"
        ),
    )
    close = [name for likeness, _, name in ranked if -likeness >= _ALIKE]
    return f"There is no file {path!r}.{_question(close[:_MOST])}"


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _question(close: Sequence[str]) -> str:
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
