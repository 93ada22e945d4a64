"""Every value by which a run is known is one that its config can be given again."""

import copy
import dataclasses
import functools
import pathlib

import pytest

from configs import debug, phantom
from configs.gloria import phantom as gloria_phantom
from configs.prior.improved import improve
from launch.start import run as run_lib
from prior_jax.config import read_config, to_json
from prior_jax.data import region_targets
from prior_jax.errors import CheckpointError
from prior_jax.train import checkpoint_read, resume
from prior_jax.train.stages import Schedule

# It follows from config.seed, which is compared before all else.
FOLLOWS = {"config.data.seed"}
# They may be left out of a config, and are then None.
_MOVES = ("crop_from", "resized_crop", "shift_scale_rotate")
_AUGMENT = (*_MOVES, "jitter", "grey_probability", "blur")
OPTIONAL = {
    "config.data.fraction",
    "config.data.regions",
    *(f"config.data.augment.{name}" for name in _AUGMENT),
}


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


def identity_with(**changes):
    """What the debug job is known by, with other fields of its data."""
    config = read_config(debug.get_config(), workdir=pathlib.Path())
    data = dataclasses.replace(config.data, **changes)
    return run_lib.identity_of_settings(dataclasses.replace(config, data=data))["config.data"]


def test_what_follows_from_objective_and_model_is_named_there_alone():
    """A run on other classes is refused by its classes, not by a setting that nobody can give."""
    chosen = dict(convert=True, train_images="all", test_images="all", any_of=())
    known = identity_with(
        regions=region_targets.RegionConfig(kind="boxes", classes=("Mass",), **chosen)
    )["regions"]
    assert known == chosen | {"any_of": []}


def test_a_run_from_before_images_were_padded_or_equalised_is_resumed():
    before = {"size", "channels", "mean", "std"}
    image = read_config(debug.get_config(), workdir=pathlib.Path()).data.image
    assert set(identity_with(image=image)["image"]) == before | {"draft_margin"}
    image = dataclasses.replace(image, draft_margin=2)  # that of all earlier versions
    assert set(identity_with(image=image)["image"]) == before
    padded = dataclasses.replace(image, fit="pad")
    assert set(identity_with(image=padded)["image"]) - before == {"fit"}


def test_a_run_from_before_the_contrast_of_sentences_and_regions_is_resumed():
    config = phantom.get_config("paper")
    known = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    assert "sentence_region" not in known["config.model"]
    improve(config)
    config.model.sentence_region.update(dict(hidden_every=0, hidden_share=0.0, hidden_side=1))
    known = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    contrast = known["config.model"]["sentence_region"]
    assert contrast["stages_back"] == 1
    later = {"hidden_every", "hidden_share", "hidden_side", "coordinates"}
    assert not later & contrast.keys() and "switched_choices" not in known["config.model"]
    config.model.sentence_region.coordinates = True
    known = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    assert later & known["config.model"]["sentence_region"].keys() == {"coordinates"}


def free_settings():
    """Configs, with the section that is changed, what a checkpoint may hold and the change."""
    region = ("model", "sentence_region")
    yield phantom.get_config(), region, dict(chunk=32), dict(chunk=16)
    gloria = gloria_phantom.get_config()
    yield gloria, ("model",), dict(caption_chunk=gloria.model.caption_chunk), dict(caption_chunk=3)
    unhidden = phantom.get_config()
    unhidden.model.sentence_region.update(dict(hidden_every=0, hidden_share=0.0))
    yield unhidden, region, dict(hidden_side=2), dict(hidden_side=7)


@pytest.mark.parametrize("config, section, before, after", list(free_settings()))
def test_what_changes_no_number_may_be_changed_on_resume(
    config, section, before, after, monkeypatch, tmp_path
):
    known = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    kept = copy.deepcopy(known)
    inner = functools.reduce(lambda tree, name: tree[name], section[1:], kept["config.model"])
    inner.update(before)  # as earlier versions kept it
    functools.reduce(getattr, section, config).update(after)
    changed = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    assert changed == known
    read = read_config(config, workdir=tmp_path)
    options = dataclasses.replace(read.train, identity=kept)
    host = resume.settings_of(options, Schedule(read.schedule(steps_per_epoch=1))) | {"step": 1}
    monkeypatch.setattr(checkpoint_read, "newest_host", lambda folder: host)
    run_lib.check_resumable(read, changed, tmp_path)


def test_the_size_of_squares_that_are_hidden_may_not_be_changed_on_resume():
    config = phantom.get_config()
    known = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    config.model.sentence_region.hidden_side = 1
    other = run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))
    with pytest.raises(CheckpointError, match="hidden_side"):
        resume.check_identity(other, known, workdir="/runs/one")


def test_a_later_setting_is_left_out_only_with_what_stands_for_earlier_versions():
    later = {"new": [True], "size": [1]}
    assert run_lib._as_earlier({"old": 0, "new": True, "size": 1}, later) == {"old": 0}
    assert run_lib._as_earlier({"new": False, "size": 0}, later) == {"new": False, "size": 0}
