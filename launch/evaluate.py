"""Evaluates a trained run beside its untrained model and writes the run's report.

    python -m launch.evaluate --workdir=DIR --task=configs/eval/zero_shot.py
    python -m launch.evaluate --workdir=DIR --task=configs/eval/retrieval.py

Settings of a task are flags too: --task.split=validate --task.zero_shot.pool=max
"""

import dataclasses
import pathlib
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from launch import program
from launch import run as run_lib
from prior_jax import assemble
from prior_jax.data import pipeline, text
from prior_jax.data.schema import SPLITS
from prior_jax.errors import ConfigError
from prior_jax.evaluate import bootstrap, prompts, results, retrieval, zero_shot
from prior_jax.evaluate.embed import Encoder, ReportTokens
from prior_jax.report.examples import RunInfo
from prior_jax.report.gather import StudyText, gather
from prior_jax.report.page import write_report
from prior_jax.sharding import distributed
from prior_jax.strict import build
from prior_jax.train import checkpoint
from prior_jax.train.program import Program

FLAGS = flags.FLAGS
EXAMPLES = 6
"""Studies that the report shows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """Which sentences stand for a class.

    Attributes:
      set: "release", "single" or "ensemble".
      negatives: whether a class's score is affirmation minus denial.
    """

    set: str
    negatives: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotTask:
    """A config of configs/eval with task "zero_shot".

    Attributes:
      task: its name.
      split: which split.
      batch_size: images encoded at once.
      classes: labels to answer for; () for every one with prompts and enough positives.
      exclude: labels that () leaves out.
      min_positives: positives that a class chosen by () has at least.
      prompts: the sentences.
      zero_shot: how to count; its classes and policy.
      bootstrap: the intervals.
    """

    task: str
    split: str
    batch_size: int
    classes: tuple[str, ...]
    exclude: tuple[str, ...]
    min_positives: int
    prompts: PromptConfig
    zero_shot: zero_shot.ZeroShotConfig
    bootstrap: bootstrap.BootstrapConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalTask:
    """A config of configs/eval with task "retrieval".

    Attributes:
      task: its name.
      split: which split.
      batch_size: pairs encoded at once.
      classes: labels that precision looks at; () for every one with enough positives.
      exclude: labels that () leaves out.
      min_positives: positives that a class chosen by () has at least.
      retrieval: what counts as a hit, but for its classes.
      bootstrap: the intervals.
    """

    task: str
    split: str
    batch_size: int
    classes: tuple[str, ...]
    exclude: tuple[str, ...]
    min_positives: int
    retrieval: Mapping[str, Any]
    bootstrap: bootstrap.BootstrapConfig


Task = ZeroShotTask | RetrievalTask
_TASKS: Mapping[str, type] = {"zero_shot": ZeroShotTask, "retrieval": RetrievalTask}


def load_task(path: str) -> Task:
    """Reads a file of configs/eval.

    Raises:
      ConfigError: if it is not one.
    """
    return task_of(runpy.run_path(path)["get_config"]())


def task_of(section: Any) -> Task:
    """Checks a task's settings."""
    name = section.get("task")
    if name not in _TASKS:
        raise ConfigError("task.task", received=name, accepted=", ".join(_TASKS))
    task = build(_TASKS[name], section, name="task")
    if task.split not in SPLITS:
        raise ConfigError("task.split", received=task.split, accepted=", ".join(SPLITS))
    return task


