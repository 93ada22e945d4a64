"""The PRIOR model: all of its parts and their forward computations, without any loss."""

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.attention_pool import SentenceAttentionPool
from prior_jax.nn.bert import Bert
from prior_jax.nn.cross_attention import LocalContext, LocalCrossAttention
from prior_jax.nn.heads import Predictor, projection
from prior_jax.nn.image_decoder import ImageDecoder
from prior_jax.nn.log_scale import clamp_from_above, log_scale
from prior_jax.nn.patches import (
    patches_to_map,
    scrambled_map,
    scrambled_patches,
    spatial_patches,
)
from prior_jax.nn.prototype_bank import Axis, PrototypeBank
from prior_jax.nn.resnet import ImageEncoder
from prior_jax.nn.sentence_decoder import SentenceDecoder
from prior_jax.nn.sentence_gather import SentenceAttention, mean_sentences
from prior_jax.objectives.prior_config import PriorConfig
from prior_jax.objectives.sentence_region import region_head
from prior_jax.types import ImageFeatures


class PriorModel(nnx.Module):
    """Encoders, projections, prototype bank and decoders of PRIOR.

    Source: PRIOR, arXiv:2307.12577, section 3; release, codes/prior/models/prior.py, whose
    attribute names are kept. The release's `global_text_projection` is left out because nothing
    uses it.
    """

    def __init__(self, config: PriorConfig, *, bank_axis: Axis | None, rngs: nnx.Rngs):
        """Creates every part.

        Args:
          config: configuration with sizes and fidelity choices.
          bank_axis: mesh axis (or axes) over which the bank is split; see PrototypeBank.
          rngs: source of the initial parameters.
        """
        dtype, size = jnp.dtype(config.dtype), config.embed_dim
        self.image_encoder = ImageEncoder(config.image, dtype=dtype, rngs=rngs)
        self.text_encoder = Bert(config.text, dtype=dtype, rngs=rngs)
        features = config.image.resnet.features
        self.global_image_projection = projection(features, size, dtype=dtype, rngs=rngs)
        self.local_image_projection = projection(features, size, dtype=dtype, rngs=rngs)
        width = config.text.hidden_size
        self.local_text_projection = projection(width, size, dtype=dtype, rngs=rngs)
        weighs = config.sentence_pool == "attention"
        self.item_gather = SentenceAttention(size, dtype=dtype, rngs=rngs) if weighs else None
        self.global_text_attention = SentenceAttentionPool(
            size,
            out_features=size,
            heads=config.sentence_heads,
            positions=None,
            dtype=dtype,
            rngs=rngs,
        )
        self.sentence_region = region_head(
            config.sentence_region,
            resnet=config.image.resnet,
            embed_dim=size,
            dtype=dtype,
            rngs=rngs,
        )
        self.predictor = Predictor(size, dtype=dtype, rngs=rngs)
        self.local_cross_attention = LocalCrossAttention(size, dtype=dtype, rngs=rngs)
        self.sentence_bank = PrototypeBank(
            config.bank.num_prototypes, size, axis=bank_axis, dtype=dtype, rngs=rngs
        )
        queries = jax.random.normal(rngs.params(), (1, config.num_queries, size), jnp.float32)
        self.prototype_queries = nnx.Param(queries)
        self.sentence_decoder = SentenceDecoder(
            config.sentence_decoder_config, dtype=dtype, rngs=rngs
        )
        self.image_decoder = ImageDecoder(config.image_decoder_config, dtype=dtype, rngs=rngs)
        self.logit_scale = log_scale(config.temperature)
        self.local_logit_scale = log_scale(config.local_temperature)
        self.choices = config.choices
        self.grid = config.image.grid

    def encode_image(self, image: jax.Array, *, train: bool) -> ImageFeatures:
        """Encodes images as patch embeddings and one global embedding per image.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          Features [B, P, D] and [B, D] in the compute dtype.
        """
        return self.encode_regions(image, train=train)[0]

    def encode_regions(
        self, image: jax.Array, *, train: bool
    ) -> tuple[ImageFeatures, jax.Array | None]:
        """Encodes images as `encode_image` does, and as regions for the sentences to find.

        Returns:
          The features, and the regions' unit vectors, [B, P', D]; None without a contrast of
          sentences and regions.
        """
        maps, pooled = self.image_encoder.encode(image, train=train)
        spatial = self.choices.spatial_patches
        patches = spatial_patches(maps[-1]) if spatial else scrambled_patches(maps[-1])
        features = ImageFeatures(
            local=self.local_image_projection(patches),
            global_=self.global_image_projection(pooled),
            pooled=pooled,
        )
        head = self.sentence_region
        if head is None:
            return features, None
        return features, head.regions(maps[-1 - head.config.stages_back])

    def encode_sentences(
        self,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Encodes each sentence as one embedding.

        Args:
          tokens: token ids, int32[B, L].
          token_mask: mask of the real tokens, bool[B, L].
          sentence_index: sentence that each token belongs to, int32[B, L], 0..S-1 or -1 for none.
          sentence_mask: mask of the real sentences, bool[B, S].
          train: whether dropout is applied.
          key: random key of the dropout; required in training unless the dropout rate is 0.

        Returns:
          Embeddings [B, S, D], 0 in absent rows, and bool[B, S]: the sentences of `sentence_mask`
          that own a token.
        """
        words = self.text_encoder(tokens, token_mask, train=train, key=key).last_hidden_state
        count = sentence_mask.shape[1]
        if self.item_gather is None:
            # The mean of projections equals the projection of the mean, which needs S rows instead
            # of L.
            means, present = mean_sentences(words, sentence_index, num_sentences=count)
            sentences = self.local_text_projection(means)
        else:
            words = self.local_text_projection(words)
            sentences, present = self.item_gather(words, sentence_index, num_sentences=count)
        mask = present & sentence_mask
        return jnp.where(mask[:, :, None], sentences, jnp.zeros((), sentences.dtype)), mask

    def attend(self, patches: jax.Array, sentences: jax.Array, mask: jax.Array) -> LocalContext:
        """Computes the cross-attention of patches and sentences, ignoring padded sentences."""
        return self.local_cross_attention(
            patches, sentences, image_mask=mask[:, None, :], text_mask=mask[:, :, None]
        )

    def decode_image(
        self, patches: jax.Array, context: jax.Array, *, train: bool, key: jax.Array | None = None
    ) -> jax.Array:
        """Reconstructs images from patches and the context that these attended to in the report.

        Args:
          patches: patch embeddings, [B, P, D].
          context: context that each patch gathered from the report, [B, P, D].
          train: whether channels of `patches` are masked, and batch normalisation uses the batch's
            statistics and updates the running ones.
          key: random key of the masking; required in training unless the masking rate is 0.

        Returns:
          Images, float32[B, h * stride, w * stride, C], in the normalised scale of the input
          images.
        """
        to_map = patches_to_map if self.choices.spatial_patches else scrambled_map
        image_map = to_map(patches, grid=self.grid)
        text_map = to_map(context, grid=self.grid)
        return self.image_decoder(image_map, text_map, train=train, key=key)

    def decode_sentences(
        self, patches: jax.Array, *, train: bool, key: jax.Array | None = None
    ) -> jax.Array:
        """Predicts Q sentence prototypes of each image: [B, Q, D]."""
        queries = self.prototype_queries[...]
        queries = jnp.broadcast_to(queries, (patches.shape[0], *queries.shape[1:]))
        return self.sentence_decoder(queries, patches, train=train, key=key)

    def scale(self) -> jax.Array:
        """Returns the inverse temperature of the image-report contrast, float32[]."""
        return self._exponential(self.logit_scale[...])

    def local_scale(self) -> jax.Array:
        """Returns the inverse temperature of the sentence contrast, float32[]."""
        return self._exponential(self.local_logit_scale[...])

    def _exponential(self, scale: jax.Array) -> jax.Array:
        return jnp.exp(clamp_from_above(scale) if self.choices.clamp_scale else scale)
