"""A run as its programs see it: config, data, devices and objective, put together once."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from launch.start import prepare
from prior_jax import __version__, assemble
from prior_jax.config import CONFIG_NAME, RunConfig
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import pipeline, tokenizer
from prior_jax.errors import ConfigError
from prior_jax.interop import initial
from prior_jax.objectives.base import Objective
from prior_jax.processes import distributed
from prior_jax.sharding.mesh import batch_sharding, check_batch_size
from prior_jax.sharding.placement import Placement
from prior_jax.train import checkpoint, resume
from prior_jax.train.accumulate import check_accumulation
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import ModelDefinition
from prior_jax.types import Batch

CLOCK_TOLERANCE_SECONDS = 60.0
_VERSIONS = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tensorflow-datasets")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What training and evaluation share.

    Attributes:
      workdir: of the run.
      cache_dir: keeps measurements of the data and compiled programs; runs may share one.
      config: all sections.
      data: the training split.
      schedule: the stages, in steps.
      place: mesh, axes and rules.
      objective: what is trained.
    """

    workdir: pathlib.Path
    cache_dir: pathlib.Path
    config: RunConfig
    data: pipeline.Split
    schedule: tuple[Stage, ...]
    place: Placement
    objective: Objective

    def split(self, name: str) -> pipeline.Split:
        """Another split of the same set."""
        return pipeline.open_split(self.config.data, name, cache_dir=self.cache_dir)  # type: ignore[arg-type]

    def put(self, tree: Any) -> Any:
        """Host arrays, the same in every process, onto the devices; rows split if they divide."""
        sharded = batch_sharding(self.place.mesh, self.place.data_axes)
        whole = NamedSharding(self.place.mesh, PartitionSpec())
        shards = int(np.prod([self.place.mesh.shape[axis] for axis in self.place.data_axes]))

        def one(x):
            x = np.asarray(x)
            sharding = sharded if x.ndim and x.shape[0] % shards == 0 else whole
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(one, tree)

    def eval_batches(
        self, split: pipeline.Split, *, batch_size: int, require_text: bool
    ) -> Iterator[Batch]:
        """One pass over a split, on the devices."""
        with split.eval_batches(batch_size=batch_size, require_text=require_text) as batches:
            for _, batch in batches:
                yield self.put(batch)


def open_run(
    config: RunConfig,
    place: Placement,
    workdir: pathlib.Path,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Run:
    """Makes what is absent, opens the data and puts the parts together.

    Args:
      config: all sections.
      place: where arrays lie, as `check_fits` has accepted it.
      workdir: folder of the run.
      cache_dir: see `Run`; None for `cache` in the workdir.

    Raises:
      ConfigError: for settings that do not fit the data.
      DataError: for data that cannot be used.
    """
    cache = workdir / "cache" if cache_dir is None else pathlib.Path(cache_dir)
    _compile_to(cache / "compiled", quick=config.quick_compile)
    _check_alike(config)
    primary = distributed.is_primary()
    if primary:
        prepare.make_absent(config, workdir)
    distributed.barrier("data prepared")
    if not primary:
        distributed.barrier("data measured")
    data = pipeline.open_split(config.data, "train", cache_dir=cache)
    if primary:
        distributed.barrier("data measured")
    if data.pairs < config.data.batch_size:
        raise ConfigError(
            "config.data.batch_size",
            received=config.data.batch_size,
            accepted=f"at most the {data.pairs} training pairs of {config.data.path}",
        )
    schedule = config.schedule(steps_per_epoch=data.steps_per_epoch())
    return Run(
        workdir=workdir,
        cache_dir=cache,
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
        ),
    )


def check_fits(config: RunConfig, place: Placement) -> None:
    """Refuses what does not fit the devices, or names weights that are not there.

    Raises:
      ConfigError: naming the setting.
      WeightsError: for weights of `config.init` that are absent or damaged.
    """
    batch_size = config.data.batch_size
    check_batch_size(batch_size, mesh=place.mesh, data_axes=place.data_axes)
    check_accumulation(
        batch_size,
        steps=config.optimizer.accumulate_steps,
        sharding=batch_sharding(place.mesh, place.data_axes),
    )
    initial.identity(config.init)


def _compile_to(folder: pathlib.Path, *, quick: bool) -> None:
    """Keeps compiled programs, so that a resumed run and an evaluation start at once."""
    # By host: code compiled for one machine's processor need not run on another's.
    jax.config.update("jax_compilation_cache_dir", str(folder / platform.node()))
    jax.config.update("jax_disable_most_optimizations", quick)


def _check_alike(config: RunConfig) -> None:
    """Refuses processes that were started with another config, code or clock."""
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


