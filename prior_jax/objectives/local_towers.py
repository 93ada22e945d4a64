"""The parts shared by baselines with local terms, whose texts can look for places in regions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from prior_jax.objectives import sentence_region
from prior_jax.objectives.sentence_region import (
    SENTENCE_REGION,
    SentenceRegionConfig,
    SentenceRegionHead,
    region_head,
    region_spacing,
)
from prior_jax.objectives.two_tower import OneStageObjective, Towers, TowersConfig
from prior_jax.types import ImageFeatures, ReportFeatures

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


class LocalObjective(OneStageObjective):
    """An objective with local terms, whose texts can also look for their places in regions.

    Its models have `encode_regions`, which gives features and regions, and a `sentence_region`
    head, None without that contrast.
    """

    config: Any

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

    def encode_image(self, model: Any, image: jax.Array) -> ImageFeatures:
        """Encodes images float32[B, H, W, C] in inference mode.

        `local` holds what texts attend to: patches or, with `sentence_region`, regions.
        """
        features, regions = model.encode_regions(image, train=False)
        return features if regions is None else dataclasses.replace(features, local=regions)

    def embed_patches(self, model: Any, image: jax.Array) -> jax.Array:
        """Returns patches in the space of texts and whole reports, [B, P, D], in inference mode.

        With `sentence_region`, what `encode_image` calls local has a space of its own.
        """
        return model.encode_regions(image, train=False)[0].local

    @property
    def patch_spacing(self) -> float:
        """Returns the spacing of the centres of patches or regions, in pixels."""
        return region_spacing(self.config.sentence_region, resnet=self.config.image.resnet)
