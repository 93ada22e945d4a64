"""Trains a run, or resumes it; then runs the evaluation tasks of config.after, if it has some.

    python -m launch.train --config=configs/phantom.py --workdir=/tmp/prior_phantom

Running the same command again resumes from the newest sound checkpoint. At the end the step of the
best checkpoint is printed, where the config keeps one. A config without tasks in config.after, such
as those of configs/finetune, is evaluated by launch.evaluate, which also writes the report.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
from absl import flags, logging

from launch.evaluate import evaluate_run
from launch.evaluation.set_checks import check_task
from launch.evaluation.tasks import load_task
from launch.evaluation.while_training import open_evaluation
from launch.start import jax_settings, machines, prepare, program
from launch.start import run as run_lib
from launch.start import workdir as workdir_lib
from launch.start.validation_truth import check_truth
from prior_jax.config import read_config
from prior_jax.errors import ConfigError
from prior_jax.evaluate import box_scores, class_scores, local_use, mask_scores
from prior_jax.evaluate.validation import Validation
from prior_jax.evaluate.while_training import WhileTraining
from prior_jax.objectives.base import Classifies, Detects, Segments
from prior_jax.processes import distributed, lock
from prior_jax.sharding.placement import placement
from prior_jax.train import checkpoint_storage as storage
from prior_jax.train import loop, watched
from prior_jax.train.checkpoint_read import best_step, score_of
from prior_jax.train.options import Evaluate, Snapshot, TrainOptions
from prior_jax.train.stages import Schedule, Stage

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the program's flags."""
    program.define_config_flag("config", "File of the run's config, e.g. configs/phantom.py.")
    flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.", required=True)
    flags.DEFINE_boolean(
        "untrained",
        True,
        "Whether the tasks of config.after also measure the model before its first step, beside "
        "which the report shows the trained one. --nountrained leaves it out.",
    )
    machines.define_flags()
    program.define_cache_flag()
    program.define_device_flags()
    flags.adopt_module_key_flags(machines)
    flags.adopt_module_key_flags(program)  # so that --help shows them


def main() -> None:
    """Trains the run, and evaluates it and writes its report if it has tasks for that."""
    machine = machines.start()
    program.start_devices()
    workdir = workdir_lib.from_flag()
    given = machines.configure(FLAGS.config, machine, devices=jax.device_count())
    config = read_config(given, workdir=workdir)
    tasks = [load_task(path, where="config.after") for path in config.after]
    for task in tasks:
        check_task(task)
    # Nothing is written before everything that may be refused has been checked.
    place = placement(config.mesh)
    run_lib.check_alike(config)  # before one process alone may be refused
    run_lib.check_fits(config, place)
    settings = run_lib.identity_of_settings(config)
    missing = prepare.missing(config)
    prepare.check_set(config)
    workdir_lib.check_for_run(workdir)
    run_lib.check_resumable(config, settings, workdir)
    prepare.check_made(missing)
    run_lib.make_workdir(workdir)
    cache = workdir_lib.cache_of(workdir)
    jax_settings.compile_to(cache, quick=config.quick_compile)
    with lock.only_run(workdir):
        prepare.make_in_one_process(missing, workdir)
        run = run_lib.open_run(config, place, workdir, cache_dir=cache)
        identity = run_lib.identity(settings, run.data)
        options = config.options(steps_per_epoch=run.data.steps_per_epoch())
        options = dataclasses.replace(options, identity=identity)
        run_lib.check_resumed(run, options)
        prepare.check_validates(options.validate_every, run.data.manifest)
        prepare.check_evaluates(config, run.data.manifest)
        evaluation = open_evaluation(run) if options.evaluate_every else None
        check_metrics(run, options, evaluated=() if evaluation is None else evaluation.names)
        run_lib.save_config(config, workdir)
        with jax.set_mesh(place.mesh):
            step = train(run, options, evaluation=evaluation)
        ending = ended(step, workdir=workdir, options=options)
        if distributed.is_primary():
            print(ending, flush=True)
        if tasks:
            evaluate_run(run, tasks, step=None, untrained=FLAGS.untrained, pass_over=True)


def check_metrics(run: run_lib.Run, options: TrainOptions, *, evaluated: Sequence[str]) -> None:
    """Refuses decisions by numbers that the run, or a run on this set, does not compute.

    Args:
      run: run that is about to be trained.
      options: its options.
      evaluated: names of the numbers of its evaluations.

    Raises:
      ConfigError: naming the setting, and the names that there are.
    """
    asked = watched.waits(run.schedule, options.early_stopping)
    watched.check_computed(asked, every=options.every)
    best = options.checkpoint.best_metric
    if best is not None and options.every[watched.interval_of(best)]:
        asked["config.checkpoint.best_metric"] = best
    for field, metric in asked.items():
        stages = _validated_stages(run, options, field=field)
        if metric in local_use.NAMES:
            _check_local_use(run, stages, where=field, metric=metric)
        validated = set.intersection(*(_validated_names(run, stage.name) for stage in stages))
        known = {watched.VALIDATE: validated, watched.EVALUATE: evaluated}
        watched.check_names({field: metric}, known=known)
    if options.validate_every:
        check_truth(asked, objective=run.objective, split=run.split("validate"))


