"""The LoVT-style objective: contrastive losses on whole pairs, on regions and on sentences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError, check_field
from prior_jax.losses.normalize import unit
from prior_jax.losses.sentence_region import local_contrast, spatial_positiveness
from prior_jax.nn.cross_attention import LocalContext, SharedCrossAttention
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.sentence_gather import mean_sentences
from prior_jax.nn.token_pool import MeanQueryPool
from prior_jax.objectives.base import TextUnit
from prior_jax.objectives.local_towers import LocalObjective, LocalTowers, LocalTowersConfig
from prior_jax.objectives.sentence_region import encode_with_hidden
from prior_jax.objectives.two_tower import GLOBAL_TERM
from prior_jax.types import Batch, ImageFeatures, ReportFeatures

TERMS = (GLOBAL_TERM, "local_image", "local_text")
"""The loss terms of LoVT. With `LovtConfig.sentence_region` there is `SENTENCE_REGION` as well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LovtConfig(LocalTowersConfig):
    """Configuration of LoVT, the section `config.model`.

    Attributes:
      pool_heads: number of heads of the pools over regions and over sentences; release 8.
      temperature: fixed temperature of the contrastive loss on whole pairs; release 0.1.
      local_temperature: fixed temperature of the contrastive losses within a pair; release 0.3.
      image_share: weight of the direction from image to report; release 0.75.
      positive_distance: largest distance at which regions are positives of each other, in diagonals
        of the feature map; release 0.5.
      positive_decay: distance at which positiveness falls to 1 / e, in diagonals; release 1.
      weights: weights of the terms, term -> weight; release 1, 0.75 and 0.75.
    """

    pool_heads: int
    temperature: float
    local_temperature: float
    image_share: float
    positive_distance: float
    positive_decay: float

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        super().__post_init__()
        self.check_positive("temperature", "local_temperature", "positive_decay")
        check_field(self, "image_share", 0 <= self.image_share <= 1, "a share from 0 to 1")
        check_field(self, "positive_distance", self.positive_distance >= 0, "0 or above")
        widths = self.image.resnet.features, self.text.hidden_size
        divides = self.pool_heads >= 1 and not any(width % self.pool_heads for width in widths)
        check_field(self, "pool_heads", divides, f"a divisor of the encoders' widths {widths}")
        self.check_weights(self.weights, TERMS + self.region_terms())
        if self.image.pool != "mean":
            raise ConfigError(
                f"LoVT has its own pool over regions, and cannot use {self.image.pool!r} as well.",
                "Set it to 'mean': the mean of the regions is the query of LoVT's own pool.",
                where="image.pool",
            )


