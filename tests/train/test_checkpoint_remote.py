"""Checkpoints in buckets: the same as in a folder, over the real protocols."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import fsspec
import jax
import numpy as np
import pytest
from etils import epath

from prior_jax.errors import CheckpointError
from prior_jax.train import checkpoint_storage as storage
from prior_jax.train.checkpoint_read import best_step, list_steps, restore_model
from tests.train import saver, stores, toy
from tests.train.marks import ABANDONED_READS

ROOT = pathlib.Path(__file__).parents[2]
COLUMNS = 16
pytestmark = [
    pytest.mark.slow,
    # Of the stores' own clients.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    *ABANDONED_READS,
]


@pytest.fixture(scope="session", params=stores.KINDS)
def store(request):
    with stores.serve(request.param) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def folder(store, request):
    name = re.sub(r"\W+", "_", request.node.name)
    return storage.open_path(f"{store.url}/runs/{name}/checkpoints")


@pytest.fixture(scope="module")
def mesh():
    return toy.mesh_of(1)


def save(folder, mesh, *steps, scores=None, config=saver.KEEP):
    checkpoints, _ = saver.restore(folder, columns=COLUMNS, mesh=mesh, config=config)
    for step in steps:
        state = saver.state_at(step, columns=COLUMNS, mesh=mesh)
        score = None if scores is None else scores[step]
        checkpoints.save(state, host={"step": step}, score=score)
    checkpoints.wait()


def assert_restores(folder, mesh, step, *, columns=COLUMNS):
    _, found = saver.restore(folder, columns=columns, mesh=mesh)
    want = saver.state_at(step, columns=columns, mesh=mesh)
    assert found is not None and found[1] == {"step": step}
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def objects(path):
    """Every object below a path that holds something, largest first."""
    scheme = str(path).split("://")[0]
    found = fsspec.filesystem(scheme, use_listings_cache=False).find(str(path), detail=True)
    sized = sorted((info["size"], name) for name, info in found.items() if info["size"])
    return [epath.Path(f"{scheme}://{name}") for _, name in reversed(sized)]


def start(store, folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.saver", str(folder), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | store.environment | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, timeout=150):
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, output, errors


def test_a_state_comes_back_bit_for_bit_and_old_ones_go(folder, mesh):
    save(folder, mesh, 1, 2, 3)
    assert list_steps(folder) == [2, 3]
    assert not (folder / "1").exists()
    assert_restores(folder, mesh, 3)
    save(folder, mesh, 3, 4)
    assert list_steps(folder) == [3, 4]
    assert_restores(folder, mesh, 4)


def test_evaluation_finds_the_best_and_any_step(folder, mesh):
    config = toy.replace(saver.KEEP, keep_last=1, keep_best=1, best_metric="loss")
    save(folder, mesh, 1, 2, 3, scores={1: 0.2, 2: 0.1, 3: 0.3}, config=config)
    assert list_steps(folder) == [2, 3]
    assert best_step(folder, best_is="lowest", metric="loss") == 2
    shapes = saver.shapes(saver.state_at(0, columns=COLUMNS, mesh=mesh))
    params, rest, step = restore_model(folder, params=shapes.params, rest=shapes.rest, step=2)
    want = saver.state_at(2, columns=COLUMNS, mesh=mesh)
    assert step == 2 and rest.keys() == want.rest.keys()
    np.testing.assert_array_equal(params["large"], want.params["large"])


def test_a_run_goes_on_from_a_bucket(folder, tmp_path):
    there = toy.options(checkpoint=toy.replace(toy.CHECKPOINT, directory=str(folder)))
    whole = toy.run(tmp_path / "whole")
    with pytest.raises(toy.Died):
        toy.run(tmp_path / "one", options=there, data=toy.StopAt(10))
    assert list_steps(folder)[-1] == 8
    assert not (tmp_path / "one" / "checkpoints").exists()
    snapshot = toy.run(tmp_path / "one", options=there)
    toy.assert_same_bits(toy.arrays(snapshot), toy.arrays(whole))
    assert toy.losses(tmp_path / "one") == toy.losses(tmp_path / "whole")


@pytest.mark.parametrize("how", ["overwritten", "truncated", "gone"])
def test_a_damaged_object_is_named_and_the_checkpoint_before_is_used(folder, mesh, caplog, how):
    save(folder, mesh, 1, 2)
    victim = objects(folder / "2" / "model")[0]
    if how == "gone":
        victim.unlink()
    else:
        bits = bytearray(victim.read_bytes())
        bits[len(bits) // 2] ^= 1
        victim.write_bytes(bytes(bits if how == "overwritten" else bits[: len(bits) // 2]))
    with caplog.at_level("ERROR"):
        assert_restores(folder, mesh, 1)
    assert f"checkpoint {folder / '2'} is damaged" in caplog.text
    assert (folder / "2" / storage.DAMAGED).exists()
    assert list_steps(folder) == [1]
    save(folder, mesh, 2)
    assert_restores(folder, mesh, 2)


def test_only_damaged_checkpoints_are_an_error_at_every_start(folder, mesh):
    save(folder, mesh, 1, 2)
    for step in ("1", "2"):
        (folder / step / "host").rmtree()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"steps \[1, 2\] are damaged"):
            saver.restore(folder, columns=COLUMNS, mesh=mesh)


def test_a_process_that_is_killed_while_it_saves_loses_only_that_save(store, folder, mesh):
    columns = 1 << 16  # two arrays of 16 MiB
    code, _, errors = finish(start(store, folder, 1, 1, "--columns", columns))
    assert code == 0, errors
    process = start(store, folder, 2, 2, "--columns", columns)
    while not (folder / "2").exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    _, output, errors = finish(process)
    assert "saved 2" not in output, "the save was over"
    assert objects(folder / "2"), "nothing had been written"
    assert list_steps(folder) == [1]
    code, output, errors = finish(start(store, folder, 3, 3, "--columns", columns))
    assert code == 0, errors
    assert f"removing {folder / '2'}, left by an interrupted run" in errors
    assert "restored 1\n" in output
    assert list_steps(folder) == [1, 3]
    assert_restores(folder, mesh, 3, columns=columns)


@pytest.mark.multiprocess
def test_two_processes_save_what_one_restores(store, folder, mesh):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    shared = ("--coordinator", coordinator, "--process")
    both = [start(store, folder, 1, 3, *shared, index) for index in (0, 1)]
    for process in both:
        code, _, errors = finish(process)
        assert code == 0, errors
    assert list_steps(folder) == [2, 3]
    assert_restores(folder, mesh, 3)


def test_a_bucket_that_is_not_there_is_named_and_not_made(store, mesh):
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=rf"{store.missing}/run: The bucket does not exist .*Create"
        ) as told:
            saver.restore(f"{store.missing}/run", columns=COLUMNS, mesh=mesh)
        assert "\n" not in str(told.value)
    assert not epath.Path(store.missing).exists()


def test_keys_that_may_nothing_are_told_at_the_start():
    # The first two requests, until the bucket is made, are let through.
    with stores.serve("s3", INITIAL_NO_AUTH_ACTION_COUNT="2") as closed:
        code, _, errors = finish(start(closed, f"{closed.url}/run", 1, 1))
    assert code == 2
    last = errors.strip().splitlines()[-1]
    assert re.match("s3://bucket/run: There is no permission", last), errors


def test_a_storage_that_does_not_answer_is_told_at_the_start():
    with stores.serve("s3") as gone:
        pass
    code, _, errors = finish(start(gone, f"{gone.url}/run", 1, 1))
    assert code == 2
    last = errors.strip().splitlines()[-1]
    assert re.match("s3://bucket/run: The storage does not answer", last), errors
