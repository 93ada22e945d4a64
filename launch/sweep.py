"""Trains and evaluates many configs on the same data, and collects one table.

    python -m launch.sweep --config=configs/sweeps/objectives.py --workdir=DIR --parallel=2

A second run skips the trials that are done and continues with the others. `--queue` decides where
the trials run: on this machine, in a Slurm job array, or in a queue of your own. See
docs/sweeps.md.
"""

import json
import pathlib
import sys
import tempfile
import types
from collections.abc import Container, Sequence
from typing import Any

from absl import flags

from data_prep.kit import cli
from launch.clusters.command import Command
from launch.clusters.slurm import job as slurm
from launch.clusters.work import Work, default_name
from launch.start import jax_settings, program
from launch.start import run as run_lib
from launch.start import workdir as workdir_lib
from launch.submit import run_all
from launch.sweeps import data as data_lib
from launch.sweeps import table as sweep_table
from launch.sweeps import trials as trials_lib
from launch.sweeps.config import Overrides, Sweep, sweep_of
from launch.sweeps.device_sets import places
from launch.sweeps.flat_settings import first_difference, flat
from launch.sweeps.queue import Job, Outcome, Queue, hold
from launch.sweeps.sweep_flags import check_flags, cluster_of_array, local_sets
from launch.sweeps.trials import Trials
from launch.sweeps.variants import Variant, variants
from prior_jax.data.schema import write_atomically
from prior_jax.errors import ConfigError, DataError
from prior_jax.processes.preemption import EXIT_CODE as EXIT_PREEMPTED

FLAGS = flags.FLAGS
EARLIER_NAME = "earlier.npz"
"""Name of the file, in the folder of a sweep, that holds the results of `--earlier`."""
QUEUES = ("local", "slurm", "print")


def define_flags() -> None:
    """Defines the program's flags."""
    program.define_config_flag("config", "File of the sweep, e.g. configs/sweeps/objectives.py.")
    flags.DEFINE_string("workdir", None, "Folder of the sweep; made if missing.", required=True)
    flags.DEFINE_enum(
        "queue",
        "local",
        QUEUES,
        "local: run the trials on this machine; slurm: submit a job array with one task for each "
        "trial to --cluster; print: print one command for each trial, for a queue of your own.",
    )
    flags.DEFINE_integer(
        "parallel",
        None,
        "Number of trials at a time; with --queue=local 1 by default.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "device_sets",
        None,
        "Devices that each concurrent local trial has to itself, instead of --parallel: "
        "'gpu:0;1;2,3' or 'cpu:0-3;4-7'.",
    )
    flags.DEFINE_integer(
        "trial",
        None,
        "Run only the trial of this index, on the devices that your queue gives it; --queue must "
        "have prepared the sweep.",
        lower_bound=0,
    )
    flags.DEFINE_string(
        "earlier",
        None,
        f"The {trials_lib.RESULTS_NAME} of the same sweep in another folder; what has run there is "
        "done, and is in the table. Files of several calls add up.",
    )
    flags.DEFINE_boolean("collect", False, "Only make the table from the existing results.")
    program.define_cluster_flags()
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> int:
    """Runs the trials and makes the table, or submits the trials; returns the exit code."""
    jax_settings.leave_out_absent_tpu()
    sweep, workdir = sweep_of(FLAGS.config), workdir_lib.from_flag().absolute()
    workdir_lib.check_for_sweep(workdir)
    check_flags()
    found, sets, cluster = variants(sweep), local_sets(), cluster_of_array()
    earlier = _earlier(sweep, found, workdir)
    if FLAGS.dry_run:
        jobs = jobs_of(
            sweep, found, workdir, data=data_lib.paths(sweep, workdir, make=False), earlier=earlier
        )
        if done := sum(job.done for job in jobs):
            elsewhere = sum(job.ran_elsewhere for job in jobs)
            told = f"{done} of {len(jobs)} trials are done, {elsewhere} of them in another folder"
            print(told, file=sys.stderr)
        return _submit(cluster, jobs, workdir, dry_run=True)
    begun = (workdir / workdir_lib.SWEEP_NAME).is_file()
    if not begun and (FLAGS.trial is not None or (FLAGS.collect and not earlier)):
        raise DataError(
            f"{workdir} holds no sweep: {workdir_lib.SWEEP_NAME} is missing.",
            "Give the --workdir of a sweep that launch.sweep has prepared.",
            where="--workdir",
        )
    if not FLAGS.collect:  # what is wrong with the data is told before the folder is marked
        data_lib.paths(sweep, workdir, make=False)
    run_lib.make_workdir(workdir)
    if FLAGS.trial is not None:
        claim(workdir, sweep, found, settings=FLAGS.config)
        return run_trial(sweep, found, workdir, index=FLAGS.trial, earlier=earlier)
    lock = hold(workdir)
    if lock is None:
        raise ConfigError(
            f"A sweep is running in {workdir}.",
            "Wait until it has ended, or choose another folder.",
            where="--workdir",
        )
    with lock:
        claim(workdir, sweep, found, settings=FLAGS.config)
        if FLAGS.earlier is not None:  # kept, so that no later call needs the flag
            trials_lib.save(workdir / EARLIER_NAME, trials=earlier, sweep=sweep, found=found)
        if FLAGS.collect:
            jobs = jobs_of(sweep, found, workdir, data=(), earlier=earlier)
            outcomes = [job.standing for job in jobs]
            return finish(workdir, sweep, found, jobs, outcomes=outcomes, earlier=earlier)
        jobs = jobs_of(
            sweep, found, workdir, data=data_lib.paths(sweep, workdir, make=True), earlier=earlier
        )
        if FLAGS.queue != "local":
            return _submit(cluster, jobs, workdir, dry_run=False)
        outcomes = Queue(jobs, sets=sets, locks=workdir / "devices").run()
        code = finish(workdir, sweep, found, jobs, outcomes=outcomes, earlier=earlier)
        return _exit_code(code, outcomes)


