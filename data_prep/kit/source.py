"""Hashes the code that makes a set, to detect that a program has changed since."""

import ast
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
    while waiting:
        path = waiting.pop().resolve()
        if path not in found and path.suffix == ".py" and path.is_file():
            found.add(path)
            waiting += _imported(path)
    # Names come first, so that the hash does not depend on the project's location.
    return cli.sha256_of_all(sorted(found, key=lambda path: (path.name, cli.sha256_of(path))))


def _imported(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the possible paths of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        else:
            continue
        for name in filter(None, names):
            inner = name.replace(".", "/") + ".py"
            yield from (folder / inner for folder in (_ROOT, path.parent))
