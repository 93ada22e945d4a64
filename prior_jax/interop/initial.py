"""Initial weights of a run's encoders: the section `config.init`, and the arrays it refers to."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
from absl import logging

from prior_jax.data.tokenizer import open_tokenizer
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.adaptations import Encoder, Fit, adapted, check_names
from prior_jax.interop.weights_folder import Document, load_weights, read_document
from prior_jax.interop.weights_input import tokenizer_config

# Settings that do not show in any array's shape, but that the weights were trained with.
_UNSEEN: Mapping[Encoder, tuple[tuple[str, ...], ...]] = {
    "image": (("resnet", "stem_pool"), ("pool_heads",)),
    "text": (("heads",),),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderInit:
    """Initial weights of one encoder.

    Attributes:
      path: folder of weights of this encoder or of a whole model (`launch.import_weights` converts
        other files to such a folder), folder of a run of any objective (its encoder is taken from a
        checkpoint), or None to initialise the encoder's parameters randomly.
      adapt: adaptations that make the weights fit, in order; see `adaptations.ADAPTATIONS`.
      step: step of the run's checkpoint; None for the newest, and of a training of the evaluation
        task "finetune" for the one that its results were measured on. A run that may go on
        training, or delete old checkpoints, should be given with a step that it keeps. Weights have
        no step.
    """

    path: str | None
    adapt: tuple[str, ...]
    step: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """Weights that have been found, and not read yet.

    Attributes:
      document: description of the weights, with the table of their arrays.
      read: function that reads the arrays, path -> array.
      tokenizer: function that returns the fingerprint of the weights' tokenizer and a description
        of it; None for weights without a tokenizer.
    """

    document: Document
    read: Callable[[], Mapping[str, np.ndarray]]
    tokenizer: Callable[[], tuple[str, str] | None]


Open = Callable[[EncoderInit], Opened]
"""Function that finds the weights that a section names."""


def open_folder(given: EncoderInit) -> Opened:
    """Finds the weights in a folder of weights.

    Raises:
      WeightsError: if the folder is absent or damaged, or a step is given.
    """
    folder = str(given.path)
    document = read_document(folder)
    if given.step is not None:
        raise WeightsError(
            f"{folder} holds weights, which have no step {given.step}.",
            "Leave out the step, or name the folder of a run.",
            where="step",
        )
    return Opened(
        document=document,
        read=lambda: load_weights(folder).arrays,
        tokenizer=lambda: _tokenizer_of(folder),
    )


def _tokenizer_of(folder: str) -> tuple[str, str] | None:
    own = tokenizer_config(folder)
    if own is None:
        return None
    described = f"kind={own.kind}, path={own.path}, lower_case={own.lower_case}"
    return open_tokenizer(own).fingerprint, described


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
    """The section `config.init`; all other parameters of the model are initialised randomly.

    Attributes:
      image: initial weights of the image encoder; None, like a path of None, means random
        initialisation.
      text: initial weights of the text encoder, likewise.
    """

    image: EncoderInit | None
    text: EncoderInit | None

    def __post_init__(self):
        """Refuses adaptations that do not exist, and adaptations without a path of weights."""
        for encoder in get_args(Encoder):
            given = getattr(self, encoder)
            if given is None:
                continue
            check_names(given.adapt, encoder=encoder, field=encoder)
            if given.path is None and given.adapt:
                raise ConfigError(
                    f"The adaptations {given.adapt} are for weights, and there is no path of any.",
                    f"Set {encoder}.path to a folder of weights, or {encoder}.adapt to ().",
                    where=f"{encoder}.adapt",
                )

    def given(self) -> dict[Encoder, EncoderInit]:
        """Returns the encoders that start from weights."""
        both: dict[Encoder, EncoderInit | None] = {"image": self.image, "text": self.text}
        return {name: one for name, one in both.items() if one is not None and one.path is not None}


def identity(starts: Mapping[Encoder, EncoderInit], *, find: Open = open_folder) -> dict[str, Any]:
    """Returns the settings that must be the same when a run is resumed: weights and adaptations.

    No array is read.

    Args:
      starts: the encoders that start from weights, `InitConfig.given()`.
      find: function that finds the weights that a section names.

    Returns:
      Field name -> JSON value, None for an encoder that is initialised randomly.

    Raises:
      WeightsError: if a folder is absent, damaged, or lacks the encoder.
    """
    found: dict[str, Any] = {f"config.init.{name}": None for name in get_args(Encoder)}
    for encoder, given in starts.items():
        document = _found(given, encoder, find=find).document
        found[f"config.init.{encoder}"] = {
            "weights": document.fingerprint,
            "adapt": list(given.adapt),
        }
    return found


def initial_values(
    starts: Mapping[Encoder, EncoderInit],
    shapes: Mapping[str, Any],
    *,
    model: Mapping[str, Any],
    tokenizer: str,
    find: Open = open_folder,
) -> dict[str, np.ndarray]:
    """Returns the arrays that a run starts from in place of randomly initialised ones.

    Args:
      starts: the encoders that start from weights, `InitConfig.given()`.
      shapes: path -> anything with a shape, for every leaf of the model, batch statistics included,
        since those start from the weights as well.
      model: the section `config.model`.
      tokenizer: fingerprint of the run's tokenizer.
      find: function that finds the weights that a section names.

    Returns:
      path -> array, relative to the whole model; empty if both encoders are initialised randomly.

    Raises:
      WeightsError: if a folder is damaged, lacks the encoder or does not fit it.
      ConfigError: if an adaptation changes nothing, or if a setting that does not show in any shape
        differs from the one the weights were trained with.
    """
    values: dict[str, np.ndarray] = {}
    for encoder, given in starts.items():
        field, prefix = f"config.init.{encoder}", f"{encoder}_encoder/"
        if encoder not in model:
            raise ConfigError(
                f"The model has no {encoder} encoder that could start from weights.",
                f"Remove {field}.path.",
                where=f"{field}.path",
            )
        opened = _found(given, encoder, find=find)
        document, arrays = opened.document, opened.read()
        if document.part == "model":
            _tell_unused(arrays, prefix, field=field)
            arrays = _below(arrays, prefix)
        fit = Fit(
            arrays=arrays,
            shapes={name: tuple(x.shape) for name, x in _below(shapes, prefix).items()},
            refused=_refused(opened.tokenizer(), tokenizer) if encoder == "text" else {},
        )
        found = adapted(fit, given.adapt, encoder=encoder, field=field)
        _check_unseen(document, encoder, model=model[encoder], used=found)
        logging.info("%s: %d arrays of %s", field, len(found), dict(document.origin))
        values.update({f"{prefix}{name}": array for name, array in found.items()})
    return values


def _found(given: EncoderInit, encoder: Encoder, *, find: Open) -> Opened:
    opened = find(given)
    if opened.document.part not in (encoder, "model"):
        raise WeightsError(
            f"{given.path} holds weights of part {opened.document.part!r}, without a {encoder} "
            "encoder.",
            f'Give a folder of weights of part "{encoder}" or "model".',
            where=f"config.init.{encoder}.path",
        )
    return opened


def _below(table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: x for name, x in table.items() if name.startswith(prefix)}


def _tell_unused(arrays: Mapping[str, Any], prefix: str, *, field: str) -> None:
    """Logs the parts of a whole model that the run does not take from these weights."""
    counts: dict[str, int] = {}
    for name in arrays:
        if not name.startswith(prefix):
            part = name.split("/")[0]
            counts[part] = counts.get(part, 0) + 1
    if counts:
        parts = ", ".join(f"{part} ({count} arrays)" for part, count in sorted(counts.items()))
        logging.info("%s: not used of these weights: %s", field, parts)


def _refused(own: tuple[str, str] | None, tokenizer: str) -> dict[str, str]:
    """Returns the reason to refuse the word embedding if it belongs to another tokenizer."""
    if own is None:
        reason = (
            "it belongs to an unknown tokenizer; import the weights again with --tokenizer=FILE"
        )
    elif own[0] != tokenizer:
        reason = (
            f"it belongs to another tokenizer than config.data.tokenizer; the weights' is {own[1]}"
        )
    else:
        return {}
    return {"word_embedding": reason}


def _check_unseen(
    document: Document, encoder: Encoder, *, model: Mapping[str, Any], used: Mapping[str, Any]
) -> None:
    """Refuses settings that differ from the weights' own but do not show in any array's shape."""
    theirs = document.model[encoder] if document.part == "model" else document.model
    for path in _UNSEEN[encoder]:
        if path == ("pool_heads",) and not any(name.startswith("pool/") for name in used):
            continue
        wanted, ours = _at(theirs, path), _at(model, path)
        if wanted is not None and ours != wanted:
            name = ".".join(("config.model", encoder, *path))
            raise ConfigError(
                f"The value is {ours!r}, but the initial weights were trained with {wanted!r}.",
                f"Set --{name}={wanted}.",
                where=name,
            )


def _at(section: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Returns the value at a path of nested sections, or None if there is none."""
    value: Any = section
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