class LovtModel(LocalTowers):
    """Encoders pooled over regions and sentences, local heads, and attention between both."""

    def __init__(self, config: LovtConfig, *, rngs: nnx.Rngs):
        """Creates every part; for the arguments see `Towers`."""
        super().__init__(config, rngs=rngs)
        features, width = config.image.resnet.features, config.text.hidden_size
        heads, dtype = config.pool_heads, self.dtype
        self.image_pool = MeanQueryPool(features, heads=heads, dtype=dtype, rngs=rngs)
        self.text_pool = MeanQueryPool(width, heads=heads, dtype=dtype, rngs=rngs)
        self.local_image_head = self.head(config, features, rngs=rngs)
        self.local_text_head = self.head(config, width, rngs=rngs)
        self.attention = SharedCrossAttention(config.embed_dim, dtype=dtype, rngs=rngs)

    def encode_regions(
        self, image: jax.Array, *, train: bool
    ) -> tuple[ImageFeatures, jax.Array | None]:
        """Encodes images as `weigh_image` does, without the pooling weights."""
        (features, _), regions = self.weigh_image(image, train=train)
        return features, regions

    def weigh_image(
        self, image: jax.Array, *, train: bool
    ) -> tuple[tuple[ImageFeatures, jax.Array], jax.Array | None]:
        """Encodes images.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          Features in the compute dtype with the weight of each patch in the pooled embedding,
          float32[B, P]; and the regions that sentences look for, unit vectors [B, P', D], or None
          without a contrast of sentences and regions.
        """
        maps, _ = self.image_encoder.encode(image, train=train)
        patches = spatial_patches(maps[-1])
        pooled, share = self.image_pool(patches, jnp.ones(patches.shape[:2], bool))
        features = ImageFeatures(
            local=self.local_image_head(patches), global_=self.image_head(pooled), pooled=pooled
        )
        return (features, share), self.regions(maps)

    def weigh_report(
        self,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[ReportFeatures, jax.Array]:
        """Encodes reports.

        Args:
          tokens: token ids, int32[B, L].
          token_mask: mask of the real tokens, bool[B, L].
          sentence_index: sentence that each token belongs to, int32[B, L], 0..S-1 or -1 for none.
          sentence_mask: mask of the real sentences, bool[B, S].
          train: whether dropout is applied.
          key: random key of the dropout; required in training unless the dropout rate is 0.

        Returns:
          Features in the compute dtype, and the weight of each sentence in the report's embedding,
          float32[B, S].
        """
        hidden = self.text_encoder(tokens, token_mask, train=train, key=key).last_hidden_state
        sentences, present = mean_sentences(
            hidden, sentence_index, num_sentences=sentence_mask.shape[1]
        )
        mask = present & sentence_mask
        pooled, share = self.text_pool(sentences, mask)
        local = self.local_text_head(sentences)
        features = ReportFeatures(
            local=jnp.where(mask[:, :, None], local, jnp.zeros((), local.dtype)),
            local_mask=mask,
            global_=self.text_head(pooled),
        )
        return features, share

    def attend(self, images: ImageFeatures, reports: ReportFeatures) -> LocalContext:
        """Attends from regions to the report's sentences, and from sentences to regions."""
        return self.attention(images.local, reports.local, reports.local_mask)


class LovtObjective(LocalObjective):
    """The objective of LoVT, arXiv:2112.02889, section 3.

    Differs: a sentence embedding is the mean of its tokens, not their maximum; neither heads nor
    attention use batch normalisation; no layer of BERT is frozen.
    """

    config: LovtConfig

    def init(self, rngs: nnx.Rngs) -> LovtModel:
        """Builds the model with fresh parameters."""
        return LovtModel(self.config, rngs=rngs)

    def scale(self, model: LovtModel) -> jax.Array:
        """Returns the constant inverse temperature of whole pairs: float32[]."""
        del model
        return jnp.float32(1 / self.config.temperature)

    def local_terms(self, stage: str) -> tuple[str, ...]:
        """Returns the names of the terms between parts of an image and of its report."""
        del stage
        return TERMS[1:] + self.config.region_terms()

    def terms(
        self,
        model: LovtModel,
        batch: Batch,
        *,
        weight: jax.Array,
        train: bool,
        key: jax.Array | None,
    ) -> dict[str, jax.Array]:
        """Computes the contrastive losses on pairs, on regions and on sentences.

        Each region and each sentence is contrasted with its context from the other modality.

        The weight of a region or sentence in its local term is its share of the pooled embedding,
        without gradient.
        """
        config = self.config
        (images, region_share), regions, region_mask = encode_with_hidden(
            functools.partial(model.weigh_image, train=train), batch.image,
            config=config.sentence_region, spacing=self.patch_spacing,
            key=self.hidden_key(key), hides=train,
        )  # fmt: skip
        reports, sentence_share = model.weigh_report(
            batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask,
            train=train, key=key,
        )  # fmt: skip
        weight = jnp.where(jnp.any(reports.local_mask, axis=1), weight, jnp.float32(0))
        context = model.attend(images, reports)
        scale = jnp.float32(1 / config.local_temperature)
        return {
            GLOBAL_TERM: self.all_pairs.paired_contrastive(
                unit(images.global_), unit(reports.global_), scale=self.scale(model),
                weight=weight, image_share=config.image_share,
            ),
            "local_image": local_contrast(
                images.local, context.image, scale=scale, weight=weight,
                mask=jnp.ones(region_share.shape, bool),
                row_weight=jax.lax.stop_gradient(region_share),
                positiveness=spatial_positiveness(
                    config.image.grid, threshold=config.positive_distance,
                    decay=config.positive_decay,
                ),
            ),
            "local_text": local_contrast(
                reports.local, context.text, scale=scale, weight=weight,
                mask=reports.local_mask, row_weight=jax.lax.stop_gradient(sentence_share),
            ),
            **self.region_term(model, reports, regions, region_mask=region_mask, weight=weight),
        }  # fmt: skip

    def encode_report(
        self,
        model: LovtModel,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Encodes reports in inference mode; for the arguments see the fields of `Batch`."""
        return model.weigh_report(tokens, token_mask, sentence_index, sentence_mask, train=False)[0]

    @property
    def text_unit(self) -> TextUnit:
        """Returns "sentence": reports are aligned by the sentence."""
        return "sentence"

    def text_attention(
        self, model: LovtModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns each sentence's attention over patches or regions: float32[B, S, P].

        Rows of real sentences sum to 1.
        """
        if model.sentence_region is not None:
            return model.sentence_region.attention(images.local, reports.local, reports.local_mask)
        return model.attend(images, reports).text_attention
