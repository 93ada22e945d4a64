"""Opens the folder of a `launch.train` run, or a folder of weights."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from prior_jax import assemble
from prior_jax.config import read_kept_config
from prior_jax.data import image as image_lib
from prior_jax.data import pipeline
from prior_jax.data.manifest import Manifest, load_manifest
from prior_jax.data.tokenizer import Tokenizer, open_tokenizer, vocabulary
from prior_jax.errors import CheckpointError
from prior_jax.interface.imported import check_reads_reports, open_weights
from prior_jax.interface.inputs import TextSettings, sentence_splitter
from prior_jax.interface.model import Model
from prior_jax.interface.place import one_device
from prior_jax.interop.weights_folder import is_weights_folder
from prior_jax.objectives.base import in_stage
from prior_jax.run_config import RunConfig
from prior_jax.sharding import mesh as mesh_lib
from prior_jax.strict import build
from prior_jax.train import checkpoint_read, resume
from prior_jax.train.measured_step import measured_step
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.state import ModelDefinition, define_model

_FIRST_SPLITTER = "pysbd"  # of sets prepared before the splitter could be chosen


def load(workdir: str | os.PathLike[str], *, step: int | None = None) -> Model:
    """Loads a trained run, or weights, onto one device, whatever devices it was trained on.

    Args:
      workdir: folder of a run of `launch.train`. The prepared set that it was trained on is needed
        too, where its config names it, at least its manifest, which tells how images are normalised
        and reports are split; so are the checkpoints, at the location that the config names.
        Alternatively, a folder of weights of a whole model, which is self-contained: see
        `open_weights`.
      step: step of the checkpoint to load; None for the newest intact checkpoint, also of a run
        that keeps its best ones, or for weights.

    Returns:
      The model.

    Raises:
      DataError: if the folder is not that of a run, or its prepared set or tokenizer cannot be
        read.
      ConfigError: if the config of the run, or of the weights, does not belong to this version.
      CheckpointError: if there is no intact checkpoint of that step, or it was trained on another
        prepared set or with another tokenizer, or a step is given for weights.
      WeightsError: if the weights cannot be used; names what is missing.
    """
    folder = pathlib.Path(workdir)
    if is_weights_folder(folder):
        _check_no_step(folder, step)
        return open_weights(folder)
    config = read_kept_config(folder)
    check_reads_reports(config.objective, where=str(folder))
    tokenizer, place = open_tokenizer(config.data.tokenizer), one_device()

    def objective(schedule: Sequence[Stage]):
        return assemble.objective(
            config.objective,
            config.model,
            vocabulary=vocabulary(tokenizer),
            schedule=schedule,
            place=place,
        )

    # Shapes do not depend on the lengths of the stages. The end value of the bank's temperature
    # does, and the checkpoint holds it, so the training data is not needed.
    definition = define_model(objective(()).init)
    module, kept = restored(folder, config, definition, step=step)
    check_tokenizer(tokenizer, kept["identity"], path=config.data.tokenizer.path)
    schedule = schedule_of(kept)
    trained = in_stage(objective(schedule.stages), schedule.before(kept["step"]).name)
    return Model(trained, module, tokenizer=tokenizer, **_settings(config.data))


def _check_no_step(folder: pathlib.Path, step: int | None) -> None:
    if step is not None:
        raise CheckpointError(
            f"The folder holds weights, which have no steps, but step {step} was requested.",
            "Leave the step out.",
            where=str(folder),
        )


def check_tokenizer(tokenizer: Tokenizer, identity: Mapping[str, Any], *, path: str) -> None:
    """Refuses another tokenizer than the one that a run was trained with.

    Args:
      tokenizer: tokenizer that the run's config names.
      identity: entries "identity" of the checkpoint, which tell the run from others; a checkpoint
        that does not tell its tokenizer is accepted.
      path: path of the tokenizer, for the message.

    Raises:
      CheckpointError: if the contents of the tokenizer's file are others.
    """
    trained_with = identity.get(resume.TOKENIZER, tokenizer.fingerprint)
    if tokenizer.fingerprint != trained_with:
        raise CheckpointError(
            f"The tokenizer has the sha256 {tokenizer.fingerprint}, but the run was trained with "
            f"{trained_with}.",
            "Restore the tokenizer that the run was trained with.",
            where=path,
        )


def check_trained_on(manifest: Manifest, identity: Mapping[str, Any], *, path: str) -> None:
    """Refuses another prepared set than the one that a run was trained on.

    Args:
      manifest: manifest of the set that the run's config names.
      identity: entries "identity" of the checkpoint, which tell the run from others; a checkpoint
        that does not tell its set is accepted.
      path: folder of the set, for the message.

    Raises:
      CheckpointError: if the records of the set are others.
    """
    trained_on = identity.get(resume.DATA_SET, manifest.fingerprint)
    if manifest.fingerprint != trained_on:
        raise CheckpointError(
            f"The prepared set has the fingerprint {manifest.fingerprint}, but the run was trained "
            f"on {trained_on}.",
            "Restore the set that the run was trained on. Another set to evaluate on is given to "
            "launch.evaluate with --task.data.path=DIR.",
            where=path,
        )


def restored(
    folder: pathlib.Path, config: RunConfig, definition: ModelDefinition, *, step: int | None
) -> tuple[nnx.Module, dict[str, Any]]:
    """Restores the model of a run's checkpoint onto one device.

    Args:
      folder: folder of the run.
      config: config of the run.
      definition: definition of its model.
      step: step of the checkpoint. None is, for a training of the task "finetune", the one that its
        results were measured on, see `measured_step`; for any other run the newest intact one.

    Returns:
      The model, and the values that its checkpoint keeps of the run on the host.

    Raises:
      DataError: if the manifest of the run's prepared set cannot be read.
      CheckpointError: if there is no intact checkpoint of that step, or the run was trained on
        another prepared set than its config now names.
    """
    if step is None:
        step = measured_step(folder, config.train.checkpoint)
    whole = mesh_lib.replicated(one_device().mesh)
    checkpoints = config.train.checkpoint.folder(folder)
    params, rest, found = checkpoint_read.restore_model(
        checkpoints,
        params=_placed(definition.params, whole),
        rest=_placed(definition.rest, whole),
        step=step,
    )
    kept = checkpoint_read.read_document(checkpoints / str(found))["host"]
    path = config.data.path
    check_trained_on(load_manifest(path), kept["identity"], path=path)
    return definition.merge(params, rest), kept


def schedule_of(kept: Mapping[str, Any]) -> Schedule:
    """Returns the stages that the values of a checkpoint on the host tell of."""
    return Schedule([build(Stage, stage, name="checkpoint's stages") for stage in kept["stages"]])


def _placed(shapes: Mapping[str, jax.ShapeDtypeStruct], sharding: Any) -> dict[str, Any]:
    return {
        name: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
        for name, shape in shapes.items()
    }


def _settings(data: pipeline.DataConfig) -> dict[str, Any]:
    """Returns the settings by which images and texts are made into inputs, as in training.

    The config gives them, but for the statistics of the images and the sentence splitter, which the
    prepared set gives.
    """
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
