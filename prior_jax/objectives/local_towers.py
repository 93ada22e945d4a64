"""The parts shared by baselines with local terms, whose texts can look for places in regions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from prior_jax.objectives import sentence_region
from prior_jax.objectives.sentence_region import (
    SENTENCE_REGION,
    SeesRegions,
    SentenceRegionConfig,
    SentenceRegionHead,
    region_head,
)
from prior_jax.objectives.two_tower import OneStageObjective, Towers, TowersConfig
from prior_jax.types import ReportFeatures

# Folded into a step's key for the hidden regions. Dropout splits the key itself, into fewer parts.
_HIDDEN = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalTowersConfig(TowersConfig):
    """The part of the section that baselines with local terms share.

    Attributes:
      weights: weights of the terms, term -> weight.
      sentence_region: configuration of the contrast of sentences, or words where the objective
        aligns words, and regions over the global batch, as PRIOR can have it; None for the
        objective as its paper describes it.
    """

    weights: Mapping[str, float]
    sentence_region: SentenceRegionConfig | None = None

    def check_weights(self, weights: Mapping[str, float], terms: tuple[str, ...]) -> None:
        """Refuses weights that cannot be used, and a contrast of regions that does not fit."""
        super().check_weights(weights, terms)
        if self.sentence_region is not None:
            stages = {"pretrain": weights}
            where = f"weights.{SENTENCE_REGION}"
            self.sentence_region.check_fits(self.image, stages, where=where)

    def region_terms(self) -> tuple[str, ...]:
        """Returns the name of the contrast's term, if there is one."""
        return () if self.sentence_region is None else (SENTENCE_REGION,)


class LocalTowers(Towers):
    """Two encoders with heads, and the head of regions where the configuration has one."""

    def __init__(self, config: LocalTowersConfig, *, rngs: nnx.Rngs):
        """Creates every part; for the arguments see `Towers`."""
        super().__init__(config, rngs=rngs)
        self.sentence_region: SentenceRegionHead | None = region_head(
            config.sentence_region,
            resnet=config.image.resnet,
            embed_dim=config.embed_dim,
            dtype=self.dtype,
            rngs=rngs,
        )

    def regions(self, maps: tuple[jax.Array, ...]) -> jax.Array | None:
        """Returns the regions of an image encoder's maps, unit vectors [B, P, D], or None."""
        head = self.sentence_region
        return None if head is None else head.regions(maps[-1 - head.config.stages_back])


class LocalObjective(SeesRegions, OneStageObjective):
    """An objective with local terms, whose texts can also look for their places in regions.

    Its models are `LocalTowers` with `encode_regions`.
    """

    def region_term(
        self,
        model: Any,
        reports: ReportFeatures,
        regions: jax.Array | None,
        *,
        region_mask: jax.Array | None,
        weight: jax.Array,
    ) -> dict[str, jax.Array]:
        """Computes the contrast of texts and regions by its name, if the model has one.

        For the arguments see `sentence_region.contrast`.
        """
        head = model.sentence_region
        if head is None or regions is None:
            return {}
        term = sentence_region.contrast(
            head, reports.local, regions, self.all_pairs,
            mask=reports.local_mask, region_mask=region_mask, weight=weight,
        )  # fmt: skip
        return {SENTENCE_REGION: term}

    def hidden_key(self, key: jax.Array | None) -> jax.Array | None:
        """Returns the key of a step's hidden regions; its dropout has the step's own key."""
        return None if key is None else jax.random.fold_in(key, _HIDDEN)
