"""A run's config, data, devices and objective, assembled once for every program."""

import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from launch.start import initial
from prior_jax import __version__, assemble
from prior_jax.config import CONFIG_NAME
from prior_jax.data import fractions, no_text, pipeline, tokenizer
from prior_jax.data import manifest as manifest_lib
from prior_jax.errors import ConfigError
from prior_jax.objectives.base import Objective
from prior_jax.processes import distributed
from prior_jax.run_config import RunConfig
from prior_jax.sharding.mesh import abstract_mesh, batch_sharding, check_batch_size
from prior_jax.sharding.placement import Placement
from prior_jax.train import checkpoint_read, resume
from prior_jax.train.accumulate import check_accumulation
from prior_jax.train.loop import InitialValues
from prior_jax.train.options import TrainOptions
from prior_jax.train.stages import Schedule, Stage
from prior_jax.types import Batch

CLOCK_TOLERANCE_SECONDS = 60.0
_VERSIONS = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of a run that training and evaluation share.

    Attributes:
      workdir: folder of the run.
      cache_dir: folder for measurements of the data and compiled programs; runs may share one.
      config: config with all sections.
      data: training split.
      schedule: stages, in steps.
      place: placement of arrays: mesh, axes and rules.
      objective: objective that is trained.
    """

    workdir: pathlib.Path
    cache_dir: pathlib.Path
    config: RunConfig
    data: pipeline.Split
    schedule: tuple[Stage, ...]
    place: Placement
    objective: Objective

    def split(self, name: str) -> pipeline.Split:
        """Returns another split of the same set."""
        return pipeline.open_split(self.config.data, name, cache_dir=self.cache_dir)  # type: ignore[arg-type]

    def eval_batches(
        self,
        split: pipeline.Split,
        *,
        batch_size: int,
        require_text: bool,
        records: np.ndarray | None = None,
    ) -> Iterator[Batch]:
        """Yields the batches of one pass over a split, or some of its records, on the devices."""
        with split.eval_batches(
            batch_size=batch_size, require_text=require_text, records=records
        ) as batches:
            for _, batch in batches:
                yield self.place.put(batch)


def open_run(
    config: RunConfig, place: Placement, workdir: pathlib.Path, *, cache_dir: pathlib.Path
) -> Run:
    """Opens the data and assembles the run; every process of the run has to call it.

    Args:
      config: config with all sections; the data and tokenizer that it names exist.
      place: placement of arrays that `check_fits` has accepted.
      workdir: folder of the run.
      cache_dir: cache of the run, see `Run`.

    Raises:
      ConfigError: if settings do not fit the data.
      DataError: if the data cannot be used.
    """
    primary = distributed.is_primary()
    if not primary:  # process 0 measures the data, and the others read what it has measured
        distributed.barrier("data measured")
    data = pipeline.open_split(config.data, "train", cache_dir=cache_dir)
    if primary:
        distributed.barrier("data measured")
    _check_pairs(data, config.data)
    schedule = config.schedule(steps_per_epoch=data.steps_per_epoch())
    return Run(
        workdir=workdir,
        cache_dir=cache_dir,
        config=config,
        data=data,
        schedule=schedule,
        place=place,
        objective=assemble.objective(
            config.objective,
            config.model,
            vocabulary=tokenizer.vocabulary(data.tokenizer),
            schedule=schedule,
            place=place,
            all_pairs=config.mesh.all_pairs,
            labels=data.label_names,
        ),
    )


def _check_pairs(data: pipeline.Split, settings: pipeline.DataConfig) -> None:
    """Refuses a training split without a record to learn from, or with less than a batch."""
    if not data.pairs:
        lacking = "a report" if no_text.reads_reports(data.tokenizer) else "what is learnt"
        raise ConfigError(
            f"No record of the training split of {settings.path} has {lacking}, so that there "
            "is nothing to train on.",
            "Give a set whose records have it, or train another objective.",
            where="config.data.path",
        )
    if data.pairs < settings.batch_size:
        raise ConfigError(
            f"A batch of {settings.batch_size} pairs is larger than the training split of "
            f"{settings.path}, which has {data.pairs} pairs.",
            f"Lower --config.data.batch_size to at most {data.pairs}.",
            where="config.data.batch_size",
        )


def check_fits(config: RunConfig, place: Placement) -> None:
    """Refuses settings that do not fit the devices.

    Raises:
      ConfigError: if a setting does not fit the devices; the message names the setting.
    """
    _check_fits(config, place.mesh, place.data_axes)


def check_fits_absent(config: RunConfig, *, devices: int) -> None:
    """Refuses settings that do not fit so many devices, which are those of another machine.

    Raises:
      ConfigError: if a setting does not fit the devices; the message names the setting.
    """
    mesh = abstract_mesh(config.mesh.axes, devices=devices)
    _check_fits(config, mesh, config.mesh.data_axes)


def _check_fits(config: RunConfig, mesh: Mesh | AbstractMesh, data_axes: Sequence[str]) -> None:
    batch_size = config.data.batch_size
    check_batch_size(batch_size, mesh=mesh, data_axes=data_axes)
    check_accumulation(
        batch_size,
        steps=config.optimizer.accumulate_steps,
        sharding=batch_sharding(mesh, data_axes),
    )


def check_alike(config: RunConfig) -> None:
    """Refuses processes that were started with different configs, code or clocks.

    Raises:
      ConfigError: in every process, naming the value that differs.
    """
    if jax.process_count() == 1:
        return
    distributed.check_agreement(
        {
            "version": __version__,
            "code": distributed.code_fingerprint(),
            "seed": str(config.train.seed),
            "config": json.dumps(config.given, sort_keys=True),
        },
        clock_tolerance_seconds=CLOCK_TOLERANCE_SECONDS,
    )


def identity_of_settings(config: RunConfig) -> dict[str, Any]:
    """Returns the part of a run's identity that the config alone determines.

    Rematerialisation and the chunks of a contrast do not change the numbers, so a run may continue
    with others, on other devices.

    Raises:
      WeightsError: if weights of `config.init` are missing or damaged.
    """
    data = {**dataclasses.asdict(config.data), "image": config.data.image.given()}
    for free in ("path", *pipeline.SPEED_SETTINGS):
        del data[free]
    del data["tokenizer"]["path"]
    if data["regions"] is not None:
        for follows in ("kind", "classes"):  # from the objective and the model
            del data["regions"][follows]
    if data["fraction"] is not None:
        data["fraction"]["ids"] = fractions.list_digest(config.data.fraction)
    later = {"sentence_region": [None], "switched_choices": [(), []]}
    model = _as_earlier(config.given["model"], later)
    if "sentence_region" in model:
        hides = {"hidden_every": [0], "hidden_share": [0], "hidden_side": [1]}
        later = {**hides, "coordinates": [False]}
        model["sentence_region"] = _as_earlier(model["sentence_region"], later)
    return {
        "config.objective": config.objective,
        "config.model": resume.identity_of_model(model),
        "config.data": json.loads(json.dumps(data)),
        "config.optimizer": config.given["optimizer"],
        "config.quick_compile": config.quick_compile,
        **initial.identity(config.init.given()),
    }


def identity(settings: Mapping[str, Any], data: pipeline.Split) -> dict[str, Any]:
    """Returns all that must be equal when a run is resumed: everything that changes its numbers.

    Args:
      settings: the part from `identity_of_settings`.
      data: training split of the run.
    """
    return {
        **settings,
        resume.DATA_SET: data.manifest.fingerprint,
        resume.TOKENIZER: data.tokenizer.fingerprint,
    }


def check_resumable(config: RunConfig, settings: Mapping[str, Any], workdir: pathlib.Path) -> None:
    """Refuses to continue in a folder whose checkpoints another run wrote; writes nothing.

    `check_resumed` checks settings that depend on the opened data, such as the steps of an epoch.

    Args:
      config: config of the run.
      settings: its part from `identity_of_settings`.
      workdir: folder of the run.

    Raises:
      CheckpointError: if a setting differs; the message names the setting, with both values.
    """
    kept = checkpoint_read.newest_host(config.train.checkpoint.folder(workdir))
    if kept is None:
        return
    ours = dict(settings)
    if (pathlib.Path(config.data.path) / manifest_lib.MANIFEST_NAME).is_file():
        ours[resume.DATA_SET] = manifest_lib.load_manifest(config.data.path).fingerprint
    # Settings that determine others are compared first; the data section repeats the seed under a
    # name that users do not set.
    objective = kept["identity"]["config.objective"]
    resume.check_identity(
        {"config.objective": config.objective, "config.seed": config.train.seed},
        {"config.objective": objective, "config.seed": kept["seed"]},
        workdir=workdir,
    )
    resume.check_identity(ours, kept["identity"], workdir=workdir)
    if config.stage_unit == "steps":
        schedule = Schedule(config.schedule(steps_per_epoch=1))
        options = dataclasses.replace(config.train, identity=kept["identity"])
        known = resume.settings_of(options, schedule)
        resume.check_same(known, kept, schedule=schedule, workdir=workdir)


def check_resumed(run: Run, options: TrainOptions) -> None:
    """Refuses a run that did not write its folder's checkpoints, once its data are open.

    Args:
      run: run that is about to be trained.
      options: its options, with its identity.

    Raises:
      CheckpointError: if a setting differs; the message names the setting, with both values.
    """
    kept = checkpoint_read.newest_host(options.checkpoint.folder(run.workdir))
    if kept is not None:
        schedule = Schedule(run.schedule)
        ours = resume.settings_of(options, schedule)
        resume.check_same(ours, kept, schedule=schedule, workdir=run.workdir)


def _as_earlier(section: Mapping[str, Any], later: Mapping[str, list]) -> dict[str, Any]:
    """Leaves out settings that checkpoints of earlier versions do not have, where they are unset.

    Args:
      section: settings.
      later: values of each such setting that stand for what earlier versions did.
    """
    return {
        name: value
        for name, value in section.items()
        if name not in later or value not in later[name]
    }


def initial_values(run: Run) -> InitialValues:
    """Returns the function from a model's shapes to the arrays that replace random initial values.

    See `interop.initial.initial_values`.
    """
    return functools.partial(
        initial.initial_values,
        run.config.init.given(),
        model=run.config.given["model"],
        tokenizer=run.data.tokenizer.fingerprint,
    )


def make_workdir(workdir: pathlib.Path) -> None:
    """Makes the folder of a run.

    Raises:
      ConfigError: if the folder cannot be made or written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "cache").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folder {workdir} cannot be made or written to ({error.strerror}: "
            f"{error.filename}).",
            "Give a folder that can be written to.",
            where="--workdir",
        ) from error


def save_config(config: RunConfig, workdir: pathlib.Path) -> None:
    """Saves the config in the workdir, for evaluation."""
    if distributed.is_primary():
        target = workdir / CONFIG_NAME
        aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        aside.write_text(json.dumps(config.given, indent=2) + "\n")
        os.replace(aside, target)


def versions() -> Mapping[str, str]:
    """Returns the versions of the packages that a run's numbers depend on."""
    found = {name: importlib.metadata.version(name) for name in _VERSIONS}
    device = jax.devices()[0]
    return {
        "prior_jax": __version__,
        "python": platform.python_version(),
        **found,
        "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }
