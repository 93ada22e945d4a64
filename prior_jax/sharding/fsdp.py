"""Fully sharded parameters: which arrays of the models are split, and along which dimension.

Parameters, their moments and their gradients lie in parts on the devices of one axis, over which
the batch is split as well. These models are small beside their activations: a step gathers each
weight once (`Rule.gathered`) and uses it like a whole one, so that what crosses the devices is as
much as plain data parallelism's sum of gradients, while what is kept is a part.
"""

from prior_jax.sharding.rules import REPLICATED, Rule

SMALLEST = 2**18
"""Elements of the smallest array worth splitting: 1 MiB of float32. Norms, biases, queries and
the first stages of a ResNet stay whole; together they are a hundredth of the parameters."""


def fsdp_rules(axis: str | tuple[str, ...]) -> tuple[Rule, ...]:
    """The table, for every model of `objectives`; it places every array.

    Stacked layers [layers, in, out] keep their leading axis whole, since a loop goes along it.
    Kernels, [in, out] and [k, k, in, out] likewise, are split over their inputs: parts of the
    last dimension of 768 would be narrower than the 128 lanes of a TPU's tile, which pads them.
    Only word embeddings are, because vocabularies seldom divide (28,996 words: by 4).

    Args:
      axis: mesh axis (or axes) of the parts; its size must divide the inputs of every kernel of
        at least `SMALLEST` elements (192 and up in the full-size models: 16 does, and 32).

    Returns:
      Rules in order; anything else that a run gives goes before them.
    """
    return (
        Rule(r".*/kernel", (..., axis, None), at_least=SMALLEST, gathered=True),
        Rule(r".*/word_embedding", (..., axis), at_least=SMALLEST, gathered=True),
        *REPLICATED,
    )
