"""Chooses how the losses over every pair of the global batch are computed."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax

from prior_jax.errors import check_choice, check_field
from prior_jax.losses import contrastive, ring_pairs, sigmoid, word_region, word_region_groups
from prior_jax.losses.ring_walk import Axis, Plan

Form = Literal["gathered", "ring"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllPairsConfig:
    """Form of the losses over all pairs, the section `config.mesh.all_pairs`.

    The setting changes rounding and memory use but not the loss, so a run may be resumed with
    another one.

    Attributes:
      form: "gathered" computes a loss on the whole global batch as the paper defines it: each
        device holds the scores of its images with all texts, B x B / devices of them. "ring" passes
        the texts round the devices and holds only chunk x chunk scores.
      chunk: largest number of images, and of texts, in one block of the ring. "gathered" ignores
        it.
    """

    form: Form
    chunk: int

    def __post_init__(self):
        """Refuses configuration values that no loss accepts."""
        check_choice(self, "form", FORMS)
        check_field(self, "chunk", self.chunk >= 1, "a positive number of pairs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllPairs:
    """The losses over all pairs, computed in the form that the run's configuration chooses.

    Attributes:
      config: form of the computation.
      axis: mesh axis (or axes) over which batches are split; the ring then passes over this axis,
        and the caller must use `jax.jit` and `jax.set_mesh`. None on one device.
      walk: order in which "gathered" compares words and regions; see `losses.word_region.Walk`.
    """

    config: AllPairsConfig
    axis: Axis | None
    walk: word_region.Walk = "captions"

    def paired_contrastive(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        scale: jax.Array,
        weight: jax.Array,
        image_share: float = 0.5,
    ) -> jax.Array:
        """Returns the loss, float32[]; see `losses.contrastive.paired_contrastive`."""
        loss = self._of(contrastive.paired_contrastive, ring_pairs.ring_paired_contrastive)
        return loss(image, text, scale=scale, weight=weight, image_share=image_share)

    def cosine_contrastive(
        self, image: jax.Array, text: jax.Array, *, scale: jax.Array, weight: jax.Array
    ) -> contrastive.Directions:
        """Returns both directions of the loss; see `losses.contrastive.cosine_contrastive`."""
        loss = self._of(contrastive.cosine_contrastive, ring_pairs.ring_cosine_contrastive)
        return loss(image, text, scale=scale, weight=weight)

    def paired_sigmoid(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        scale: jax.Array,
        bias: jax.Array,
        weight: jax.Array,
    ) -> jax.Array:
        """Returns the loss, float32[]; see `losses.sigmoid.paired_sigmoid`."""
        loss = self._of(sigmoid.paired_sigmoid, ring_pairs.ring_paired_sigmoid)
        return loss(image, text, scale=scale, bias=bias, weight=weight)

    def word_region_contrast(
        self,
        words: jax.Array,
        regions: jax.Array,
        *,
        chunk: int,
        group: int | None = None,
        **options: Any,
    ) -> contrastive.Directions:
        """Computes the contrast of words and regions, over the global batch or within groups.

        Args:
          words: word embeddings, [B, W, D].
          regions: region embeddings, [B, P, D].
          chunk: number of captions compared with all images at once, which bounds the memory; in
            groups, the number of images compared with all captions.
          group: number of pairs in a group, see `losses.word_region_groups`; None compares all
            pairs of the batch.
          **options: remaining arguments of `losses.word_region.word_region_contrast`.

        Returns:
          Both directions of the loss.
        """
        if group is not None:
            return word_region_groups.grouped_word_region_contrast(
                words, regions, group=group, chunk=chunk, walk="images", **options
            )
        if self.config.form == "gathered":
            at_once = 1 if self.walk == "images" else chunk  # what stays in the caches
            return word_region.word_region_contrast(
                words, regions, chunk=at_once, walk=self.walk, **options
            )
        plan = Plan(axis=self.axis, rows=self.config.chunk, columns=chunk)
        return ring_pairs.ring_word_region_contrast(words, regions, plan=plan, **options)

    def _of(self, gathered: Callable[..., Any], ring: Callable[..., Any]) -> Callable[..., Any]:
        if self.config.form == "gathered":
            return gathered
        plan = Plan(axis=self.axis, rows=self.config.chunk, columns=self.config.chunk)
        return lambda *arrays, **options: ring(*arrays, plan=plan, **options)


GATHERED = AllPairsConfig(form="gathered", chunk=1024)
"""The form in which the papers define the losses."""

PLAIN = AllPairs(config=GATHERED, axis=None)
"""The default of objectives that receive no other setting."""
