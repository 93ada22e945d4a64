r"""Evaluates a model on a prepared set beside its untrained counterpart, and writes a report.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/zero_shot.py
    python -m launch.evaluate --workdir=RUN --task=configs/eval/retrieval.py --task.data.path=SET
    python -m launch.evaluate --weights=DIR --task=configs/eval/probe.py --task.data.path=SET \
        --task.probe.fraction=0.1 --out=RESULTS
    python -m launch.evaluate --random=configs/phantom.py --task=configs/eval/grounding.py \
        --task.data.path=SET --out=RESULTS
    python -m launch.evaluate --workdir=RUN --task=configs/eval/suite.py \
        "--task.sets=('nih=SET','rsna=OTHER')" --out=RESULTS

The model is that of a run of launch.train, of weights that launch.import_weights or launch.export
wrote, or of a config before its first step. It meets any prepared set with its own preprocessing.
Flags override the settings of a task: --task.split=validate --task.zero_shot.pool=max
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from launch.evaluation import finetune, models, outputs, shown
from launch.evaluation import suite as suite_lib
from launch.evaluation.measured import measure_both, said_of, title_of
from launch.evaluation.set_checks import check_set, check_task
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.task_base import Task, TaskData
from launch.evaluation.tasks import SuiteTask, task_of
from launch.start import jax_settings, machines, output_file, prepare, program
from launch.start import run as run_lib
from launch.start import workdir as workdir_lib
from prior_jax.config import CONFIG_NAME, kept_json, read_config
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import results
from prior_jax.interop.weights_folder import is_weights_folder
from prior_jax.processes import distributed, lock
from prior_jax.report.examples import RunInfo
from prior_jax.report.losses import losses_of
from prior_jax.report.page import write_report
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement

FLAGS = flags.FLAGS
_SOURCES = ("workdir", "weights", "random")


class Evaluation:
    """A model and its untrained counterpart, and the texts of the splits, each read once."""

    def __init__(self, subject: Subject, *, out: pathlib.Path, untrained: bool = True):
        """Prepares the evaluation; nothing is read or computed yet.

        Args:
          subject: model and set; the subject's mesh must be the mesh of the context.
          out: folder of the results and the report.
          untrained: whether tasks also measure the model before its first step.
        """
        self.subject, self.out, self._untrained = subject, out, untrained
        self._splits: dict[tuple[str, str], Opened] = {}

    def on_set(self, task: Task) -> Subject:
        """Returns the subject on the set that the task names."""
        return dataclasses.replace(self.subject, data=task.on(self.subject.data))

    def split(self, subject: Subject, name: str) -> Opened:
        """Returns a split of the subject's set, which is read once."""
        # Another model may read the same set with another size of image or tokenizer.
        key = repr(subject.data), name
        if key not in self._splits:
            self._splits[key] = subject.open(name)
        return self._splits[key]

    def measure(self, task: Task) -> None:
        """Runs a task on the model or on both, prints the table and writes `eval/<result>.json`."""
        subject = self.on_set(task)
        if task.reads_text:
            models.check_reads_reports(subject, task=task.task)

        def opened(name: str) -> Opened:
            return self.split(subject, name)

        where = outputs.described(subject, opened(task.split), split=task.split)
        outputs.check_same_set(self.out, task=task.result, where=where)
        said = said_of(task, subject, opened)
        where = outputs.with_remarks(where, said)
        for one in said if distributed.is_primary() else ():
            print(f"{task.result}: {one}", flush=True)
        folder = self.out / finetune.FOLDER / task.result
        found = measure_both(task, subject, opened, folder=folder, beside=self._untrained)
        if distributed.is_primary():
            outputs.check_unchanged(self.out, task=task.result, where=where, about=subject.about)
            path = results.write_results(
                self.out, task=task.result, trained=found[0], untrained=found[-1], settings=where
            )
            records = found[0].settings.get("records", len(opened(task.split).split))
            title = title_of(task, subject, found)
            print(f"\n{task.result} on {records} records of {task.split}, {title}")
            told = {**found[0].settings, **where}
            print(results.format_table(dataclasses.replace(found[0], settings=told), found[-1]))
            print(f"written to {path}", flush=True)

    def suite(self, task: SuiteTask) -> None:
        """Runs a suite, writes its table and the report; a part that fails is named."""
        folder = self.out / suite_lib.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with suite_lib.stoppable():
            with lock.only_run(folder, where="--out"):  # two at once would write the same files
                first = suite_lib.run_suite(task, self.subject, out=self.out, opened=self.split)
            try:
                self.report(dataclasses.replace(task, data=TaskData(path=first)))
            except (ConfigError, DataError) as error:
                logging.error("The report was not drawn: %s", error)

    def report(self, task: Task) -> None:
        """Writes `report/index.html` with examples of the task's split, if it can be read."""
        subject = self.on_set(task)
        examples = shown.examples(
            subject,
            functools.partial(self.split, subject),
            split=task.split,
            batch_size=task.batch_size,
        )
        if distributed.is_primary():
            if isinstance(task, SuiteTask):
                sets = suite_lib.sets_of(task, self.subject)
            else:
                sets = outputs.sets_of_results(subject.data.path, out=self.out)
            counts = outputs.counts_of(sets)
            path = write_report(
                self.out,
                run=RunInfo(
                    name=outputs.titled(subject, list(counts), out=self.out),
                    settings=subject.given,
                    versions=run_lib.versions(),
                    datasets=counts,
                    losses=losses_of(subject.objective),
                    lacking=shown.lacking(subject),
                ),
                attention=examples.attention,
                retrieval=examples.retrieval,
                reconstructions=examples.reconstructions,
                bank=examples.bank,
                missing=examples.missing,
            )
            print(f"report: {path}", flush=True)


