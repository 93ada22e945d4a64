"""How the losses over every pair of the global batch are computed: the one place that chooses."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax

from prior_jax.errors import ConfigError
from prior_jax.losses import contrastive, ring_pairs, sigmoid, word_region
from prior_jax.losses.ring_walk import Axis, Plan

Form = Literal["gathered", "ring"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllPairsConfig:
    """The section `config.mesh.all_pairs`.

    It changes rounding and memory, not the loss, so that a run may be resumed with another.

    Attributes:
      form: "gathered" writes a loss on the global batch as it is in the paper: each device holds
        its images' scores with all texts, B x B / devices of them. "ring" passes the texts round
        the devices, and holds chunk x chunk scores.
      chunk: most images, and most texts, of a block of the ring. "gathered" does not read it.
    """

    form: Form
    chunk: int

    def __post_init__(self):
        """Refuses values that no loss could follow."""
        forms = get_args(Form)
        for field, good, accepted in (
            ("form", self.form in forms, f"one of {forms}"),
            ("chunk", self.chunk >= 1, "a positive number of pairs"),
        ):
            if not good:
                name = f"config.mesh.all_pairs.{field}"
                raise ConfigError(name, received=getattr(self, field), accepted=accepted)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllPairs:
    """The losses over all pairs, in the form that a run has chosen.

    Attributes:
      config: the form.
      axis: mesh axis (or axes) over which batches are split; the ring then goes round it, under
        `jax.jit` and `jax.set_mesh`. None on one device.
    """

    config: AllPairsConfig
    axis: Axis | None

    def paired_contrastive(
        self,
        image: jax.Array,
        text: jax.Array,
        *,
        scale: jax.Array,
        weight: jax.Array,
        image_share: float = 0.5,
    ) -> jax.Array:
        """float32[]; see `losses.contrastive.paired_contrastive`."""
        loss = self._of(contrastive.paired_contrastive, ring_pairs.ring_paired_contrastive)
        return loss(image, text, scale=scale, weight=weight, image_share=image_share)

    def cosine_contrastive(
        self, image: jax.Array, text: jax.Array, *, scale: jax.Array, weight: jax.Array
    ) -> contrastive.Directions:
        """Both directions; see `losses.contrastive.cosine_contrastive`."""
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
        """float32[]; see `losses.sigmoid.paired_sigmoid`."""
        loss = self._of(sigmoid.paired_sigmoid, ring_pairs.ring_paired_sigmoid)
        return loss(image, text, scale=scale, bias=bias, weight=weight)

    def word_region_contrast(
        self, words: jax.Array, regions: jax.Array, *, chunk: int, **options: Any
    ) -> contrastive.Directions:
        """Both directions; arguments as `losses.word_region.word_region_contrast`."""
        if self.config.form == "gathered":
            return word_region.word_region_contrast(words, regions, chunk=chunk, **options)
        plan = Plan(axis=self.axis, rows=self.config.chunk, columns=chunk)
        return ring_pairs.ring_word_region_contrast(words, regions, plan=plan, **options)

    def _of(self, gathered: Callable[..., Any], ring: Callable[..., Any]) -> Callable[..., Any]:
        if self.config.form == "gathered":
            return gathered
        plan = Plan(axis=self.axis, rows=self.config.chunk, columns=self.config.chunk)
        return lambda *arrays, **options: ring(*arrays, plan=plan, **options)


GATHERED = AllPairsConfig(form="gathered", chunk=1024)
"""The form of the papers."""

PLAIN = AllPairs(config=GATHERED, axis=None)
"""For objectives that are given no other."""
