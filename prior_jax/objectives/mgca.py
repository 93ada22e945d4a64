"""The MGCA-style objective: contrastive losses on pairs, tokens and prototype assignments."""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import check_least
from prior_jax.losses.normalize import unit
from prior_jax.losses.prototype_assignment import swapped_assignment
from prior_jax.losses.sentence_region import local_contrast
from prior_jax.losses.token_wise import token_attention, token_context
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.token_pool import TokenPool, pool_tokens
from prior_jax.nn.word_aggregate import find_words, sum_pieces
from prior_jax.objectives.base import TextUnit
from prior_jax.objectives.local_towers import LocalObjective, LocalTowers, LocalTowersConfig
from prior_jax.objectives.sentence_region import encode_with_hidden
from prior_jax.objectives.two_tower import GLOBAL_TERM, TwoTowerConfig
from prior_jax.types import Batch, ImageFeatures, ReportFeatures
from prior_jax.vocabulary import Vocabulary

TERMS = (GLOBAL_TERM, "token_image", "token_text", "prototype")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MgcaConfig(LocalTowersConfig, TwoTowerConfig):
    """Configuration of MGCA, the section `config.model`.

    Attributes:
      temperature: fixed temperature of the contrastive loss on whole pairs; release 0.07.
      local_temperature: fixed temperature of the token attention and token contrast; release 0.1.
      num_prototypes: number K of prototypes; paper 500.
      prototype_temperature: temperature of the prototype prediction; release 0.2.
      sinkhorn_epsilon: entropy regularisation of the assignment to prototypes; release 0.05.
      sinkhorn_iterations: number of Sinkhorn iterations of that assignment; release 3.
      weights: weights of the terms, term -> weight. Lambda is 1, 0.7 and 0.5 in the constructor of
        the release (mgca_module.py), which sums both directions of the pair contrast: 2, 0.7, 0.7
        and 0.5. The flags of its program, where they are left out, make it 2, 1, 1 and 1.
    """

    temperature: float
    local_temperature: float
    num_prototypes: int
    prototype_temperature: float
    sinkhorn_epsilon: float
    sinkhorn_iterations: int

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        super().__post_init__()
        self.check_positive(
            "temperature", "local_temperature", "prototype_temperature", "sinkhorn_epsilon"
        )
        check_least(self, num_prototypes=1, sinkhorn_iterations=1)
        self.check_weights(self.weights, TERMS + self.region_terms())


@flax.struct.dataclass
class WordFeatures:
    """Word features of a batch of reports.

    Attributes:
      report: features of the report; row w is word w, counted from [CLS], which is word 0 and not a
        real word.
      share: attention of [CLS] to each word in BERT's last layer, float32[B, L].
    """

    report: ReportFeatures
    share: jax.Array


class MgcaModel(LocalTowers):
    """Two encoders, heads for patches and words, and prototypes."""

    def __init__(self, config: MgcaConfig, *, rngs: nnx.Rngs):
        """Creates every part; for the arguments see `Towers`."""
        super().__init__(config, rngs=rngs)
        self.local_image_head = self.head(config, config.image.resnet.features, rngs=rngs)
        self.local_text_head = self.head(config, config.text.hidden_size, rngs=rngs)
        shape = (config.num_prototypes, config.embed_dim)
        # Of unit length, as the release keeps its own: Adam's steps do not grow with the rows, so
        # that longer ones would turn more slowly.
        self.prototypes = nnx.Param(unit(jax.random.normal(rngs.params(), shape, jnp.float32)))
        self.text_pool: TokenPool = config.text_pool

    def encode_regions(
        self, image: jax.Array, *, train: bool
    ) -> tuple[ImageFeatures, jax.Array | None]:
        """Encodes images as patch embeddings and one global embedding per image.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          Features in the compute dtype; and the regions that words look for, unit vectors
          [B, P', D], or None without a contrast of words and regions.
        """
        maps, pooled = self.image_encoder.encode(image, train=train)
        features = ImageFeatures(
            local=self.local_image_head(spatial_patches(maps[-1])),
            global_=self.image_head(pooled),
            pooled=pooled,
        )
        return features, self.regions(maps)

    def encode_words(
        self,
        tokens: jax.Array,
        token_mask: jax.Array,
        *,
        vocabulary: Vocabulary,
        train: bool,
        key: jax.Array | None = None,
    ) -> WordFeatures:
        """Encodes reports as word embeddings (sums of word pieces) and one global embedding.

        Args:
          tokens: token ids, int32[B, L].
          token_mask: mask of the real tokens, bool[B, L].
          vocabulary: vocabulary, which tells which tokens begin a word.
          train: whether dropout is applied.
          key: random key of the dropout; required in training unless the dropout rate is 0.

        Returns:
          Features in the compute dtype, with L rows per report.

        Source: release, mgca/models/backbones/encoder.py.
        """
        found = self.text_encoder(tokens, token_mask, train=train, key=key, hidden_states=True)
        hidden = found.last_hidden_state
        places = find_words(tokens, token_mask, vocabulary=vocabulary)
        taken = self.text_encoder.first_token_attention(found, token_mask)
        words = self.local_text_head(sum_pieces(hidden, places))
        report = ReportFeatures(
            local=jnp.where(places.real[..., None], words, jnp.zeros((), words.dtype)),
            local_mask=places.real,
            global_=self.text_head(pool_tokens(hidden, token_mask, pool=self.text_pool)),
        )
        return WordFeatures(report=report, share=sum_pieces(taken[..., None], places)[..., 0])