class Evaluation:
    """A run's trained and untrained model, and the texts of its splits, read once."""

    def __init__(self, run: run_lib.Run, *, step: int | None):
        """Restores the model.

        Args:
          run: the run; its mesh must be the context's.
          step: of the checkpoint, None for the newest.

        Raises:
          CheckpointError: if there is no sound checkpoint of that step.
        """
        self.run = run
        builder = Program(
            objective=run.objective,
            stages=run.schedule,
            optimizer=assemble.optimizer(run.config),
            mesh=run.place.mesh,
            rules=run.place.rules,
            data_axes=run.place.data_axes,
        )
        wanted = builder.abstract(run.schedule[0])
        params, rest, self.step = checkpoint.restore_model(
            run.workdir / "checkpoints", params=wanted.params, rest=wanted.rest, step=step
        )
        fresh = builder.initial(seed=run.config.seed, values=None)
        self.model = builder.model.merge(params, rest)
        self.encoder = Encoder(run.objective, self.model, place=run.put)
        self.untrained = self.encoder.with_model(builder.model.merge(fresh.params, fresh.rest))
        self._splits: dict[str, tuple[pipeline.Split, list[StudyText], np.ndarray]] = {}

    def split(self, name: str) -> tuple[pipeline.Split, list[StudyText], np.ndarray]:
        """A split, the text of each of its records, and int8[N, C] their labels."""
        if name not in self._splits:
            split = self.run.split(name)
            texts, labels = [], []
            for index in range(len(split)):
                record = split.record(index)
                texts.append(
                    StudyText(
                        study_id=record.study_id,
                        subject_id=record.subject_id,
                        sentences=record.sentences,
                    )
                )
                labels.append(record.labels)
            self._splits[name] = split, texts, np.asarray(labels, np.int8)
        return self._splits[name]

    def measure(self, task: Task) -> None:
        """Runs a task on both models, prints the table and writes `eval/<task>.json`."""
        split, texts, labels = self.split(task.split)
        kind = self._zero_shot if isinstance(task, ZeroShotTask) else self._retrieval
        found = [
            kind(task, encoder, split=split, texts=texts, labels=labels)  # type: ignore[arg-type]
            for encoder in (self.encoder, self.untrained)
        ]
        if distributed.is_primary():
            path = results.write_results(
                self.run.workdir,
                task=task.task,
                trained=found[0],
                untrained=found[1],
                settings={"split": task.split, "step": self.step, "run": self.run.config.name},
            )
            print(f"\n{task.task} on {len(split)} records of {task.split}, step {self.step}")
            print(results.format_table(*found))
            print(f"written to {path}", flush=True)

    def _zero_shot(self, task: ZeroShotTask, encoder: Encoder, *, split, texts, labels):
        known = {prompts.canonical(name) for name in prompts.known_classes()}
        askable = [name for name in split.label_names if prompts.canonical(name) in known]
        classes = task.classes or _frequent(askable, task, names=split.label_names, labels=labels)
        table = prompts.prompt_table(
            task.prompts.set, classes=classes, negatives=task.prompts.negatives
        )
        config = self.run.data_config
        tokens = text.encode_prompts(
            table.texts,
            tokenizer=split.tokenizer,
            max_tokens=config.max_tokens,
            max_sentences=config.max_sentences,
        )
        return zero_shot.evaluate_zero_shot(
            encoder,
            self.run.eval_batches(split, batch_size=task.batch_size, require_text=False),
            table=table,
            tokens=ReportTokens(**dataclasses.asdict(tokens)),
            label_names=split.label_names,
            patients=[text.subject_id for text in texts],
            config=task.zero_shot,
            resampling=task.bootstrap,
        )

    def _retrieval(self, task: RetrievalTask, encoder: Encoder, *, split, texts, labels):
        classes = task.classes or _frequent(
            split.label_names, task, names=split.label_names, labels=labels
        )
        section = {**task.retrieval, "classes": tuple(classes)}
        batches = self.run.eval_batches(split, batch_size=task.batch_size, require_text=True)
        return retrieval.evaluate_retrieval(
            encoder,
            encoder.studies(batches, reports=True),
            texts=[text.text for text in texts],
            label_names=split.label_names,
            patients=[text.subject_id for text in texts],
            config=build(retrieval.RetrievalConfig, section, name="task.retrieval"),
            resampling=task.bootstrap,
        )

    def report(self, *, split: str, batch_size: int) -> None:
        """Draws `report/index.html` with examples of a split."""
        opened, texts, _ = self.split(split)

        def batches():
            return self.run.eval_batches(opened, batch_size=batch_size, require_text=True)

        examples = gather(
            self.run.objective,
            self.model,
            encoder=self.encoder,
            studies=self.encoder.studies(batches(), reports=True),
            batches=batches,
            texts=texts,
            label_names=opened.label_names,
            count=EXAMPLES,
            block=batch_size,
        )
        if distributed.is_primary():
            path = write_report(
                self.run.workdir,
                run=RunInfo(
                    name=self.run.config.name,
                    settings=run_lib.plain(self.run.config),
                    versions=run_lib.versions(),
                    dataset={
                        name: dataclasses.asdict(counts)
                        for name, counts in opened.manifest.splits.items()
                    },
                ),
                attention=examples.attention,
                retrieval=examples.retrieval,
                reconstructions=examples.reconstructions,
                bank=examples.bank,
            )
            print(f"report: {path}", flush=True)


def evaluate_run(run: run_lib.Run, tasks: Sequence[Task], *, step: int | None) -> None:
    """Measures a run on every task, then writes its report."""
    with jax.set_mesh(run.place.mesh):
        evaluation = Evaluation(run, step=step)
        for task in tasks:
            evaluation.measure(task)
        last = tasks[-1]
        evaluation.report(split=last.split, batch_size=last.batch_size)


def _frequent(
    candidates: Sequence[str], task: Task, *, names: Sequence[str], labels: np.ndarray
) -> tuple[str, ...]:
    """The candidates that are not excluded and have enough positives and negatives."""
    positives = dict(zip(names, (labels == 1).sum(axis=0).tolist(), strict=True))
    excluded = {prompts.canonical(name) for name in task.exclude}
    least, most = task.min_positives, len(labels) - task.min_positives
    found = tuple(
        name
        for name in candidates
        if prompts.canonical(name) not in excluded and least <= positives[name] <= most
    )
    if not found:
        raise ConfigError(
            "task.classes",
            received=(),
            accepted=f"names of labels; none of {tuple(candidates)} has {least} positives",
        )
    return found


def define_flags() -> None:
    """Defines what the program is told."""
    flags.DEFINE_string("workdir", None, "Folder of a run of launch.train.", required=True)
    program.define_config_flag("task", "What to measure, e.g. configs/eval/zero_shot.py.")
    flags.DEFINE_integer("step", None, "Checkpoint to evaluate; by default the newest sound one.")
    program.define_device_flags()
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> None:
    """Evaluates and writes the report."""
    program.start_devices()
    task, workdir = task_of(FLAGS.task), pathlib.Path(FLAGS.workdir)
    run = run_lib.open_run(run_lib.load_config(workdir), workdir)
    evaluate_run(run, [task], step=FLAGS.step)


if __name__ == "__main__":
    program.run(main, define_flags)
