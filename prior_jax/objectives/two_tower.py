"""The parts shared by the baselines: two encoders with heads, one stage, cosine similarity."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError, check_choice, check_field
from prior_jax.losses import limits
from prior_jax.losses.normalize import unit
from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.nn.heads import ProjectionHead
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig
from prior_jax.nn.token_pool import TokenPool, pool_tokens
from prior_jax.objectives.all_pairs import FORMS, PLAIN, AllPairs, Form
from prior_jax.types import Batch, ImageFeatures, LossTerms, ReportFeatures
from prior_jax.vocabulary import Vocabulary

STAGES = ("pretrain",)
GLOBAL_TERM = "global_alignment"

ComputeDtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowersConfig:
    """The part of the section `config.model` that all baselines share.

    Attributes:
      dtype: dtype of the computation; parameters, losses, softmax and normalisation stay float32.
      image: configuration of the image encoder.
      text: configuration of the text encoder.
      hidden_dim: inner width of the heads; None for linear heads.
      embed_dim: size D of every embedding that is compared.
    """

    dtype: ComputeDtype
    image: ImageEncoderConfig
    text: BertConfig
    hidden_dim: int | None
    embed_dim: int

    def __post_init__(self):
        """Refuses configuration values that no model accepts."""
        check_choice(self, "dtype", get_args(ComputeDtype))
        check_field(self, "embed_dim", self.embed_dim >= 1, "a positive integer")
        wide = self.hidden_dim is None or self.hidden_dim >= 1
        check_field(self, "hidden_dim", wide, "a positive integer, or None")

    def check_positive(self, *fields: str) -> None:
        """Refuses each scale or temperature that is not above 0, or too extreme for a loss."""
        limits.check_scales(self, *fields)

    def check_weights(self, weights: Mapping[str, float], terms: tuple[str, ...]) -> None:
        """Refuses weights whose names are not exactly those of the terms, and unusable ones."""
        if set(weights) != set(terms):
            raise ConfigError.of_value(
                "weights", sorted(weights), f"a weight for each of the terms {', '.join(terms)}"
            )
        limits.check_weights(weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTowerConfig(TowersConfig):
    """Configuration of a baseline whose report embedding is pooled over its tokens.

    Attributes:
      text_pool: "first" takes [CLS], "mean" and "max" pool over all real tokens.
    """

    text_pool: TokenPool

    def __post_init__(self):
        """Refuses an unknown pool."""
        super().__post_init__()
        check_choice(self, "text_pool", get_args(TokenPool))


class Towers(nnx.Module):
    """Two encoders, each with a head for the embedding of whole images or reports."""

    def __init__(self, config: TowersConfig, *, rngs: nnx.Rngs):
        """Creates the encoders and heads.

        Args:
          config: configuration with the sizes.
          rngs: source of the initial parameters.
        """
        self.dtype = jnp.dtype(config.dtype)
        self.image_encoder = ImageEncoder(config.image, dtype=self.dtype, rngs=rngs)
        self.text_encoder = Bert(config.text, dtype=self.dtype, rngs=rngs)
        self.image_head = self.head(config, config.image.resnet.features, rngs=rngs)
        self.text_head = self.head(config, config.text.hidden_size, rngs=rngs)

    def head(self, config: TowersConfig, features: int, *, rngs: nnx.Rngs) -> ProjectionHead:
        """Returns a new head on the output vectors of an encoder."""
        return ProjectionHead(
            features,
            config.embed_dim,
            hidden_features=config.hidden_dim,
            dtype=self.dtype,
            rngs=rngs,
        )


class TwoTowerModel(Towers):
    """A model with one embedding per image and one per report, without local features."""

    def __init__(self, config: TwoTowerConfig, *, rngs: nnx.Rngs):
        """Creates the encoders and heads; for the arguments see `Towers`."""
        super().__init__(config, rngs=rngs)
        self.text_pool: TokenPool = config.text_pool

    def encode_image(self, image: jax.Array, *, train: bool) -> ImageFeatures:
        """Encodes each image as one embedding.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones.

        Returns:
          Features in the compute dtype, without patches: P = 0.
        """
        _, pooled = self.image_encoder(image, train=train)
        vector = self.image_head(pooled)
        return ImageFeatures(local=_nothing(vector), global_=vector, pooled=pooled)

    def encode_report(
        self,
        tokens: jax.Array,
        token_mask: jax.Array,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> ReportFeatures:
        """Encodes each report as one embedding.

        Args:
          tokens: token ids, int32[B, L].
          token_mask: mask of the real tokens, bool[B, L].
          train: whether dropout is applied.
          key: random key of the dropout; required in training unless the dropout rate is 0.

        Returns:
          Features in the compute dtype, without local rows: T = 0.
        """
        hidden = self.text_encoder(tokens, token_mask, train=train, key=key).last_hidden_state
        vector = self.text_head(pool_tokens(hidden, token_mask, pool=self.text_pool))
        return ReportFeatures(
            local=_nothing(vector),
            local_mask=jnp.zeros((vector.shape[0], 0), bool),
            global_=vector,
        )

    def embed_patches(self, image: jax.Array) -> jax.Array:
        """Embeds every location of the last map as the pooled vector is embedded.

        Args:
          image: normalised images, float32[B, H, W, C].

        Returns:
          [B, P, D] in the compute dtype, row-major over the map.

        Source: BioViL, arXiv:2204.09817, sec. 3.2: patches and pooled vector share a projection.
        """
        return self.image_head(self.image_encoder.embed_locations(image))


def _nothing(vector: jax.Array) -> jax.Array:
    """Returns an empty array [B, 0, D] for [B, D]."""
    return vector[:, None, :][:, :0]


class OneStageObjective(abc.ABC):
    """An objective of one stage whose similarity is a cosine, scaled where it has a temperature.

    Subclasses build the model, encode its inputs and compute the terms. Implements
    `objectives.base.Objective`.

    Attributes:
      stages: names of the stages.
      pair_forms: forms in which its losses over all pairs exist; ("gathered",) for an objective
        with such a loss and no ring form of it. An objective without a loss over pairs keeps both.
      unit_length: whether embeddings are compared as vectors of unit length; False compares them
        as the heads give them.
    """

    stages = STAGES
    pair_forms: ClassVar[tuple[Form, ...]] = FORMS
    unit_length: ClassVar[bool] = True

    def __init__(self, config: Any, *, vocabulary: Vocabulary, all_pairs: AllPairs = PLAIN):
        """Keeps the configuration.

        Args:
          config: configuration, the section `config.model`.
          vocabulary: vocabulary of the tokenizer.
          all_pairs: form in which the contrastive loss of whole pairs is computed.
        """
        self.config = config
        self.vocabulary = vocabulary
        self.all_pairs = all_pairs

    @abc.abstractmethod
    def init(self, rngs: nnx.Rngs) -> Any:
        """Builds the model with fresh parameters."""

    @abc.abstractmethod
    def terms(
        self, model: Any, batch: Batch, *, weight: jax.Array, train: bool, key: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Computes the terms of one global batch; pairs with `weight` 0 contribute to none."""

    def scale(self, model: Any) -> jax.Array | None:
        """Returns the inverse temperature of the contrast, float32[]; None without one."""
        del model
        return None

    @abc.abstractmethod
    def encode_report(
        self,
        model: Any,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Encodes reports in inference mode; for the arguments see the fields of `Batch`."""

    def metrics(self, model: Any) -> dict[str, jax.Array]:
        """Returns the metrics logged beside the terms: the scale, if there is a temperature."""
        scale = self.scale(model)
        return {} if scale is None else {"logit_scale": scale}

    def weights(self, stage: str) -> dict[str, float]:
        """Returns the weight of each term, by the term's name.

        Those are the configuration's `weights` if it has any, and otherwise 1 for a single term.
        """
        _known(stage)
        return dict(getattr(self.config, "weights", {GLOBAL_TERM: 1.0}))

    def trainable(self, stage: str, path: tuple[str, ...]) -> bool:
        """Returns whether the parameter at `path` gets a gradient: all but BERT's pooler."""
        _known(stage)
        return tuple(str(part) for part in path[:2]) != ("text_encoder", "pooler")

    def loss_terms(
        self,
        model: Any,
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
          batch: whole global batch. Rows of weight 0 and reports without a sentence contribute to
            no term.
          stage: name of the stage, "pretrain".
          step: number of optimizer steps, which this objective does not use.
          key: random key of this step's dropout; None is accepted only where no dropout is applied.
          train: whether the step trains; False for validation: no dropout, running batch
            statistics.

        Returns:
          The terms, together with `metrics`.

        Raises:
          ConfigError: for an unknown stage.
        """
        del step
        _known(stage)
        some = jnp.any(batch.sentence_mask, axis=1)
        weight = jnp.where(some, batch.weight, jnp.float32(0))
        terms = self.terms(model, batch, weight=weight, train=train, key=key)
        metrics = {n: jax.lax.stop_gradient(value) for n, value in self.metrics(model).items()}
        return LossTerms(terms=terms, metrics=metrics)

    def encode_image(self, model: Any, image: jax.Array) -> ImageFeatures:
        """Encodes images float32[B, H, W, C] in inference mode."""
        return model.encode_image(image, train=False)

    def similarity(self, model: Any, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
        """Returns scaled cosines of the global embeddings: float32[Bi, Br]; higher is closer.

        They are products where the objective's embeddings are not compared at unit length, and not
        scaled where it has no temperature.
        """
        vectors = self.compared(images.global_), self.compared(reports.global_)
        found, scale = jnp.einsum("id,jd->ij", *vectors), self.scale(model)
        return found if scale is None else scale * found

    def compared(self, vectors: jax.Array) -> jax.Array:
        """Returns embeddings [B, D] as they are compared: float32, of unit length by default."""
        return unit(vectors) if self.unit_length else vectors.astype(jnp.float32)


class TwoTowerObjective(OneStageObjective):
    """Contrast of whole images with whole reports: a `TwoTowerModel` and one term."""

    @abc.abstractmethod
    def contrast(
        self, model: Any, image: jax.Array, text: jax.Array, *, weight: jax.Array
    ) -> jax.Array:
        """Computes the loss of image and text vectors, float32[B, D] each: float32[].

        They have unit length unless `unit_length` is False.
        """

    def terms(
        self,
        model: TwoTowerModel,
        batch: Batch,
        *,
        weight: jax.Array,
        train: bool,
        key: jax.Array | None,
    ) -> dict[str, jax.Array]:
        """Computes the single term of the global batch."""
        images = model.encode_image(batch.image, train=train)
        reports = model.encode_report(batch.tokens, batch.token_mask, train=train, key=key)
        vectors = self.compared(images.global_), self.compared(reports.global_)
        return {GLOBAL_TERM: self.contrast(model, *vectors, weight=weight)}

    def encode_report(
        self,
        model: TwoTowerModel,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Encodes reports in inference mode; sentence boundaries are ignored."""
        del sentence_index, sentence_mask
        return model.encode_report(tokens, token_mask, train=False)

    def embed_patches(self, model: TwoTowerModel, image: jax.Array) -> jax.Array:
        """Returns the embeddings of patches, [B, P, D]; see `objectives.base.EmbedsPatches`."""
        return model.embed_patches(image)


def _known(stage: str) -> None:
    if stage not in STAGES:
        raise ConfigError(
            f"The objective has no stage {stage!r}.", f"Use one of the stages {', '.join(STAGES)}."
        )
