"""Runs a program many times from one process: `python -m tests.launch.forks CASES.json OUT.json`.

The programs take seconds to import; a fork of a process that has imported them, and that has not
touched a device, is the same as a new one.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[2]


def run_all(cases: Sequence[tuple[str, Sequence[str]]]) -> list[dict]:
    """Exit code, stdout and stderr of programs with their arguments, each run in a fork."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = (pathlib.Path(folder) / name for name in ("cases.json", "found.json"))
        given.write_text(json.dumps([{"program": name, "argv": [*argv]} for name, argv in cases]))
        command = [sys.executable, "-m", "tests.launch.forks", given, found]
        subprocess.run(command, cwd=ROOT, check=True, timeout=300)
        return json.loads(found.read_text())


def run_case(program: str, argv: list[str]) -> dict:
    """Exit code, stdout and stderr of one run."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / name for name in ("out", "err")]
        child = os.fork()
        if child == 0:
            for descriptor, path in zip((1, 2), paths, strict=True):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
            os._exit(_main(program, argv))
        _, status = os.waitpid(child, 0)
        out, err = (path.read_text() for path in paths)
    return {"code": os.waitstatus_to_exitcode(status), "out": out, "err": err}


def _main(name: str, argv: list[str]) -> int:
    from launch import compile_check, evaluate, export, import_weights, submit, sweep, train
    from launch.start import program

    modules = (compile_check, evaluate, export, import_weights, submit, sweep, train)
    module = {module.__name__: module for module in modules}[name]
    sys.argv = [f"{name}.py", *argv]
    try:
        program.run(module.main, module.define_flags)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # what a process of its own would die of, with its trace and code 1
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main():
    import warnings

    import launch.compile_check
    import launch.evaluate
    import launch.export
    import launch.import_weights
    import launch.submit
    import launch.sweep
    import launch.train  # noqa: F401

    warnings.simplefilter("ignore", RuntimeWarning)  # of JAX, that a fork may hang its threads
    cases = json.loads(pathlib.Path(sys.argv[1]).read_text())
    found = [run_case(case["program"], case["argv"]) for case in cases]
    pathlib.Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
