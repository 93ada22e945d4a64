"""Hashes the code that makes a set, to detect that a program has changed since."""

import ast
import functools
import pathlib
import sys
from collections.abc import Iterator

from data_prep.kit import cli

_KIT = pathlib.Path(__file__).parent
_ROOT = _KIT.parents[1]


def code_hash(module: str) -> str:
    """Returns a sha256 of the source of a preparer and of the kit.

    The hash covers the preparer's own file, the files that it imports, and the files that the kit
    imports, if they belong to this project or are in the preparer's folder.

    Args:
      module: name of the module that defines the preparer, "__main__" for a program that is run.
    """
    own = getattr(sys.modules.get(module), "__file__", None)
    waiting = sorted(_KIT.glob("*.py")) + ([pathlib.Path(own)] if own else [])
    found: set[pathlib.Path] = set()
    seen: set[pathlib.Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.suffix == ".py" and path.is_file() and path.resolve() not in found:
            found.add(path.resolve())
            waiting += _imported(path.resolve())
    # Names come first, so that the hash does not depend on the project's location.
    return cli.sha256_of_all(sorted(found, key=lambda path: (path.name, cli.sha256_of(path))))


def _imported(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the possible paths of the modules that a file imports."""
    for name in _names(path.read_bytes()):
        inner = name.replace(".", "/") + ".py"
        yield from (folder / inner for folder in (_ROOT, path.parent))


@functools.lru_cache(maxsize=256)  # parsing takes most of the time of a small set
def _names(content: bytes) -> tuple[str, ...]:
    """Returns the names of the modules that a source imports, each once."""
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            found.update(dict.fromkeys(alias.name for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            within = (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
            found.update(dict.fromkeys(name for name in (base, *within) if name))
    return tuple(found)
