"""The interface between an objective and training or evaluation, and the weighted loss sum."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.types import Batch, Detections, ImageFeatures, LossTerms, ReportFeatures

TextUnit = Literal["sentence", "word"]
SimilarityKind = Literal["both", "local", "global"]
Encoding = TypeVar("Encoding", bound="Encodes")


class TrainObjective(Protocol):
    """The interface that training uses: a model and the losses that it is trained with.

    Models are typed as `Any`: an objective accepts only models that its own `init` built.
    """

    @property
    def stages(self) -> tuple[str, ...]:
        """Returns the names of the objective's stages, in their usual order."""
        ...

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """Builds the model with fresh parameters (float32)."""
        ...

    def loss_terms(
        self,
        model: Any,
        batch: Batch,
        *,
        stage: str,
        step: jax.Array,
        key: jax.Array,
        train: bool = True,
    ) -> LossTerms:
        """Computes the named, unweighted terms of one global batch.

        Args:
          model: model built by `init`; its batch statistics are updated in place if `train` is
            True.
          batch: whole global batch.
          stage: name of the stage, one of `stages`.
          step: number of optimizer steps done so far over all stages, int32[].
          key: random key of this step's noise and dropout.
          train: whether the step trains; False for validation.

        Returns:
          The terms of the stage; their names are exactly those of `weights(stage)`.

        Raises:
          ConfigError: for an unknown stage.
        """
        ...

    def weights(self, stage: str) -> Mapping[str, float]:
        """Returns the weight of every term of the stage, by the term's name."""
        ...

    def trainable(self, stage: str, path: tuple[str, ...]) -> bool:
        """Returns whether the parameter at `path` receives a gradient in the stage.

        All other parameters get neither weight decay nor optimizer state.
        """
        ...


class Encodes(Protocol):
    """The interface that evaluation uses: features and their similarity."""

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """Builds the model with fresh parameters (float32)."""
        ...

    def encode_image(self, model: Any, image: jax.Array) -> ImageFeatures:
        """Returns the features of images float32[B, H, W, C], in inference mode."""
        ...

    def encode_report(
        self,
        model: Any,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Encodes reports in inference mode; for the arguments see the fields of `Batch`."""
        ...

    def similarity(self, model: Any, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
        """Returns the similarity of every image to every report.

        The array is float32[Bi, Br]; higher is closer.
        """
        ...


class Objective(TrainObjective, Encodes, Protocol):
    """An objective that is trained and evaluated."""


@runtime_checkable
class HasRates(Protocol):
    """An objective whose parameters learn at rates of their own."""

    def rate(self, stage: str, path: tuple[str, ...]) -> float:
        """Returns the factor on the learning rate of the parameter at `path` in a stage.

        Decoupled weight decay is scaled with the rate, as in torch's groups of parameters.
        """
        ...


@runtime_checkable
class Classifies(Protocol):
    """An objective that scores classes of images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, K."""
        ...

    def classify(self, model: Any, image: jax.Array) -> jax.Array:
        """Returns the log-odds of the classes, float32[B, K], in inference mode."""
        ...

    def targets(self, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns targets and the mask of the known ones, float32[B, K], of labels int8[B, C]."""
        ...


@runtime_checkable
class Detects(Protocol):
    """An objective that finds boxes on images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, K."""
        ...

    def detect(self, model: Any, image: jax.Array) -> Detections:
        """Returns the boxes on images float32[B, H, W, C], in inference mode."""
        ...


@runtime_checkable
class Segments(Protocol):
    """An objective that finds the masks of classes on images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, K."""
        ...

    def segment(self, model: Any, image: jax.Array) -> jax.Array:
        """Returns the log-odds of the classes at each pixel, float32[B, H, W, K].

        The model is in inference mode.
        """
        ...


def weighted_sum(terms: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
    """Computes the weighted total loss that training minimises.

    Args:
      terms: loss terms, name -> float32[].
      weights: weights of the terms, name -> weight, with the same names as `terms`.

    Returns:
      Total loss, float32[]. Terms are summed in the order of their names, so the total does not
      depend on the order of the mapping.

    Raises:
      ValueError: if the names of terms and weights differ.
    """
    if set(terms) != set(weights):
        raise ValueError(
            f"terms without weight: {sorted(set(terms) - set(weights))}; "
            f"weights without term: {sorted(set(weights) - set(terms))}"
        )
    total = jnp.float32(0)
    for name in sorted(terms):
        total = total + jnp.float32(weights[name]) * terms[name]
    return total


@runtime_checkable
class ComparesParts(Protocol):
    """An objective whose similarity combines a global part and a local part."""

    def similarity_parts(
        self, model: Any, images: ImageFeatures, reports: ReportFeatures
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the global and the local scores, float32[Bi, Br] each; higher is closer."""
        ...


@runtime_checkable
class ShowsAttention(Protocol):
    """An objective whose sentences or words attend to patches of the image."""

    @property
    def text_unit(self) -> TextUnit:
        """Returns which unit of text a row of a report's local features represents."""
        ...

    @property
    def patch_spacing(self) -> float:
        """Returns the distance between the centres of neighbouring patches, in image pixels.

        The first patch is centred on the first pixel: with the padding of torch, output i of a
        convolution of stride s is centred on position i * s of its input.
        """
        ...

    def text_attention(
        self, model: Any, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns the attention of row i's sentences or words over its patches.

        The array is float32[B, T, P], with patches in row-major order.
        """
        ...


@runtime_checkable
class AlignsLocally(Protocol):
    """An objective with losses between parts of an image and parts of its report."""

    def local_terms(self, stage: str) -> tuple[str, ...]:
        """Returns the names of those terms in a stage."""
        ...


@runtime_checkable
class EmbedsPatches(Protocol):
    """An objective whose patches lie in the space of whole reports, as it is trained."""

    def embed_patches(self, model: Any, image: jax.Array) -> jax.Array:
        """Returns the patches of images in the space of whole reports, [B, P, D], row-major."""
        ...


@runtime_checkable
class EncodesByStage(Protocol):
    """An objective whose reports are encoded otherwise in one stage than in another."""

    def in_stage(self, stage: str) -> Objective:
        """Returns the objective that encodes as its models are trained in a stage."""
        ...


def in_stage(objective: Encoding, stage: str) -> Encoding:
    """Returns the objective that encodes as its models are trained in a stage.

    Of most objectives that is the objective itself.
    """
    if isinstance(objective, EncodesByStage):
        return cast(Encoding, objective.in_stage(stage))
    return objective


@runtime_checkable
class Reconstructs(Protocol):
    """An objective that reconstructs images."""

    def reconstruct(self, model: Any, batch: Batch) -> jax.Array:
        """Reconstructs images, float32[B, H, W, C], in the normalised scale of `batch.image`."""
        ...


@runtime_checkable
class HasPrototypes(Protocol):
    """An objective whose sentences select among prototypes."""

    def prototype_choice(
        self,
        model: Any,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns each sentence's prototype, int32[B, S], and its probability, float32[B, S].

        The probability is between 0 and 1.
        """
        ...

    @property
    def num_prototypes(self) -> int:
        """Returns the number of prototypes, K."""
        ...
