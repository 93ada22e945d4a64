"""Saves checkpoints in a process of its own: `python -m tests.train.saver FOLDER FIRST LAST`.

Goes on from what is there. What is saved at a step is a function of the step alone.
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from prior_jax.errors import PriorJaxError
from prior_jax.processes import distributed
from prior_jax.train.checkpoint import Checkpoints
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.state import TrainState
from tests.train import toy

KEEP = CheckpointConfig(
    every_steps=1, keep_last=2, keep_best=0, best_metric=None, best_is="lowest", directory=None
)
ROWS = 64


def _put(array, sharding):
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def state_at(step, *, columns, mesh):
    """A state on all devices; its large arrays do not compress."""
    rng = np.random.default_rng(step)
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    large = rng.integers(0, 2**32, (2, ROWS, columns), np.uint32).view(np.int32)
    return TrainState(
        step=_put(np.int32(step), whole),
        params={"large": _put(large[0], split), "small": _put(np.float32([step, -0.0]), whole)},
        rest={"mean": _put(rng.normal(size=8).astype(jnp.bfloat16), whole)},
        optimizer=(_put(large[1], split),),
        key=_put(np.uint32([step, 7]), whole),
    )


def shapes(state):
    """What to restore to, in the same places."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def restore(folder, *, columns, mesh, config=KEEP):
    """The manager of a folder and what it restored, or None."""
    checkpoints = Checkpoints(folder, config)
    target = shapes(state_at(0, columns=columns, mesh=mesh))
    return checkpoints, checkpoints.restore_newest(lambda step: target, check=lambda host: None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--coordinator")
    parser.add_argument("--process", type=int)
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    logging.set_verbosity(logging.INFO)
    many = given.coordinator is not None
    try:
        distributed.start(
            distributed.DistributedConfig(
                mode="explicit" if many else "off",
                coordinator=given.coordinator,
                processes=2 if many else None,
                process=given.process,
                timeout_seconds=60,
            )
        )
        mesh = toy.mesh_of(jax.device_count())
        checkpoints, found = restore(given.folder, columns=given.columns, mesh=mesh)
        print("restored", None if found is None else int(found[0].step), flush=True)
        for step in range(given.first, given.last + 1):
            state = state_at(step, columns=given.columns, mesh=mesh)
            checkpoints.save(state, host={"step": step}, score=None)
            print("saving", step, flush=True)
            checkpoints.wait()
            print("saved", step, flush=True)
    except PriorJaxError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        distributed.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
