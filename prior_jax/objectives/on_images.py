"""What the objectives share that learn from annotations of images, and read no reports."""

from typing import Any, ClassVar, Protocol

import jax

from prior_jax.errors import ConfigError
from prior_jax.types import ImageFeatures, ReportFeatures

FROZEN, FINE_TUNED = "frozen", "finetune"
ENCODER = "image_encoder"
"""Name of the image encoder in the model, as in the models of the other objectives."""


class OnImagesConfig(Protocol):
    """What the configurations of these objectives have in common."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes."""
        ...

    @property
    def encoder_rate(self) -> float:
        """Returns the factor on the learning rate of the encoder."""
        ...

    @property
    def drifting_statistics(self) -> bool:
        """Returns whether the batch normalisation of a frozen encoder stays in training mode."""
        ...


class OnImages:
    """An image encoder under a head; the encoder is frozen or trained, by the stage.

    A run has the stage "frozen", the stage "finetune", or both: some steps of the head alone before
    the encoder is released.

    Attributes:
      classes: names of the classes.
    """

    stages = (FROZEN, FINE_TUNED)
    model_noun: ClassVar[str]
    """The model in words with its article, for messages."""

    def __init__(self, config: OnImagesConfig):
        """Keeps the classes and the rates.

        Args:
          config: configuration, the section `config.model`.
        """
        self.classes = config.classes
        self._encoder_rate = config.encoder_rate
        self._drifts = config.drifting_statistics

    def gathers(self, stage: str) -> bool:
        """Returns whether the encoder's batch normalisation is in training mode in a stage."""
        return stage == FINE_TUNED or self._drifts

    def trainable(self, stage: str, path: tuple[str, ...]) -> bool:
        """Returns whether the parameter at `path` is trained: in "frozen" the head alone."""
        self.check_stage(stage)
        return stage == FINE_TUNED or path[0] != ENCODER

    def rate(self, stage: str, path: tuple[str, ...]) -> float:
        """Returns the factor on the learning rate of the parameter at `path`."""
        self.check_stage(stage)
        return self._encoder_rate if path[0] == ENCODER else 1.0

    def check_stage(self, stage: str) -> None:
        """Refuses a stage that the objective does not have."""
        if stage not in self.stages:
            raise ConfigError.of_value("config.stages", stage, f"one of {self.stages}")

    def encode_image(self, model: Any, image: jax.Array) -> ImageFeatures:
        """Returns the encoder's pooled vectors of images, in inference mode, without patches."""
        _, pooled = model.image_encoder(image, train=False)
        return pooled_alone(pooled)

    def encode_report(
        self,
        model: Any,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Refuses: the objective reads no reports."""
        raise self._reads_no_reports()

    def similarity(self, model: Any, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
        """Refuses: the objective reads no reports."""
        raise self._reads_no_reports()

    def _reads_no_reports(self) -> ConfigError:
        return ConfigError(
            f"{self.model_noun} reads no reports, so that images and reports cannot be compared.",
            "Evaluate it by a task on images alone.",
            where="config.objective",
        )


def pooled_alone(pooled: jax.Array) -> ImageFeatures:
    """Returns image features that have the pooled vectors [B, F] and no patch."""
    return ImageFeatures(local=pooled[:, None, :][:, :0], global_=pooled, pooled=pooled)
