"""Names of classes that the name of a metric does not tell apart."""

import numpy as np
import pytest

from prior_jax.errors import ConfigError
from prior_jax.evaluate import (
    bootstrap,
    detection,
    detection_columns,
    mask_file,
    ranking,
    segmenter,
)
from prior_jax.evaluate.phrase_grounding import class_rows
from prior_jax.near_names import check_classes

ALIKE = [("Mass", "mass"), ("Pleural Effusion", "pleural_effusion"), ("A-B", "a  b"), ("A", "A")]


@pytest.mark.parametrize("names", ALIKE)
def test_classes_that_share_a_column_are_refused_and_both_are_named(names):
    with pytest.raises(ConfigError) as error:
        check_classes(("Other", *names), where="config.model.classes")
    assert error.value.where == "config.model.classes"
    assert all(repr(name) in error.value.problem for name in names)


def test_different_classes_are_accepted_and_none_is_refused():
    check_classes(("Mass", "Masses", "Pleural Effusion", "Pleural/Effusion"), where="x")
    with pytest.raises(ConfigError, match="different names"):
        check_classes((), where="x")


def test_no_table_lets_one_class_overwrite_another():
    box = np.array([[1.0, 1.0, 4.0, 4.0]])
    image = detection.ImageBoxes(
        truth=box, truth_classes=np.array([0]), boxes=box, scores=np.ones(1), classes=np.array([1])
    )
    one = np.ones((1, 2))
    with pytest.raises(ConfigError, match="'Mass' and 'mass'"):
        detection_columns.statistics_of([image], classes=("Mass", "mass"), sensitivity=False)
    with pytest.raises(ConfigError, match="'Mass' and 'mass'"):
        ranking.ranking(
            np.eye(2), np.eye(2) > 0, np.ones((2, 2), bool), classes=("Mass", "mass"), weights=one
        )
    count = np.array([[5, 0]])
    kept = mask_file.KeptMasks(
        both=count, predicted=count, truth=count, record=np.array([0]), ids=("a",), size=(4, 4),
        classes=("Mass", "mass"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="'Mass' and 'mass'"):
        segmenter.evaluate_segmenter(
            kept,
            patients=np.array(["a"]),
            config=segmenter.SegmenterConfig(threshold=0.5, inclusive=False, release_batch=None),
            resampling=bootstrap.BootstrapConfig(resamples=5, confidence=0.95, seed=0),
        )
    with pytest.raises(ConfigError, match="'Mass' and 'mass'"):
        class_rows({"pointing": np.ones(2)}, ["Mass", "mass"], weights=one)