def evaluate_run(
    run: run_lib.Run,
    tasks: Sequence[Task],
    *,
    step: int | None,
    untrained: bool,
    pass_over: bool = False,
) -> None:
    """Measures a run on every task, then writes its report into the run's folder.

    Args:
      run: run to evaluate.
      tasks: tasks to measure.
      step: step of the checkpoint; None as in `models.of_run`.
      untrained: whether tasks also measure the model before its first step.
      pass_over: whether a task that the data do not allow is logged and skipped instead of
        refused, so that a long training still yields the other tasks and the report.

    Raises:
      ConfigError, DataError: if a task cannot be run and is not skipped.
    """
    with jax.set_mesh(run.place.mesh):
        subject = models.of_run(run, step=step)
        evaluate(subject, tasks, out=run.workdir, untrained=untrained, pass_over=pass_over)


def evaluate(
    subject: Subject,
    tasks: Sequence[Task],
    *,
    out: pathlib.Path,
    untrained: bool = True,
    pass_over: bool = False,
) -> None:
    """Measures a model on every task, then writes the report; see `evaluate_run`."""
    evaluation, skipped = Evaluation(subject, out=out, untrained=untrained), []
    if isinstance(tasks[0], SuiteTask):
        evaluation.suite(tasks[0])
        return
    for task in tasks:
        try:
            evaluation.measure(task)
        except (ConfigError, DataError) as error:
            if not pass_over:
                raise
            logging.error("The task %s was skipped: %s", task.result, error)
            skipped.append(f"The task {task.result} was skipped: {error}")
    evaluation.report(tasks[-1])
    if skipped and distributed.is_primary():
        print(*skipped, sep="\n", flush=True)


def define_flags() -> None:
    """Defines the program's flags."""
    flags.DEFINE_string("workdir", None, "Folder of a run that launch.train made.")
    flags.DEFINE_string(
        "weights",
        None,
        "Folder of weights, of a whole model or of an image encoder, that launch.import_weights or "
        "launch.export --format=nnx wrote.",
    )
    program.define_config_flag(
        "random",
        "File of a config whose model is evaluated before its first step, as a baseline.",
        required=False,
    )
    program.define_config_flag("task", "File of the task, e.g. configs/eval/zero_shot.py.")
    flags.DEFINE_string(
        "out", None, "Folder of the results and the report; by default the folder of the run."
    )
    flags.DEFINE_integer(
        "step",
        None,
        "Step of the run's checkpoint; by default the newest sound one, and of a training of the "
        "task finetune the one that its results were measured on.",
    )
    machines.define_machine_flag(required=False)
    program.define_cache_flag()
    program.define_device_flags()
    flags.adopt_module_key_flags(machines)
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> None:
    """Evaluates one model and writes its report."""
    machine = machines.start()
    program.start_devices()
    machines.check_chips(machine, devices=jax.device_count())
    source = _source()
    task = suite_lib.on_first_set(task_of(FLAGS.task))
    if source == "workdir":
        _of_workdir(task, machine)
    elif source == "weights":
        _of_weights(task, machine)
    else:
        _of_config(task, machine)


def _source() -> str:
    """Returns which of the three flags names the model.

    Raises:
      ConfigError: if none or several do, or if another flag does not fit it.
    """
    given = [name for name in _SOURCES if FLAGS[name].value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"The model is given by {' and '.join(f'--{name}' for name in given)}."
            if given
            else "No model is given.",
            "Give one of --workdir=RUN, --weights=DIR and --random=CONFIG.",
            where="--workdir",
        )
    if given[0] != "workdir" and FLAGS.step is not None:
        raise ConfigError(
            f"A model of --{given[0]} has no step {FLAGS.step}.",
            "Leave --step out.",
            where="--step",
        )
    if given[0] != "workdir" and FLAGS.out is None:
        raise ConfigError("The folder of the results is missing.", "Give --out=DIR.", where="--out")
    return given[0]


