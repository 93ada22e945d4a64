"""What the machine can do at most: a matrix product and a copy, on all devices at once."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import dtype_of, on_accelerator

_REPEATS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachinePeak:
    """The best rates that were measured, over all devices together.

    Attributes:
      product: operations per second of a product of square matrices.
      copy: bytes per second that are read and written by adding a number to an array.
    """

    product: float
    copy: float


def machine_peak(dtype: str, *, tiny: bool = False) -> MachinePeak:
    """Measures the machine; the fastest of a few repeats counts, after one that is left out.

    Args:
      dtype: dtype of both factors, the product and the copied array.
      tiny: whether small arrays are enough, to rehearse.
    """
    run, operations = product_of(dtype, tiny=tiny)
    product = operations / _fastest(run)
    length = 2**16 if tiny else (2**28 if on_accelerator() else 2**24)
    array = jnp.ones((jax.device_count(), length), jnp.dtype(dtype), device=_split())
    copy = jax.jit(lambda x: x + jnp.ones((), x.dtype))
    return MachinePeak(product=product, copy=2 * array.nbytes / _fastest(lambda: copy(array)))


def product_of(dtype: str, *, tiny: bool) -> tuple[Callable[[], jax.Array], int]:
    """Returns a product of two square matrices on each device, and its operations in all."""
    side = 128 if tiny else (8192 if on_accelerator() else 1024)
    factors = jnp.ones((jax.device_count(), side, side), jnp.dtype(dtype), device=_split())
    product = jax.jit(lambda left, right: jnp.einsum("dij,djk->dik", left, right))
    return lambda: product(factors, factors), 2 * jax.device_count() * side**3


@contextlib.contextmanager
def machine(request: Request, folder: pathlib.Path) -> Iterator[Repeated]:
    """Opens the matrix product alone; the result's `peak` has its rate and that of the copy.

    Args:
      request: dtype and size.
      folder: not written to.

    Yields:
      A product on every device; its unit is the product.
    """
    del folder
    dtype = dtype_of(request)
    product, operations = product_of(dtype, tiny=request.tiny)

    def run(count: int) -> None:
        for _ in range(count):
            found = product()
        jax.block_until_ready(found)

    yield Repeated(
        run=run,
        unit="products",
        count=jax.device_count(),
        batch=jax.device_count(),
        steps=request.steps or 10,
        blocks=request.blocks or 10,
        dtype=dtype,
        flops=operations,
    )


def _split() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))


def _fastest(run: Callable[[], jax.Array]) -> float:
    jax.block_until_ready(run())
    found = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - began)
    return min(found)
