"""Feeds one of two processes with uneven blocks: `python -m tests.train.uneven_feed PORT PROCESS`.

The devices of the first process are the first and the last of the mesh, as some of a TPU host's
chips are; those of the second lie between them.
"""

import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from prior_jax.sharding.mesh import process_part, replicated
from prior_jax.train.feed import Feed
from tests.train import toy


def main():
    port, process = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(process))
    one, two = ([d for d in jax.devices() if d.process_index == index] for index in range(2))
    mesh = Mesh(np.array([one[0], *two, one[1]]), ("data",), (AxisType.Auto,))
    data = toy.ToyData()
    feed = Feed(data, start=0, stop=2, mesh=mesh, data_axes=("data",))
    gather = jax.jit(lambda batch: batch, out_shardings=replicated(mesh))
    for step in range(2):
        fed, wanted = feed.take(), data.batch(step)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(gather(fed.batch)), wanted)
        mine = process_part(mesh, ("data",)).rows(len(wanted.record))
        np.testing.assert_array_equal(fed.records, wanted.record[mine])
    print(*process_part(mesh, ("data",)).blocks)


if __name__ == "__main__":
    main()
