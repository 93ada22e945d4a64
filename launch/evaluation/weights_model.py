"""Opens the model in a folder of weights, whole or its image encoder alone."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from flax import nnx

from prior_jax.data import image as image_lib
from prior_jax.data import no_text, pipeline
from prior_jax.interface.image_encoder import open_image_encoder
from prior_jax.interface.imported import open_weights
from prior_jax.interface.inputs import check_image_config
from prior_jax.interop.weights_folder import Document
from prior_jax.interop.weights_input import tokenizer_config
from prior_jax.objectives.base import Encodes
from prior_jax.objectives.image_tower import ImageTower

IMAGE_ALONE = "image"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsModel:
    """A model of a folder of weights, and what it reads.

    Attributes:
      objective: objective of the model.
      module: the model with its weights.
      name: name of the objective, IMAGE_ALONE for an image encoder alone.
      image: settings of its images.
      text: settings of its reports, the other fields of a data config that a model determines.
    """

    objective: Encodes
    module: nnx.Module
    name: str
    image: image_lib.ImageConfig
    text: Mapping[str, Any]

    def data(self, path: str) -> pipeline.DataConfig:
        """Returns the settings by which the model reads a prepared set, its images unchanged."""
        return pipeline.DataConfig(
            **self.text,
            path=path,
            image=self.image,
            augment=image_lib.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0),
            batch_size=1,
            seed=0,
            workers=0,
            threads=os.cpu_count() or 1,
            prefetch=2,
        )


def open_model(folder: pathlib.Path, document: Document, *, reads_text: bool) -> WeightsModel:
    """Opens the whole model if it is there with its tokenizer, and else its image encoder alone.

    Args:
      folder: folder of the weights.
      document: what the folder says of itself.
      reads_text: whether text is to be read, so that a whole model without a tokenizer is refused.

    Raises:
      WeightsError: if the folder is damaged, or lacks what is to be opened.
      ConfigError: if it lacks a setting of the model or of its input.
    """
    if document.part == "model" and (reads_text or document.tokenizer):
        return _whole_model(folder, name=str(document.objective))
    return _image_encoder(folder)


def _whole_model(folder: pathlib.Path, *, name: str) -> WeightsModel:
    """Opens a whole model; reports are read as in its training."""
    model = open_weights(folder)
    return WeightsModel(
        objective=model.objective,
        module=model.module,
        name=name,
        image=model.image,
        text={
            "tokenizer": tokenizer_config(folder),
            "caption": "report",
            "text_mode": model.text.mode,
            "text_sources": ("report",),
            "shuffle_sentences": False,
            "max_tokens": model.text.max_tokens,
            "max_sentences": model.text.max_sentences,
            "buckets": _buckets(model.text.max_tokens, mode=model.text.mode),
            "bucket_window": 1,
        },
    )


def _image_encoder(folder: pathlib.Path) -> WeightsModel:
    """Opens the image encoder alone, which reads no reports."""
    opened = open_image_encoder(folder)
    check_image_config(opened.image)
    return WeightsModel(
        objective=ImageTower(opened.make),
        module=opened.module,
        name=IMAGE_ALONE,
        image=opened.image,
        text={**no_text.SECTION, "tokenizer": no_text.TOKENIZER},
    )


def _buckets(longest: int, *, mode: str) -> tuple[int, ...]:
    """Returns the padded lengths of reports: powers of two and the longest, or it alone."""
    if mode == "release":
        return (longest,)
    shorter = (1 << power for power in range(5, longest.bit_length()))
    return (*(length for length in shorter if length < longest), longest)
