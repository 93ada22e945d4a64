import dataclasses
import importlib
import math
import os
import pathlib
import types

import pytest
from ml_collections import ConfigDict

from configs.gloria import paper as gloria
from configs.machines import base
from configs.prior import paper as prior
from launch.start import machines
from launch.start import run as run_lib
from prior_jax.config import read_config
from prior_jax.errors import ConfigError
from prior_jax.strict import build

NAMES = sorted(
    path.stem
    for path in pathlib.Path(base.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "base")
)


def machine(name):
    section = importlib.import_module(f"configs.machines.{name}").get_config()
    return build(machines.MachineConfig, section, name="machine")


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_s_axes_take_all_its_chips(name):
    found = machine(name)
    sizes = list(found.mesh.axes.values())
    assert found.chips % math.prod(size for size in sizes if size != -1) == 0
    assert -1 in sizes or math.prod(sizes) == found.chips
    assert set(found.mesh.data_axes) <= set(found.mesh.axes)
    assert found.chip.hbm_bytes > 1e9 and found.chip.peak_flops > 1e11


def test_a_machine_of_several_slices_has_the_chips_of_each():
    options = dict(topology="v5e:8x8", chips=64, wraps=False, fsdp=16, pairs_per_chip=128)
    section = base.tpu("v5e_2x64", base.V5E, slices=2, **options)
    found = build(machines.MachineConfig, section, name="machine")
    assert (found.slices, found.processes, found.chips) == (2, 32, 128)
    assert dict(found.mesh.axes) == {"dcn": 2, "data": -1, "fsdp": 16}


@pytest.mark.parametrize("module", [prior, gloria])
def test_a_config_takes_the_machine_s_mesh_and_what_is_computed_again(module):
    found = machine("v5e_16")
    config = module.get_config()
    merged = machines.merged(config, found, batch_size=2048)
    assert merged.data.batch_size == 2048
    assert merged.mesh.axes.to_dict() == dict(found.mesh.axes)
    assert merged.model.image.resnet.remat == found.remat.image
    assert merged.model.text.remat == found.remat.text
    assert config.data.batch_size != 2048 and config.model.text.remat == "none"


def test_what_two_places_give_is_refused_by_name():
    found, config = machine("v5e_16"), prior.get_config()
    with pytest.raises(ConfigError, match=r"--config\.data\.batch_size.*--pairs_per_chip"):
        machines.merged(config, found, batch_size=64, given=("data.batch_size",))
    with pytest.raises(ConfigError, match=r"--config\.mesh\.axes\.data.*--machine"):
        machines.merged(config, found, batch_size=64, given=("mesh.axes.data",))
    config.mesh.axes = ConfigDict({"data": 4})
    with pytest.raises(ConfigError, match=r"config\.mesh\.axes.*--machine would replace"):
        machines.merged(config, found, batch_size=64)


def test_a_mesh_that_a_run_has_kept_is_replaced():
    config = machines.merged(prior.get_config(), machine("v5e_16"), batch_size=2048)
    there = machine("h100_8")
    moved = machines.merged(config, there, batch_size=None, replace=True)
    assert moved.mesh.axes.to_dict() == dict(there.mesh.axes)
    assert moved.mesh.fsdp_axis is None and moved.data.batch_size == 2048
    assert moved.model.text.remat == "none"


def test_a_run_may_go_on_on_another_machine():
    def identity(config):
        tokenizer = types.SimpleNamespace(fingerprint="words")
        manifest = types.SimpleNamespace(fingerprint="records")
        read = read_config(config, workdir=pathlib.Path())
        return run_lib.identity(
            run_lib.identity_of_settings(read),
            types.SimpleNamespace(manifest=manifest, tokenizer=tokenizer),
        )

    config = prior.get_config()
    known = identity(config)
    assert identity(machines.merged(config, machine("v5e_16"), batch_size=None)) == known
    assert identity(machines.merged(config, machine("v5e_16"), batch_size=2048)) != known
    config.model.text.dropout = 0.2
    assert identity(config) != known


def test_a_stray_field_of_a_machine_is_refused_by_name():
    section = importlib.import_module("configs.machines.v5e_16").get_config()
    with section.unlocked():
        section.stray = 1
    with pytest.raises(ConfigError, match=r"machine\.stray"):
        build(machines.MachineConfig, section, name="machine")


def test_without_libtpu_the_error_says_how_to_install_it(monkeypatch):
    def absent(**_):
        raise RuntimeError("JAX TPU support not installed")

    monkeypatch.setattr(machines.topologies, "get_topology_desc", absent)
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=r"pip install 'prior_jax\[tpu\]'"):
        machines.absent_devices(machine("v5e_16"))


def test_the_environment_fills_in_what_is_not_set(monkeypatch):
    found = dataclasses.replace(machine("cpu"), environment={"HERE": "1", "ABSENT": "2"})
    monkeypatch.setenv("HERE", "0")
    monkeypatch.delenv("ABSENT", raising=False)
    found.set_environment()
    assert (os.environ.pop("ABSENT"), os.environ["HERE"]) == ("2", "0")


def test_flags_are_added_to_those_that_are_set(monkeypatch):
    """JAX sets a flag of libtpu on every host with TPUs, when it is imported."""
    ours = machine("v5e_16").environment["LIBTPU_INIT_ARGS"].split()
    monkeypatch.setenv("LIBTPU_INIT_ARGS", " --xla_tpu_use_enhanced_launch_barrier=true")
    machine("v5e_16").set_environment()
    assert os.environ["LIBTPU_INIT_ARGS"].split() == [
        "--xla_tpu_use_enhanced_launch_barrier=true",
        *ours,
    ]
    machine("v5e_16").set_environment()
    assert len(os.environ["LIBTPU_INIT_ARGS"].split()) == 1 + len(ours) == 3
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--fibers_default_thread_stack_size=5")
    machine("v5e_16").set_environment()
    assert os.environ["LIBTPU_INIT_ARGS"].split() == [
        "--fibers_default_thread_stack_size=5",
        ours[1],
    ]
    monkeypatch.setenv("XLA_FLAGS", "/etc/xla/flags")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    machine("h100_8").set_environment()
    assert os.environ["XLA_FLAGS"] == "/etc/xla/flags"
    assert os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION") == "0.92"
