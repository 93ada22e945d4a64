"""The settings that hold for the whole process: JAX's options, and the variables that libtpu reads.

No other module of the programs changes them. They are set before a device is initialised, except
the folder of compiled programs, which is set before the first compilation.
"""

import contextlib
import ctypes
import importlib.util
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping

import jax

_ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES")
# Options of `mallopt` in <malloc.h>: one part of the memory for all threads (M_ARENA_MAX), no block
# of its own for a large array (M_MMAP_MAX), and nothing given back (M_TRIM_THRESHOLD). One part
# makes the threads of the compiler wait for each other: the step of PRIOR's third stage compiles in
# 38 to 48 s in place of 28. With two or four parts its peak memory is 16 GB in some runs.
_KEEP = {-8: 1, -4: 0, -1: -1}
# What is compiled lies between the free blocks of the steps before, which a step of another length
# does not fit into. Free pages are therefore given back after a compilation of this many seconds.
_COMPILED, _LONG = "/jax/core/compile/backend_compile_duration", 5.0
_LISTS = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")


def set_environment(variables: Mapping[str, str]) -> None:
    """Sets the environment variables that are not set.

    To a variable that lists flags, those flags are added that it does not have: users may have set
    others, and JAX itself sets one for libtpu when it is imported on a host with TPUs. XLA_FLAGS
    may also be the name of a file of flags, which is left as it is.
    """
    for name, value in variables.items():
        before = os.environ.get(name, "").strip()
        if name not in _LISTS:
            os.environ.setdefault(name, value)
        elif not before or before.startswith("-"):
            known = {flag.partition("=")[0] for flag in before.split()}
            added = [flag for flag in value.split() if flag.partition("=")[0] not in known]
            os.environ[name] = " ".join((*before.split(), *added))


def use_cpu(devices: int | None = None) -> None:
    """Runs the process on the CPU.

    Args:
      devices: number of simulated devices, or None for JAX's default.
    """
    jax.config.update("jax_platforms", "cpu")
    if devices is not None:
        jax.config.update("jax_num_cpu_devices", devices)


def leave_out_absent_tpu() -> None:
    """Keeps JAX from trying libtpu on a machine without an accelerator; see `_only_cpu`."""
    if _only_cpu():
        use_cpu()


def compile_to(folder: str | os.PathLike[str], *, quick: bool) -> None:
    """Keeps compiled programs in a folder, so that a resumed run and an evaluation start at once.

    It starts the devices, if they have not been started.

    Args:
      folder: cache of the run.
      quick: whether XLA leaves out most optimisations; see `RunConfig.quick_compile`.
    """
    # Code compiled for the CPU of one host need not run on that of another. Programs for
    # accelerators do, and the hosts of a run share them, since process 0 alone writes them.
    kind = jax.default_backend()
    cache = pathlib.Path(folder) / "compiled" / (platform.node() if kind == "cpu" else kind)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_disable_most_optimizations", quick)


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
    """Leaves out most optimisations of what is compiled within, such as a program that runs once.

    Drawing the numbers of a large model compiles for longer than it runs.
    """
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)


def compile_for_memory(folder: str | None, *, quick: bool) -> None:
    """Prepares a compilation whose program is not run.

    Args:
      folder: folder of compiled programs, or None for no cache.
      quick: whether the compiler makes the least effort.
    """
    if quick:
        jax.config.update("jax_exec_time_optimization_effort", -1.0)
        jax.config.update("jax_memory_fitting_effort", -1.0)
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", folder)


def keep_freed_memory() -> None:
    """Lets the C library keep the memory that a step has freed for the next one, on a CPU.

    XLA asks for the temporary arrays of a step anew every time. The GNU C library gives blocks of
    that size back to the system, which then clears each page once more: a quarter of the time of
    PRIOR's third stage on two cores. Only after a long compilation are free pages given back, as
    otherwise reports of several lengths would take twice the memory.

    Nothing is set where an accelerator computes, where the C library is another one, or where the
    user has set the allocator in the environment (MALLOC_..., GLIBC_TUNABLES). It is called before
    threads are started, as those that run have their part of the memory already.
    """
    chosen = any(name.startswith(_ALLOCATOR) for name in os.environ)
    named = jax.config.jax_platforms
    computes = named == "cpu" if named else not _accelerator()
    if chosen or not computes or platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    for option, value in _KEEP.items():
        library.mallopt(option, value)

    def give_back(event: str, seconds: float, **_: str | int) -> None:
        if event == _COMPILED and seconds > _LONG:
            library.malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(give_back)


def _only_cpu(
    devices: pathlib.Path = pathlib.Path("/dev"), bus: pathlib.Path = pathlib.Path("/sys/bus/pci")
) -> bool:
    """Tells whether libtpu is installed on a Linux machine that has neither a TPU nor a GPU.

    JAX tries every platform for which a library is installed, and libtpu then prints several lines
    of errors. If the user names platforms, or if an accelerator may be present, JAX searches for
    devices itself.

    Args:
      devices: folder of the device files.
      bus: folder of the PCI bus.
    """
    if jax.config.jax_platforms or importlib.util.find_spec("libtpu") is None:
        return False
    return not _accelerator(devices, bus)


def _accelerator(
    devices: pathlib.Path = pathlib.Path("/dev"), bus: pathlib.Path = pathlib.Path("/sys/bus/pci")
) -> bool:
    """Tells whether the machine may have a TPU or a GPU; vendor 0x1ae0 of the bus is Google."""
    if any(os.environ.get(name) for name in ("JAX_FORCE_TPU_INIT", "TPU_NAME")):
        return True
    files = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*", "nvidiactl", "dxg", "kfd")
    vendors = [path.read_text().strip() for path in bus.glob("devices/*/vendor")]
    return "0x1ae0" in vendors or any(any(devices.glob(name)) for name in files)
