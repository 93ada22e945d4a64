"""Initial weights of a run's encoders: the section `config.init`, and the arrays it refers to."""

import dataclasses
from collections.abc import Mapping
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
        other files to such a folder), or None to initialise the encoder's parameters randomly.
      adapt: adaptations that make the weights fit, in order; see `adaptations.ADAPTATIONS`.
    """

    path: str | None
    adapt: tuple[str, ...]


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


def identity(config: InitConfig) -> dict[str, Any]:
    """Returns the settings that must be the same when a run is resumed: weights and adaptations.

    No array is read.

    Returns:
      Field name -> JSON value, None for an encoder that is initialised randomly.

    Raises:
      WeightsError: if a folder is absent, damaged, or lacks the encoder.
    """
    found: dict[str, Any] = {f"config.init.{name}": None for name in get_args(Encoder)}
    for encoder, given in config.given().items():
        document = _document(str(given.path), encoder)
        found[f"config.init.{encoder}"] = {
            "weights": document.fingerprint,
            "adapt": list(given.adapt),
        }
    return found


def initial_values(
    config: InitConfig,
    shapes: Mapping[str, Any],
    *,
    model: Mapping[str, Any],
    tokenizer: str,
) -> dict[str, np.ndarray]:
    """Returns the arrays that a run starts from in place of randomly initialised ones.

    Args:
      config: the section `config.init`.
      shapes: path -> anything with a shape, for every leaf of the model, batch statistics included,
        since those start from the weights as well.
      model: the section `config.model`.
      tokenizer: fingerprint of the run's tokenizer.

    Returns:
      path -> array, relative to the whole model; empty if both encoders are initialised randomly.

    Raises:
      WeightsError: if a folder is damaged, lacks the encoder or does not fit it.
      ConfigError: if an adaptation changes nothing, or if a setting that does not show in any shape
        differs from the one the weights were trained with.
    """
    values: dict[str, np.ndarray] = {}
    for encoder, given in config.given().items():
        field, prefix = f"config.init.{encoder}", f"{encoder}_encoder/"
        document = _document(str(given.path), encoder)
        weights = load_weights(str(given.path))
        arrays = weights.arrays
        if document.part == "model":
            arrays = _below(arrays, prefix)
        fit = Fit(
            arrays=arrays,
            shapes={name: tuple(x.shape) for name, x in _below(shapes, prefix).items()},
            refused=_refused(str(given.path), tokenizer) if encoder == "text" else {},
        )
        found = adapted(fit, given.adapt, encoder=encoder, field=field)
        _check_unseen(document, encoder, model=model[encoder], used=found)
        logging.info("%s: %d arrays of %s", field, len(found), dict(document.origin))
        values.update({f"{prefix}{name}": array for name, array in found.items()})
    return values


def _document(path: str, encoder: Encoder) -> Document:
    document = read_document(path)
    if document.part not in (encoder, "model"):
        raise WeightsError(
            f"{path} holds weights of part {document.part!r}, without a {encoder} encoder.",
            f'Give a folder of weights of part "{encoder}" or "model".',
            where=f"config.init.{encoder}.path",
        )
    return document


def _below(table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: x for name, x in table.items() if name.startswith(prefix)}


def _refused(folder: str, tokenizer: str) -> dict[str, str]:
    """Returns the reason to refuse the word embedding if it belongs to another tokenizer."""
    own = tokenizer_config(folder)
    if own is None:
        reason = (
            "it belongs to an unknown tokenizer; import the weights again with --tokenizer=FILE"
        )
    elif open_tokenizer(own).fingerprint != tokenizer:
        reason = (
            "it belongs to another tokenizer than config.data.tokenizer; the weights' is "
            f"kind={own.kind}, path={own.path}, lower_case={own.lower_case}"
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
