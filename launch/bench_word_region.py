"""Prints the memory that the word-region loss and its gradient take, for each batch size.

    python -m launch.bench_word_region
    python -m launch.bench_word_region --batch=64 --batch=128 --chunk=8 --words=40

Nothing is computed: each row is compiled for one device of the default platform, and the
temporary memory that the compiler reports is printed.
"""

import time

import jax
import jax.numpy as jnp
from absl import flags

from launch.start import jax_settings, program
from prior_jax.losses.word_region import AGGREGATES, word_region_contrast

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the sizes of the arrays; the defaults are GLoRIA's with a ResNet-50 at 299 pixels."""
    flags.DEFINE_multi_integer(
        "batch", [128, 256, 512], "number of pairs; may be given several times", 1
    )
    flags.DEFINE_integer("words", 97, "number of words in a caption, padding included", 1)
    flags.DEFINE_integer("regions", 361, "number of regions in an image", 1)
    flags.DEFINE_integer("features", 768, "width of words and regions", 1)
    flags.DEFINE_integer("chunk", 4, "number of captions compared at once", 1)
    flags.DEFINE_enum("aggregate", "sum", AGGREGATES, "aggregation over the words of a caption")


def temporary_bytes(
    batch: int, *, words: int, regions: int, features: int, chunk: int | None, aggregate: str
) -> int:
    """Returns the temporary memory of value and gradient, without arguments and results.

    Args:
      batch: number of pairs, B.
      words: number of words in a caption, W.
      regions: number of regions in an image, P.
      features: width of words and regions, D.
      chunk: number of captions compared at once; None compares all.
      aggregate: aggregation over the words of a caption.

    Returns:
      The number of bytes on one device.
    """

    def loss(words, regions, mask, weight):
        found = word_region_contrast(
            words,
            regions,
            word_mask=mask,
            weight=weight,
            softmax_over_words=True,
            aggregate=aggregate,
            chunk=chunk,
        )
        return found.image_to_text + found.text_to_image

    arguments = (
        jax.ShapeDtypeStruct((batch, words, features), jnp.float32),
        jax.ShapeDtypeStruct((batch, regions, features), jnp.float32),
        jax.ShapeDtypeStruct((batch, words), jnp.bool_),
        jax.ShapeDtypeStruct((batch,), jnp.float32),
    )
    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    """Compiles every batch size, with and without chunks, and prints a Markdown table."""
    jax_settings.leave_out_absent_tpu()
    sizes = {name: FLAGS[name].value for name in ("words", "regions", "features", "aggregate")}
    start = time.perf_counter()
    print(f"| B | chunk of {FLAGS.chunk}, MiB | ratio to half of B | all captions, MiB | ratio |")
    print("| --- | --- | --- | --- | --- |")
    found: dict[int, tuple[int, int]] = {}
    for batch in sorted(FLAGS.batch):
        chunked, whole = (
            temporary_bytes(batch, chunk=chunk, **sizes) for chunk in (FLAGS.chunk, None)
        )
        found[batch] = chunked, whole
        half = found.get(batch // 2)
        ratios = [f"{x / y:.2f}" for x, y in zip(found[batch], half, strict=True)] if half else "  "
        cells = (batch, f"{chunked / 2**20:,.0f}", ratios[0], f"{whole / 2**20:,.0f}", ratios[1])
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    arrays = ", ".join(f"{name} {size}" for name, size in sizes.items())
    print(f"\n{arrays}; float32; {jax.default_backend()}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    program.run(main, define_flags)
