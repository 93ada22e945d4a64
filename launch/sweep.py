"""Trains and evaluates many configs on the same data, and collects one table.

    python -m launch.sweep --config=configs/sweeps/objectives.py --workdir=DIR --parallel=2

Run again, it skips the trials that are done and goes on with the others. `--queue` says where they
run: here, in an array of Slurm, or in a queue of your own. See docs/sweeps.md.
"""

import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from data_prep.kit import cli
from launch.clusters.command import Command
from launch.clusters.slurm import job as slurm
from launch.clusters.work import Work, default_name
from launch.start import prepare, program
from launch.start import run as run_lib
from launch.start import workdir as workdir_lib
from launch.submit import cluster_of, run_all
from launch.sweeps import table as sweep_table
from launch.sweeps.config import (
    Overrides,
    Sweep,
    Variant,
    first_difference,
    flat,
    resolve,
    sweep_of,
    variants,
)
from launch.sweeps.device_sets import DeviceSet, device_sets, places
from launch.sweeps.queue import Job, Outcome, Queue, hold
from prior_jax.config import read_config
from prior_jax.data.schema import write_atomically
from prior_jax.errors import ConfigError, DataError
from prior_jax.processes.preemption import EXIT_CODE as EXIT_PREEMPTED

FLAGS = flags.FLAGS
QUEUES = ("local", "slurm", "print")


def define_flags() -> None:
    """Defines what the program is told."""
    program.define_config_flag("config", "What to compare, e.g. configs/sweeps/objectives.py.")
    flags.DEFINE_string("workdir", None, "Folder of the sweep; made if absent.", required=True)
    flags.DEFINE_enum(
        "queue",
        "local",
        QUEUES,
        "local: run the trials here; slurm: submit an array with a task for each, to --cluster; "
        "print: print a command for each, for a queue of your own.",
    )
    flags.DEFINE_integer("parallel", None, "Trials at a time; here 1 by default.", lower_bound=1)
    flags.DEFINE_string(
        "device_sets",
        None,
        "What each of the local trials at a time has for itself, instead of --parallel: "
        "'gpu:0;1;2,3' or 'cpu:0-3;4-7'.",
    )
    flags.DEFINE_integer(
        "trial", None, "Run this trial alone, of a sweep that --queue has prepared.", lower_bound=0
    )
    flags.DEFINE_boolean("collect", False, "Only make the table of what is there.")
    program.define_cluster_flags()
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> int:
    """Runs the trials and makes the table, or has them run; returns the exit code."""
    program.leave_out_absent_tpu()
    sweep, workdir = sweep_of(FLAGS.config), workdir_lib.from_flag().absolute()
    workdir_lib.check_for_sweep(workdir)
    found, sets = variants(sweep), _device_sets()
    cluster = _cluster()
    if FLAGS.dry_run:
        jobs = jobs_of(sweep, found, workdir, data=_paths(sweep, workdir, make=False))
        return _submit(cluster, jobs, workdir, dry_run=True)
    if (FLAGS.collect or FLAGS.trial is not None) and not (
        workdir / workdir_lib.SWEEP_NAME
    ).is_file():
        raise DataError("--workdir", received=str(workdir), accepted="a folder of launch.sweep")
    run_lib.make_workdir(workdir)
    if FLAGS.trial is not None:
        claim(workdir, sweep, found, settings=FLAGS.config)
        return run_trial(sweep, found, workdir, index=FLAGS.trial)
    lock = hold(workdir)
    if lock is None:
        accepted = "a folder in which no sweep is running"
        raise ConfigError("--workdir", received=str(workdir), accepted=accepted)
    with lock:
        claim(workdir, sweep, found, settings=FLAGS.config)
        if FLAGS.collect:
            jobs = jobs_of(sweep, found, workdir, data=())
            return finish(workdir, sweep, found, jobs, outcomes=[job.standing for job in jobs])
        jobs = jobs_of(sweep, found, workdir, data=_paths(sweep, workdir, make=True))
        if FLAGS.queue != "local":
            return _submit(cluster, jobs, workdir, dry_run=False)
        outcomes = Queue(jobs, sets=sets, locks=workdir / "devices").run()
        return _exit_code(finish(workdir, sweep, found, jobs, outcomes=outcomes), outcomes)