def _earlier(sweep: Sweep, found: Sequence[Variant], workdir: pathlib.Path) -> Trials:
    """Returns the results of `--earlier` in this call and in former ones; nothing is written.

    Where two files have a trial, the one that was given later counts.
    """
    trials: dict[tuple[str, int], trials_lib.Trial] = {}
    kept = workdir / EARLIER_NAME
    if kept.is_file():
        trials.update(trials_lib.load(kept, sweep=sweep, found=found, where=str(kept)))
    if FLAGS.earlier is not None:
        given = trials_lib.load(FLAGS.earlier, sweep=sweep, found=found, where="--earlier")
        trials.update(given)
    return trials


def run_trial(
    sweep: Sweep,
    found: Sequence[Variant],
    workdir: pathlib.Path,
    *,
    index: int,
    earlier: Trials,
) -> int:
    """Runs one trial for an external queue; returns the exit code.

    Raises:
      ConfigError: if there is no such trial.
    """
    jobs = jobs_of(
        sweep, found, workdir, data=data_lib.paths(sweep, workdir, make=False), earlier=earlier
    )
    if index >= len(jobs):
        raise ConfigError.of_value("--trial", index, f"from 0 to {len(jobs) - 1}")
    with tempfile.TemporaryDirectory() as locks:  # the external queue has assigned the devices
        (outcome,) = Queue([jobs[index]], sets=places(1), locks=pathlib.Path(locks)).run()
    print(f"{outcome.name}: {outcome.status} {outcome.message}".rstrip(), file=sys.stderr)
    return _exit_code(cli.EXIT_FAILED_CHECK * (outcome.status == "failed"), [outcome])


def _exit_code(code: int, outcomes: Sequence[Outcome]) -> int:
    """Returns the code, or the code of a stop on request if trials were stopped."""
    if all(outcome.status in ("done", "failed") for outcome in outcomes):
        return code
    print("The sweep was stopped. Run the same command again to continue.", file=sys.stderr)
    return EXIT_PREEMPTED