def _validated_stages(run: run_lib.Run, options: TrainOptions, *, field: str) -> list[Stage]:
    """Returns the stages in which a setting needs a number of validations.

    A plateau needs it in its own stage, and everything else in all stages that have a validation.
    """
    schedule, every = Schedule(run.schedule), options.validate_every
    own = [stage for stage in run.schedule if field.startswith(f"config.stages.{stage.name}.")]
    if own or not every:
        return own or list(run.schedule)
    return [
        stage
        for stage in run.schedule
        if schedule.end(stage) // every > schedule.start(stage) // every
        or schedule.end(stage) == schedule.total_steps
    ]


def _validated_names(run: run_lib.Run, stage: str) -> set[str]:
    """Returns the names of the numbers that a validation in a stage computes."""
    validated = {f"validation_{term}_loss" for term in (*run.objective.weights(stage), "total")}
    if local_use.trained_terms(run.objective, stage):
        validated |= set(local_use.NAMES)
    if isinstance(run.objective, Classifies):
        validated.add(class_scores.AUROC)
    if isinstance(run.objective, Detects):
        validated |= set(box_scores.NAMES)
    if isinstance(run.objective, Segments):
        validated |= set(mask_scores.NAMES)
    return validated


def _check_local_use(run: run_lib.Run, stages: Sequence[Stage], *, where: str, metric: str) -> None:
    """Refuses to wait for a number of local losses where a validation cannot compute it."""
    untrained = [s.name for s in stages if not local_use.trained_terms(run.objective, s.name)]
    if untrained:
        raise ConfigError(
            f"{metric!r} compares local losses that are trained, and in {', '.join(untrained)} "
            "none has a weight above 0.",
            "Choose another number, such as 'validation_total_loss', or weigh a local loss.",
            where=where,
        )
    pairs = min(run.config.data.batch_size, len(run.split("validate").with_text))
    if pairs < 2:
        raise ConfigError(
            f"{metric!r} needs the image of another study, and the batches of a validation have "
            f"{pairs} pair.",
            "Choose another number, such as 'validation_total_loss', or raise "
            "--config.data.batch_size and use a set with two or more pairs to validate on.",
            where=where,
        )


def ended(step: int, *, workdir: pathlib.Path, options: TrainOptions) -> str:
    """Returns the line on the last step, and the step of the best checkpoint if one was kept.

    Args:
      step: number of steps done.
      workdir: folder of the run.
      options: its options.
    """
    checkpoint = options.checkpoint
    said, folder = f"done at step {step}", checkpoint.folder(workdir)
    if not checkpoint.keep_best:
        return said
    metric, evaluation = checkpoint.best_metric, options.evaluation
    best = best_step(folder, best_is=checkpoint.best_is, metric=metric, evaluation=evaluation)
    if best is None:
        return said
    score = score_of(storage.open_path(folder) / str(best), metric=metric, evaluation=evaluation)
    value = f"{checkpoint.best_metric} {score:.4g}"
    if best == step:
        return f"{said}, with the best {value}"
    return f"{said}; best {value} at step {best}, which --step={best} names to other programs"


def train(
    run: run_lib.Run, options: TrainOptions, *, evaluation: WhileTraining | None = None
) -> int:
    """Trains through all remaining stages; the run's mesh must be the mesh of the context.

    Returns:
      The number of the last step.
    """
    last = loop.train(
        objective=run.objective,
        data=run.data,
        stages=run.schedule,
        optimizer=run.config.optimizer,
        options=options,
        mesh=run.place.mesh,
        rules=run.place.rules,
        data_axes=run.place.data_axes,
        workdir=run.workdir,
        validate=_validation(run, every=options.validate_every) if options.validate_every else None,
        evaluate=None if evaluation is None else _evaluate(evaluation),
        initial_values=run_lib.initial_values(run),
    )
    return last.step


def _evaluate(evaluation: WhileTraining) -> Evaluate:
    return lambda snapshot: evaluation(snapshot.module(), stage=snapshot.stage)


def _validation(run: run_lib.Run, *, every: int):
    schedule = Schedule(run.schedule)
    split = run.split("validate")
    known = {}

    def evaluate(snapshot: Snapshot):
        validation = known.setdefault("one", Validation(run.objective, snapshot.model.merge))
        batches = run.eval_batches(split, batch_size=run.config.data.batch_size, require_text=True)
        found = validation(
            snapshot.params, snapshot.rest, batches, stage=snapshot.stage, step=snapshot.step
        )
        # The run's last step is validated in any case, so that it alone is the last stage's end.
        left = schedule.end(schedule.at(snapshot.step - 1)) - snapshot.step
        last = left == 0 or (left < every and snapshot.step + left < schedule.total_steps)
        if last and local_use.looks_away(found):
            terms = local_use.trained_terms(run.objective, snapshot.stage)
            logging.warning("after %s: %s", snapshot.stage, local_use.said(found, terms))
        return found

    return evaluate


if __name__ == "__main__":
    program.run(main, define_flags)
