"""The feed: what counts as a wait for data."""

import pathlib
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from prior_jax.sharding.mesh import make_mesh
from prior_jax.train.feed import Feed
from tests.train import toy

_SECONDS = 0.05


class SlowData(toy.ToyData):
    """Data whose batches take `_SECONDS` each."""

    def train_batches(self, **place):
        for row in super().train_batches(**place):
            time.sleep(_SECONDS)
            yield row


class Pending:
    """An array that a device computes until `done`."""

    def __init__(self, *, done: bool):
        self.done = done

    def is_ready(self) -> bool:
        return self.done


def opened() -> Feed:
    mesh = make_mesh({"data": 1}, devices=jax.devices()[:1])
    return Feed(SlowData(), start=0, stop=3, mesh=mesh, data_axes=("data",))


def test_a_wait_counts_when_nothing_is_computed_meanwhile():
    feed = opened()
    assert feed.take().step == 0
    assert feed.waited_seconds >= _SECONDS


def test_a_wait_counts_unless_the_devices_still_compute_at_its_end():
    feed = opened()
    feed.prefetch(computing=[Pending(done=False), jnp.zeros(())])
    assert feed.waited_seconds == 0
    assert feed.take().step == 0
    assert feed.waited_seconds == 0, "the batch was there already"
    feed.prefetch(computing=[Pending(done=True)])
    assert feed.waited_seconds >= _SECONDS


@pytest.mark.multiprocess
def test_processes_whose_devices_lie_unevenly_in_the_mesh_load_their_own_rows():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "tests.train.uneven_feed", port]
    root = pathlib.Path(__file__).parents[2]
    both = [
        subprocess.Popen([*command, process], cwd=root, stdout=subprocess.PIPE, text=True)
        for process in "01"
    ]
    try:
        printed = [process.communicate(timeout=150)[0].splitlines()[-1] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0]
    assert printed == ["0 3", "1 2"]
