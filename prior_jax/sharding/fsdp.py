"""Fully sharded parameters: which arrays of the models are sharded, and along which dimension.

Parameters, their optimizer moments and their gradients are sharded over one mesh axis, over which
the batch is split as well. These models are small compared with their activations: a step gathers
each weight once (`Rule.gathered`) and then uses the whole array. The communication is therefore
that of the gradient sum in plain data parallelism, while each device stores only its shards.
"""

from prior_jax.sharding.rules import REPLICATED, Rule

SMALLEST = 2**18
"""Elements of the smallest array worth sharding: 1 MiB of float32. Norms, biases, queries and the
first stages of a ResNet are replicated; together they are a hundredth of the parameters."""


def fsdp_rules(axis: str | tuple[str, ...]) -> tuple[Rule, ...]:
    """Returns the sharding rules for every model of `objectives`; together they match every array.

    Stacked layers [layers, in, out] are not sharded along their leading axis, since a loop runs
    over it. Kernels, [in, out] and likewise [k, k, in, out], are sharded over their inputs: shards
    of a last dimension of 768 would be narrower than the 128 lanes of a TPU's tile, which pads
    them. Only word embeddings are sharded over their last dimension, because vocabulary sizes
    seldom divide (28,996 words: by 4).

    Args:
      axis: mesh axis (or axes) to shard over; its size must divide the inputs of every kernel of
        at least `SMALLEST` elements (192 and up in the full-size models: 16 does, and 32).

    Returns:
      Rules in order; any other rules of a run go before them.
    """
    return (
        Rule(r".*/kernel", (..., axis, None), at_least=SMALLEST, gathered=True),
        Rule(r".*/word_embedding", (..., axis), at_least=SMALLEST, gathered=True),
        *REPLICATED,
    )
