"""Results of benchmarks that nobody measured."""

from launch.benchmarks.machine_peak import MachinePeak
from launch.benchmarks.median import median_of
from launch.benchmarks.result import Report, Result


def result(name, seconds, **given):
    settings = {
        "unit": "pairs",
        "count": 98,
        "batch": 98,
        "dtype": "bfloat16",
        "tiny": False,
        "cpu_seconds": 0.5,
        "host_peak_bytes": 2 * 10**9,
    }
    return Result(
        name=name, seconds=median_of(seconds), samples=tuple(seconds), **(settings | given)
    )


def full_result(name="prior_stage1_full", **given):
    """A result in which nothing is left out; the machine's peak is 1e12 operations a second."""
    settings = {
        "with_input": median_of([0.2, 0.3, 0.4]),
        "input_wait": 0.1,
        "device_peak_bytes": 4 * 10**9,
        "flops": 5e10,
        "bytes_moved": 2e9,
        "peak": MachinePeak(product=1e12, copy=1e11),
        "facts": {"compile_seconds": 59.0, "argument_bytes": 10, "temporary_bytes": 90,
                  "new_result_bytes": 0, "trace_seconds": 1.0},
    }  # fmt: skip
    return result(name, [0.1, 0.1, 0.1], **(settings | given))


def report(results, devices="1 x fake (gpu)", **given):
    settings = {"command": "python -m launch.bench", "date": "2026-11-28", "commit": "abc"}
    return Report(
        versions={"jax": "0.10.2", "devices": devices}, results=tuple(results), **(settings | given)
    )
