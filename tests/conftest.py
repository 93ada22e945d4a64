"""Options and device set-up shared by every test."""

import os
import pathlib
import signal

# Simulated devices deadlock when their queues outrun the cores; more threads cure it.
os.environ.setdefault("NPROC", "16")

import jax
import pytest

from tests.compiling import compile_quickly

compile_quickly()  # before the first use of a device
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# None of the tests looks at the speed of what is compiled.
jax.config.update("jax_disable_most_optimizations", True)


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        type=pathlib.Path,
        default=None,
        help="directory with prior/, gloria/ or both, of numbers recorded from the authors' code",
    )
    parser.addoption(
        "--workdir",
        type=pathlib.Path,
        default=None,
        help="folder of a finished run of configs/phantom.py to try the README's example on; by "
        "default the debug job is run",
    )
    parser.addoption(
        "--iu_xray",
        type=pathlib.Path,
        default=None,
        help="folder ecgen-radiology of Open-i's reports; tests on real reports need it",
    )
    parser.addoption(
        "--regenerate-recipes",
        action="store_true",
        help="write tests/launch/recipes anew from the configs; with -k NAME only that one",
    )


@pytest.fixture(scope="session")
def golden_dir(request) -> pathlib.Path:
    carried = pathlib.Path(__file__).parent / "golden" / "data"
    return request.config.getoption("--golden") or carried


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Programs of one file are of no use to the next, and gigabytes of them slow everything."""
    yield
    jax.clear_caches()


@pytest.fixture
def handled_interrupts():
    """Python's own handler of SIGINT, which every test has to leave behind.

    In the background of a shell SIGINT is ignored, and so it is in the programs started there.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    left = signal.signal(signal.SIGINT, before)
    assert left is signal.default_int_handler
