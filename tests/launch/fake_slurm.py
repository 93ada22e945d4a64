"""Slurm on one machine, as far as the job files need it.

`install(folder)` makes the programs; they keep what they know in the folder FAKE_STATE. sbatch runs
the job to its end, again and again while it asks to be requeued. It refuses options that Slurm
does not know, and warns a job as --signal=B:TERM@... says once its processes are ready.

The tasks of an array run one after the other. As in Slurm, one of them, here each, has the id of
the whole array as its SLURM_JOB_ID; a program that is given this id means all of the array's tasks.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

PROGRAMS = ("sbatch", "srun", "scancel", "scontrol", "squeue")
JOB = 4711
# Of sbatch's options those that are used; True: takes a value.
OPTIONS = {
    "job-name": True, "chdir": True, "output": True, "time": True, "nodes": True, "ntasks": True,
    "ntasks-per-node": True, "array": True, "cpus-per-task": True, "gpus-per-node": True,
    "partition": True, "account": True, "open-mode": True, "signal": True, "requeue": False,
    "exclusive": False,
}  # fmt: skip
STATE = pathlib.Path(os.environ.get("FAKE_STATE", "."))


def install(folder: pathlib.Path) -> dict[str, str]:
    """Makes the programs and returns the environment that has them."""
    state = folder / "state"
    state.mkdir(parents=True)
    for name in PROGRAMS:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "FAKE_STATE": str(state)}


def parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options, and what follows them."""
    found = {}
    for index, argument in enumerate(arguments):
        if not argument.startswith("--"):
            return found, arguments[index:]
        name, given, value = argument[2:].partition("=")
        if OPTIONS.get(name) is not bool(given):
            sys.exit(f"sbatch: error: unrecognized option '{argument}'")
        found[name] = value
    return found, []


def sbatch(arguments: list[str]) -> int:
    _, (script, *_) = parse(arguments)
    lines = pathlib.Path(script).read_text().splitlines()
    inside = [line.split()[1] for line in lines if line.startswith("#SBATCH")]
    options = parse(inside)[0] | parse(arguments)[0]
    indices, _, _ = options.get("array", "").partition("%")
    codes = [_job(options, parse(arguments)[1], index) for index in indices.split(",")]
    (STATE / "codes").write_text(" ".join(map(str, codes)))
    return 0


def _job(options: dict[str, str], command: list[str], index: str) -> int:
    tasks = int(options.get("ntasks") or int(options["nodes"]) * int(options["ntasks-per-node"]))
    environment = os.environ | {
        "SLURM_JOB_ID": str(JOB),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_NTASKS": str(tasks),
        "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
    }
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": str(JOB), "SLURM_ARRAY_TASK_ID": index}
    names = {"%%": "%", "%j": str(JOB), "%A": str(JOB), "%a": index}
    output = _filled(options["output"], names)
    for restarts in range(3):
        if restarts:
            environment["SLURM_RESTART_COUNT"] = str(restarts)
        (STATE / "requeue").unlink(missing_ok=True)
        with open(output, "a" if options.get("open-mode") == "append" else "w") as log:
            job = subprocess.Popen(
                ["bash", *command], cwd=options["chdir"], env=environment, stdout=log, stderr=log
            )
            while job.poll() is None:
                time.sleep(0.02)
                ready = list(STATE.glob("ready_*"))
                if len(ready) == tasks and options["signal"].startswith("B:TERM@"):
                    job.send_signal(signal.SIGTERM)
                    for path in ready:
                        path.unlink()
        if not ((STATE / "requeue").exists() and "requeue" in options):
            return job.returncode
    return job.returncode


def _filled(pattern: str, names: dict[str, str]) -> str:
    parts = pattern.split("%%")
    for name, value in names.items():
        parts = [part.replace(name, value) for part in parts]
    return "%".join(parts)


def srun(arguments: list[str]) -> int:
    options = {}
    while arguments[0].startswith("--"):
        name, _, options[name] = arguments.pop(0).partition("=")
    processes = []
    for index in range(int(os.environ["SLURM_NTASKS"])):
        variables = {
            "SLURM_PROCID": str(index),
            "SLURM_LOCALID": str(index),
            "SLURM_STEP_NODELIST": "localhost",
        }
        with open(_filled(options["--output"], {"%t": str(index), "%j": str(JOB)}), "a") as log:
            processes.append(
                subprocess.Popen(arguments, env=os.environ | variables, stdout=log, stderr=log)
            )
    (STATE / "step").write_text(" ".join(str(process.pid) for process in processes))
    codes = [process.wait() for process in processes]
    return max(code if code >= 0 else 128 - code for code in codes)


def _own() -> str:
    """The id that means this job, or this task of an array, alone."""
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    return str(JOB) if index is None else f"{JOB}_{index}"


def scancel(arguments: list[str]) -> int:
    if arguments != ["--signal=TERM", f"{_own()}.0"]:
        return 1
    for process in (STATE / "step").read_text().split():
        os.kill(int(process), signal.SIGTERM)
    return 0


def scontrol(arguments: list[str]) -> int:
    if arguments != ["requeue", _own()]:
        return 1
    (STATE / "requeue").touch()
    return 0


def squeue(arguments: list[str]) -> int:
    if f"--jobs={_own()}" not in arguments:
        print("PENDING")  # the other tasks of the array
    print("COMPLETING" if (STATE / "cancelled").exists() else "RUNNING")
    return int(not {f"--jobs={_own()}", f"--jobs={JOB}"} & set(arguments))


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    sys.exit(
        {program.__name__: program for program in (sbatch, srun, scancel, scontrol, squeue)}[name](
            given
        )
    )
