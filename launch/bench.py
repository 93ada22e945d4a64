"""Times the parts of the project, each in a process of its own, and compares with earlier times.

    python -m launch.bench --list
    python -m launch.bench --only=prior_stage1_full --only=input --out=now.json
    python -m launch.bench --against=before.json --out=now.json
    python -m launch.bench --suite=gpu --out=gpu.json --trace=/tmp/trace
    python -m launch.bench --suite=gpu_beside --peer="python their_step.py" --out=beside.json

Without --only all benchmarks run. Printed is a section for docs/benchmarks.md: devices, versions,
commit, command, and a row for each benchmark. The exit code is 1 if something failed or was left
out, or if --against found a regression, nothing to compare, or a number that cannot be compared.
launch/benchmarks/turns.py says how a peer is spoken to, docs/benchmarks.md explains the columns.
"""

import pathlib
import signal
import tempfile
from collections.abc import Sequence

from absl import flags

from launch.benchmarks import (
    against,
    alone,
    catalogue,
    flag_checks,
    gpu_suite,
    report_file,
    request,
    result,
    several,
)
from launch.start import program
from prior_jax.data.schema import write_atomically

FLAGS = flags.FLAGS
SUITES = ("gpu", "gpu_beside")


def define_flags() -> None:
    """Defines the program's flags."""
    request.define_flags()
    flags.adopt_module_key_flags(request)  # so that --help shows them
    flags.DEFINE_boolean("list", False, "Print the names of all benchmarks, and end.")
    flags.DEFINE_multi_string("only", [], "Name of a benchmark; may be given several times.")
    flags.DEFINE_enum(
        "suite",
        None,
        SUITES,
        "gpu: all that the first ten minutes on a GPU are for, within --seconds; gpu_beside: the "
        "released methods in turns with --peer, at their batches and in bfloat16.",
    )
    flags.DEFINE_float("seconds", gpu_suite.SECONDS, "Budget of --suite=gpu, in seconds.", 1.0)
    flags.DEFINE_string(
        "peer",
        None,
        "Command of another program to take turns with; see launch/benchmarks/turns.py.",
    )
    flags.DEFINE_string("out", None, "JSON file for the report.")
    flags.DEFINE_string("against", None, "JSON file of an earlier report to compare with.")
    flags.DEFINE_float(
        "threshold", 0.1, "Share by which time or memory may grow before it is a regression.", 0.0
    )
    flags.DEFINE_enum(
        "mode",
        "alone",
        alone.MODES,
        "alone: each benchmark in a process of its own. here: all in this process. turns: one, in "
        "this process, as stdin asks; see launch/benchmarks/turns.py. compile: only put the "
        "compiled programs into --cache_dir.",
    )


def main() -> int:
    """Measures what is asked for, prints and writes the report, and compares it."""
    if FLAGS.list:
        print(catalogue.listed())
        return 0
    flag_checks.check(FLAGS)
    names = _names()
    flag_checks.check_read(FLAGS, names)
    asked = request.from_flags()
    earlier = None
    if FLAGS.against is not None:
        earlier = report_file.read(pathlib.Path(FLAGS.against), where="--against")
        devices = asked.cpu_devices
        against.check_shared(earlier, names, tiny=asked.tiny, cpu_devices=devices)
    if FLAGS.mode != "alone":
        _write(_here(names, asked))
        return 0
    report = _alone(names, asked)
    print(f"\n{report.table()}", flush=True)
    if earlier is None:
        return int(bool(report.left_out))
    found = against.compare(report, earlier, threshold=FLAGS.threshold)
    print(f"\nCompared with {FLAGS.against}:\n\n{against.table(found)}")
    return int(bool(report.left_out) or not found.holds)


def _names() -> tuple[str, ...]:
    """Returns the names of the benchmarks that are to be measured."""
    if FLAGS.suite == "gpu":
        return gpu_suite.NAMES
    return several.RELEASED if FLAGS.suite else catalogue.chosen(FLAGS.only)


def _alone(names: Sequence[str], asked: request.Request) -> result.Report:
    """Measures in processes of their own; this process uses no device."""
    # What is asked to stop takes the processes that it has started along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if FLAGS.suite == "gpu":
        with tempfile.TemporaryDirectory() as folder:
            suite = gpu_suite.Suite(asked, pathlib.Path(folder), seconds=FLAGS.seconds, save=_write)
            return suite.run()
    if FLAGS.peer is not None:
        return several.beside_each(names, asked, peer=FLAGS.peer, save=_write)
    return several.each(names, asked, save=_write)


def _here(names: Sequence[str], asked: request.Request) -> result.Report:
    """Measures in this process."""
    alone.start_devices(asked)
    found = [alone.measure_here(name, asked, mode=FLAGS.mode) for name in names]
    return result.report_here([one for one in found if one is not None])


def _write(report: result.Report) -> None:
    if FLAGS.out is not None:
        write_atomically(pathlib.Path(FLAGS.out), report.to_json().encode())


if __name__ == "__main__":
    program.run(main, define_flags)
