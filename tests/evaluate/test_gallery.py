"""Retrieval by the protocols of papers: values, chance, and records that are left."""

import dataclasses

import jax
import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import gallery, retrieval_metrics, strips
from prior_jax.evaluate.bootstrap import BootstrapConfig
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Studies
from prior_jax.evaluate.labels import LabelPolicy
from prior_jax.evaluate.retrieval_metrics import GalleryConfig
from prior_jax.strict import build
from tests.evaluate import fakes

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
    one = dataclasses.replace(studies, labels=studies.labels[:1], record=np.arange(1))
    with pytest.raises(DataError, match=r"with a report is 1, and .* needs 2\. .*larger"):
        gallery._records(one, ("A", "B"), (), config=config())


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


@pytest.fixture(scope="module")
def drawn():
    """An encoder, and 23 studies of a few classes and texts whose features often tie."""
    rng = np.random.default_rng(0)
    vectors = rng.integers(-1, 2, (23, fakes.FEATURES)).astype(np.float32)
    tokens = rng.integers(1, 3, (23, fakes.FEATURES))
    labels = (rng.random((23, 2)) < 0.5).astype(np.int8)
    encoder = Encoder(fakes.FakeObjective(), fakes.FakeModel(), place=jax.device_put)
    batches = fakes.make_batches(vectors, tokens, labels, batch_size=8)
    return encoder, encoder.studies(batches, reports=True), [f"text {i % 17}" for i in range(23)]


@pytest.mark.parametrize("cells", [1, 50, 10_000])
@pytest.mark.parametrize("block", [1, 4, 23, 64])
def test_strips_have_the_numbers_of_the_matrix(drawn, block, cells):
    encoder, studies, _ = drawn
    options = dict(block=block, kind="both")
    both = studies.images, studies.reports
    whole = encoder.similarity(*both, **options)
    for matrix, function in ((whole, strips.of_images), (whole.T, strips.of_reports)):
        found = [
            (start, part.copy()) for start, part in function(encoder, *both, cells=cells, **options)
        ]
        ends = np.cumsum([len(part) for _, part in found]).tolist()
        assert [start for start, _ in found] == [0, *ends[:-1]]
        assert max(part.size for _, part in found) <= max(cells, 23)
        np.testing.assert_array_equal(np.concatenate([part for _, part in found]), matrix)


@pytest.mark.parametrize("size", [None, 6])
@pytest.mark.parametrize("own", ["kept", "removed"])
def test_a_set_that_is_not_held_has_the_same_numbers(drawn, monkeypatch, size, own):
    encoder, studies, texts = drawn
    results = []
    for held in (20_000, 22):
        monkeypatch.setattr(gallery, "_HELD", held)
        results.append(
            gallery.evaluate_gallery(
                encoder,
                studies,
                texts=texts,
                label_names=("A", "B"),
                classes=("A", "B"),
                patients=np.arange(23),
                config=config(gallery=size, seed=3, own=own),
                resampling=BootstrapConfig(resamples=20, confidence=0.9, seed=0),
            )
        )
    assert results[0] == results[1]
    assert 0 < results[0].metrics["precision_at_3"].value < 1
    assert results[0].metrics["report_to_image_mean_rank"].value > 1


def test_a_large_set_never_holds_all_of_its_similarities(drawn, monkeypatch):
    encoder, studies, texts = drawn
    monkeypatch.setattr(gallery, "_HELD", 22)
    monkeypatch.setattr(Encoder, "similarity", None)  # to call it would fail
    largest = []
    by_class = retrieval_metrics.by_class
    monkeypatch.setattr(
        retrieval_metrics,
        "by_class",
        lambda s, *a, **k: largest.append(s.size) or by_class(s, *a, **k),
    )
    gallery.measure_strips(
        gallery._directions(encoder, studies.images, studies.reports, config=config()),
        positive=np.zeros((23, 1), bool),
        texts=texts,
        config=config(),
    )
    assert max(largest) == 4 * 23
