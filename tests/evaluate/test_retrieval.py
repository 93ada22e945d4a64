import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import bootstrap, labels, retrieval
from prior_jax.evaluate.embed import Encoder
from tests.evaluate.fakes import FEATURES, FakeModel, FakeObjective, make_batches

RESAMPLING = bootstrap.BootstrapConfig(resamples=50, confidence=0.95, seed=0)
CONFIG = retrieval.RetrievalConfig(
    ranks=(1, 2),
    classes=("Edema", "Mass"),
    subset="all",
    match="any",
    duplicates="hit",
    policy=labels.LabelPolicy(uncertain="ignore", unmentioned="negative"),
    block=4,
)


def studies_of(vectors, tokens, label_columns, *, batch_size=4, scale=1.0):
    encoder = Encoder(FakeObjective(), FakeModel(scale), place=jax.device_put)
    batches = make_batches(vectors, tokens, label_columns, batch_size=batch_size)
    return encoder, encoder.studies(batches, reports=True)


def random_studies(count=13, seed=0, **options):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, FEATURES)).astype(np.float32)
    tokens = random.integers(1, 100, (count, FEATURES)).astype(np.int32)
    return studies_of(vectors, tokens, random.integers(0, 2, (count, 2)), **options)


def top(rows, columns=None):
    rows = np.asarray(rows, np.int32)
    columns = rows if columns is None else np.asarray(columns, np.int32)
    return retrieval.Retrieved(
        report_of_image=rows, image_of_report=columns, score_of_image=np.zeros(rows.shape)
    )


def measure(found, *, positive, texts, **changes):
    return retrieval.measure(
        found,
        positive=np.asarray(positive, bool),
        texts=texts,
        groups=np.arange(len(texts)),
        config=dataclasses.replace(CONFIG, **changes),
        resampling=RESAMPLING,
    )


