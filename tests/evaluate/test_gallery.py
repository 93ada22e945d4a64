"""Retrieval by the protocols of papers: values, chance, and records that are left."""

import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import gallery
from prior_jax.evaluate.features import Studies
from prior_jax.evaluate.labels import LabelPolicy
from prior_jax.evaluate.retrieval_metrics import GalleryConfig
from prior_jax.strict import build

POLICY = LabelPolicy(uncertain="ignore", unmentioned="negative")


def config(**changes):
    rule = GalleryConfig(
        ranks=(1, 3),
        own=changes.pop("own", "removed"),
        divisor="candidates",
        mean=changes.pop("mean", "queries"),
    )
    given = dict(gallery=None, seed=None, kind="both", subset="all", block=4) | changes
    return gallery.GalleryRetrievalConfig(rule=rule, policy=POLICY, **given)


def test_perfect_similarities_find_everything():
    positive = np.repeat(np.eye(2, dtype=bool), 4, axis=0)
    similarity = np.eye(8) + positive.astype(float) @ positive.T
    texts = [f"text {i}" for i in range(8)]
    found, chance, batches = gallery.measure(
        similarity, positive=positive, texts=texts, config=config()
    )
    assert batches is None
    for name, values in found.items():
        assert (values == 1).all(), name
    assert chance["precision_at_3"] == pytest.approx(np.full(8, 3 / 7))
    assert chance["mean_rank"] == pytest.approx(np.full(8, 4.5))


@pytest.mark.parametrize("own", ["kept", "removed"])
def test_chance_is_the_mean_over_random_orders(own):
    rng = np.random.default_rng(0)
    positive = rng.random((9, 2)) < 0.5
    texts = [f"text {i % 6}" for i in range(9)]
    given = config(own=own)
    means: dict[str, np.ndarray] = {}
    for _ in range(3000):
        found, chance, _ = gallery.measure(
            rng.random((9, 9)), positive=positive, texts=texts, config=given
        )
        means = {name: means.get(name, 0) + value / 3000 for name, value in found.items()}
    for name, value in chance.items():
        tolerance = 0.2 if "rank" in name else 0.04
        np.testing.assert_allclose(means[name], value, atol=tolerance, err_msg=name)


def test_the_best_image_of_a_text_counts():
    similarity = np.array([[0.1, 0.1, 0.9], [0.9, 0.9, 0.1], [0.2, 0.2, 0.3]])
    found, _, _ = gallery.measure(
        similarity, positive=np.zeros((3, 0), bool), texts=["a", "a", "b"], config=config()
    )
    assert found["mean_rank"].tolist() == [2, 1, 1]
    assert found["report_to_image_mean_rank"].tolist() == [1, 1, 2]
    assert np.isnan(found["precision_at_1"]).all()


def test_too_few_records_are_refused():
    studies = Studies(
        images=None,  # type: ignore[arg-type]
        reports=None,
        labels=np.array([[1, 1], [1, 0], [1, 1]], np.int8),
        record=np.arange(3),
    )
    with pytest.raises(DataError, match="1 records are left"):
        gallery._records(studies, ("A", "B"), ("A", "B"), config=config(subset="single_positive"))


@pytest.mark.parametrize(("field", "value"), [("kind", "x"), ("gallery", 1), ("block", 0)])
def test_wrong_settings_are_refused_by_name(field, value):
    section = {
        "rule": {"ranks": (1,)},
        "gallery": None,
        "seed": None,
        "kind": "both",
        "subset": "all",
        "policy": {"uncertain": "ignore", "unmentioned": "negative"},
        "block": 4,
        field: value,
    }
    with pytest.raises(ConfigError, match=rf"task\.gallery\.{field}"):
        build(gallery.GalleryRetrievalConfig, section, name="task.gallery")
