"""Parses command lines without running them: `python -m tests.parsing CASES.json OUT.json`.

CASES is a list of {"module", "argv"}, OUT the message of each that is refused, or "". A command
with `--dry_run` is run, since it makes nothing. With `--help` alone, the message lists the flags of
the program that its help does not show. Each is parsed in a fork of a process that has
imported the programs, so that none sees the flags of another.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import pathlib
import runpy
import sys
import tempfile
import warnings

from absl import app, flags


def refusal(module: str, argv: list[str]) -> str:
    """What a program says of a command line that it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "message"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                path.write_text(_said(module, argv))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return path.read_text() if status == 0 else f"{module}: the parser died"


def _said(module: str, argv: list[str]) -> str:
    sys.argv = [module, *argv]
    if argv == ["--help"]:
        app.run = functools.partial(_hidden, known=set(flags.FLAGS))
    elif "--dry_run" not in argv:
        app.run = _parse_alone
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return "" if not end.code else f"{said.getvalue()}{end.code}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return f"{module} has no program"


def _parse_alone(main, argv=None, flags_parser=None):
    """Stands in for absl's `app.run`: parses as the program does, and ends."""
    del main, argv
    left = flags_parser(sys.argv)
    sys.exit(f"unexpected {left[1:]}" if left[1:] else 0)


def _hidden(main, argv=None, flags_parser=None, *, known):
    """Stands in for absl's `app.run`: ends with the flags that `--help` would not show."""
    del main, argv, flags_parser
    shown = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    sys.exit(" ".join(sorted({*flags.FLAGS} - known - shown)))


def main():
    warnings.simplefilter("ignore", RuntimeWarning)  # of forks beside threads, and of runpy
    cases = json.loads(pathlib.Path(sys.argv[1]).read_text())
    for name in {case["module"] for case in cases}:
        if importlib.util.find_spec(name):  # of a package, its __main__ is the program
            importlib.import_module(name)
    found = [refusal(case["module"], case["argv"]) for case in cases]
    pathlib.Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
