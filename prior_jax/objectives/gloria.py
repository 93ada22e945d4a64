"""The GLoRIA objective: global contrast, and contrast of words with the regions they look at."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses.word_region_groups import grouped_word_region_contrast
from prior_jax.nn.word_aggregate import WordPlaces, find_words
from prior_jax.objectives import gloria_inference
from prior_jax.objectives.all_pairs import PLAIN, AllPairs
from prior_jax.objectives.base import TextUnit
from prior_jax.objectives.gloria_config import STAGES, GloriaConfig
from prior_jax.objectives.gloria_model import CaptionFeatures, GloriaModel, matched_words
from prior_jax.types import Batch, ImageFeatures, LossTerms, ReportFeatures
from prior_jax.vocabulary import Vocabulary


class GloriaObjective:
    """GLoRIA, ICCV 2021, trained as the authors' release trains it, in one stage.

    Implements `objectives.base.Objective`.
    """

    stages = STAGES

    def __init__(
        self, config: GloriaConfig, *, vocabulary: Vocabulary, all_pairs: AllPairs = PLAIN
    ):
        """Keeps the configuration.

        Args:
          config: the section `config.model`.
          vocabulary: of the tokenizer, to find words among tokens.
          all_pairs: how both contrasts are computed.
        """
        self.config = config
        self.vocabulary = vocabulary
        self.all_pairs = all_pairs

    def init(self, rngs: nnx.Rngs) -> GloriaModel:
        """Builds the model with fresh parameters."""
        return GloriaModel(self.config, rngs=rngs)

    def weights(self, stage: str) -> dict[str, float]:
        """Term name -> weight, from the configuration."""
        _known(stage)
        return dict(self.config.weights)

    def trainable(self, stage: str, path: tuple[str, ...]) -> bool:
        """Whether a gradient reaches the parameter at `path`: all but BERT's pooler (quirk G11)."""
        _known(stage)
        return tuple(str(part) for part in path[:2]) != ("text_encoder", "pooler")

    def find_words(self, tokens: jax.Array, token_mask: jax.Array) -> WordPlaces:
        """The words among int32[B, L] tokens; see `nn.word_aggregate.find_words`."""
        return find_words(
            tokens,
            token_mask,
            vocabulary=self.vocabulary,
            pieces=not self.config.whole_words,
        )

    def loss_terms(
        self,
        model: GloriaModel,
        batch: Batch,
        *,
        stage: str,
        step: jax.Array,
        key: jax.Array | None,
        train: bool = True,
    ) -> LossTerms:
        """Named, unweighted terms of one global batch; see `objectives.base.Objective`.

        Args:
          model: from `init`; batch statistics are updated in place when `train`.
          batch: the whole global batch. Rows of weight 0 and captions without a word that is
            matched count in no term.
          stage: "pretrain".
          step: not used: nothing changes with it.
          key: of this step's dropout; None only where nothing is dropped.
          train: False for validation: no dropout, running batch statistics.

        Returns:
          Each direction of the global and of the local contrast, without metrics.

        Raises:
          ConfigError: for an unknown stage.
        """
        del step
        _known(stage)
        places = self.find_words(batch.tokens, batch.token_mask)
        images = model.encode_image(batch.image, train=train)
        captions = model.encode_text(batch.tokens, batch.token_mask, places, train=train, key=key)
        terms = self.contrasts(images, captions, places, weight=batch.weight)
        return LossTerms(terms=terms, metrics={})

    def contrasts(
        self,
        images: ImageFeatures,
        captions: CaptionFeatures,
        places: WordPlaces,
        *,
        weight: jax.Array,
    ) -> dict[str, jax.Array]:
        """The terms of encoded pairs.

        Args:
          images: features of B images.
          captions: features of their captions.
          places: of the captions' words.
          weight: float32[B], 1 for a real pair, 0 for padding.
        """
        config, choices = self.config, self.config.choices
        mask = matched_words(places, choices)
        weight = jnp.where(jnp.any(mask, axis=1), weight, jnp.float32(0))
        whole = self.all_pairs.cosine_contrastive(
            images.global_, captions.report, scale=jnp.float32(config.contrast_scale), weight=weight
        )
        contrast = self.all_pairs.word_region_contrast
        if config.local_group is not None:
            contrast = functools.partial(grouped_word_region_contrast, group=config.local_group)
        parts = contrast(
            captions.words,
            images.local,
            word_mask=mask,
            weight=weight,
            temp1=config.attention_scale,
            temp2=config.word_scale,
            temp3=config.contrast_scale,
            softmax_over_words=not choices.single_softmax,
            aggregate="mean" if choices.word_mean else "sum",
            chunk=config.caption_chunk,
        )
        return {
            "global_image_to_text": whole.image_to_text,
            "global_text_to_image": whole.text_to_image,
            "local_image_to_text": parts.image_to_text,
            "local_text_to_image": parts.text_to_image,
        }

    def encode_image(self, model: GloriaModel, image: jax.Array) -> ImageFeatures:
        """Features of images float32[B, H, W, C], in inference mode."""
        return model.encode_image(image, train=False)

    def encode_report(
        self,
        model: GloriaModel,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
        *,
        word_mask: jax.Array | None = None,
    ) -> ReportFeatures:
        """Features of reports, in inference mode; see `gloria_inference.encode_report`.

        Sentences play no part: a report is one caption.
        """
        del sentence_index, sentence_mask
        places = self.find_words(tokens, token_mask)
        return gloria_inference.encode_report(
            model, tokens, token_mask, places=places, word_mask=word_mask
        )

    def similarity(
        self, model: GloriaModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Mean of the global and the local score: float32[Bi, Br]; see `gloria_inference`."""
        del model
        return gloria_inference.similarity(images, reports, config=self.config)

    def similarity_parts(
        self, model: GloriaModel, images: ImageFeatures, reports: ReportFeatures
    ) -> tuple[jax.Array, jax.Array]:
        """The global and the local score: float32[Bi, Br] each; see `gloria_inference`."""
        del model
        return (
            gloria_inference.similarity(images, reports, config=self.config, kind="global"),
            gloria_inference.similarity(images, reports, config=self.config, kind="local"),
        )

    @property
    def text_unit(self) -> TextUnit:
        """Reports are aligned by the word; row w of the features is word w, [CLS] being 0."""
        return "word"

    @property
    def patch_spacing(self) -> float:
        """Pixels between the centres of neighbouring regions; see `RegionEncoderConfig`."""
        return self.config.image.spacing

    def text_attention(
        self, model: GloriaModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Where each word looks: float32[B, W, P]; see `gloria_inference`."""
        del model
        return gloria_inference.text_attention(images, reports, config=self.config)


def _known(stage: str) -> str:
    if stage not in STAGES:
        raise ConfigError("config.stages.name", received=stage, accepted=f"one of {STAGES}")
    return stage
