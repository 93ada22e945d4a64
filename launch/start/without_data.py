"""A training program without a data set: what compiling or timing a step needs of the data."""

from typing import Any

import jax
import jax.numpy as jnp

from prior_jax import assemble
from prior_jax.data import pipeline
from prior_jax.run_config import RunConfig
from prior_jax.sharding.placement import Placement
from prior_jax.train.program import Program
from prior_jax.types import Batch, Boxes
from prior_jax.vocabulary import Vocabulary

STEPS_PER_EPOCH = 1000
"""Steps per epoch in place of a data set's; the number changes only constants of the program."""
LABELS = 14
"""Number of CheXpert's labels, the columns of a batch's labels, which no loss reads."""
BOXES = 20
"""Boxes that an image has room for, in place of the most that an image of a set has.

MGCA's release, mgca/datasets/detection_dataset.py, has so many for Object-CXR.
"""


def program_of(config: RunConfig, place: Placement, *, vocabulary: Vocabulary) -> Program:
    """Returns the stages of a run with their state and step, not compiled.

    Args:
      config: config of the run.
      place: mesh and sharding rules.
      vocabulary: vocabulary of the tokenizer.

    Raises:
      ConfigError: for stages that the objective does not know, or rules that match no array.
    """
    schedule = config.schedule(steps_per_epoch=STEPS_PER_EPOCH)
    return Program(
        objective=assemble.objective(
            config.objective,
            config.model,
            vocabulary=vocabulary,
            schedule=schedule,
            place=place,
            all_pairs=config.mesh.all_pairs,
            labels=getattr(config.model, "classes", ()),
        ),
        stages=schedule,
        optimizer=config.optimizer,
        mesh=place.mesh,
        rules=place.rules,
        data_axes=place.data_axes,
    )


def abstract_batch(
    data: pipeline.DataConfig, *, length: int, boxes: int = BOXES, labels: int = LABELS
) -> Batch:
    """Returns the shapes and dtypes of a batch.

    Args:
      data: section `config.data`, which determines rows, image, sentences and regions.
      length: number of tokens of a report.
      boxes: number of boxes that an image has room for, where boxes are read.
      labels: number of labels of a record.
    """
    rows, image = data.batch_size, data.image
    array: Any = jax.ShapeDtypeStruct
    kind = None if data.regions is None else data.regions.kind
    classes = 0 if data.regions is None else len(data.regions.classes)
    corners = array((rows, boxes, 4), jnp.float32)
    numbers, real = array((rows, boxes), jnp.int32), array((rows, boxes), jnp.bool_)
    masks = array((rows, image.size, image.size, classes), jnp.bool_)
    return Batch(
        image=array((rows, image.size, image.size, image.channels), jnp.float32),
        tokens=array((rows, length), jnp.int32),
        token_mask=array((rows, length), jnp.bool_),
        sentence_index=array((rows, length), jnp.int32),
        sentence_mask=array((rows, data.max_sentences), jnp.bool_),
        labels=array((rows, labels), jnp.int8),
        weight=array((rows,), jnp.float32),
        record=array((rows,), jnp.int32),
        masks=masks if kind == "masks" else None,
        boxes=Boxes(corners=corners, classes=numbers, real=real) if kind == "boxes" else None,
    )
