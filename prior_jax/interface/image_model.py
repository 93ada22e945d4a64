"""Opens what models of images are made of: trained ones, and the encoders of any model."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from prior_jax import assemble
from prior_jax.config import CONFIG_NAME, kept_json, read_kept_config, read_model
from prior_jax.data import image as image_lib
from prior_jax.data.manifest import load_manifest
from prior_jax.data.tokenizer import unknown_vocabulary
from prior_jax.errors import ConfigError, DataError, WeightsError
from prior_jax.interface.image_encoder import open_image_encoder
from prior_jax.interface.imported import LOADERS
from prior_jax.interface.place import filled, one_device
from prior_jax.interface.trained import load, restored
from prior_jax.interop.weights_folder import (
    DOCUMENT,
    is_weights_folder,
    load_weights,
    read_document,
)
from prior_jax.objectives.base import Objective
from prior_jax.objectives.kinds import KINDS
from prior_jax.sharding.placement import to_device
from prior_jax.strict import build
from prior_jax.train.state import define_model

_MOST_NAMED = 5  # folders in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A trained model of an objective that reads no reports.

    Attributes:
      objective: objective of the model.
      module: module with all weights.
      image: settings of its images, mean and std included where they are known.
    """

    objective: Objective
    module: nnx.Module
    image: image_lib.ImageConfig


def open_image_model(folder: pathlib.Path, *, step: int | None) -> ImageModel:
    """Opens a run of an objective that reads no reports, or a folder of weights of such a model.

    Args:
      folder: folder of the run or of the weights.
      step: step of the checkpoint; None for the one that stands for the run, see `restored`.

    Raises:
      DataError, ConfigError, CheckpointError, WeightsError: if it cannot be opened.
    """
    if is_weights_folder(folder):
        return _of_weights(folder, step=step)
    config = read_kept_config(folder)
    objective = _objective(config.objective, config.model)
    module, _ = restored(folder, config, define_model(objective.init), step=step)
    statistics = load_manifest(config.data.path).image
    image = image_lib.with_statistics(config.data.image, mean=statistics.mean, std=statistics.std)
    return ImageModel(objective=objective, module=module, image=image)


def _of_weights(folder: pathlib.Path, *, step: int | None) -> ImageModel:
    _check_no_step(folder, step)
    weights, kind = load_weights(folder), objective_of(folder)
    if kind is None:
        raise WeightsError(
            f"These are weights of the part {weights.part!r}, not of a whole model.",
            "Give weights of the part 'model'.",
            where=os.fspath(folder),
        )
    where = f"{folder / DOCUMENT}: data.image"
    image = build(
        image_lib.ImageConfig, {"mean": None, "std": None, **weights.data["image"]}, name=where
    )
    settings = read_model(
        kind,
        weights.model,
        image={"size": image.size, "channels": image.channels},
        vocabulary=unknown_vocabulary(1),
    )
    objective = _objective(kind, settings)
    definition = define_model(objective.init)
    module = filled(definition, weights.arrays, place=one_device(), field=os.fspath(folder))
    return ImageModel(objective=objective, module=module, image=image)


def _objective(kind: str, settings: Any) -> Objective:
    return assemble.objective(
        kind, settings, vocabulary=unknown_vocabulary(1), schedule=(), place=one_device()
    )


def open_encoder(
    folder: pathlib.Path, *, step: int | None
) -> tuple[Any, image_lib.ImageConfig, int]:
    """Opens the image encoder of a run of any objective, or of a folder of weights.

    Args:
      folder: folder of the run or of the weights.
      step: step of the run's checkpoint; None for the one that stands for it.

    Returns:
      The encoder, the settings of its images, and the number of features of its pooled vector.
    """
    if is_weights_folder(folder):
        _check_no_step(folder, step)
        opened = open_image_encoder(folder)
        return opened.module, opened.image, opened.features
    kind = KINDS.get(objective_of(folder) or "")
    without_text = kind is not None and not kind.reads_reports
    model = open_image_model(folder, step=step) if without_text else load(folder, step=step)
    module: Any = model.module
    objective: Any = model.objective
    return module.image_encoder, model.image, objective.config.image.resnet.features


def objective_of(folder: pathlib.Path) -> str | None:
    """Returns the name of the objective of a run or of weights; None for those of an encoder."""
    if is_weights_folder(folder):
        return read_document(folder).objective
    return kept_json(folder).get("objective")


