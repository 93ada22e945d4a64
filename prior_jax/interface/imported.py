"""Opens a folder of weights: a model that was imported, or exported from a run."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from prior_jax import assemble
from prior_jax.config import read_model
from prior_jax.data.image import ImageConfig
from prior_jax.data.tokenizer import Tokenizer, open_tokenizer, vocabulary
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interface.inputs import TextSettings, sentence_splitter
from prior_jax.interface.model import Model
from prior_jax.interface.place import filled, one_device
from prior_jax.interop.weights_folder import (
    DOCUMENT,
    Document,
    load_weights,
    read_document,
    tokenizer_file,
)
from prior_jax.interop.weights_input import tokenizer_config
from prior_jax.objectives.base import in_stage
from prior_jax.objectives.kinds import KINDS
from prior_jax.strict import build
from prior_jax.train.state import define_model

LOADERS: Mapping[str, str] = {
    "classification": "load_classifier",
    "segmentation": "load_segmenter",
    "detection": "load_detector",
}
"""Objective that reads no reports -> function of `prior_jax` that opens its models."""

_WORDS = "text_encoder/word_embedding"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Input:
    """The settings that `weights.json` must contain under `data`, as in `config.data`.

    Attributes:
      image: settings of the images: size, channels, mean and std.
      text_mode: mode of text processing, see data/text.py.
      max_tokens: longest report in tokens, including [CLS] and [SEP].
      max_sentences: largest number of sentences; the rest of a report is left out. The default is
        32 as in configs/prior/base.py, for weights that were trained without such a limit.
      splitter: name of the function that splits reports into sentences, one of
        `data.sentences.SPLITTERS`.
    """

    image: ImageConfig
    text_mode: Literal["paper", "release"]
    max_tokens: int
    max_sentences: int = 32
    splitter: str = "pysbd"


def open_weights(folder: str | os.PathLike[str]) -> Model:
    """Loads a whole model from a folder of weights onto one device.

    Args:
      folder: folder written by `launch.import_weights` (with a tokenizer) or `launch.export
        --format=nnx`.

    Returns:
      The model.

    Raises:
      WeightsError: if the folder is damaged, holds only an encoder or no tokenizer, or its arrays
        do not match its model.
      ConfigError: if `weights.json` lacks a setting of the model or of its input; names the
        setting.
    """
    folder = pathlib.Path(folder)
    document = read_document(folder)
    kind = document.objective
    if document.part != "model" or kind is None or kind not in KINDS:
        raise WeightsError(
            f"The folder holds the part {document.part!r} of the objective {document.objective!r}, "
            "which is not a whole model of a known objective.",
            f"Give weights of the part 'model' of one of the objectives {', '.join(KINDS)}; an "
            "encoder alone can only begin a training, with config.init.",
            where=f"{folder / DOCUMENT}",
        )
    check_reads_reports(kind, where=str(folder))
    tokenizer = _tokenizer(folder, document)
    settings = _settings(folder, document)
    words = vocabulary(tokenizer)
    objective = assemble.objective(
        kind,
        read_model(kind, document.model, image=document.data["image"], vocabulary=words),
        vocabulary=words,
        schedule=(),
        place=(place := one_device()),
    )
    definition = define_model(objective.init)
    arrays = load_weights(folder).arrays
    module = filled(definition, arrays, place=place, field=f"{folder}")
    stage = document.origin.get("stage")
    objective = objective if stage is None else in_stage(objective, stage)
    return Model(objective, module, tokenizer=tokenizer, **settings)


def check_reads_reports(kind: str, *, where: str) -> None:
    """Refuses a model that reads no reports, and names what opens it.

    Args:
      kind: name of the model's objective.
      where: its folder, for the message.

    Raises:
      ConfigError: if the objective reads no reports.
    """
    if not KINDS[kind].reads_reports:
        raise ConfigError(
            f"The model's objective {kind!r} reads no reports.",
            f"Open it with prior_jax.{LOADERS[kind]}.",
            where=where,
        )


def _settings(folder: pathlib.Path, document: Document) -> dict[str, Any]:
    """Returns the image and text settings that the weights' file specifies."""
    where = f"{folder / DOCUMENT}: data"
    known = {field.name for field in dataclasses.fields(_Input)}
    section = {key: value for key, value in document.data.items() if key in known}
    read = build(_Input, section, name=where)
    if read.image.mean is None:
        raise WeightsError(
            "The mean that normalises images is missing.",
            "Write one number a channel, and the same for std.",
            where=f"{where}.image.mean",
        )
    return {
        "image": read.image,
        "text": TextSettings(
            split=sentence_splitter(read.splitter, field=f"{where}.splitter"),
            mode=read.text_mode,
            max_tokens=read.max_tokens,
            max_sentences=read.max_sentences,
        ),
    }


def _tokenizer(folder: pathlib.Path, document: Document) -> Tokenizer:
    """Opens the tokenizer in the folder; its size must equal the number of word embeddings."""
    config = tokenizer_config(folder)
    if config is None:
        raise WeightsError(
            "The folder has no tokenizer, so that the model cannot read text.",
            "Import the weights again with --tokenizer=FILE, the vocabulary that the model was "
            "trained with; for PRIOR and GLoRIA it is the vocab.txt of Bio_ClinicalBERT.",
            where=f"{folder / 'tokenizer'}",
        )
    tokenizer = open_tokenizer(config)
    shape = document.arrays[_WORDS][0] if _WORDS in document.arrays else None
    if shape is not None and shape[0] != tokenizer.vocab_size:
        raise WeightsError(
            f"The tokenizer has {tokenizer.vocab_size} tokens, but the weights have word "
            f"embeddings for {shape[0]}.",
            "Give the tokenizer that the model was trained with, by importing the weights again "
            "with --tokenizer=FILE.",
            where=f"{tokenizer_file(folder)}",
        )
    return tokenizer
