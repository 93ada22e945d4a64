"""How programs choose their devices, and how they end when they are interrupted."""

import importlib.util
import os
import pathlib
import platform
import subprocess
import sys

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


@pytest.mark.parametrize("kind, shared", [("gpu", True), ("tpu", True), ("cpu", False)])
def test_hosts_share_the_programs_for_accelerators(tmp_path, monkeypatch, kind, shared):
    """Process 0 alone writes them."""
    settings, folders = {}, set()
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.setattr(jax, "default_backend", lambda: kind)
    for host in ("node-1", "node-2"):
        monkeypatch.setattr(platform, "node", lambda host=host: host)
        jax_settings.compile_to(tmp_path, quick=False)
        folders.add(settings["jax_compilation_cache_dir"])
    assert len(folders) == (1 if shared else 2)
    assert all(pathlib.Path(folder).parent == tmp_path / "compiled" for folder in folders)


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


# Takes 200 MB twice, as a step does, with a compilation after each, and prints how many pages the
# second time had to be cleared.
FREED = """
import ctypes, resource
import jax
from launch.start import jax_settings
jax.config.update("jax_platforms", {platforms!r})
jax_settings.keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = (ctypes.c_size_t,)
library.free.argtypes = (ctypes.c_void_p,)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(200_000_000)
    ctypes.memset(block, 1, 200_000_000)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    library.free(block)
    compiled = "/jax/core/compile/backend_compile_duration"
    jax.monitoring.record_event_duration_secs(compiled, {seconds})
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are the GNU library's")
@pytest.mark.parametrize(
    ("platforms", "given", "seconds", "kept"),
    [
        ("cpu", {}, 0.1, True),
        ("cpu", {}, 30.0, False),
        ("cuda", {}, 0.1, False),
        ("cpu", {"MALLOC_ARENA_MAX": "2"}, 0.1, False),
    ],
)
def test_freed_memory_is_kept_on_a_cpu_unless_the_user_sets_the_allocator(
    platforms, given, seconds, kept
):
    """Except after a long compilation, whose pieces would lie between the free blocks."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if "MALLOC" not in name and "GLIBC" not in name
    }
    found = subprocess.run(
        [sys.executable, "-c", FREED.format(platforms=platforms, seconds=seconds)],
        cwd=pathlib.Path(__file__).parents[2],
        env=plain | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(found.stdout) < 1000) == kept
