"""Every value by which a run is known is one that its config can be given again."""

import pathlib

import pytest

from configs import debug
from launch.start import run as run_lib
from prior_jax.config import read_config, to_json
from prior_jax.errors import CheckpointError
from prior_jax.train import resume

# It follows from config.seed, which is compared before all else.
FOLLOWS = {"config.data.seed"}
# They may be left out of a config, and are then None.
_AUGMENT = ("crop_from", "resized_crop", "jitter", "grey_probability", "blur")
_AUGMENT += ("shift_scale_rotate",)
OPTIONAL = {"config.data.fraction", *(f"config.data.augment.{name}" for name in _AUGMENT)}


def leaves(tree, name):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{name}.{key}" if name else key)
    else:
        yield name


def changed(tree, name):
    """The tree with another value at one leaf."""
    for key in tree:
        if name == key:
            return {**tree, key: "another"}
        if name.startswith(f"{key}."):
            return {**tree, key: changed(tree[key], name[len(key) + 1 :])}
    raise KeyError(name)


def test_every_refusal_names_a_setting_of_the_config():
    config = debug.get_config()
    known = set(leaves(to_json(config), "config")) | OPTIONAL
    identity = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    identity |= {resume.DATA_SET: "876e", resume.TOKENIZER: "876e"}
    names = set(leaves(identity, "")) - FOLLOWS
    assert len(names) > 50
    for name in names:
        with pytest.raises(CheckpointError) as error:
            resume.check_identity(changed(identity, name), identity, workdir="/runs/one")
        assert error.value.where in known, name