def identity(run: Run) -> dict[str, Any]:
    """What must be the same when a run is resumed: anything that changes its numbers.

    What is rematerialised to save memory does not, so that a run may go on with other devices.
    """
    return {
        **_identity_of_settings(run.config),
        "data set": _fingerprint(run.data.manifest),
        "tokenizer": run.data.tokenizer.fingerprint,
    }


def _identity_of_settings(config: RunConfig) -> dict[str, Any]:
    """The part of the identity that the config alone decides."""
    data = dataclasses.asdict(config.data)
    for free in ("path", "workers", "threads", "prefetch"):
        del data[free]
    del data["tokenizer"]["path"]
    return {
        "config.objective": config.objective,
        "config.model": _without(config.given["model"], "remat"),
        "config.data": json.loads(json.dumps(data)),
        "config.optimizer": config.given["optimizer"],
        "config.quick_compile": config.quick_compile,
        **initial.identity(config.init),
    }


def _fingerprint(manifest: manifest_lib.Manifest) -> str:
    """A hash of all records of a set."""
    shards = json.dumps(dict(manifest.shards), sort_keys=True)
    return hashlib.sha256(shards.encode()).hexdigest()


def check_resumable(config: RunConfig, workdir: pathlib.Path) -> None:
    """Refuses to go on in a folder whose checkpoints another run has written; only reads.

    What only the opened data tells, such as the steps of an epoch, is checked by `check_resumed`.

    Raises:
      CheckpointError: naming the setting that differs, with both values.
    """
    kept = checkpoint.newest_host(config.train.checkpoint.folder(workdir))
    if kept is None:
        return
    ours = _identity_of_settings(config)
    if (pathlib.Path(config.data.path) / manifest_lib.MANIFEST_NAME).is_file():
        ours["data set"] = _fingerprint(manifest_lib.load_manifest(config.data.path))
    # First what decides all else; the data section repeats the seed, by a name that no one sets.
    objective = kept["identity"]["config.objective"]
    resume.check_identity(
        {"config.objective": config.objective, "config.seed": config.train.seed},
        {"config.objective": objective, "config.seed": kept["seed"]},
        workdir=workdir,
    )
    resume.check_identity(ours, kept["identity"], workdir=workdir)
    if config.stage_unit == "steps":
        _check_schedule(config, config.schedule(steps_per_epoch=1), kept, workdir)


def check_resumed(run: Run) -> None:
    """Refuses a run that its folder's checkpoints are not of, once its data are open.

    Raises:
      CheckpointError: naming the setting that differs, with both values.
    """
    kept = checkpoint.newest_host(run.config.train.checkpoint.folder(run.workdir))
    if kept is not None:
        resume.check_identity(identity(run), kept["identity"], workdir=run.workdir)
        _check_schedule(run.config, run.schedule, kept, run.workdir)


def _check_schedule(
    config: RunConfig, stages: tuple[Stage, ...], kept: Mapping[str, Any], workdir: pathlib.Path
) -> None:
    schedule = Schedule(stages)
    options = dataclasses.replace(config.train, identity=kept["identity"])
    ours = resume.settings_of(options, schedule)
    resume.check_same(ours, kept, schedule=schedule, workdir=workdir)


def _without(section: dict[str, Any], name: str) -> dict[str, Any]:
    """A section without the settings of one name, its own and those below it."""
    return {
        key: _without(value, name) if isinstance(value, dict) else value
        for key, value in section.items()
        if key != name
    }


def initial_values(run: Run, model: ModelDefinition) -> dict[str, np.ndarray]:
    """The arrays that the run starts from in place of drawn ones; see `interop.initial`."""
    return initial.initial_values(
        run.config.init,
        shapes={**model.params, **model.rest},
        model=run.config.given["model"],
        tokenizer=run.data.tokenizer.fingerprint,
    )


def make_workdir(workdir: pathlib.Path) -> None:
    """Makes the folder of a run.

    Raises:
      ConfigError: if it is none that can be written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "cache").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "--workdir",
            received=str(workdir),
            accepted=f"a folder to write to ({error.strerror}: {error.filename})",
        ) from error


def save_config(config: RunConfig, workdir: pathlib.Path) -> None:
    """Keeps the config in the workdir, for evaluation."""
    if distributed.is_primary():
        target = workdir / CONFIG_NAME
        aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        aside.write_text(json.dumps(config.given, indent=2) + "\n")
        os.replace(aside, target)


def versions() -> Mapping[str, str]:
    """Versions of all that a run's numbers depend on."""
    found = {name: importlib.metadata.version(name) for name in _VERSIONS}
    device = jax.devices()[0]
    return {
        "prior_jax": __version__,
        "python": platform.python_version(),
        **found,
        "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
    }
