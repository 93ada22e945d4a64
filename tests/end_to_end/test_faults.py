"""What a user sees of each fault, that no completed checkpoint is lost, and that mending helps.

Every fault is put into a copy of a run that was stopped in its second stage. The same command is
then given again, and once more when the fault has been mended: in the end all numbers are those of
a run that nothing has happened to.
"""

import dataclasses
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys

import pytest

from prior_jax.train.checkpoint_storage import COMMITTED
from tests import fixtures
from tests.end_to_end import runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a fault is put.

    Attributes:
      workdir: of the interrupted run.
      data: a copy of its prepared set.
      tokenizer: a copy of its tokenizer.
    """

    workdir: pathlib.Path
    data: pathlib.Path
    tokenizer: pathlib.Path

    @property
    def options(self):
        return (
            f"--config.data.path={self.data}",
            f"--config.data.tokenizer.path={self.tokenizer}",
            "--config.after=()",
            *runs.GENTLE,
        )

    @property
    def newest(self):
        return self.workdir / "checkpoints" / str(runs.saved_steps(self.workdir)[-1])

    @property
    def shard(self):
        (path,) = self.data.glob("*train.array_record*")
        return path


@pytest.fixture
def place(finished, interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path / "run", symlinks=True)
    shutil.copytree(finished.workdir / "data" / "set", tmp_path / "set")
    tokenizer = shutil.copy(finished.workdir / "tokenizer" / "tokenizer.model", tmp_path)
    return Place(tmp_path / "run", tmp_path / "set", pathlib.Path(tokenizer))


def biggest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    """Changes bytes all over the second half of a file."""
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data), max(len(data) // 64, 1)):
        data[at] ^= 0xFF
    path.write_bytes(data)


def flipped_bytes(place):
    flip(biggest(place.newest / "model"))


def missing_file(place):
    biggest(place.newest / "optimizer").unlink()


def missing_part(place):
    shutil.rmtree(place.newest / "host")


def half_written(place):
    half = shutil.copytree(place.newest, place.newest.with_name("20"))
    (half / COMMITTED).unlink()


def empty_folder(place):
    (place.workdir / "checkpoints" / "20").mkdir()


def torn_line(place):
    path = place.workdir / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 11, "sta')


# Name -> the fault, and what the log says of it while the run goes on.
MENDED_BY_ITSELF = {
    "flipped bytes in the newest checkpoint": (
        flipped_bytes,
        r"checkpoint \S+/{newest} is damaged: .*; trying the one before",
    ),
    "a file of the newest checkpoint is missing": (
        missing_file,
        r"checkpoint \S+/{newest} is damaged: .*; trying the one before",
    ),
    "a part of the newest checkpoint is missing": (
        missing_part,
        r"checkpoint \S+/{newest} is damaged: .*; trying the one before",
    ),
    "a half-written checkpoint": (
        half_written,
        r"removing \S+/20, left by an interrupted run",
    ),
    "an empty folder named like a checkpoint": (
        empty_folder,
        r"removing \S+/20, left by an interrupted run",
    ),
    "a line of metrics.jsonl that was cut off": (torn_line, r"restored \S+/{newest}"),
}


@pytest.mark.parametrize("name", MENDED_BY_ITSELF)
def test_the_run_goes_on_by_itself_and_says_so(place, single, name):
    inject, says = MENDED_BY_ITSELF[name]
    *others, newest = runs.saved_steps(place.workdir)
    inject(place)
    output = runs.go(place.workdir, *place.options)
    assert re.search(says.format(newest=newest), output), output
    assert f"restored {place.workdir}/checkpoints/" in output
    assert others, "a checkpoint to fall back to"
    assert runs.numbers(place.workdir) == runs.numbers(single)
    assert runs.final_bits(place.workdir) == runs.final_bits(single)


def all_damaged(place):
    for step in runs.saved_steps(place.workdir):
        flip(biggest(place.workdir / "checkpoints" / str(step) / "model"))


def checkpoints_again(place, finished, interrupted):
    shutil.rmtree(place.workdir / "checkpoints")
    shutil.copytree(interrupted / "checkpoints", place.workdir / "checkpoints")


def corrupt_record(place):
    flip(place.shard)


def missing_shard(place):
    place.shard.unlink()


def truncated_shard(place):
    data = place.shard.read_bytes()
    place.shard.write_bytes(data[: len(data) // 2])


def other_tokenizer(place):
    place.tokenizer.unlink()
    fixtures.train_sentencepiece(place.tokenizer)


def data_again(place, finished, interrupted):
    shutil.copytree(finished.workdir / "data" / "set", place.data, dirs_exist_ok=True)
    shutil.copy(finished.workdir / "tokenizer" / "tokenizer.model", place.tokenizer)


def folder_in_the_way(place):
    target = place.workdir / "metrics.jsonl"
    target.unlink()
    target.mkdir()


def metrics_again(place, finished, interrupted):
    target = place.workdir / "metrics.jsonl"
    target.rmdir()
    shutil.copy(interrupted / "metrics.jsonl", target)


# Name -> the fault, the line that the program ends with, and what mends it.
REFUSALS = {
    "every checkpoint is damaged": (
        all_damaged,
        r"checkpoints: The checkpoints at steps \[\d+, \d+\] are damaged, .* no intact one",
        checkpoints_again,
    ),
    "a corrupt record": (corrupt_record, r"train\.array_record.*(record|image)", data_again),
    "a shard is missing": (missing_shard, r"train\.array_record.*is missing", data_again),
    "a shard is cut off": (truncated_shard, r"train\.array_record.*(record|image)", data_again),
    "another tokenizer": (other_tokenizer, r"tokenizer.*received", data_again),
    "metrics.jsonl is a folder": (
        folder_in_the_way,
        r"metrics\.jsonl: The log of the metrics cannot be opened",
        metrics_again,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_the_run_is_refused_by_name_and_goes_on_once_mended(
    place, finished, interrupted, single, name
):
    inject, says, mend = REFUSALS[name]
    steps = runs.saved_steps(place.workdir)
    inject(place)
    output = runs.go(place.workdir, *place.options, code=2)
    assert_one_line(output, says)
    there = {path.parent.name for path in (place.workdir / "checkpoints").glob(f"*/{COMMITTED}")}
    assert set(map(str, steps)) <= there, "a checkpoint is gone"
    mend(place, finished, interrupted)
    assert_ends_like(single, place)


def assert_one_line(output, says):
    """The program's last line says it, and there is no trace of the program's own."""
    assert re.search(says, output.strip().splitlines()[-1]), output
    assert "Traceback" not in output, output


def assert_ends_like(single, place):
    output = runs.go(place.workdir, *place.options)
    assert "restored" in output
    assert runs.numbers(place.workdir) == runs.numbers(single)
    assert runs.final_bits(place.workdir) == runs.final_bits(single)


def test_a_full_disk_loses_no_checkpoint(place, single):
    """On a real file system of a few MiB, which root or a user name space can mount."""
    checkpoints = place.workdir / "checkpoints"
    steps = runs.saved_steps(place.workdir)
    files = [path for path in checkpoints.rglob("*") if path.is_file()]
    room = sum(path.stat().st_size + 4096 for path in files) * 5 // 4
    train = [sys.executable, "-m", "launch.train", "--config=configs/debug.py"]
    train += [f"--workdir={place.workdir}", *place.options]
    script = f"""
        set -u
        cp -r {checkpoints} {checkpoints}.kept
        mount -t tmpfs -o size={room} tmpfs {checkpoints}
        cp -r {checkpoints}.kept/* {checkpoints}
        {shlex.join(train)}
        echo "code $?" $(ls {checkpoints}/*/{COMMITTED})
        mount -o remount,size=64m {checkpoints}
        {shlex.join(train)}
        echo "code $?"
        cp -r {checkpoints} {checkpoints}.after
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    output = runs.finish(runs.Running([*namespace, "bash", "-c", script]))[1]
    first, second, _ = output.split("code ")
    assert_one_line(first, r"checkpoints.*: There is no space left on the device\.")
    code, *kept = second.splitlines()[0].split()
    assert code == "2" and {int(path.split("/")[-2]) for path in kept} == set(steps), output
    shutil.rmtree(checkpoints)
    checkpoints.with_name("checkpoints.after").rename(checkpoints)
    assert output.endswith("code 0\n"), output
    assert runs.numbers(place.workdir) == runs.numbers(single)
    assert runs.final_bits(place.workdir) == runs.final_bits(single)


