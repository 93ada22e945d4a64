"""The contrast of words with regions within groups of pairs, so that its cost follows the batch."""

from typing import Any

import jax

from prior_jax.losses.contrastive import Directions
from prior_jax.losses.normalize import weighted_mean
from prior_jax.losses.word_region import real_pairs, word_region_contrast


def grouped_word_region_contrast(
    words: jax.Array,
    regions: jax.Array,
    *,
    group: int,
    word_mask: jax.Array,
    weight: jax.Array,
    **options: Any,
) -> Directions:
    """`word_region_contrast` of each run of `group` pairs by itself, averaged over real pairs.

    Every caption with every image costs each device B captions times its own images, which at
    32,768 pairs is a hundred times the encoders. In groups a device compares its pairs with
    `group` others whatever the batch is, and nothing crosses devices if `group` divides their
    rows. An image then has group - 1 negatives, as it has B - 1 in a batch of B = group.

    Args:
      words: [B, W, D], row i belongs to image i.
      regions: [B, P, D].
      group: pairs of a group, a divisor of B.
      word_mask: bool[B, W], True on real words.
      weight: float32[B], 1 for a real pair, 0 for padding.
      **options: the rest of `word_region_contrast`'s, without a region mask.

    Returns:
      float32[] twice, nats per real pair; a group of one real pair adds 0 and counts.

    Raises:
      ValueError: while tracing, if B does not divide into groups.
    """
    rows = words.shape[0]
    if group < 1 or rows % group:
        raise ValueError(f"group {group}: accepted a divisor of the {rows} pairs of a batch")

    def contrast(words, regions, word_mask, weight):
        return word_region_contrast(words, regions, word_mask=word_mask, weight=weight, **options)

    given = words, regions, word_mask, weight
    cut = jax.tree.map(lambda x: x.reshape(rows // group, group, *x.shape[1:]), given)
    found = jax.vmap(contrast)(*cut)
    real = real_pairs(weight, word_mask=word_mask, region_mask=None).reshape(-1, group).sum(axis=1)
    return jax.tree.map(lambda loss: weighted_mean(loss, real), found)
