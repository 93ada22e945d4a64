"""Opens the model to evaluate: of a run, of a folder of weights, or of a config before training."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from launch.evaluation import weights_model
from launch.evaluation.subject import Subject
from launch.start import initial, jax_settings
from launch.start import run as run_lib
from prior_jax import assemble
from prior_jax.data import image as image_lib
from prior_jax.data import no_text
from prior_jax.data.tokenizer import (
    open_tokenizer,
    unknown_vocabulary,
    vocabulary,
)
from prior_jax.errors import CheckpointError, ConfigError
from prior_jax.evaluate.embed import Encoder
from prior_jax.interface.trained import check_tokenizer, check_trained_on
from prior_jax.interop.initial import EncoderInit
from prior_jax.interop.weights_folder import read_document
from prior_jax.objectives.base import Objective, in_stage
from prior_jax.run_config import RunConfig
from prior_jax.sharding.placement import Placement
from prior_jax.train import checkpoint_read
from prior_jax.train.loop import InitialValues
from prior_jax.train.measured_step import measured_step
from prior_jax.train.program import Program
from prior_jax.train.stages import Schedule, Stage

_SEED = 0  # of the baseline of weights, whose own seed is not known
_STEPS_PER_EPOCH = (
    1000  # of a model that is not trained; any number with room for a warm-up will do
)


def of_run(run: run_lib.Run, *, step: int | None) -> Subject:
    """Restores the model of a run, beside the same model before its first step.

    Args:
      run: opened run; its mesh must be the mesh of the context.
      step: step of the checkpoint. None is, for a training of the task "finetune", the one that its
        results were measured on, see `measured_step`; for any other run the newest.

    Returns:
      The subject, on the run's own set. On another set its images are normalised as on this one.

    Raises:
      CheckpointError: if there is no sound checkpoint of that step, if the run's own set or its
        tokenizer is not the one that it was trained with, or if the weights of `config.init` are
        not those that it started from.
    """
    config, place = run.config, run.place
    program = _program(run.objective, run.schedule, config, place)
    wanted = program.abstract(run.schedule[0])
    checkpoints = config.train.checkpoint.folder(run.workdir)
    if step is None:
        step = measured_step(run.workdir, config.train.checkpoint)
    params, rest, found = checkpoint_read.restore_model(
        checkpoints, params=wanted.params, rest=wanted.rest, step=step
    )
    kept = checkpoint_read.read_document(checkpoints / str(found))["host"]["identity"]
    check_trained_on(run.data.manifest, kept, path=config.data.path)
    check_tokenizer(run.data.tokenizer, kept, path=config.data.tokenizer.path)
    ours = initial.identity(config.init.given())
    _check_initial_weights(ours, kept, path=checkpoints / str(found))
    objective = in_stage(run.objective, Schedule(run.schedule).before(found).name)
    values = run_lib.initial_values(run)
    untrained = _untrained(program, values, config, place, objective=objective)
    statistics = run.data.manifest.image
    image = image_lib.with_statistics(config.data.image, mean=statistics.mean, std=statistics.std)
    return Subject(
        name=config.name,
        objective=objective,
        objective_name=config.objective,
        trained=untrained.with_model(program.model.merge(params, rest)),
        untrained=untrained,
        data=dataclasses.replace(config.data, image=image),
        place=place,
        cache_dir=run.cache_dir,
        drawn=run.workdir / "data" / "raw",
        about={
            "run": config.name,
            "step": found,
            "weights": _fingerprint(checkpoints / str(found)),
        },
        given=config.given,
        source=EncoderInit(path=str(run.workdir), adapt=(), step=found),
        stages=Schedule(run.schedule).begun(found),
        began_with_weights=bool(config.init.given()),
    )


def of_config(
    config: RunConfig, *, reads_text: bool, place: Placement, out: pathlib.Path, cache: pathlib.Path
) -> Subject:
    """Builds the model of a config as it is before the first step.

    Args:
      config: config whose data are the set to evaluate on.
      reads_text: whether a tokenizer is opened; if not, the set need not have reports.
      place: placement of arrays; its mesh must be the mesh of the context.
      out: folder of the results, in which a missing phantom is drawn.
      cache: folder for measurements of the data.
    """
    data = config.data
    if reads_text:
        opened = open_tokenizer(data.tokenizer)
        words, fingerprint = vocabulary(opened), opened.fingerprint
    else:
        data = dataclasses.replace(data, tokenizer=no_text.TOKENIZER)
        words, fingerprint = unknown_vocabulary(max(config.prepare.vocab_size, 1)), ""
    schedule = config.schedule(steps_per_epoch=_STEPS_PER_EPOCH)
    objective = assemble.objective(
        config.objective,
        config.model,
        vocabulary=words,
        schedule=schedule,
        place=place,
        all_pairs=config.mesh.all_pairs,
        labels=(),  # no targets are asked for, and classes may be spelled differently in the set
    )
    values = functools.partial(
        initial.initial_values,
        config.init.given(),
        model=config.given["model"],
        tokenizer=fingerprint,
    )
    program = _program(objective, schedule, config, place)
    untrained = _untrained(program, values, config, place, objective=objective)
    return Subject(
        name=config.name,
        objective=objective,
        objective_name=config.objective,
        trained=untrained,
        untrained=untrained,
        data=data,
        place=place,
        cache_dir=cache,
        drawn=out / "data" / "raw",
        about={"random": config.name, "step": 0, "seed": config.train.seed},
        given=config.given,
        source=config.init.given().get("image"),
        began_with_weights=bool(config.init.given()),
    )


def _program(
    objective: Objective, schedule: Sequence[Stage], config: RunConfig, place: Placement
) -> Program:
    return Program(
        objective=objective,
        stages=schedule,
        optimizer=config.optimizer,
        mesh=place.mesh,
        rules=place.rules,
        data_axes=place.data_axes,
    )


def _untrained(
    program: Program,
    values: InitialValues,
    config: RunConfig,
    place: Placement,
    *,
    objective: Objective,
) -> Encoder:
    """Returns the encoder of the model before its first step, by the objective."""
    start = values({**program.model.params, **program.model.rest})
    fresh = program.initial(seed=config.train.seed, values=start)
    module = program.model.merge(fresh.params, fresh.rest)
    return Encoder(objective, module, place=place.put)


def _fingerprint(path: os.PathLike[str]) -> str:
    """Returns a hash of the checksums of all arrays of a checkpoint."""
    arrays = checkpoint_read.read_document(path)["arrays"]
    return hashlib.sha256(json.dumps(arrays, sort_keys=True).encode()).hexdigest()


def _check_initial_weights(
    ours: Mapping[str, Any], kept: Mapping[str, Any], *, path: os.PathLike[str]
) -> None:
    """Refuses weights in `config.init` that are not those that the run started from."""
    for name, now in ours.items():
        if now != kept.get(name):
            raise CheckpointError(
                f"The value is {now!r}, but the run began with {kept.get(name)!r}, as {path} "
                "records.",
                "Put the weights back that the run began with.",
                where=name,
            )


def of_weights(
    folder: pathlib.Path,
    *,
    path: str,
    place: Placement,
    cache_dir: pathlib.Path,
    task: str | None = None,
) -> Subject:
    """Opens the model of a folder of weights, see `weights_model`, beside the same model at random.

    Args:
      folder: folder that `launch.import_weights` or `launch.export --format=nnx` wrote, of a whole
        model or of an image encoder alone.
      path: prepared set to evaluate on.
      place: placement of arrays; the weights are replicated.
      cache_dir: folder for measurements of the data.
      task: name of a task that reads text; None if there is none.

    Raises:
      WeightsError: if the folder is damaged, holds a text encoder alone, or lacks the tokenizer
        that the task needs.
      ConfigError: if it lacks a setting of the model or of its input, or is an image encoder alone
        and the task reads text.
    """
    document = read_document(folder)
    if document.part == "image" and task is not None:
        raise _reads_no_text(folder.resolve().name, task=task)
    opened = weights_model.open_model(folder, document, reads_text=task is not None)
    trained = Encoder(opened.objective, _replicated(opened.module, place), place=place.put)
    with jax_settings.quick_compilation():
        fresh = nnx.jit(opened.objective.init)(nnx.Rngs(_SEED))
    return Subject(
        name=folder.resolve().name,
        objective=opened.objective,
        objective_name=opened.name,
        trained=trained,
        untrained=trained.with_model(_replicated(fresh, place)),
        data=opened.data(path),
        place=place,
        cache_dir=cache_dir,
        drawn=folder,
        about={"weights": document.fingerprint, "origin": dict(document.origin)},
        given={
            "objective": opened.name,
            "model": dict(document.model),
            "data": dict(document.data),
        },
        source=EncoderInit(path=str(folder), adapt=()),
    )


def _replicated(module: nnx.Module, place: Placement) -> nnx.Module:
    graph, state = nnx.split(module)
    whole = jax.sharding.NamedSharding(place.mesh, jax.sharding.PartitionSpec())
    return nnx.merge(graph, jax.tree.map(lambda x: jax.device_put(x, whole), state))


def check_reads_reports(subject: Subject, *, task: str) -> None:
    """Refuses a task about text for a model without a text encoder.

    Raises:
      ConfigError: naming the task.
    """
    if not subject.reads_reports:
        raise _reads_no_text(subject.name, task=task)


def _reads_no_text(name: str, *, task: str) -> ConfigError:
    return ConfigError(
        f"The task {task!r} reads text, and {name} is an image encoder alone.",
        "Give a task about images, such as configs/eval/probe.py, or the weights of a whole model.",
        where="task.task",
    )