class MgcaObjective(LocalObjective):
    """MGCA, arXiv:2210.06044, section 3, with a ResNet, trained as in the authors' release.

    Differs: patches come from the last feature map, not from the one before it at 299 pixels; word
    weights are not clipped at their 10th and 90th percentiles; heads do not use batch
    normalisation; prototypes are trained from the first step; pairs are contrasted over the whole
    batch and not over that of one GPU. A word's weight is the attention to itself, where the
    release takes that to the token behind it; [SEP] is no word; padding is in no softmax over words
    (mgca/models/backbones/encoder.py, mgca/models/mgca/mgca_module.py).
    """

    config: MgcaConfig

    def init(self, rngs: nnx.Rngs) -> MgcaModel:
        """Builds the model with fresh parameters."""
        return MgcaModel(self.config, rngs=rngs)

    def scale(self, model: MgcaModel) -> jax.Array:
        """Returns the constant inverse temperature of whole pairs: float32[]."""
        del model
        return jnp.float32(1 / self.config.temperature)

    def local_terms(self, stage: str) -> tuple[str, ...]:
        """Returns the names of the terms between parts of an image and of its report."""
        del stage
        return "token_image", "token_text", *self.config.region_terms()

    def terms(
        self,
        model: MgcaModel,
        batch: Batch,
        *,
        weight: jax.Array,
        train: bool,
        key: jax.Array | None,
    ) -> dict[str, jax.Array]:
        """Computes the alignment terms of instances, tokens and prototypes.

        Source: sections 3.2, 3.3 and 3.4.
        """
        config = self.config
        images, regions, region_mask = encode_with_hidden(
            functools.partial(model.encode_regions, train=train), batch.image,
            config=config.sentence_region, spacing=self.patch_spacing,
            key=self.hidden_key(key), hides=train,
        )  # fmt: skip
        found = model.encode_words(
            batch.tokens, batch.token_mask, vocabulary=self.vocabulary, train=train, key=key
        )
        weight = jnp.where(jnp.any(found.report.local_mask, axis=1), weight, jnp.float32(0))
        image, text = unit(images.global_), unit(found.report.global_)
        prototypes = unit(model.prototypes[...])
        return {
            GLOBAL_TERM: self.all_pairs.paired_contrastive(
                image, text, scale=self.scale(model), weight=weight
            ),
            **self.token_terms(images, found, weight=weight),
            "prototype": swapped_assignment(
                image @ prototypes.T, text @ prototypes.T, weight=weight,
                temperature=config.prototype_temperature, epsilon=config.sinkhorn_epsilon,
                iterations=config.sinkhorn_iterations,
            ),
            **self.region_term(
                model, found.report, regions, region_mask=region_mask, weight=weight
            ),
        }  # fmt: skip

    def token_terms(
        self, images: ImageFeatures, found: WordFeatures, *, weight: jax.Array
    ) -> dict[str, jax.Array]:
        """Computes the contrast of patches with words and of words with patches.

        Each patch is contrasted with its attended context of words, and each word with its attended
        context of patches.

        Words are weighted by their share, without gradient. Patches have equal weights, as in the
        release for a ResNet, which has no [CLS].
        """
        scale = jnp.float32(1 / self.config.local_temperature)
        patches, words, real = images.local, found.report.local, found.report.local_mask
        every = jnp.ones(patches.shape[:2], bool)
        return {
            "token_image": local_contrast(
                patches, token_context(patches, words, key_mask=real, scale=scale),
                scale=scale, mask=every, row_weight=every.astype(jnp.float32), weight=weight,
            ),
            "token_text": local_contrast(
                words, token_context(words, patches, key_mask=every, scale=scale),
                scale=scale, mask=real, row_weight=jax.lax.stop_gradient(found.share),
                weight=weight,
            ),
        }  # fmt: skip

    def encode_report(
        self,
        model: MgcaModel,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Encodes reports in inference mode; sentence boundaries are ignored."""
        del sentence_index, sentence_mask
        found = model.encode_words(tokens, token_mask, vocabulary=self.vocabulary, train=False)
        return found.report

    @property
    def text_unit(self) -> TextUnit:
        """Returns "word": reports are aligned by the word.

        Row w of the features is word w, where [CLS] is word 0.
        """
        return "word"

    def text_attention(
        self, model: MgcaModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns each word's attention over patches or regions: float32[B, L, P].

        Rows of real words sum to 1; other rows are 0.
        """
        if model.sentence_region is not None:
            return model.sentence_region.attention(images.local, reports.local, reports.local_mask)
        scale = jnp.float32(1 / self.config.local_temperature)
        every = jnp.ones(images.local.shape[:2], bool)
        attention = token_attention(reports.local, images.local, key_mask=every, scale=scale)
        return jnp.where(reports.local_mask[..., None], attention, jnp.float32(0))
