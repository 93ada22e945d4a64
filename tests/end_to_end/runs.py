"""Runs of the debug job in processes of their own, on data that is drawn once."""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from prior_jax.train.checkpoint_read import list_steps, read_document
from prior_jax.train.checkpoint_storage import COMMITTED

ROOT = pathlib.Path(__file__).parents[2]
TIMINGS = ("pairs_per_second", "input_wait")
STEPS, STAGE_STEPS = 24, 8
"""Of the debug job, over its three stages and in each."""
# At the debug job's rates all sentences of a report soon look up the same prototype. Then every
# assignment of predictions to them costs the same, and rounding, which differs, chooses.
GENTLE = tuple(f"--config.stages.stage{i}.learning_rate=3e-5" for i in (1, 2, 3))


@dataclasses.dataclass(frozen=True)
class Finished:
    """The debug job, run as the README says: its data and compiled programs serve other runs."""

    workdir: pathlib.Path
    output: str

    @property
    def data(self):
        """Flags of a run on this data that ends with its training."""
        return (
            f"--config.data.path={self.workdir / 'data' / 'set'}",
            f"--config.data.tokenizer.path={self.workdir / 'tokenizer' / 'tokenizer.model'}",
            "--config.after=()",
        )


class Running(subprocess.Popen):
    """A program that prints to a file, so that it never waits for its reader."""

    def __init__(self, command):
        environment = os.environ | {"NPROC": "16", "JAX_PLATFORMS": "cpu"}
        self.log = tempfile.NamedTemporaryFile()
        super().__init__(
            command, cwd=ROOT, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )

    def printed(self):
        """All that it has printed so far."""
        return pathlib.Path(self.log.name).read_text()


def start(workdir, *options, program="launch.train"):
    """Starts a program, or one with arguments of its own; the debug job where it trains."""
    module, *arguments = (program,) if isinstance(program, str) else program
    if module != "launch.evaluate":
        arguments.append("--config=configs/debug.py")
    return Running([sys.executable, "-m", module, *arguments, f"--workdir={workdir}", *options])


def finish(process, timeout=400):
    """Exit code and all that was printed."""
    ((code, output),) = finish_all([process], timeout=timeout)
    return code, output


def finish_all(processes, timeout=400):
    """Exit code and all that was printed, of each; none is left running."""
    deadline = time.monotonic() + timeout
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(deadline - time.monotonic(), 0.0))
    found = []
    for process in processes:
        late = process.poll() is None
        process.kill()
        code = process.wait()
        found.append((f"none in {timeout} s" if late else code, process.printed()))
        process.log.close()
    return found


def go(workdir, *options, code=0):
    found, output = finish(start(workdir, *options))
    assert found == code, output
    return output


def folder(path, finished):
    """A new workdir that shares what others have compiled and measured."""
    path.mkdir()
    (path / "cache").symlink_to(finished.workdir / "cache")
    return path


def together(workdir, *options, processes=2, last=(), program="launch.train"):
    """The processes of one run, by one flag more each; the last one also has flags of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ("--distributed=explicit", f"--coordinator=127.0.0.1:{port}")
    shared += (f"--processes={processes}",)
    return [
        start(
            workdir,
            *options,
            *(last if i == processes - 1 else ()),
            *shared,
            f"--process={i}",
            program=program,
        )
        for i in range(processes)
    ]


def lines(workdir):
    text = (pathlib.Path(workdir) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def numbers(workdir):
    """The lines without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines(workdir)]


def final_bits(workdir):
    """Every bit of the final state, as the shape, dtype and checksum of each array."""
    checkpoints = pathlib.Path(workdir) / "checkpoints"
    last = list_steps(checkpoints)[-1]
    arrays = read_document(checkpoints / str(last))["arrays"]
    assert last == STEPS and len(arrays) > 100
    return arrays


def wait_for(process, condition, timeout=300):
    """Waits until something is true or the process has ended; says whether it is true."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return True
        time.sleep(0.002)
    return False


def logged(workdir):
    """How many lines there are."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saved_steps(workdir):
    """Steps of the completed checkpoints."""
    checkpoints = pathlib.Path(workdir) / "checkpoints"
    return list_steps(checkpoints) if checkpoints.exists() else []


def saving(workdir):
    """Whether a checkpoint is being written, or was when the run was killed."""
    checkpoints = pathlib.Path(workdir) / "checkpoints"
    found = checkpoints.iterdir() if checkpoints.exists() else ()
    return any(path.is_dir() and not (path / COMMITTED).exists() for path in found)


def workers(process):
    """Process ids of the workers that a program's input pipeline has started."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parent = path.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process.pid and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def worst_difference(one, other, *, atol=1e-6):
    """Largest relative difference of any loss, where it is more than `atol`; and its name."""
    worst = (0.0, "")
    for line, second in zip(numbers(one), numbers(other), strict=True):
        for name in ("step", "stage", "batch"):
            assert line[name] == second[name], (name, line["step"])
        assert line.keys() == second.keys()
        for name in (name for name in line if name.endswith("_loss")):
            error = max(abs(line[name] - second[name]) - atol, 0.0)
            worst = max(worst, (error / max(abs(line[name]), 1e-12), f"{name}, {line['step']}"))
    return worst
