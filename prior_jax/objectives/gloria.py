"""The GLoRIA objective: a global contrastive loss, and one between words and image regions."""

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn.word_aggregate import WordPlaces, find_words
from prior_jax.objectives import gloria_inference
from prior_jax.objectives.all_pairs import PLAIN, AllPairs
from prior_jax.objectives.base import TextUnit
from prior_jax.objectives.gloria_config import STAGES, GloriaConfig
from prior_jax.objectives.gloria_model import CaptionFeatures, GloriaModel, matched_words
from prior_jax.types import Batch, ImageFeatures, LossTerms, ReportFeatures
from prior_jax.vocabulary import Vocabulary


class GloriaObjective:
    """GLoRIA, ICCV 2021, trained in one stage as in the authors' release.

    Implements `objectives.base.Objective`.
    """

    stages = STAGES

    def __init__(
        self, config: GloriaConfig, *, vocabulary: Vocabulary, all_pairs: AllPairs = PLAIN
    ):
        """Keeps the configuration.

        Args:
          config: configuration, the section `config.model`.
          vocabulary: vocabulary of the tokenizer, used to find words among tokens.
          all_pairs: form in which both contrastive losses are computed.
        """
        self.config = config
        self.vocabulary = vocabulary
        self.all_pairs = all_pairs

    def init(self, rngs: nnx.Rngs) -> GloriaModel:
        """Builds the model with fresh parameters."""
        return GloriaModel(self.config, rngs=rngs)

    def weights(self, stage: str) -> dict[str, float]:
        """Returns the weight of each term from the configuration, by the term's name."""
        _known(stage)
        return dict(self.config.weights)

    def local_terms(self, stage: str) -> tuple[str, ...]:
        """Returns the names of the terms between regions and words."""
        _known(stage)
        return "local_image_to_text", "local_text_to_image"

    def trainable(self, stage: str, path: tuple[str, ...]) -> bool:
        """Returns whether the parameter at `path` receives a gradient in the stage.

        Every parameter does except those of BERT's pooler (quirk G11).
        """
        _known(stage)
        return tuple(str(part) for part in path[:2]) != ("text_encoder", "pooler")

    def find_words(self, tokens: jax.Array, token_mask: jax.Array) -> WordPlaces:
        """Finds the words among int32[B, L] tokens; see `nn.word_aggregate.find_words`."""
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
        """Computes named, unweighted terms of one global batch; see `objectives.base.Objective`.

        Args:
          model: model built by `init`; its batch statistics are updated in place if `train` is
            True.
          batch: whole global batch. Rows of weight 0, and captions without a word to match,
            contribute to no term.
          stage: name of the stage, "pretrain".
          step: number of optimizer steps, which this objective does not use.
          key: random key of this step's dropout; None is accepted only where no dropout is applied.
          train: whether the step trains; False for validation: no dropout, running batch
            statistics.

        Returns:
          Both directions of the global and of the local contrastive loss, without metrics.

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
        """Computes the loss terms of encoded pairs.

        Args:
          images: features of B images.
          captions: features of their captions.
          places: positions of the captions' words.
          weight: weights of the pairs, float32[B], 1 for a real pair, 0 for padding.
        """
        config, choices = self.config, self.config.choices
        mask = matched_words(places, choices)
        weight = jnp.where(jnp.any(mask, axis=1), weight, jnp.float32(0))
        whole = self.all_pairs.cosine_contrastive(
            images.global_, captions.report, scale=jnp.float32(config.contrast_scale), weight=weight
        )
        parts = self.all_pairs.word_region_contrast(
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
            group=config.local_group,
        )
        return {
            "global_image_to_text": whole.image_to_text,
            "global_text_to_image": whole.text_to_image,
            "local_image_to_text": parts.image_to_text,
            "local_text_to_image": parts.text_to_image,
        }

    def encode_image(self, model: GloriaModel, image: jax.Array) -> ImageFeatures:
        """Encodes images float32[B, H, W, C] in inference mode."""
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
        """Encodes reports in inference mode; see `gloria_inference.encode_report`.

        Sentence boundaries are ignored: a report is one caption.
        """
        del sentence_index, sentence_mask
        places = self.find_words(tokens, token_mask)
        return gloria_inference.encode_report(
            model, tokens, token_mask, places=places, word_mask=word_mask
        )

    def embed_patches(self, model: GloriaModel, image: jax.Array) -> jax.Array:
        """Returns the regions of images, [B, P, D]; reports are the means of words in their space.

        See `objectives.base.EmbedsPatches`.
        """
        return self.encode_image(model, image).local

    def similarity(
        self, model: GloriaModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns the mean of the global and local scores: float32[Bi, Br].

        See `gloria_inference`.
        """
        del model
        return gloria_inference.similarity(images, reports, config=self.config)

    def similarity_parts(
        self, model: GloriaModel, images: ImageFeatures, reports: ReportFeatures
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the global and the local score: float32[Bi, Br] each; see `gloria_inference`."""
        del model
        return (
            gloria_inference.similarity(images, reports, config=self.config, kind="global"),
            gloria_inference.similarity(images, reports, config=self.config, kind="local"),
        )

    @property
    def text_unit(self) -> TextUnit:
        """Returns "word": reports are aligned by the word.

        Row w of the features is word w, where [CLS] is word 0.
        """
        return "word"

    @property
    def patch_spacing(self) -> float:
        """Returns the spacing of region centres in pixels; see `RegionEncoderConfig`."""
        return self.config.image.spacing

    def text_attention(
        self, model: GloriaModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns each word's attention over regions: float32[B, W, P]; see `gloria_inference`."""
        del model
        return gloria_inference.text_attention(images, reports, config=self.config)


def _known(stage: str) -> str:
    if stage not in STAGES:
        raise ConfigError(
            f"The objective has no stage {stage!r}.", f"Use one of the stages {', '.join(STAGES)}."
        )
    return stage
