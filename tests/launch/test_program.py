"""How programs choose their devices, and how they end when they are interrupted."""

import importlib.util

import jax
import pytest

from launch.start import jax_settings, program


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with libtpu whose device files and PCI bus are folders; nothing is on them."""
    for folder in ("dev", "bus/devices"):
        (tmp_path / folder).mkdir(parents=True)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name == "libtpu" or find_spec(name)
    )
    for name in ("JAX_FORCE_TPU_INIT", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield tmp_path
    jax.config.update("jax_platforms", before)


def only_cpu(machine):
    return jax_settings._only_cpu(devices=machine / "dev", bus=machine / "bus")


def test_libtpu_without_an_accelerator_is_left_alone(machine):
    assert only_cpu(machine)


@pytest.mark.parametrize("name", ["accel0", "vfio/0", "nvidia0", "nvidiactl", "dxg", "kfd"])
def test_an_accelerator_is_looked_for_where_its_device_file_is(machine, name):
    path = machine / "dev" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    assert not only_cpu(machine)


def test_a_device_of_google_may_be_a_tpu(machine):
    device = machine / "bus" / "devices" / "0000:00:04.0"
    device.mkdir()
    (device / "vendor").write_text("0x1ae0\n")
    assert not only_cpu(machine)


def test_platforms_that_the_user_names_are_left_as_they_are(machine, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    assert not only_cpu(machine)
    monkeypatch.delenv("TPU_NAME")
    jax.config.update("jax_platforms", "tpu,cpu")
    assert not only_cpu(machine)


def test_without_libtpu_jax_looks_for_itself(machine, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not only_cpu(machine)


def test_an_interrupted_program_ends_with_one_line(capfd, program_logging):
    def main():
        raise KeyboardInterrupt

    assert program.guarded(main, [""]) == 130
    assert capfd.readouterr().err == (
        "The program was interrupted. Run the same command again to go on.\n"
    )
