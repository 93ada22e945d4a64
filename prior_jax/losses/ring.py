"""Losses over every pair of the global batch, block by block, so that no [B, B] array exists.

Each device keeps its images and passes its texts round a ring of all devices: after n hops every
image has been paired with every text, and the texts are back on their first device. The pairs on a
device are cut into blocks of at most `Plan.rows` x `Plan.columns`, whose scores are computed,
reduced and discarded. With one device the ring is a loop over blocks.

Forward pass. With scores S, the cross-entropy of image i among all texts is L_i - S_ii, where L_i =
log sum_j exp S_ij. The sum is accumulated block by block: with the largest score so far, m, and t =
sum exp(S - m), a block whose largest score is m' turns (m, t) into (M, t exp(m - M) + sum exp(S -
M)) with M = max(m, m'). The texts carry the same two values for their columns.

Backward pass. With the cotangents a_i of the rows' losses and b_j of the columns' losses,

    dS_ij = a_i exp(S_ij - L_i) + b_j exp(S_ij - M_j) - [i = j] (a_i + b_j),

where M_j is the L of column j. The vectors L and M are kept, so dS of each block follows from the
block alone: a second round computes S again and pulls dS back through the score function. Gradients
of images accumulate on the device of the images, gradients of texts travel with the texts, and
gradients of parameters are summed over the devices at the end.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import ABSENT
from prior_jax.losses.ring_walk import Plan, fill, walk


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One side of all pairs: either the images or the texts.

    Attributes:
      features: tree of float arrays [B, ...] that receive gradients.
      facts: tree of arrays [B, ...] of any dtype that receive no gradient, such as masks.
      place: row in the batch, int32[B]: image i and text i are a pair.
      mask: mask of the real rows, bool[B]; other rows belong to no pair.
    """

    features: Any
    facts: Any
    place: jax.Array
    mask: jax.Array


Pair = tuple[jax.Array, jax.Array]
Scores = Callable[[Any, Side, Side], jax.Array]
"""Score function: (parameters, r images, c texts) -> float32[r, c].

It must not close over traced values.
"""


@dataclasses.dataclass(frozen=True)
class _Reduction:
    """The reduction of the scores to per-row results.

    Attributes:
      start: function that gives the initial accumulator of one side: mask -> accumulator.
      add: function that adds a block: (scores, real, own, row accumulator, column accumulator) ->
        both accumulators including the block.
      finish: function that finishes one side: (accumulator, mask) -> the result, a tree of [B], and
        the residuals for `pull`.
      pull: function that gives the cotangent of the scores: (scores, own, rows, columns) ->
        cotangent, where rows and columns hold the cotangents of that side's results and the
        residuals of `finish`. `own` is True where row and column are partners.
    """

    start: Callable
    add: Callable
    finish: Callable
    pull: Callable


