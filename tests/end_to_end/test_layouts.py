"""One device, several, or several processes: the same batches and the same losses."""

import json
import signal

import jax
import numpy as np
import pytest

from prior_jax.config import read_kept_config
from prior_jax.data import pipeline
from prior_jax.sharding.placement import placement
from prior_jax.train.feed import Feed
from prior_jax.types import BatchPart
from tests.end_to_end import runs

RTOL = 1e-4


@pytest.fixture(scope="module")
def data(finished):
    """The training split of the debug job."""
    config = read_kept_config(finished.workdir)
    return config, pipeline.open_split(config.data, "train", cache_dir=finished.workdir / "cache")


def batches_on(config, split, *, devices, start):
    place = placement(config.mesh, devices=jax.devices()[:devices])
    feed = Feed(split, start=start, stop=runs.STEPS, mesh=place.mesh, data_axes=place.data_axes)
    try:
        return [jax.device_get(feed.take().batch) for _ in range(start, runs.STEPS)]
    finally:
        feed.close()


def assert_same_batches(one, other):
    for batch, second in zip(one, other, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch, second)


@pytest.mark.multidevice
def test_batches_are_the_same_on_every_number_of_devices(data):
    config, split = data
    one = batches_on(config, split, devices=1, start=0)
    assert len({batch.record.tobytes() for batch in one}) == runs.STEPS
    for devices, start in ((2, 0), (8, 0), (8, 13)):
        other = batches_on(config, split, devices=devices, start=start)
        assert_same_batches(one[start:], other)


@pytest.mark.parametrize("processes", [2, 8])
def test_batches_are_the_same_on_every_number_of_processes(data, processes):
    config, split = data
    one = batches_on(config, split, devices=1, start=0)
    parts = []
    for index in range(processes):
        with split.train_batches(part=BatchPart(blocks=(index,), count=processes)) as iterator:
            parts.append([next(iterator)[1] for _ in range(runs.STEPS)])
    joined = [
        jax.tree.map(lambda *rows: np.concatenate(rows), *step) for step in zip(*parts, strict=True)
    ]
    assert_same_batches(one, joined)


def report(capsys, name, worst):
    with capsys.disabled():
        print(f"\n{name}: losses differ by at most {worst[0]:.1e} ({worst[1]})")


@pytest.mark.slow
@pytest.mark.multidevice
@pytest.mark.parametrize("devices", [2, 8])
def test_devices_give_the_same_losses(finished, single, tmp_path, capsys, devices):
    workdir = runs.folder(tmp_path / "run", finished)
    runs.go(workdir, *finished.data, *runs.GENTLE, f"--cpu_devices={devices}")
    worst = runs.worst_difference(single, workdir)
    report(capsys, f"{devices} devices", worst)
    assert worst[0] < RTOL, worst


@pytest.mark.slow
@pytest.mark.multidevice
def test_a_split_bank_gives_the_same_losses(finished, single, tmp_path, capsys):
    workdir = runs.folder(tmp_path / "run", finished)
    options = ("--cpu_devices=8", "--config.mesh.bank_axis=data")
    runs.go(workdir, *finished.data, *runs.GENTLE, *options)
    worst = runs.worst_difference(single, workdir)
    report(capsys, "8 devices, split bank", worst)
    assert worst[0] < RTOL, worst


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_give_the_same_losses(finished, single, tmp_path, capsys):
    workdir = runs.folder(tmp_path / "run", finished)
    results = runs.finish_all(runs.together(workdir, *finished.data, *runs.GENTLE))
    assert [code for code, _ in results] == [0, 0], results
    worst = runs.worst_difference(single, workdir)
    report(capsys, "2 processes", worst)
    assert worst[0] < RTOL, worst


@pytest.mark.slow
@pytest.mark.multidevice
def test_a_run_moves_from_8_devices_to_1_and_back(finished, single, tmp_path, capsys):
    workdir = runs.folder(tmp_path / "run", finished)
    for devices, lines in ((8, 6), (1, 14)):
        options = (*finished.data, *runs.GENTLE, f"--cpu_devices={devices}")
        process = runs.start(workdir, *options)
        assert runs.wait_for(process, lambda lines=lines: runs.logged(workdir) >= lines)
        process.send_signal(signal.SIGTERM)
        code, output = runs.finish(process)
        assert code == 75, output
        assert runs.logged(workdir) < runs.STEPS
    runs.go(workdir, *finished.data, *runs.GENTLE, "--cpu_devices=8")
    assert json.loads((workdir / "config.json").read_text())["name"] == "debug"
    worst = runs.worst_difference(single, workdir)
    report(capsys, "8 devices, then 1, then 8", worst)
    assert worst[0] < RTOL, worst
