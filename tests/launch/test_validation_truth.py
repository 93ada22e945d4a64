"""A run does not begin that waits for a number which its split to validate on cannot give."""

import dataclasses
import types

import pytest

from launch.start.validation_truth import check_truth
from prior_jax.data import pipeline
from prior_jax.data.region_targets import RegionConfig
from prior_jax.errors import ConfigError
from prior_jax.evaluate import box_scores, class_scores, mask_scores
from prior_jax.objectives.label_targets import LabelTargets
from tests import fixtures
from tests.launch import subjects

CLASSES = ("Effusion", "Cardiomegaly")
BEST = "config.checkpoint.best_metric"
# Positive and negative, uncertain and not mentioned.
YES, NO, UNKNOWN, UNSAID = 1, 0, -1, -2


def labelled(states):
    """Studies without a finding, with these states of both classes."""
    return [
        dataclasses.replace(subjects.study(place, boxes=False), labels=(*both, NO))
        for place, both in enumerate(states)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("truth")


@pytest.fixture(scope="module")
def subject(folder):
    train = [subjects.study(place) for place in range(8)]
    path = fixtures.write_splits(folder / "set", {"train": train, "validate": labelled([(NO, NO)])})
    return subjects.classifier(path, folder / "subject", classes=CLASSES)


def split_of(subject, folder, name="validate", **changes):
    data = dataclasses.replace(subject.data, **changes)
    return pipeline.open_split(data, name, cache_dir=folder / "cache")


@pytest.mark.parametrize(
    ("states", "enough"),
    [
        ([(NO, UNSAID), (NO, UNKNOWN)], False),
        ([(YES, NO), (YES, NO)], False),  # each class has one state alone
        ([(NO, NO)] * 70 + [(NO, YES)], True),
    ],
)
def test_an_area_needs_both_states_of_one_class(states, enough, subject, folder, tmp_path):
    path = fixtures.write_splits(tmp_path / "set", {"validate": labelled(states)})
    split = split_of(subject, folder, path=str(path))
    asked = {"config.early_stopping.metric": class_scores.AUROC}
    targets = LabelTargets(columns=(0, 1), uncertain=("ignore",) * 2, not_mentioned="negative")
    objective = types.SimpleNamespace(classes=CLASSES, classify=id, targets=targets)
    if enough:
        check_truth(asked, objective=objective, split=split)
        return
    said = (
        rf"config\.early_stopping\.metric: '{class_scores.AUROC}' cannot be computed: .* no "
        r"positive and negative record of one class \(Effusion, Cardiomegaly\)\. Choose "
        "'validation_total_loss'"
    )
    with pytest.raises(ConfigError, match=said):
        check_truth(asked, objective=objective, split=split)


@pytest.mark.parametrize("metric", [*box_scores.NAMES, *mask_scores.NAMES])
def test_boxes_and_masks_are_measured_by_findings(metric, subject, folder):
    kind = "boxes" if metric in box_scores.NAMES else "masks"
    regions = RegionConfig(
        kind=kind, classes=CLASSES, any_of=(), convert=True, train_images="all", test_images="all"
    )
    objective = types.SimpleNamespace(classes=CLASSES)
    train = split_of(subject, folder, "train", regions=regions)
    check_truth({BEST: metric}, objective=objective, split=train)
    blank = split_of(subject, folder, regions=regions)
    with pytest.raises(ConfigError, match=rf"{BEST}: '{metric}' .* of the classes \(Effusion, Ca"):
        check_truth({BEST: metric}, objective=objective, split=blank)
    check_truth({BEST: "validation_total_loss"}, objective=objective, split=blank)
