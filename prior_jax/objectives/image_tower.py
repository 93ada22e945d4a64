"""An image encoder alone, in the form that evaluation expects; it reads no reports."""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.types import ImageFeatures, ReportFeatures


def pooled_of(found: Any) -> jax.Array:
    """Returns the pooled vectors, [B, F], of what either kind of image encoder gives."""
    return found[1] if isinstance(found, tuple) else found.pooled


class ImageTower:
    """Encodes images for probes; it cannot be trained, and has nothing to compare with text."""

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module]):
        """Keeps the function that builds the encoder with random weights."""
        self._make = make

    def init(self, rngs: nnx.Rngs) -> nnx.Module:
        """Builds the encoder with random weights."""
        return self._make(rngs)

    def encode_image(self, model: Any, image: jax.Array) -> ImageFeatures:
        """Returns the pooled vectors of images, in inference mode, without patches."""
        pooled = pooled_of(model(image, train=False))
        return ImageFeatures(local=pooled[:, None, :][:, :0], global_=pooled, pooled=pooled)

    def encode_report(
        self,
        model: Any,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> ReportFeatures:
        """Refuses: an image encoder reads no reports."""
        _refuse()

    def similarity(self, model: Any, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
        """Refuses: an image encoder compares with no reports."""
        _refuse()


def _refuse() -> NoReturn:
    raise ConfigError(
        "An image encoder alone reads no reports.",
        "Evaluate it with a task about images, such as configs/eval/probe.py.",
        where="task.task",
    )