def ring_cross_entropies(
    scores: Scores,
    parameters: Any,
    images: Any,
    texts: Any,
    *,
    image_facts: Any = None,
    text_facts: Any = None,
    mask: jax.Array,
    plan: Plan,
) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropy of each image among all texts and of each text among images.

    Args:
      scores: function that gives the scores of a block.
      parameters: tree of float arrays that all pairs share, the first argument of `scores`.
      images: tree of float arrays [B, ...], `features` of the second argument of `scores`.
      texts: tree of float arrays [B, ...], `features` of the third argument; row i belongs to image
        i.
      image_facts: tree of arrays [B, ...] of any dtype, `facts` of the second argument.
      text_facts: tree of arrays [B, ...] of any dtype, `facts` of the third argument.
      mask: mask of the real pairs, bool[B].
      plan: block sizes and ring axis. B need not be a multiple of anything.

    Returns:
      Losses of images and of texts, float32[B] each, nats; 0 where `mask` is False.

    Raises:
      ValueError: during tracing, if the plan names an axis that no mesh of the context has.
    """
    sides = _sides(images, texts, image_facts, text_facts, mask=mask, plan=plan)
    found = cast(Pair, _reduced(_CROSS_ENTROPY, scores, plan, parameters, *sides))
    rows, columns = (side[: mask.shape[0]] for side in found)
    return rows, columns


def ring_row_sums(
    scores: Scores,
    parameters: Any,
    images: Any,
    texts: Any,
    *,
    mask: jax.Array,
    plan: Plan,
) -> jax.Array:
    """Computes the sum of each image's scores over all texts.

    Args:
      scores: function that gives the scores of a block.
      parameters: shared float arrays, see `ring_cross_entropies`.
      images: float arrays of the images, see `ring_cross_entropies`.
      texts: float arrays of the texts, see `ring_cross_entropies`.
      mask: mask of the real rows, bool[B]: the others are neither images nor texts.
      plan: block sizes and ring axis, see `ring_cross_entropies`.

    Returns:
      Sums, float32[B]; 0 where `mask` is False.

    Raises:
      ValueError: during tracing, if the plan names an axis that no mesh of the context has.
    """
    sides = _sides(images, texts, None, None, mask=mask, plan=plan)
    rows, _ = cast(Pair, _reduced(_ROW_SUM, scores, plan, parameters, *sides))
    return rows[: mask.shape[0]]


def _sides(images, texts, image_facts, text_facts, *, mask, plan) -> tuple[Side, Side]:
    """Builds both sides, padded to a multiple of the devices with rows that are in no pair."""
    place = jnp.arange(mask.shape[0], dtype=jnp.int32)
    missing = -mask.shape[0] % plan.devices
    sides = [
        Side(features=features, facts=facts, place=place, mask=mask)
        for features, facts in ((images, image_facts), (texts, text_facts))
    ]
    image, text = (jax.tree.map(lambda x: fill(x, missing), side) for side in sides)
    return image, text


def _online(kept, scores: jax.Array, own: jax.Array, *, axis: int):
    """Adds a block to (largest score, sum of exp relative to it, score of the partner)."""
    peak, total, partner = kept
    higher = jnp.maximum(peak, jnp.max(scores, axis=axis))
    grown = jnp.sum(jnp.exp(scores - jnp.expand_dims(higher, axis)), axis=axis)
    matched = jnp.sum(jnp.where(own, scores, jnp.float32(0)), axis=axis)
    return higher, total * jnp.exp(peak - higher) + grown, partner + matched


def _start_online(mask: jax.Array):
    zero = jnp.zeros(mask.shape, jnp.float32)
    return jnp.full(mask.shape, ABSENT, jnp.float32), zero, zero


def _add_to_both(scores, real, own, rows, columns):
    # While only absent scores were added, the sums are meaningless; the first real score rescales
    # them to 0.
    scores = jnp.where(real, scores, jnp.float32(ABSENT))
    return _online(rows, scores, own, axis=1), _online(columns, scores, own, axis=0)


def _finish_online(kept, mask: jax.Array):
    peak, total, partner = kept
    log = jnp.where(mask, peak + jnp.log(jnp.where(mask, total, jnp.float32(1))), jnp.float32(0))
    return jnp.where(mask, log - partner, jnp.float32(0)), log


def _pull_cross_entropy(scores, own, rows, columns):
    (row, row_log), (column, column_log) = rows, columns
    row, column = row[:, None], column[None, :]
    found = row * jnp.exp(scores - row_log[:, None])
    found = found + column * jnp.exp(scores - column_log[None, :])
    return found - jnp.where(own, row + column, jnp.float32(0))


_CROSS_ENTROPY = _Reduction(
    start=_start_online, add=_add_to_both, finish=_finish_online, pull=_pull_cross_entropy
)


def _add_to_rows(scores, real, own, rows, columns):
    del own
    return rows + jnp.sum(jnp.where(real, scores, jnp.float32(0)), axis=1), columns


def _pull_row_sum(scores, own, rows, columns):
    del own, columns
    return jnp.broadcast_to(rows[0][:, None], scores.shape)


_ROW_SUM = _Reduction(
    start=lambda mask: jnp.zeros(mask.shape, jnp.float32),
    add=_add_to_rows,
    finish=lambda kept, mask: (jnp.where(mask, kept, jnp.float32(0)), ()),
    pull=_pull_row_sum,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _reduced(reduction, scores, plan, parameters, images, texts):
    """Reduces the scores to the results of both sides: float32[B] twice."""
    return _reduced_forward(reduction, scores, plan, parameters, images, texts)[0]


def _reduced_forward(reduction, scores, plan, parameters, images, texts):
    def visit(parameters, image, text, kept):
        rows, columns, _ = kept
        real, own = _which(image, text)
        block = scores(parameters, image, text)
        return *reduction.add(block, real, own, rows, columns), ()

    def start(parameters, images, texts):
        del parameters
        return reduction.start(images.mask), reduction.start(texts.mask), ()

    rows, columns, _ = walk(visit, start, plan, parameters, images, texts)
    (row, row_saved), (column, column_saved) = (
        reduction.finish(kept, side.mask) for kept, side in ((rows, images), (columns, texts))
    )
    return (row, column), (parameters, images, texts, row_saved, column_saved)


def _reduced_backward(reduction, scores, plan, saved, cotangents):
    parameters, images, texts, row_saved, column_saved = saved

    def visit(parameters, image, text, kept):
        (image, rows), (text, columns) = image, text

        def of(parameters, image_features, text_features):
            return scores(
                parameters,
                dataclasses.replace(image, features=image_features),
                dataclasses.replace(text, features=text_features),
            )

        block, pull = jax.vjp(of, parameters, image.features, text.features)
        real, own = _which(image, text)
        found = reduction.pull(block, own, rows, columns)
        gradients = pull(jnp.where(real, found, jnp.float32(0)))
        parameter, image_side, text_side = gradients
        return jax.tree.map(
            lambda total, more: total + more.astype(total.dtype),
            kept,
            (image_side, text_side, parameter),
        )

    def start(parameters, images, texts):
        features = images[0].features, texts[0].features, parameters
        return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), features)

    image_side = images, (cotangents[0], row_saved)
    text_side = texts, (cotangents[1], column_saved)
    found = walk(visit, start, plan, parameters, image_side, text_side)
    features = images.features, texts.features, parameters
    image, text, parameter = jax.tree.map(lambda x, like: x.astype(like.dtype), found, features)
    return (
        parameter,
        Side(features=image, facts=None, place=None, mask=None),  # type: ignore[arg-type]
        Side(features=text, facts=None, place=None, mask=None),  # type: ignore[arg-type]
    )


_reduced.defvjp(_reduced_forward, _reduced_backward)


def _which(image: Side, text: Side) -> tuple[jax.Array, jax.Array]:
    """Returns which pairs of a block exist, and which pairs are image and report of one study."""
    real = image.mask[:, None] & text.mask[None, :]
    return real, real & (image.place[:, None] == text.place[None, :])
