"""Stands in for a process of a run: `python -m tests.launch.fake_program BEHAVIOUR [WORDS ...]`.

It prints a line of JSON: its words, its index, and how often its job was started before.
"""

import json
import os
import pathlib
import signal
import sys
import time


def main() -> int:
    behaviour, *words = sys.argv[1:]
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    process = int(os.environ.get("SLURM_PROCID", "0"))
    shown = {"words": words, "process": process, "restarts": restarts}
    print(json.dumps(shown), flush=True)
    if behaviour == "fail":
        print("the bang", file=sys.stderr)
        return 2 * process
    if behaviour in ("stop", "stuck") and restarts == 0:
        signal.signal(signal.SIGTERM, lambda *_: _stopped(behaviour, process))
        pathlib.Path(os.environ["FAKE_STATE"], f"ready_{process}").touch()
        time.sleep(30)
        return 1
    return 0


def _stopped(behaviour: str, process: int) -> None:
    if behaviour == "stuck":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1 * process)
    print("saved", flush=True)
    sys.exit(75)


if __name__ == "__main__":
    sys.exit(main())
