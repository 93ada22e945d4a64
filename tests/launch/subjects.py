"""Untrained models of small configs on small prepared sets, opened in the test's own process."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from configs import debug
from configs.finetune import debug as classifier_config
from launch.evaluation import models
from launch.evaluation.subject import Opened, Subject
from prior_jax.config import read_config
from prior_jax.data import regions
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement
from tests import fixtures
from tests.nn.small import filled

PHRASES = ("Small left effusion.", "The heart is large.", "")


def study(index, *, seed=0, boxes=True):
    """A study of a patient of its own, with sex, age, view, a box and a mask."""
    drawn = fixtures.draw_record(index, seed=seed)
    rng = np.random.default_rng((seed, 5, index))
    left, top = (float(x) for x in rng.integers(0, 30, 2))
    mask = np.zeros((48, 48), bool)
    mask[20:40, 4 : 8 + index % 9] = True
    found = dataclasses.replace(
        drawn,
        subject_id=f"q{index:05d}",
        sex="F" if index % 3 else "M",
        age=math.nan if index % 7 == 0 else float(20 + 5 * (index % 12)),
        views=("AP" if index % 2 else "PA", *drawn.views[1:]),
    )
    if not boxes:
        return found
    return dataclasses.replace(
        found,
        region_images=(0, 0),
        region_labels=("Effusion", "Cardiomegaly"),
        region_phrases=(PHRASES[index % 3], ""),
        region_boxes=((left, top, left + 15, top + 10), regions.NO_BOX),
        region_masks=(b"", regions.encoded_mask(mask)),
    )


def write_set(folder, *, train=16, validate=20, test=40, boxes=True):
    """Writes a set whose splits have studies with attributes and regions."""
    counts, start = {"train": train, "validate": validate, "test": test}, 0
    splits = {}
    for name, count in counts.items():
        splits[name] = [study(i, boxes=boxes) for i in range(start, start + count)]
        start += count
    return fixtures.write_splits(folder, splits)


def on_set(config, path, out, *, tokenizer=None):
    """Opens the model of a config with two different sets of random weights."""
    with config.unlocked():
        config.data.path = str(path)
        config.prepare.phantom = None
        if tokenizer is not None:
            config.data.tokenizer.path = str(tokenizer)
    place = placement(MeshConfig(axes={"data": 1}, data_axes=("data",)), devices=jax.devices()[:1])
    config.mesh.axes = {"data": 1}
    read = read_config(config, workdir=out)
    subject = models.of_config(
        read, reads_text=tokenizer is not None, place=place, out=out, cache=out / "cache"
    )
    other = subject.trained.with_model(
        filled(lambda: subject.objective.init(nnx.Rngs(0)))  # type: ignore[attr-defined]
    )
    return dataclasses.replace(subject, trained=other)


def classifier(path, out, *, classes, loss="binary") -> Subject:
    """A classifier with random weights."""
    config = classifier_config.get_config()
    config.model.classes = tuple(classes)
    config.model.loss = loss
    return on_set(config, path, out)


def reader(path, out, *, tokenizer) -> Subject:
    """A model of the debug job, which reads reports and attends to patches by the sentence."""
    return on_set(debug.get_config(), path, out, tokenizer=tokenizer)


def on_other_set(subject: Subject, path) -> Subject:
    """The same model on another set."""
    return dataclasses.replace(subject, data=dataclasses.replace(subject.data, path=str(path)))


def splits_of(subject: Subject) -> Callable[[str], Opened]:
    """Returns a function that opens a split once."""
    kept: dict[str, Any] = {}

    def opened(name):
        if name not in kept:
            kept[name] = subject.open(name)
        return kept[name]

    return opened
