"""Trains and evaluates many configs on the same data, and collects one table.

    python -m launch.sweep --config=configs/sweeps/objectives.py --workdir=DIR --parallel=2

Run again, it skips the trials that are done and goes on with the others. See docs/sweeps.md.
"""

import json
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from data_prep import common
from launch import prepare, program, sweep_table
from launch import run as run_lib
from launch.sweep_config import (
    Overrides,
    Sweep,
    Variant,
    first_difference,
    flat,
    resolve,
    sweep_of,
    variants,
)
from launch.sweep_queue import Job, Outcome, Queue, hold
from prior_jax.data.schema import write_atomically
from prior_jax.errors import ConfigError, DataError
from prior_jax.train.preemption import EXIT_CODE as EXIT_PREEMPTED

FLAGS = flags.FLAGS
SWEEP_NAME = "sweep.json"


def define_flags() -> None:
    """Defines what the program is told."""
    program.define_config_flag("config", "What to compare, e.g. configs/sweeps/objectives.py.")
    flags.DEFINE_string("workdir", None, "Folder of the sweep; made if absent.", required=True)
    flags.DEFINE_integer("parallel", 1, "Trials at a time.", lower_bound=1)
    flags.DEFINE_boolean("collect", False, "Only make the table of what is there.")
    flags.DEFINE_boolean("dry_run", False, "Only print the commands of the trials.")
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> int:
    """Runs the trials and makes the table; returns the exit code."""
    sweep, workdir = sweep_of(FLAGS.config), pathlib.Path(FLAGS.workdir).absolute()
    found = variants(sweep)
    if FLAGS.dry_run:
        for job in jobs_of(sweep, found, workdir, data=_paths(sweep, workdir, make=False)):
            print(shlex.join(job.command))
        return 0
    if FLAGS.collect and not (workdir / SWEEP_NAME).is_file():
        raise DataError("--workdir", received=str(workdir), accepted="a folder of launch.sweep")
    run_lib.make_workdir(workdir)
    lock = hold(workdir)
    if lock is None:
        accepted = "a folder in which no sweep is running"
        raise ConfigError("--workdir", received=str(workdir), accepted=accepted)
    with lock:
        claim(workdir, sweep, found, settings=FLAGS.config)
        if FLAGS.collect:
            jobs = jobs_of(sweep, found, workdir, data=())
            return finish(workdir, sweep, found, jobs, outcomes=[_standing(job) for job in jobs])
        jobs = jobs_of(sweep, found, workdir, data=_paths(sweep, workdir, make=True))
        queue = Queue(jobs, parallel=FLAGS.parallel)
        outcomes = queue.run()
        code = finish(workdir, sweep, found, jobs, outcomes=outcomes)
        if queue.asked_to_stop:
            print("asked to stop; run the same command again to go on", file=sys.stderr)
            return EXIT_PREEMPTED
        return code


def claim(workdir: pathlib.Path, sweep: Sweep, found: Sequence[Variant], *, settings: Any) -> None:
    """Marks the folder as this sweep's.

    Raises:
      ConfigError: if it is that of a sweep with other settings or configs; names the first.
      DataError: if the mark is damaged.
    """
    content = {
        **{f"sweep.{name}": value for name, value in flat(settings).items()},
        **{
            f"{variant.name}: config.{name}": value
            for variant in found
            for name, value in variant.resolved.items()
        },
    }
    path = workdir / SWEEP_NAME
    if not path.exists():
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(str(path), received=str(error), accepted="the settings as JSON") from error
    name = first_difference(content, before)
    if name is not None:
        raise ConfigError(
            name,
            received=content.get(name, "nothing"),
            accepted=f"{before.get(name, 'nothing')!r}, as in {path}, or a new workdir",
        )


def jobs_of(
    sweep: Sweep, found: Sequence[Variant], workdir: pathlib.Path, *, data: Overrides
) -> list[Job]:
    """The trials as jobs, seed by seed: neighbours differ in what they compile.

    Runs that differ in their seed alone share compiled programs, so that those of the second
    seed find what those of the first have left in the cache.

    Args:
      sweep: the sweep.
      found: its variants.
      workdir: of the sweep.
      data: overrides that name data and tokenizer.
    """
    jobs = []
    for seed in sweep.seeds:
        for variant in found:
            folder = workdir / "trials" / variant.name / f"seed_{seed}"
            # Of a key that is given twice the last value counts.
            overrides = dict((*variant.overrides, ("seed", seed), *data))
            jobs.append(
                Job(
                    name=f"{variant.name}, seed {seed}",
                    folder=folder,
                    command=(
                        sys.executable,
                        "-m",
                        "launch.train",
                        f"--config={variant.config}",
                        f"--workdir={folder}",
                        f"--cache_dir={workdir / 'cache'}",
                        *(f"--config.{key}={value}" for key, value in overrides.items()),
                    ),
                )
            )
    return jobs


def finish(
    workdir: pathlib.Path,
    sweep: Sweep,
    found: Sequence[Variant],
    jobs: Sequence[Job],
    *,
    outcomes: Sequence[Outcome],
) -> int:
    """Makes the table, prints it, names what failed; returns the exit code."""
    places = [(variant.name, seed) for seed in sweep.seeds for variant in found]
    folders = {
        place: job.folder
        for place, job, outcome in zip(places, jobs, outcomes, strict=True)
        if outcome.status == "done"
    }
    rows = sweep_table.collect(sweep, found, folders)
    path = sweep_table.write(workdir, sweep=sweep, found=found, rows=rows, outcomes=outcomes)
    print(path.read_text())
    print(f"written to {path}", flush=True)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        print(f"{outcome.name}: {outcome.message}", file=sys.stderr)
    return common.EXIT_FAILED_CHECK if failed else 0


def _standing(job: Job) -> Outcome:
    status = "done" if job.done else "waiting"
    return Outcome(name=job.name, status=status, message="")


def _paths(sweep: Sweep, workdir: pathlib.Path, *, make: bool) -> Overrides:
    """Overrides that name the shared data and tokenizer, after making them if asked."""
    config = resolve(sweep.data, where="sweep.data")
    made = prepare.data_config(config, workdir, make=make)
    return (
        ("data.path", os.path.abspath(made.path)),
        ("data.tokenizer.path", os.path.abspath(made.tokenizer.path)),
    )


if __name__ == "__main__":
    program.run(main, define_flags)