def _submit(
    cluster: slurm.Slurm | None, jobs: Sequence[Job], workdir: pathlib.Path, *, dry_run: bool
) -> int:
    """Hands the trials that are not done to the cluster, or prints their commands.

    Args:
      cluster: cluster of `--queue=slurm`; None to print a command for each trial.
      jobs: all trials of the sweep.
      workdir: folder of the sweep.
      dry_run: whether the commands for the cluster are printed and not run.

    Returns:
      Exit code of the program.
    """
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
    """Marks the folder as the folder of this sweep.

    Raises:
      ConfigError: if the folder belongs to a sweep with other settings, configs, tasks or data; the
        message names the first difference.
      DataError: if the mark is damaged.
    """
    content = {
        **{f"sweep.{name}": value for name, value in _marked(settings).items()},
        **{
            f"{variant.name}: config.{name}": value
            for variant in found
            for name, value in variant.resolved.items()
        },
    }
    later = {
        **{
            f"{path}: task.{name}": value
            for path, task in sweep.task_settings.items()
            for name, value in task.items()
        },
        **{f"sweep.data: {name}": value for name, value in data_lib.identity(sweep).items()},
    }
    content |= later
    path = workdir / workdir_lib.SWEEP_NAME
    if not path.exists():
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        return
    try:
        before = json.loads(path.read_text())
        if not isinstance(before, dict):
            raise ValueError(f"it is a {type(before).__name__}")
    except ValueError as error:
        raise DataError(
            f"The file does not hold the settings of a sweep as a JSON object: {error}.",
            "Choose a new --workdir.",
            where=str(path),
        ) from error
    before.pop("sweep.reference", None)  # marks of earlier versions have it
    if not any(name.startswith("sweep.data: ") for name in before):
        before |= later  # marks of earlier versions say nothing of them
    name = first_difference(content, before)
    if name is not None:
        raise ConfigError(
            f"The value is {content.get(name, 'missing')!r}, but {path} belongs to a sweep with "
            f"{before.get(name, 'no value')!r}.",
            "Give the settings of that sweep, or choose a new --workdir.",
            where=name,
        )


def _marked(settings: Any) -> dict[str, Any]:
    """Returns the settings of a sweep but the references, which change no trial."""
    found = {name: value for name, value in flat(settings).items() if name != "reference"}
    arms = [{key: arm[key] for key in arm if key != "reference"} for arm in found["arms"]]
    return {**found, "arms": arms}


def jobs_of(
    sweep: Sweep,
    found: Sequence[Variant],
    workdir: pathlib.Path,
    *,
    data: Overrides,
    earlier: Container[tuple[str, int]] = (),
) -> list[Job]:
    """Returns the trials as jobs, ordered by seed, so that neighbours compile different programs.

    Runs that differ only in their seed share compiled programs, so the runs of the second seed
    find in the cache what the runs of the first have compiled. Those of the first seed alone are
    also evaluated before their first step, for the table's row of the untrained models.

    Args:
      sweep: sweep whose trials to run.
      found: variants of the sweep.
      workdir: folder of the sweep.
      data: overrides that name data and tokenizer.
      earlier: (variant, seed) of the trials that have run in another folder.
    """
    jobs = []
    for seed in sweep.seeds:
        for variant in found:
            folder = workdir / "trials" / variant.name / f"seed_{seed}"
            # If a key is given twice, the last value counts.
            overrides = dict((*variant.overrides, ("seed", seed), *data))
            directory = variant.resolved.get("checkpoint.directory")
            if directory is not None:
                # A checkpoint directory belongs to one run, so each trial gets a folder in it.
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
                        *(() if seed == sweep.seeds[0] else ("--nountrained",)),
                        *(f"--config.{key}={value}" for key, value in overrides.items()),
                    ),
                    ran_elsewhere=(variant.name, seed) in earlier,
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
    earlier: Trials = types.MappingProxyType({}),
) -> int:
    """Makes and prints the table, and names the failed trials; returns the exit code."""
    places = [(variant.name, seed) for seed in sweep.seeds for variant in found]
    trials = dict(earlier)
    for place, job, outcome in zip(places, jobs, outcomes, strict=True):
        if outcome.status == "done" and (job.ran_here or not job.ran_elsewhere):
            trials[place] = trials_lib.read_trial(job.folder, metrics=sweep.metrics)
    trials_lib.save(workdir / trials_lib.RESULTS_NAME, trials=trials, sweep=sweep, found=found)
    rows = sweep_table.collect(sweep, found, trials)
    path = sweep_table.write(workdir, sweep=sweep, found=found, rows=rows, outcomes=outcomes)
    print(path.read_text())
    print(f"written to {path}", flush=True)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        print(f"{outcome.name}: {outcome.message}", file=sys.stderr)
    return cli.EXIT_FAILED_CHECK if failed else 0


if __name__ == "__main__":
    program.run(main, define_flags)