def run_trial(sweep: Sweep, found: Sequence[Variant], workdir: pathlib.Path, *, index: int) -> int:
    """Runs one trial, for a queue that is not ours; returns the exit code.

    Raises:
      ConfigError: if there is no such trial.
    """
    jobs = jobs_of(sweep, found, workdir, data=_paths(sweep, workdir, make=False))
    if index >= len(jobs):
        raise ConfigError("--trial", received=index, accepted=f"0..{len(jobs) - 1}")
    with tempfile.TemporaryDirectory() as locks:  # what it may use, its own queue has said
        (outcome,) = Queue([jobs[index]], sets=places(1), locks=pathlib.Path(locks)).run()
    print(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip(), file=sys.stderr)
    return _exit_code(cli.EXIT_FAILED_CHECK * (outcome.status == "failed"), [outcome])


def _exit_code(code: int, outcomes: Sequence[Outcome]) -> int:
    """The code, or that of a stop on request where trials were stopped."""
    if all(outcome.status in ("done", "failed") for outcome in outcomes):
        return code
    print("asked to stop; run the same command again to go on", file=sys.stderr)
    return EXIT_PREEMPTED


def _device_sets() -> tuple[DeviceSet, ...]:
    """What the local trials may use.

    Raises:
      ConfigError: for both flags that say so, or one that is of another queue.
    """
    if FLAGS.parallel is not None and FLAGS.queue == "print":
        accepted = "nothing with --queue=print: your own queue says it"
        raise ConfigError("--parallel", received=FLAGS.parallel, accepted=accepted)
    if FLAGS.device_sets is None:
        return places(FLAGS.parallel or 1)
    if FLAGS.parallel is not None or FLAGS.queue != "local":
        accepted = "nothing with --parallel or another queue than local"
        raise ConfigError("--device_sets", received=FLAGS.device_sets, accepted=accepted)
    return device_sets(FLAGS.device_sets)


def _cluster() -> slurm.Slurm | None:
    """The cluster of an array.

    Raises:
      ConfigError: if it is given without need, missing, or none with Slurm.
    """
    if FLAGS.queue == "slurm" and FLAGS.cluster is not None:
        cluster = cluster_of(FLAGS.cluster)
        if isinstance(cluster, slurm.Slurm):
            return cluster
        raise ConfigError("cluster.kind", received=cluster.kind, accepted="'slurm' for a sweep")
    if FLAGS.queue == "slurm" or FLAGS.cluster is not None:
        accepted = "a file of configs/clusters with --queue=slurm, nothing with another"
        raise ConfigError("--cluster", received=FLAGS.cluster, accepted=accepted)
    return None


def _submit(
    cluster: slurm.Slurm | None, jobs: Sequence[Job], workdir: pathlib.Path, *, dry_run: bool
) -> int:
    """Hands the trials that are not done to another queue, or shows what would run."""
    arguments = (*program.config_arguments("config"), f"--workdir={workdir}")
    left = [index for index, job in enumerate(jobs) if not job.done]
    if cluster is not None:
        name = FLAGS.name or default_name(workdir)
        work = Work(name=name, workdir=workdir, module="launch.sweep", arguments=arguments)
        commands = slurm.array(cluster, work, indices=left, parallel=FLAGS.parallel)
        return run_all(commands, dry_run=dry_run)
    for index in left:
        command = (sys.executable, "-m", "launch.sweep", *arguments, f"--trial={index}")
        print(Command(arguments=jobs[index].command if FLAGS.queue == "local" else command))
    return 0


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
    path = workdir / workdir_lib.SWEEP_NAME
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
            directory = variant.resolved.get("checkpoint.directory")
            if directory is not None:
                # Of one run alone, and so a folder in it for each trial.
                overrides["checkpoint.directory"] = f"{directory}/{variant.name}/seed_{seed}"
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
    return cli.EXIT_FAILED_CHECK if failed else 0


def _paths(sweep: Sweep, workdir: pathlib.Path, *, make: bool) -> Overrides:
    """Overrides that name the shared data and tokenizer, after making them if asked."""
    config = read_config(resolve(sweep.data, where="sweep.data"), workdir=workdir)
    prepare.check_data(config)
    if make:
        prepare.make_absent(config, workdir)
    return (
        ("data.path", os.path.abspath(config.data.path)),
        ("data.tokenizer.path", os.path.abspath(config.data.tokenizer.path)),
    )


if __name__ == "__main__":
    program.run(main, define_flags)