@pytest.mark.parametrize("block", [1, 3, 5, 13, 40])
def test_the_search_in_blocks_equals_a_sort_of_the_whole_matrix(block):
    encoder, studies = random_studies()
    found = retrieval.search(encoder, studies, ranks=4, block=block)
    whole = studies.images.global_ @ studies.reports.global_.T
    np.testing.assert_array_equal(
        found.report_of_image, np.argsort(-whole, axis=1, kind="stable")[:, :4]
    )
    np.testing.assert_array_equal(
        found.image_of_report, np.argsort(-whole.T, axis=1, kind="stable")[:, :4]
    )
    np.testing.assert_allclose(
        found.score_of_image, -np.sort(-whole, axis=1)[:, :4], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("block", [2, 5, 16])
def test_a_model_that_sees_nothing_scores_at_chance_not_above(block):
    encoder, studies = random_studies(count=10, scale=0.0)
    found = retrieval.search(encoder, studies, ranks=3, block=block)
    np.testing.assert_array_equal(found.report_of_image, np.tile([0, 1, 2], (10, 1)))
    measured = measure(found, positive=np.zeros((10, 2)), texts=[str(i) for i in range(10)])
    assert measured.metrics["recall_at_1"].value == pytest.approx(0.1)
    assert measured.settings["chance"]["recall_at_1"] == pytest.approx(0.1)


def test_a_perfect_model_finds_every_pair_both_ways():
    random = np.random.default_rng(1)
    tokens = random.permutation(99)[: 4 * 12].reshape(12, 4).astype(np.int32) + 1
    vectors = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    scaled = np.rint(vectors * 10000).astype(np.int32)
    encoder, studies = studies_of(vectors, scaled, np.ones((12, 2)))
    found = retrieval.evaluate_retrieval(
        encoder,
        studies,
        texts=[str(i) for i in range(12)],
        label_names=["Mass", "Edema"],
        patients=np.arange(12),
        config=CONFIG,
        resampling=RESAMPLING,
    )
    for name in ("recall_at_1", "report_to_image_recall_at_1", "precision_at_2"):
        assert found.metrics[name].value == pytest.approx(1.0)
    json.dumps(found.settings, allow_nan=False)


def test_precision_and_recall_of_a_worked_example():
    # Queries 0 and 1 are Edema, 2 Mass; each brings two results.
    found = measure(
        top([[0, 1], [2, 0], [0, 1]], [[0, 2], [1, 0], [2, 1]]),
        positive=[[1, 0], [1, 0], [0, 1]],
        texts=["a", "b", "c"],
    ).metrics
    assert found["precision_at_1"].value == pytest.approx(1 / 3)
    assert found["precision_at_2"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["recall_at_1"].value == pytest.approx(1 / 3)
    assert found["recall_at_2"].value == pytest.approx(1 / 3)
    assert found["report_to_image_precision_at_2"].value == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert found["report_to_image_recall_at_1"].value == pytest.approx(1.0)


def test_the_two_ways_of_matching_several_classes():
    positive = [[1, 1], [1, 0], [0, 0], [0, 0]]
    arguments = {"positive": positive, "texts": list("abcd")}
    results = top([[1, 0], [0, 1], [3, 0], [2, 3]])
    shared = measure(results, **arguments)
    assert shared.metrics["precision_at_1"].value == pytest.approx(1.0)
    assert shared.settings["queries_of_precision"] == 2
    exact = measure(results, **arguments, match="exact")
    assert exact.metrics["precision_at_1"].value == pytest.approx(0.5)
    assert exact.settings["queries_of_precision"] == 4


def test_equal_texts_are_one_pair_if_so_asked():
    arguments = {"positive": np.zeros((3, 2)), "texts": ["same", "same", "other"]}
    results = top([[1, 2], [0, 2], [2, 0]])
    hit = measure(results, **arguments)
    miss = measure(results, **arguments, duplicates="miss")
    assert hit.metrics["recall_at_1"].value == pytest.approx(1.0)
    assert miss.metrics["recall_at_1"].value == pytest.approx(1 / 3)
    assert hit.settings["different_texts"] == 2


def test_the_chance_levels_are_what_random_orders_reach():
    random = np.random.default_rng(0)
    positive = random.random((30, 2)) < [0.2, 0.6]
    texts = [str(i // 3) for i in range(30)]
    reached = {"precision_at_2": [], "recall_at_2": []}
    for _ in range(400):
        orders = np.stack([random.permutation(30)[:2] for _ in range(30)])
        found = measure(top(orders), positive=positive, texts=texts)
        for name, values in reached.items():
            values.append(found.metrics[name].value)
    for name, values in reached.items():
        error = 4 * np.std(values) / math.sqrt(len(values))
        assert found.settings["chance"][name] == pytest.approx(np.mean(values), abs=error)
    # Three of the thirty carry the text: 1 - (27 * 26) / (30 * 29).
    assert found.settings["chance"]["recall_at_2"] == pytest.approx(1 - 27 * 26 / (30 * 29))


def test_the_order_of_the_batches_changes_nothing():
    random = np.random.default_rng(7)
    vectors = random.normal(size=(14, FEATURES)).astype(np.float32)
    tokens = random.integers(1, 100, (14, FEATURES)).astype(np.int32)
    batches = make_batches(vectors, tokens, random.integers(0, 2, (14, 2)), batch_size=4)
    encoder = Encoder(FakeObjective(), FakeModel(), place=jax.device_put)
    forward, backward = (
        retrieval.evaluate_retrieval(
            encoder,
            encoder.studies(batches[order], reports=True),
            texts=["same" if i < 4 else str(i) for i in range(14)],
            label_names=["Edema", "Mass"],
            patients=[f"p{i // 3}" for i in range(14)],
            config=CONFIG,
            resampling=RESAMPLING,
        )
        for order in (slice(None), slice(None, None, -1))
    )
    for name, metric in forward.metrics.items():
        assert metric.to_json() == pytest.approx(backward.metrics[name].to_json())


def test_without_any_class_precision_is_null_with_a_reason_and_recall_counts():
    found = measure(top([[0, 1], [1, 0]]), positive=np.zeros((2, 0)), texts=["a", "b"])
    assert np.isnan(found.metrics["precision_at_1"].value)
    assert found.settings["undefined"]["precision_at_1"] == "no record has a positive class"
    assert found.metrics["recall_at_1"].value == pytest.approx(1.0)
    assert found.settings["chance"]["precision_at_1"] is None


def test_single_positive_searches_only_those_records():
    columns = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, -1], [1, 0], [0, 1]], np.int8)
    encoder, studies = studies_of(
        np.ones((7, FEATURES), np.float32), np.ones((7, FEATURES), np.int32), columns
    )
    found = retrieval.evaluate_retrieval(
        encoder,
        studies,
        texts=[str(i) for i in range(7)],
        label_names=["Edema", "Mass"],
        patients=[0, 0, 1, 1, 2, 2, 3],
        config=dataclasses.replace(CONFIG, subset="single_positive"),
        resampling=RESAMPLING,
    )
    assert found.settings["records"] == 4
    assert found.settings["patients"] == 4
    assert found.settings["chance"]["precision_at_1"] == pytest.approx(0.5)


def test_fewer_records_than_ranks_are_refused():
    encoder, studies = random_studies(count=3)
    with pytest.raises(DataError, match="at least 10"):
        retrieval.search(encoder, studies, ranks=10, block=4)


def test_studies_without_reports_are_refused():
    encoder, studies = random_studies()
    without = dataclasses.replace(studies, reports=None)
    with pytest.raises(ValueError, match="reports=True"):
        retrieval.search(encoder, without, ranks=2, block=4)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("ranks", ()),
        ("ranks", (0,)),
        ("subset", "x"),
        ("match", "x"),
        ("duplicates", 1),
        ("block", 0),
    ],
)
def test_bad_settings_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        dataclasses.replace(CONFIG, **{field: bad})