def check_is_model(folder: pathlib.Path, *, kind: str) -> None:
    """Refuses a folder that holds neither a run nor weights, such as one of results.

    Args:
      folder: the folder.
      kind: objective of the fine-tuned models that the message names.

    Raises:
      DataError: naming the fine-tuned models in the folder.
    """
    if is_weights_folder(folder) or (folder / CONFIG_NAME).is_file():
        return
    raise DataError(
        f"This is not the folder of a model: it has neither the file {CONFIG_NAME} of a run nor "
        f"the file {DOCUMENT} of weights.",
        f"Give the folder of a run or of weights, or that of a fine-tuned model: "
        f"{models_in(folder, kind=kind)}.",
        where=os.fspath(folder),
    )


def check_source(folder: pathlib.Path, num_classes: int | None, *, kind: str, head: str) -> None:
    """Refuses a folder without a model, or without the trained head that is to be loaded.

    Args:
      folder: the folder.
      num_classes: number of classes of a new head; None for the trained one.
      kind: objective that trains such a head.
      head: name of the head, such as "head".

    Raises:
      DataError: see `check_is_model`.
      WeightsError: see `needs_classes`.
    """
    check_is_model(folder, kind=kind)
    if num_classes is None and objective_of(folder) != kind:
        raise needs_classes(folder, kind=kind, head=head)


def needs_classes(folder: pathlib.Path, *, kind: str, head: str) -> WeightsError:
    """Returns the error for a model without a trained head, of which no new one is asked for.

    Args:
      folder: folder of the model.
      kind: objective that trains such a head.
      head: name of what the model lacks, such as "head".
    """
    there = objective_of(folder)
    loader = LOADERS.get(there or "")
    other = "" if loader is None else f" Open this one with prior_jax.{loader}."
    return WeightsError(
        f"The number of classes is missing, and this model has no trained {head}.",
        f"Give num_classes for a new {head}, or the folder of a trained model of the objective "
        f"{kind!r}: {models_in(folder, kind=kind)}.{other}",
        where=os.fspath(folder),
    )


def check_classes(num_classes: object) -> None:
    """Refuses what is no number of classes; a user may give any value, whatever the type says.

    Raises:
      ConfigError: if it is neither an integer of at least 1 nor None.
    """
    if num_classes is None or (
        isinstance(num_classes, int | np.integer)
        and not isinstance(num_classes, bool)
        and num_classes >= 1
    ):
        return
    raise ConfigError.of_value("num_classes", num_classes, "an integer of at least 1, or None")


def models_in(folder: pathlib.Path, *, kind: str) -> str:
    """Returns the folders of models that were fine-tuned in a folder of results, in words.

    Args:
      folder: folder of results.
      kind: objective of the models.
    """
    found = sorted(
        str(path.parent)
        for pattern in ("", "suite/*/", "suite/*/imagenet/")
        for path in folder.glob(f"{pattern}finetune/*/model/{CONFIG_NAME}")
        if _given(path).get("objective", kind) == kind
    )
    if not found:
        return "finetune/<result>/model in the folder of the results of a task that trains"
    more = f" (and {len(found) - _MOST_NAMED} more)" if len(found) > _MOST_NAMED else ""
    return f"{', '.join(found[:_MOST_NAMED])}{more}"


def _given(path: pathlib.Path) -> Mapping[str, Any]:
    """Returns the config of a model; {} where it cannot be read, so that it is named as well."""
    try:
        found: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def on_encoder(make: Callable[[], nnx.Module], encoder: Any, *, head: str) -> Any:
    """Builds a model of a pre-trained encoder and a new head, without drawing another encoder.

    Args:
      make: function that builds the model with random weights.
      encoder: image encoder, whose ResNet the model gets.
      head: name of the attribute of the model that is new.
    """
    # Flax gives neither its shapes nor the function of `jit` types.
    whole: Any = nnx.eval_shape(make)
    fresh: Any = nnx.jit(lambda: getattr(make(), head))  # pyright: ignore
    setattr(whole, head, fresh())
    whole.image_encoder.resnet = encoder.resnet
    return whole


def in_blocks(
    function: Callable[[Any, jax.Array], Any],
    module: nnx.Module,
    pixels: np.ndarray,
    *,
    block: int,
) -> list[Any]:
    """Runs a function on images, some at a time.

    Args:
      function: compiled function (module, images) -> a tree of arrays.
      module: module that it is given.
      pixels: normalised images, float32[N, H, W, C].
      block: number of images at a time.

    Returns:
      What it gave for each block, on the host.
    """
    return [
        jax.tree.map(np.asarray, function(module, to_device(pixels[start : start + block])))
        for start in range(0, len(pixels), block)
    ]


def _check_no_step(folder: pathlib.Path, step: int | None) -> None:
    if step is not None:
        raise WeightsError(
            f"Weights have no step {step}.", "Leave out the step.", where=os.fspath(folder)
        )
