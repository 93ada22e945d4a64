"""Evaluates a run's trained model and its untrained model, and writes the run's report.

    python -m launch.evaluate --workdir=DIR --task=configs/eval/zero_shot.py
    python -m launch.evaluate --workdir=DIR --task=configs/eval/retrieval.py
    python -m launch.evaluate --workdir=DIR --task=configs/eval/probe.py --task.probe.fraction=0.1
    python -m launch.evaluate --workdir=DIR --task=configs/eval/grounding.py

Flags override the settings of a task: --task.split=validate --task.zero_shot.pool=max
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from launch.evaluation.task_results import Opened, measure, open_split, without_prompts
from launch.evaluation.tasks import Task, check_task, task_of
from launch.start import initial, jax_settings, machines, prepare, program
from launch.start import run as run_lib
from launch.start import workdir as workdir_lib
from prior_jax.config import kept_json, read_config
from prior_jax.errors import CheckpointError, ConfigError, DataError
from prior_jax.evaluate import results
from prior_jax.evaluate.embed import Encoder
from prior_jax.processes import distributed
from prior_jax.report.examples import RunInfo
from prior_jax.report.gather import gather
from prior_jax.report.page import write_report
from prior_jax.sharding.placement import placement
from prior_jax.train import checkpoint_read
from prior_jax.train.program import Program

FLAGS = flags.FLAGS
EXAMPLES = 6
"""Number of studies that the report shows."""


class Evaluation:
    """A run's trained and untrained models, and the texts of its splits, each read once.

    The untrained model is the state before the first step; with `config.init`, it has the weights
    that training starts from.
    """

    def __init__(self, run: run_lib.Run, *, step: int | None):
        """Restores the trained model.

        Args:
          run: run to evaluate; its mesh must be the mesh of the context.
          step: step of the checkpoint, None for the newest.

        Raises:
          CheckpointError: if there is no sound checkpoint of that step.
          WeightsError: if weights of `config.init` are missing or damaged.
        """
        self.run = run
        initial_weights = initial.identity(run.config.init)
        builder = Program(
            objective=run.objective,
            stages=run.schedule,
            optimizer=run.config.optimizer,
            mesh=run.place.mesh,
            rules=run.place.rules,
            data_axes=run.place.data_axes,
        )
        wanted = builder.abstract(run.schedule[0])
        checkpoints = run.config.train.checkpoint.folder(run.workdir)
        params, rest, self.step = checkpoint_read.restore_model(
            checkpoints, params=wanted.params, rest=wanted.rest, step=step
        )
        self._check_weights(checkpoints / str(self.step), initial_weights)
        values = run_lib.initial_values(run)({**builder.model.params, **builder.model.rest})
        fresh = builder.initial(seed=run.config.train.seed, values=values)
        trained = builder.model.merge(params, rest)
        self.encoder = Encoder(run.objective, trained, place=run.put)
        self.untrained = self.encoder.with_model(builder.model.merge(fresh.params, fresh.rest))
        self._splits: dict[str, Opened] = {}

    def _check_weights(self, path: os.PathLike[str], ours: Mapping[str, Any]) -> None:
        """Refuses weights in `config.init` that are not those that the run started from."""
        kept = checkpoint_read.read_document(path)["host"]["identity"]
        for name, now in ours.items():
            if now != kept.get(name):
                raise CheckpointError(
                    f"The value is {now!r}, but the run began with {kept.get(name)!r}, as {path} "
                    "records.",
                    "Put the weights back that the run began with.",
                    where=name,
                )

    def split(self, name: str) -> Opened:
        """Returns a split, which is read once."""
        if name not in self._splits:
            self._splits[name] = open_split(self.run, name)
        return self._splits[name]

    def measure(self, task: Task) -> None:
        """Runs a task on both models, prints the table and writes `eval/<result>.json`."""
        unasked = without_prompts(task, self.split(task.split))
        if unasked and distributed.is_primary():
            print(f"{task.result}: left out for want of prompts: {', '.join(unasked)}", flush=True)
        found = [
            measure(task, encoder, run=self.run, opened=self.split)
            for encoder in (self.encoder, self.untrained)
        ]
        if distributed.is_primary():
            path = results.write_results(
                self.run.workdir,
                task=task.result,
                trained=found[0],
                untrained=found[1],
                settings={"split": task.split, "step": self.step, "run": self.run.config.name},
            )
            records = len(self.split(task.split).split)
            print(f"\n{task.result} on {records} records of {task.split}, step {self.step}")
            print(results.format_table(*found))
            print(f"written to {path}", flush=True)

    def report(self, *, split: str, batch_size: int) -> None:
        """Writes `report/index.html` with examples of a split."""
        opened = self.split(split)

        def batches():
            return self.run.eval_batches(opened.split, batch_size=batch_size, require_text=True)

        examples = gather(
            self.run.objective,
            encoder=self.encoder,
            studies=self.encoder.studies(batches(), reports=True),
            batches=batches,
            texts=opened.texts,
            label_names=opened.split.label_names,
            tokenizer=opened.split.tokenizer,
            count=EXAMPLES,
            block=batch_size,
        )
        if distributed.is_primary():
            path = write_report(
                self.run.workdir,
                run=RunInfo(
                    name=self.run.config.name,
                    settings=self.run.config.given,
                    versions=run_lib.versions(),
                    dataset={
                        name: dataclasses.asdict(counts)
                        for name, counts in opened.split.manifest.splits.items()
                    },
                ),
                attention=examples.attention,
                retrieval=examples.retrieval,
                reconstructions=examples.reconstructions,
                bank=examples.bank,
            )
            print(f"report: {path}", flush=True)


def evaluate_run(
    run: run_lib.Run, tasks: Sequence[Task], *, step: int | None, pass_over: bool = False
) -> None:
    """Measures a run on every task, then writes its report.

    Args:
      run: run to evaluate.
      tasks: tasks to measure.
      step: step of the checkpoint, None for the newest.
      pass_over: whether a task that the data do not allow is logged and skipped instead of
        refused, so that a long training still yields the other tasks and the report.

    Raises:
      ConfigError, DataError: if a task cannot be run and is not skipped.
    """
    with jax.set_mesh(run.place.mesh):
        evaluation, skipped = Evaluation(run, step=step), []
        for task in tasks:
            try:
                evaluation.measure(task)
            except (ConfigError, DataError) as error:
                if not pass_over:
                    raise
                logging.error("The task %s was skipped: %s", task.result, error)
                skipped.append(f"The task {task.result} was skipped: {error}")
        last = tasks[-1]
        evaluation.report(split=last.split, batch_size=last.batch_size)
        if skipped and distributed.is_primary():
            print(*skipped, sep="\n", flush=True)


def define_flags() -> None:
    """Defines the program's flags."""
    flags.DEFINE_string("workdir", None, "Folder of a run that launch.train made.", required=True)
    program.define_config_flag("task", "File of the task, e.g. configs/eval/zero_shot.py.")
    flags.DEFINE_integer("step", None, "Step of the checkpoint; by default the newest sound one.")
    machines.define_machine_flag(required=False)
    program.define_cache_flag()
    program.define_device_flags()
    flags.adopt_module_key_flags(machines)
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> None:
    """Evaluates the run and writes its report."""
    machine = machines.start()
    program.start_devices()
    machines.check_chips(machine, devices=jax.device_count())
    task, workdir = task_of(FLAGS.task), workdir_lib.from_flag()
    kept = ConfigDict(kept_json(workdir))
    check_task(task, workdir=workdir)
    given = machines.merged(kept, machine, batch_size=None, replace=True)
    config = read_config(given, workdir=workdir)
    place = placement(config.mesh)
    run_lib.check_fits(config, place)
    cache = workdir_lib.cache_of(workdir)
    jax_settings.compile_to(cache, quick=config.quick_compile)
    run_lib.check_alike(config)
    prepare.make_in_one_process(prepare.missing(config), workdir)
    run = run_lib.open_run(config, place, workdir, cache_dir=cache)
    evaluate_run(run, [task], step=FLAGS.step)


if __name__ == "__main__":
    program.run(main, define_flags)
