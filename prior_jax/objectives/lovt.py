"""The LoVT-style objective: contrast of whole pairs, of regions and of sentences."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses.normalize import unit
from prior_jax.losses.sentence_region import local_contrast, spatial_positiveness
from prior_jax.nn.cross_attention import LocalContext, SharedCrossAttention
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.sentence_gather import mean_sentences
from prior_jax.nn.token_pool import MeanQueryPool
from prior_jax.objectives.base import TextUnit
from prior_jax.objectives.two_tower import GLOBAL_TERM, OneStageObjective, Towers, TowersConfig
from prior_jax.types import Batch, ImageFeatures, ReportFeatures

TERMS = (GLOBAL_TERM, "local_image", "local_text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LovtConfig(TowersConfig):
    """LoVT, the section `config.model`.

    Attributes:
      pool_heads: heads of the pools over regions and over sentences; release 8.
      temperature: of the contrast of whole pairs, fixed; release 0.1.
      local_temperature: of the contrasts within a pair, fixed; release 0.3.
      image_share: share of the direction from image to report; release 0.75.
      positive_distance: regions up to this distance are positives of each other, in diagonals of
        the feature map; release 0.5.
      positive_decay: distance at which that falls to 1 / e, in diagonals; release 1.
      weights: term -> weight; release 1, 0.75 and 0.75.
    """

    pool_heads: int
    temperature: float
    local_temperature: float
    image_share: float
    positive_distance: float
    positive_decay: float
    weights: Mapping[str, float]

    def __post_init__(self):
        """Refuses values that do not fit together."""
        super().__post_init__()
        self.check_positive("temperature", "local_temperature", "positive_decay")
        self.check("image_share", 0 <= self.image_share <= 1, "a share, 0 to 1")
        self.check("positive_distance", self.positive_distance >= 0, "0 or above")
        widths = self.image.resnet.features, self.text.hidden_size
        divides = self.pool_heads >= 1 and not any(width % self.pool_heads for width in widths)
        self.check("pool_heads", divides, f"a divisor of the encoders' widths {widths}")
        self.check_weights(self.weights, TERMS)
        if self.image.pool != "mean":
            # The pool over regions is LoVT's own, whose query is the mean.
            pool = self.image.pool
            raise ConfigError("config.model.image.pool", received=pool, accepted="'mean'")


class LovtModel(Towers):
    """Towers pooled over regions and sentences, heads for these, and attention between them."""

    def __init__(self, config: LovtConfig, *, rngs: nnx.Rngs):
        """Creates every part; arguments as `Towers`."""
        super().__init__(config, rngs=rngs)
        features, width = config.image.resnet.features, config.text.hidden_size
        heads, dtype = config.pool_heads, self.dtype
        self.image_pool = MeanQueryPool(features, heads=heads, dtype=dtype, rngs=rngs)
        self.text_pool = MeanQueryPool(width, heads=heads, dtype=dtype, rngs=rngs)
        self.local_image_head = self.head(config, features, rngs=rngs)
        self.local_text_head = self.head(config, width, rngs=rngs)
        self.attention = SharedCrossAttention(config.embed_dim, dtype=dtype, rngs=rngs)

    def encode_image(self, image: jax.Array, *, train: bool) -> ImageFeatures:
        """Regions and one vector of each image: `weigh_image` without the weights."""
        return self.weigh_image(image, train=train)[0]

    def weigh_image(self, image: jax.Array, *, train: bool) -> tuple[ImageFeatures, jax.Array]:
        """Encodes images.

        Args:
          image: float32[B, H, W, C], normalised.
          train: whether batch norm uses, and gathers, the batch's statistics.

        Returns:
          Features in the compute dtype, and float32[B, P], how much of each region is in the
          pooled vector.
        """
        feature_map, _ = self.image_encoder(image, train=train)
        regions = spatial_patches(feature_map)
        pooled, share = self.image_pool(regions, jnp.ones(regions.shape[:2], bool))
        features = ImageFeatures(
            local=self.local_image_head(regions), global_=self.image_head(pooled), pooled=pooled
        )
        return features, share

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
          tokens: int32[B, L].
          token_mask: bool[B, L].
          sentence_index: int32[B, L], -1 or 0..S-1.
          sentence_mask: bool[B, S].
          train: whether to drop.
          key: dropout key; needed in training unless the rate is 0.

        Returns:
          Features in the compute dtype, and float32[B, S], how much of each sentence is in the
          report's vector.
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
        """What regions see of their report's sentences, and sentences of their image's regions."""
        return self.attention(images.local, reports.local, reports.local_mask)


class LovtObjective(OneStageObjective):
    """LoVT, arXiv:2112.02889, section 3.

    Differs: a sentence is the mean of its tokens, not their maximum; neither heads nor attention
    are batch-normalised; no layer of BERT is frozen.
    """

    config: LovtConfig

    def init(self, rngs: nnx.Rngs) -> LovtModel:
        """Builds the model with fresh parameters."""
        return LovtModel(self.config, rngs=rngs)

    def weights(self, stage: str) -> dict[str, float]:
        """Term name -> weight, from the configuration."""
        return super().weights(stage) | dict(self.config.weights)

    def scale(self, model: LovtModel) -> jax.Array:
        """Inverse temperature of whole pairs, a constant: float32[]."""
        del model
        return jnp.float32(1 / self.config.temperature)

    def terms(
        self,
        model: LovtModel,
        batch: Batch,
        *,
        weight: jax.Array,
        train: bool,
        key: jax.Array | None,
    ) -> dict[str, jax.Array]:
        """Contrast of pairs, of regions with their contexts, and of sentences with theirs.

        How much a region or sentence counts in its local term is its share of the pooled vector, a
        constant for the gradient.
        """
        config = self.config
        images, region_share = model.weigh_image(batch.image, train=train)
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
        }  # fmt: skip

    def encode_report(
        self,
        model: LovtModel,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Features of reports, in inference mode; arguments as the fields of `Batch`."""
        return model.weigh_report(tokens, token_mask, sentence_index, sentence_mask, train=False)[0]

    @property
    def text_unit(self) -> TextUnit:
        """Reports are aligned by the sentence."""
        return "sentence"

    @property
    def patch_spacing(self) -> float:
        """Pixels between the centres of neighbouring patches, which is the encoder's stride."""
        return float(self.config.image.resnet.stride)

    def text_attention(
        self, model: LovtModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Where each sentence looks: float32[B, S, P]; rows of real sentences sum to 1."""
        return model.attend(images, reports).text_attention
