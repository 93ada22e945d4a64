"""Prints how much memory the ring form of the all-pairs losses saves, and how long it takes.

    NPROC=16 python -m launch.bench_ring
    NPROC=16 python -m launch.bench_ring --batch=16384 --chunk=2048 --timed_batch=4096

The value and gradient of both forms are compiled for simulated CPU devices that split the batch,
and the temporary memory that the compiler reports for one device is printed. A smaller batch is
run in both forms alternately. (NPROC gives the simulated devices enough threads to wait for each
other.)
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from launch.start import jax_settings, program
from prior_jax.losses.normalize import unit
from prior_jax.objectives.all_pairs import AllPairs, AllPairsConfig
from prior_jax.sharding.mesh import make_mesh

FLAGS = flags.FLAGS
FORMS = ("gathered", "ring")
LOSSES = ("contrastive", "sigmoid")


def define_flags() -> None:
    """Defines the flags for the sizes of the arrays and the number of devices."""
    flags.DEFINE_multi_integer(
        "batch", [8192, 32768], "number of pairs; may be given several times", 1
    )
    flags.DEFINE_integer(
        "timed_batch", 8192, "number of pairs of the batch that is run and timed", 1
    )
    flags.DEFINE_integer("features", 512, "width of the vector of an image and of a report", 1)
    flags.DEFINE_integer("chunk", 1024, "number of images and texts in a block of the ring", 1)
    flags.DEFINE_integer("devices", 8, "number of simulated CPU devices that split the batch", 1)
    flags.DEFINE_integer("repeats", 3, "number of runs of each form; the fastest one counts", 1)


def mesh_of(devices: int) -> Mesh:
    """Returns a mesh of the first `devices` devices on one axis, "data"."""
    return make_mesh({"data": -1}, devices=jax.devices()[:devices])


def value_and_gradient(name: str, *, form: str, chunk: int, mesh: Mesh) -> Callable[..., Any]:
    """Returns a loss to compile: (image [B, D], text [B, D], scale, bias) -> value, gradients.

    Args:
      name: name of a loss in `LOSSES`.
      form: form in `FORMS`.
      chunk: number of images and texts in a block of the ring.
      mesh: mesh from `mesh_of`; it must be the mesh of the context.
    """
    pairs = AllPairs(config=AllPairsConfig(form=form, chunk=chunk), axis="data")  # type: ignore[arg-type]

    def loss(image, text, scale, bias):
        arrays = {"scale": scale, "weight": jnp.ones(image.shape[:1], jnp.float32)}
        if name == "contrastive":
            return pairs.paired_contrastive(image, text, **arrays)
        return pairs.paired_sigmoid(image, text, **arrays, bias=bias)

    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    return jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1, 2, 3)),
        in_shardings=(split, split, whole, whole),
        out_shardings=(whole, (split, split, whole, whole)),
    )


def arguments(batch: int, *, features: int) -> tuple[jax.Array, ...]:
    """Returns unit vectors of images and of slightly similar texts, then scale and bias."""
    keys = jax.random.split(jax.random.key(0), 2)
    image, noise = (jax.random.normal(key, (batch, features), jnp.float32) for key in keys)
    return unit(image), unit(image + noise), jnp.float32(10), jnp.float32(-10)


def temporary_bytes(
    name: str, *, form: str, batch: int, features: int, chunk: int, mesh: Mesh
) -> int:
    """Returns the temporary bytes of value and gradient on one device, without the arguments."""
    shapes = jax.eval_shape(functools.partial(arguments, features=features, batch=batch))
    with jax.set_mesh(mesh):
        step = value_and_gradient(name, form=form, chunk=chunk, mesh=mesh)
        compiled = step.lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _timed(name: str, *, mesh: Mesh) -> tuple[list[float], float]:
    """Times both forms.

    Returns:
      The seconds of each form, and the largest difference between the forms, relative to the
      largest entry of an array.
    """
    given = arguments(FLAGS.timed_batch, features=FLAGS.features)
    with jax.set_mesh(mesh):
        steps = [
            value_and_gradient(name, form=form, chunk=FLAGS.chunk, mesh=mesh) for form in FORMS
        ]
        found = [jax.device_get(step(*given)) for step in steps]
        seconds = [np.inf, np.inf]
        for _ in range(FLAGS.repeats):
            for index, step in enumerate(steps):
                start = time.perf_counter()
                jax.block_until_ready(step(*given))
                seconds[index] = min(seconds[index], time.perf_counter() - start)
    differences = jax.tree.map(
        lambda x, y: float(np.max(np.abs(x - y)) / max(np.max(np.abs(x)), 1e-12)), *found
    )
    return seconds, max(jax.tree.leaves(differences))


def main() -> None:
    """Compiles every loss in both forms for every batch, times one, and prints Markdown tables."""
    jax_settings.use_cpu(FLAGS.devices)
    mesh = mesh_of(FLAGS.devices)
    sizes = {"features": FLAGS.features, "chunk": FLAGS.chunk, "mesh": mesh}
    print("| loss | B | gathered, MiB | ring, MiB | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for name in LOSSES:
        for batch in sorted(FLAGS.batch):
            gathered, ring = (
                temporary_bytes(name, form=form, batch=batch, **sizes) for form in FORMS
            )
            cells = name, f"{batch:,}", f"{gathered / 2**20:,.0f}", f"{ring / 2**20:,.0f}"
            print("| " + " | ".join(cells) + f" | {gathered / ring:.1f} |", flush=True)
    print("\n| loss | B | gathered, s | ring, s | ring / gathered | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in LOSSES:
        (gathered, ring), difference = _timed(name, mesh=mesh)
        times = f"{gathered:.2f} | {ring:.2f} | {ring / gathered:.2f}"
        print(f"| {name} | {FLAGS.timed_batch:,} | {times} | {difference:.1e} |", flush=True)
    print(
        f"\n{FLAGS.devices} simulated devices, {FLAGS.features} features, blocks of {FLAGS.chunk}; "
        f"float32; jax {jax.__version__}"
    )


if __name__ == "__main__":
    program.run(main, define_flags)
