"""GLoRIA's word-region contrast with its gradient, alone."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from launch.benchmarks import counted
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import batch_of, dtype_of, on_accelerator
from prior_jax.losses.word_region import word_region_contrast

WORDS, REGIONS, FEATURES = 97, 361, 768
"""Words of a caption, regions of an image at 299 pixels, and their width."""
CHUNK = 16
"""Captions compared at once, as `config.model.caption_chunk` of configs/gloria."""
_BATCH = 48


@contextlib.contextmanager
def word_region(request: Request, folder: pathlib.Path, *, release: bool) -> Iterator[Repeated]:
    """Opens the loss and its gradient for words and regions on one device.

    Args:
      request: batch, dtype and size.
      folder: not written to.
      release: True for the release's two softmaxes and sum over words, False for the paper's single
        softmax and mean.

    Yields:
      A value with its gradient; its unit is the pair.
    """
    del folder
    batch = batch_of(_BATCH, request)
    words, regions, features = (8, 9, 16) if request.tiny else (WORDS, REGIONS, FEATURES)

    def loss(words: jax.Array, regions: jax.Array) -> jax.Array:
        found = word_region_contrast(
            words,
            regions,
            word_mask=jnp.ones(words.shape[:2], bool),
            weight=jnp.ones(words.shape[:1], jnp.float32),
            softmax_over_words=release,
            aggregate="sum" if release else "mean",
            chunk=CHUNK if on_accelerator() else 1,
            walk="captions" if on_accelerator() else "images",
        )
        return found.image_to_text + found.text_to_image

    keys = jax.random.split(jax.random.key(0), 2)
    kind = jnp.dtype(dtype_of(request))
    arguments = (
        jax.random.normal(keys[0], (batch, words, features), kind),
        jax.random.normal(keys[1], (batch, regions, features), kind),
    )
    lowered = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments)
    compiled = lowered.compile()
    counts = counted.counts_of(lowered, compiled)

    def run(count: int) -> None:
        for _ in range(count):
            found = compiled(*arguments)
        jax.block_until_ready(found)

    yield Repeated(
        run=run,
        unit="pairs",
        count=batch,
        batch=batch,
        steps=request.steps or (20 if on_accelerator() else 2),
        blocks=request.blocks or 10,
        dtype=dtype_of(request),
        flops=counts.flops,
        bytes_moved=counts.bytes_moved,
        facts=counts.facts,
        trace=True,
    )
