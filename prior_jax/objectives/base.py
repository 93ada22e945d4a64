"""What training and evaluation ask of an objective, and the weighted sum of its terms."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.types import Batch, ImageFeatures, LossTerms, ReportFeatures

TextUnit = Literal["sentence", "word"]
SimilarityKind = Literal["both", "local", "global"]


class TrainObjective(Protocol):
    """What training asks of an objective: a model and the losses it is trained with.

    Models are handed over as `Any`: an objective takes only those its own `init` made.
    """

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages it knows, in their usual order."""
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
        """Named, unweighted terms of one global batch.

        Args:
          model: from `init`; batch statistics are updated in place when `train`.
          batch: the whole global batch.
          stage: one of `stages`.
          step: int32[], optimizer steps done so far over all stages.
          key: key of this step's noise and dropout.
          train: False for validation.

        Returns:
          The stage's terms: exactly the names of `weights(stage)`.

        Raises:
          ConfigError: for an unknown stage.
        """
        ...

    def weights(self, stage: str) -> Mapping[str, float]:
        """Term name -> weight, for every term of the stage."""
        ...

    def trainable(self, stage: str, path: tuple[str, ...]) -> bool:
        """Whether the parameter at `path` receives a gradient in the stage.

        The others get neither weight decay nor optimizer state.
        """
        ...


class Objective(TrainObjective, Protocol):
    """What a trained model is judged by as well: features, and how well they fit."""

    def encode_image(self, model: Any, image: jax.Array) -> ImageFeatures:
        """Features of images float32[B, H, W, C], in inference mode."""
        ...

    def encode_report(
        self,
        model: Any,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Features of reports, in inference mode; arguments as the fields of `Batch`."""
        ...

    def similarity(self, model: Any, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
        """float32[Bi, Br] of every image to every report; higher is closer."""
        ...


def weighted_sum(terms: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
    """The total that is minimised.

    Args:
      terms: name -> float32[].
      weights: name -> weight, the same names.

    Returns:
      float32[], summed in the order of the names, so that it does not depend on theirs.

    Raises:
      ValueError: if the names differ.
    """
    if set(terms) != set(weights):
        raise ValueError(
            f"terms without weight: {sorted(set(terms) - set(weights))}; "
            f"weights without term: {sorted(set(weights) - set(terms))}"
        )
    total = jnp.zeros((), jnp.float32)
    for name in sorted(terms):
        total = total + jnp.float32(weights[name]) * terms[name]
    return total


@runtime_checkable
class ComparesParts(Protocol):
    """An objective whose similarity is put together of two: that of wholes and that of parts."""

    def similarity_parts(
        self, model: Any, images: ImageFeatures, reports: ReportFeatures
    ) -> tuple[jax.Array, jax.Array]:
        """The global and the local score, float32[Bi, Br] each; higher is closer."""
        ...


@runtime_checkable
class ShowsAttention(Protocol):
    """An objective whose sentences or words look at places of the image."""

    @property
    def text_unit(self) -> TextUnit:
        """What a row of a report's local features is."""
        ...

    @property
    def patch_spacing(self) -> float:
        """Pixels of the image from the centre of what one patch sees to that of the next.

        The first patch is centred on the first pixel: with torch's padding an output at place i
        of a convolution of stride s is centred on place i * s of its input.
        """
        ...

    def text_attention(
        self, model: Any, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """float32[B, T, P] of row i's sentences or words over its patches, row-major."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    """An objective that redraws images."""

    def reconstruct(self, model: Any, batch: Batch) -> jax.Array:
        """float32[B, H, W, C], in the normalised scale of `batch.image`."""
        ...


@runtime_checkable
class HasPrototypes(Protocol):
    """An objective whose sentences choose among prototypes."""

    def prototype_choice(
        self,
        model: Any,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """int32[B, S], each sentence's prototype, and float32[B, S], its share, 0 to 1."""
        ...

    @property
    def num_prototypes(self) -> int:
        """K."""
        ...
