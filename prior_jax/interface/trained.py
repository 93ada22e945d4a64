"""Opens what `launch.train` left in its folder, or a folder of weights."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from prior_jax import assemble
from prior_jax.config import read_kept_config
from prior_jax.data import image as image_lib
from prior_jax.data import pipeline
from prior_jax.data.manifest import load_manifest
from prior_jax.data.tokenizer import open_tokenizer, vocabulary
from prior_jax.errors import CheckpointError
from prior_jax.interface.imported import open_weights
from prior_jax.interface.inputs import TextSettings, sentence_splitter
from prior_jax.interface.model import Model
from prior_jax.interface.place import one_device
from prior_jax.interop.weights_folder import is_weights_folder
from prior_jax.sharding import mesh as mesh_lib
from prior_jax.strict import build
from prior_jax.train import checkpoint
from prior_jax.train.stages import Stage
from prior_jax.train.state import define_model

_FIRST_SPLITTER = "pysbd"  # of sets prepared before there was a choice


def load(workdir: str | os.PathLike[str], *, step: int | None = None) -> Model:
    """Loads a trained run, or weights, onto one device, whatever devices it was trained on.

    Args:
      workdir: folder of a run of `launch.train`. The prepared set that its config names is needed
        too, if only for its manifest: images are normalised and reports split as it says; and so
        are its checkpoints, where its config says they are. Or a folder of weights of a whole
        model, which has all that is needed: see `open_weights`.
      step: which checkpoint; None for the newest that is sound, or for weights.

    Returns:
      The model.

    Raises:
      DataError: if the folder is not that of a run, or its set or tokenizer cannot be read.
      ConfigError: if the run's config, or that of the weights, is not one of this version.
      CheckpointError: if there is no sound checkpoint of that step, or it was trained with another
        tokenizer; or a step is asked of weights.
      WeightsError: if weights cannot be used, saying what is missing.
    """
    folder = pathlib.Path(workdir)
    if is_weights_folder(folder):
        if step is not None:
            raise CheckpointError(
                str(folder), received=f"step {step}", accepted="None: weights have no steps"
            )
        return open_weights(folder)
    config = read_kept_config(folder)
    tokenizer, place = open_tokenizer(config.data.tokenizer), one_device()

    def objective(schedule: Sequence[Stage]):
        return assemble.objective(
            config.objective,
            config.model,
            vocabulary=vocabulary(tokenizer),
            schedule=schedule,
            place=place,
        )

    # Shapes do not depend on how long the stages were; what the bank's temperature ended at does,
    # and the checkpoint knows it without the training data at hand.
    definition = define_model(objective(()).init)
    whole = mesh_lib.replicated(place.mesh)
    checkpoints = config.train.checkpoint.folder(folder)
    params, rest, found = checkpoint.restore_model(
        checkpoints,
        params=_placed(definition.params, whole),
        rest=_placed(definition.rest, whole),
        step=step,
    )
    kept = checkpoint.read_document(checkpoints / str(found))["host"]
    trained_with = kept["identity"]["tokenizer"]
    if tokenizer.fingerprint != trained_with:
        raise CheckpointError(
            config.data.tokenizer.path,
            received=tokenizer.fingerprint,
            accepted=f"{trained_with} (sha256)",
        )
    schedule = [build(Stage, stage, name="checkpoint's stages") for stage in kept["stages"]]
    return Model(
        objective(schedule),
        definition.merge(params, rest),
        tokenizer=tokenizer,
        **_settings(config.data),
    )


def _placed(shapes: Mapping[str, jax.ShapeDtypeStruct], sharding: Any) -> dict[str, Any]:
    return {
        name: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
        for name, shape in shapes.items()
    }


def _settings(data: pipeline.DataConfig) -> dict[str, Any]:
    """How images and texts are read: as the prepared set and the config say."""
    manifest = load_manifest(data.path)
    splitter = sentence_splitter(
        manifest.settings.get("splitter", _FIRST_SPLITTER),
        field=f"{data.path}: manifest.settings.splitter",
    )
    return {
        "image": image_lib.with_statistics(
            data.image, mean=manifest.image.mean, std=manifest.image.std
        ),
        "text": TextSettings(
            split=splitter,
            mode=data.text_mode,
            max_tokens=data.max_tokens,
            max_sentences=data.max_sentences,
        ),
    }
