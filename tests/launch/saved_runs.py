"""Runs that have saved a checkpoint before their first step, made in the test's own process."""

import dataclasses

import jax

from launch.start import run as run_lib
from prior_jax.config import read_config
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement
from prior_jax.train import resume
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.program import Program
from prior_jax.train.stages import Schedule


def opened(config, folder, prepared, *, tokenizer=None):
    """Opens a run of a config on a prepared set, on one device."""
    with config.unlocked():
        config.data.update(dict(path=str(prepared), batch_size=4))
        config.prepare.phantom = None
        config.mesh.axes = {"data": 1}
        if tokenizer is not None:
            config.data.tokenizer.path = str(tokenizer)
    place = placement(MeshConfig(axes={"data": 1}, data_axes=("data",)), devices=jax.devices()[:1])
    folder.mkdir(exist_ok=True)
    read = read_config(config, workdir=folder)
    return run_lib.open_run(read, place, folder, cache_dir=folder / "cache")


def saved(config, folder, prepared, *, tokenizer=None):
    """Opens a run and saves its config and a checkpoint, as `launch.train` does."""
    run = opened(config, folder, prepared, tokenizer=tokenizer)
    program = Program(
        objective=run.objective,
        stages=run.schedule,
        optimizer=run.config.optimizer,
        mesh=run.place.mesh,
        rules=run.place.rules,
        data_axes=run.place.data_axes,
    )
    options = dataclasses.replace(
        run.config.options(steps_per_epoch=run.data.steps_per_epoch()),
        identity=run_lib.identity(run_lib.identity_of_settings(run.config), run.data),
    )
    host = {**resume.settings_of(options, Schedule(run.schedule)), "step": 0}
    with jax.set_mesh(run.place.mesh):
        state = program.initial(seed=0, values=None)
        checkpoints = Checkpoints(options.checkpoint.folder(folder), options.checkpoint)
        checkpoints.save(state, host=host, score=None)
        checkpoints.wait()
    run_lib.save_config(run.config, folder)
    return run
