"""Process start-up, in one process; several are tested in train/test_processes.py."""

import socket

import jax
import pytest

from prior_jax.errors import ConfigError
from prior_jax.processes import distributed
from prior_jax.processes.distributed import DistributedConfig


def config(**changes):
    fields = dict(mode="off", coordinator=None, processes=None, process=None, timeout_seconds=5)
    return DistributedConfig(**(fields | changes))


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"mode": "on"}, "mode"),
        ({"coordinator": "here:1"}, "coordinator"),
        ({"mode": "auto", "processes": 2}, "processes"),
        ({"mode": "explicit", "coordinator": "here:1", "processes": 2}, "process"),
        (
            {"mode": "explicit", "coordinator": "here:1", "processes": 2, "process": 2},
            "process",
        ),
        *(
            ({"mode": "explicit", "coordinator": one, "processes": 2, "process": 0}, "coordinator")
            for one in ("here", "here:", ":1", "here:one", "here:0", "here:65536", "::1:1", "a b:1")
        ),
    ],
)
def test_half_an_address_is_refused_by_name(changes, field):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        config(**changes)


@pytest.mark.parametrize("coordinator", ["node-1.cluster:65535", "10.0.0.1:1234", "[fe80::1]:80"])
def test_a_process_that_is_told_its_place_sees_all_its_gpus(monkeypatch, coordinator):
    """Slurm's variables would have JAX hide all but one."""
    asked = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: asked.update(given))
    explicit = dict(mode="explicit", coordinator=coordinator, processes=1, process=0)
    distributed.start(config(**explicit))
    assert asked["coordinator_address"] == coordinator
    assert asked["cluster_detection_method"] == "deactivate"
    distributed.start(config(mode="auto"))
    assert asked["cluster_detection_method"] is None


def test_one_process_needs_nobody():
    distributed.start(config())
    distributed.check_agreement({"seed": "1"}, clock_tolerance_seconds=1.0)
    distributed.barrier("nothing")
    distributed.stop()
    assert distributed.agree(True) and not distributed.agree(False)
    assert distributed.is_primary()


def test_the_fingerprint_follows_names_and_contents(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = distributed.code_fingerprint(tmp_path)
    assert distributed.code_fingerprint(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2\n")
    second = distributed.code_fingerprint(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, distributed.code_fingerprint(tmp_path)}) == 3
    assert len(distributed.code_fingerprint()) == 64


def test_a_port_that_nobody_listens_at_is_told_from_one_that_is_slow():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert distributed._takes_connections(address)
    assert not distributed._takes_connections(address)
    assert distributed._takes_connections("a.host.invalid:1")