def _check(
    task: Task,
    *,
    out: pathlib.Path,
    drawn: pathlib.Path | None,
    own: str | None = None,
    run: pathlib.Path | None = None,
) -> None:
    """Refuses what can be known to fail before a model is opened.

    Args:
      task: the task.
      out: folder of the results.
      drawn: folder that a phantom was drawn into; see `check_task`.
      own: folder of the model's own set; see `check_task`.
      run: folder of the run that is measured; None for a model without a run.
    """
    outputs.check_own(out, run=run)
    if isinstance(task, SuiteTask):
        suite_lib.check_suite(task)
    if task.data.path is not None and not isinstance(task, SuiteTask):
        check_set(task, load_manifest(task.data.path), drawn=drawn)
    check_task(task, drawn=drawn, own=own)
    output_file.check_folder(out / "eval", where="--out")


def _of_workdir(task: Task, machine: machines.MachineConfig | None) -> None:
    workdir = workdir_lib.from_flag()
    out = workdir if FLAGS.out is None else workdir_lib.from_flag("out")
    kept = ConfigDict(kept_json(workdir))
    given = machines.merged(kept, machine, batch_size=None, replace=True)
    config = read_config(given, workdir=workdir)
    _check(task, out=out, drawn=workdir / "data" / "raw", own=config.data.path, run=workdir)
    place = placement(config.mesh)
    run_lib.check_alike(config)  # before one process alone may be refused
    run_lib.check_fits(config, place)
    cache = workdir_lib.cache_of(workdir)
    jax_settings.compile_to(cache, quick=config.quick_compile)
    prepare.make_in_one_process(prepare.missing(config), workdir)
    run = run_lib.open_run(config, place, workdir, cache_dir=cache)
    with jax.set_mesh(run.place.mesh):
        subject = models.of_run(run, step=FLAGS.step)
        if out.resolve() != workdir.resolve():
            outputs.check_same_model(out, about=subject.about)
        evaluate(subject, [task], out=out)


def _of_config(task: Task, machine: machines.MachineConfig | None) -> None:
    out = workdir_lib.from_flag("out")
    given = machines.merged(FLAGS.random, machine, batch_size=None, replace=True)
    with given.unlocked():
        given.data.path = task.data.path or given.data.path
    config = read_config(given, workdir=out)
    missing = prepare.missing(config)
    reads_text = task.reads_text and config.data.tokenizer.kind != "none"
    drawn = None if missing.phantom is not None else out / "data" / "raw"
    _check(task, out=out, drawn=drawn, own=config.data.path)
    place = placement(config.mesh)
    cache = workdir_lib.cache_of(out)
    jax_settings.compile_to(cache, quick=config.quick_compile)
    run_lib.check_alike(config)
    if not reads_text:
        missing = dataclasses.replace(missing, tokenizer=None)
    prepare.make_in_one_process(missing, out)
    with jax.set_mesh(place.mesh):
        subject = models.of_config(config, reads_text=reads_text, place=place, out=out, cache=cache)
        outputs.check_same_model(out, about=subject.about)
        evaluate(subject, [task], out=out)


def _of_weights(task: Task, machine: machines.MachineConfig | None) -> None:
    out, folder = workdir_lib.from_flag("out"), workdir_lib.from_flag("weights")
    if task.data.path is None:
        raise ConfigError(
            "Weights have no set of their own.",
            "Give --task.data.path=SET, the folder of a prepared set.",
            where="task.data.path",
        )
    if not is_weights_folder(folder) and (folder / CONFIG_NAME).is_file():
        raise ConfigError(
            f"The folder {folder} is that of a run: it holds {CONFIG_NAME}.",
            f"Give --workdir={folder} instead of --weights.",
            where="--weights",
        )
    _check(task, out=out, drawn=None)
    mesh = MeshConfig(axes={"data": -1}, data_axes=("data",)) if machine is None else machine.mesh
    cache = workdir_lib.cache_of(out)
    jax_settings.compile_to(cache, quick=False)
    place = placement(mesh)
    with jax.set_mesh(place.mesh):
        subject = models.of_weights(
            folder,
            path=task.data.path,
            place=place,
            cache_dir=cache,
            task=task.task if task.reads_text and not isinstance(task, SuiteTask) else None,
        )
        outputs.check_same_model(out, about=subject.about)
        evaluate(subject, [task], out=out)


if __name__ == "__main__":
    program.run(main, define_flags)
