"""Which studies go into which shard."""

import itertools
import os
import signal
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from data_prep.kit import cli, shards, writer
from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError, DataError

STUDIES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), max_size=60)


@hypothesis.given(STUDIES, st.integers(1, 9))
@hypothesis.settings(deadline=None, max_examples=200)
def test_jobs_tile_the_studies_and_never_cut_a_patient(studies, most):
    studies = sorted((code, code * 100 + subject) for code, subject in studies)
    codes = np.array([code for code, _ in studies], np.int8)
    subjects = np.array([subject for _, subject in studies], np.int64)
    jobs = shards.shard_jobs(codes, subjects, studies_per_shard=most)
    assert [j for job in jobs for j in range(job.begin, job.end)] == list(range(len(studies)))
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        assert {SPLITS[codes[place]] for place in range(job.begin, job.end)} == {job.split}
        inside = {subjects[place] for place in range(job.begin, job.end)}
        assert job.end - job.begin <= most or len(inside) == 1
    for left, right in itertools.pairwise(jobs):
        assert left.split != right.split or subjects[left.end - 1] != subjects[right.begin]


def test_full_shards_are_not_left_half_empty():
    jobs = shards.shard_jobs(np.zeros(100, np.int8), np.arange(100), studies_per_shard=30)
    assert [job.end - job.begin for job in jobs] == [30, 30, 30, 10]


def test_no_worker_is_refused_by_name():
    with pytest.raises(ConfigError, match="--workers"):
        cli.RunOptions(out="x", workers=0)


def _die(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def test_a_dead_worker_is_told_with_its_end_and_does_not_hang():
    with pytest.raises(
        ConfigError, match=r"--workers.*crashed \(SIGABRT\).*Run the same command again"
    ):
        list(cli.parallel(_die, [signal.SIGABRT, signal.SIGABRT], workers=2))


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (
            [-signal.SIGTERM, -signal.SIGKILL],
            "killed (SIGKILL), most likely because memory ran out",
        ),
        ([-signal.SIGSEGV, -signal.SIGTERM, 0], "crashed (SIGSEGV)"),
        ([9, -signal.SIGTERM], "exit code 9"),
        ([-signal.SIGTERM, None], "unknown reason"),
        ([], "unknown reason"),
    ],
)
def test_only_a_killed_worker_is_called_short_of_memory(codes, told):
    assert told in cli.end_of(codes)


def _square(number):
    if number == 7:
        raise ConfigError.of_value("field", 7, "another number")
    return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_parallel_gives_every_result_and_lets_errors_through(workers):
    done = dict(cli.parallel(_square, range(5), workers=workers))
    assert done == {number: number * number for number in range(5)}
    with pytest.raises(ConfigError, match="field: The value is 7"):
        list(cli.parallel(_square, [1, 7], workers=workers))


@pytest.mark.parametrize("finished", [False, True])
def test_a_refusal_removes_nothing_that_a_later_run_could_go_on_with(tmp_path, finished):
    """A table that cannot be read for a moment must not cost the shards of an interrupted run."""
    options = cli.RunOptions(out=str(tmp_path / "out"))
    with writer.opened(options, program="p", settings={}, inputs={}) as target:
        assert target is not None
        job = target.parts / "train-0000000.json"
        if finished:
            job.write_text("{}")
        with pytest.raises(DataError), writer.refusing(target):
            raise DataError("The disk fails.", "Try again.", where="table")
    assert job.exists() == (tmp_path / "out").exists() == finished
