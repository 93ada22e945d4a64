"""Parses command lines: `python -m tests.launch.parsed CASES.json OUT.json`.

Flags can be parsed once in a process, so that each command line has a fork of its own.
"""

import json
import os
import pathlib
import sys
import tempfile

from absl import flags

from launch.start import program


def parse(argv):
    """The config and the arguments that repeat it, or the line of an error."""
    program.define_config_flag("config", "")
    program.define_config_flag("task", "", required=False)
    sys.argv = ["parsed.py", *argv]
    program._parse(sys.argv)
    return {
        "config": json.loads(json.dumps(flags.FLAGS.config.to_dict())),
        "arguments": program.config_arguments("config"),
    }


def forked(argv):
    with tempfile.TemporaryDirectory() as folder:
        found, said = (pathlib.Path(folder) / name for name in ("found", "said"))
        child = os.fork()
        if child == 0:
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
            try:
                found.write_text(json.dumps(parse(argv)))
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(end.code)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        result = json.loads(found.read_text()) if found.exists() else {}
        return {"code": code, "said": said.read_text(), **result}


if __name__ == "__main__":
    cases = json.loads(pathlib.Path(sys.argv[1]).read_text())
    out = pathlib.Path(sys.argv[2])
    out.write_text(json.dumps([forked(argv) for argv in cases]))
