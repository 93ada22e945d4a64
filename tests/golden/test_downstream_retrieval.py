"""Retrieval metrics against what BenchX's and CXR-CLIP's own code returned."""

import numpy as np
import pytest

from prior_jax.evaluate import gallery, retrieval_metrics
from prior_jax.evaluate.labels import LabelPolicy
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden
CLOSE = 1e-6
BENCHX_NAMES = {"Precision": "precision", "Hit": "hit"}


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load_json(golden_dir, "downstream", "retrieval_metrics")


def release(recorded):
    return retrieval_metrics.GalleryConfig(
        ranks=tuple(recorded["in/config/k"]), own="kept", divisor="ranks", mean="batches"
    )


def cosines(images, texts):
    images, texts = np.asarray(images), np.asarray(texts)
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    return (images / lengths[0]) @ (texts / lengths[1]).T


def similarity(recorded):
    return cosines(recorded["in/image_embeddings"], recorded["in/text_embeddings"])


def assert_equal(values, expected, *, config, batches=None):
    """Compares every recorded mean, whose name is such as "Precision@5"."""
    assert expected
    for name, value in expected.items():
        kind, k = name.split("@")
        each = values[f"{BENCHX_NAMES[kind]}_at_{k}"]
        found = retrieval_metrics.average(
            each, weights=np.ones((1, len(each))), mean=config.mean, batches=batches
        )
        assert found[0] == pytest.approx(value, abs=CLOSE), name


def test_the_similarity_is_the_cosine(recorded):
    expected = np.asarray(recorded["out/benchx/similarity"])
    np.testing.assert_allclose(similarity(recorded)[: len(expected)], expected, atol=1e-6)


def test_the_order_of_one_batch(recorded):
    expected = np.asarray(recorded["out/benchx/one_batch_ranking"])
    found = retrieval_metrics.ordered(similarity(recorded), own="kept")
    np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("case", ["one_batch", "multilabel_one_batch"])
def test_one_batch(recorded, case):
    config = release(recorded)
    targets = recorded["in/targets_multilabel" if case.startswith("multi") else "in/targets"]
    values = retrieval_metrics.by_class(similarity(recorded), np.asarray(targets), config=config)
    assert_equal(values, recorded[f"out/benchx/{case}"], config=config)


def test_batches_and_their_unweighted_mean(recorded):
    config, batches = release(recorded), [np.asarray(rows) for rows in recorded["in/batches"]]
    targets = np.asarray(recorded["in/targets"])
    values = retrieval_metrics.by_class(
        similarity(recorded), targets, config=config, batches=batches
    )
    assert_equal(values, recorded["out/benchx/batched"], config=config, batches=batches)
    for rows, expected in zip(batches, recorded["out/benchx/per_batch"], strict=True):
        part = {name: each[rows] for name, each in values.items()}
        assert_equal(part, expected, config=config)


def test_a_batch_with_fewer_candidates_than_ranks(recorded):
    config, rows = release(recorded), np.asarray(recorded["in/short_batch"])
    targets = np.asarray(recorded["in/targets"])
    values = retrieval_metrics.by_class(
        similarity(recorded), targets, config=config, batches=[rows]
    )
    part = {name: each[rows] for name, each in values.items()}
    assert_equal(part, recorded["out/benchx/short_batch"], config=config)
    others = np.setdiff1d(np.arange(len(targets)), rows)
    assert all(np.isnan(each[others]).all() for each in values.values())


def test_a_similarity_of_the_models_own(recorded):
    config, given = release(recorded), np.asarray(recorded["in/custom_similarity"])
    targets = np.asarray(recorded["in/targets"])[: len(given)]
    values = retrieval_metrics.by_class(given, targets, config=config)
    assert_equal(values, recorded["out/benchx/custom_similarity"], config=config)


def test_without_the_own_report(recorded):
    config = retrieval_metrics.GalleryConfig(ranks=tuple(recorded["in/config/k"]))
    values = retrieval_metrics.by_class(
        similarity(recorded), np.asarray(recorded["in/class"]), config=config
    )
    assert_equal(values, recorded["out/formula/own_report_removed"], config=config)


@pytest.mark.parametrize("case", ["unique_texts", "all_texts_distinct"])
def test_recall_and_mean_rank_of_cxr_clip(recorded, case):
    ids = recorded["in/cxrclip/text_id"]
    texts = [str(name) for name in (ids if case == "unique_texts" else range(len(ids)))]
    first, member = retrieval_metrics.different_texts(texts)
    if case == "unique_texts":
        np.testing.assert_array_equal(first, recorded["out/cxrclip/first_index_of_unique_text"])
    embedded = np.asarray(recorded["in/cxrclip/text_embeddings"])[first]
    given = cosines(recorded["in/cxrclip/image_embeddings"], embedded)
    ranks = retrieval_metrics.partner_ranks(given, member)
    if case == "unique_texts":
        np.testing.assert_array_equal(ranks, recorded["out/cxrclip/ranks"])
    expected = recorded[f"out/cxrclip/{case}"]
    at = [int(name.split("@")[1]) for name in expected if "@" in name]
    found = retrieval_metrics.by_rank(ranks, at=at)
    for name, value in expected.items():
        ours = "rank" if name == "MeanRank" else f"recall_at_{name.split('@')[1]}"
        assert found[ours].mean() == pytest.approx(value, abs=CLOSE), name


@pytest.mark.parametrize("case", ["one_batch", "multilabel_one_batch"])
def test_the_task_has_the_values_of_one_batch(recorded, case):
    """The whole task: the gallery is all records, and the direction from image to report."""
    targets = np.asarray(recorded["in/targets_multilabel" if "multi" in case else "in/targets"])
    positive = targets.reshape(len(targets), -1) > 0
    rows = similarity(recorded)
    given = gallery.GalleryRetrievalConfig(
        rule=release(recorded),
        gallery=len(rows),
        seed=None,
        kind="global",
        subset="all",
        policy=LabelPolicy(uncertain="ignore", unmentioned="negative"),
        block=16,
    )
    texts = [f"report {index}" for index in range(len(rows))]
    found, _, batches = gallery.measure(rows, positive=positive, texts=texts, config=given)
    expected = recorded[f"out/benchx/{case}"]
    assert_equal(found, expected, config=given.rule, batches=batches)
