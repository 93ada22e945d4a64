"""GLoRIA's standardised scores and macro metrics against what the authors' code returned.

Their other normalisation, to the range 0 to 1, is called by nothing of theirs and is not built.
"""

import numpy as np
import pytest

from prior_jax.evaluate import metrics, prompt_scores
from tests.golden.reader import assert_close, load

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load(golden_dir, "gloria", "metrics_schedulers")


def test_standardised_scores_equal_the_release(recorded):
    scores = prompt_scores.normalised(recorded["in/similarities"], how="z-score", axis=0)
    assert_close(scores, recorded["out/norm"], rtol=1e-6)


def test_a_class_of_equal_scores_is_zero_where_the_release_has_nan(recorded):
    scores = prompt_scores.normalised(recorded["in/constant_column"], how="z-score", axis=0)
    expected = recorded["out/constant_column_norm"]
    constant = np.ptp(recorded["in/constant_column"], axis=0) == 0
    assert constant.any() and np.isnan(expected[:, constant]).all()
    assert not scores[:, constant].any()
    assert_close(scores[:, ~constant], expected[:, ~constant], rtol=1e-6)


@pytest.mark.parametrize(
    ("metric", "name"), [(metrics.auroc, "auroc"), (metrics.average_precision, "auprc")]
)
def test_macro_metrics_equal_the_release(recorded, metric, name):
    logits, positive = recorded["in/cls/logit"], recorded["in/cls/y"] == 1
    one = np.ones((1, len(logits)))
    classes = [
        metric(logits[:, index], positive[:, index], weights=one)[0]
        for index in range(logits.shape[1])
    ]
    assert_close(metrics.mean_of_defined(np.array(classes)), recorded[f"out/cls/{name}_macro"],
                 rtol=1e-6)  # fmt: skip
