"""The word-region contrast within groups of pairs, whose cost is linear in the batch size."""

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
    region_mask: jax.Array | None = None,
    **options: Any,
) -> Directions:
    """Averages `word_region_contrast` of each run of `group` pairs over the real pairs.

    Comparing every caption with every image costs each device B captions times its own images,
    which at 32,768 pairs is a hundred times the cost of the encoders. With groups, each pair is
    compared with `group` pairs whatever the batch size, and nothing crosses devices if `group`
    divides the rows of each device. An image then has group - 1 negatives, as it has B - 1 in a
    batch of B = group.

    Args:
      words: word embeddings, [B, W, D], row i belongs to image i.
      regions: region embeddings, [B, P, D].
      group: number of pairs in a group, a divisor of B.
      word_mask: mask of the real words, bool[B, W].
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      region_mask: mask of the real regions, bool[B, P]; None if all regions are real.
      **options: remaining arguments of `word_region_contrast`.

    Returns:
      Two losses, float32[] each, nats per real pair; a group with one real pair adds 0 and counts
      in the mean.

    Raises:
      ValueError: during tracing, if B is not a multiple of the group size.
    """
    rows = words.shape[0]
    if group < 1 or rows % group:
        raise ValueError(
            f"{rows} pairs cannot be divided into groups of {group}. Choose a divisor of {rows}."
        )

    def contrast(words, regions, word_mask, weight, region_mask):
        return word_region_contrast(
            words, regions, word_mask=word_mask, weight=weight, region_mask=region_mask,
            groups=rows // group, **options,
        )  # fmt: skip

    given = words, regions, word_mask, weight, region_mask
    cut = jax.tree.map(lambda x: x.reshape(rows // group, group, *x.shape[1:]), given)
    found = jax.vmap(contrast)(*cut)
    real = real_pairs(weight, word_mask=word_mask, region_mask=region_mask)
    real = real.reshape(-1, group).sum(axis=1)
    return jax.tree.map(lambda loss: weighted_mean(loss, real), found)