def test_a_second_run_in_the_folder_is_refused(place, single):
    first = runs.start(place.workdir, *place.options)
    assert runs.wait_for(first, lambda: "restored" in first.printed())
    output = runs.go(place.workdir, *place.options, code=2)
    assert_one_line(output, f"--workdir: .* in use by process {first.pid} on")
    code, output = runs.finish(first)
    assert code == 0, output
    assert runs.numbers(place.workdir) == runs.numbers(single)


def test_other_settings_are_refused(place, single):
    for option, says in (
        ("--config.model.embed_dim=16", r"config\.model\.embed_dim.*16"),
        ("--config.data.batch_size=8", r"config\.data\.batch_size.*8"),
        ("--config.seed=5", r"config\.seed.*5"),
    ):
        output = runs.go(place.workdir, *place.options, option, code=2)
        assert_one_line(output, says)
    assert_ends_like(single, place)


def test_a_killed_worker_of_the_input_is_named(place):
    # So many steps that the worker cannot have read all of them ahead.
    options = ("--config.data.workers=1", "--config.stages.stage3.length=2000")
    process = runs.start(place.workdir, *place.options, *options)
    assert runs.wait_for(process, lambda: "ETA" in process.printed()), process.printed()
    before = runs.saved_steps(place.workdir)
    for worker in runs.workers(process):
        os.kill(worker, signal.SIGKILL)
    code, output = runs.finish(process)
    assert code == 2, output
    assert re.search(r"^A data worker was killed .*config\.data\.workers", output, re.MULTILINE)
    assert max(runs.saved_steps(place.workdir)) >= max(before)
