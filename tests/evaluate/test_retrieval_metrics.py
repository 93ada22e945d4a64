import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import retrieval_metrics as rm

KEPT = rm.GalleryConfig(ranks=(1, 2), own="kept")


def mean(values, **changes):
    return rm.average(values, weights=np.ones((1, len(values))), **changes)[0]


def test_the_own_report_lifts_precision_and_is_taken_out_by_default():
    # Every report is most similar to its own image, and to no other of its class.
    similarity = np.eye(4) + np.array([[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]) / 2
    labels = np.array([0, 0, 1, 1])
    kept = rm.by_class(similarity, labels, config=KEPT)
    assert mean(kept["precision_at_1"], mean="queries") == 1
    removed = rm.by_class(similarity, labels, config=rm.GalleryConfig(ranks=(1,)))
    assert mean(removed["precision_at_1"], mean="queries") == 0


def test_against_a_loop_over_queries_and_ranks():
    rng = np.random.default_rng(0)
    for case in range(50):
        count = int(rng.integers(2, 15))
        similarity = rng.integers(0, 4, (count, count)).astype(float)  # with ties
        labels = rng.integers(0, 2, (count, 2))
        own = ("kept", "removed")[case % 2]
        found = rm.by_class(similarity, labels, config=rm.GalleryConfig(ranks=(3,), own=own))
        for query in range(count):
            others = [g for g in range(count) if own == "kept" or g != query]
            best = sorted(others, key=lambda g: (-similarity[query, g], g))[:3]
            hits = [bool((labels[g] == labels[query]).all()) for g in best]
            assert found["precision_at_3"][query] == pytest.approx(np.mean(hits))
            assert found["hit_at_3"][query] == any(hits)


def test_precision_of_a_small_gallery_is_a_share_of_its_candidates():
    labels, similarity = np.zeros(3, int), np.eye(3)
    share = rm.by_class(similarity, labels, config=rm.GalleryConfig(ranks=(10,)))
    assert (share["precision_at_10"] == 1).all()
    release = rm.by_class(similarity, labels, config=rm.BENCHX)
    np.testing.assert_allclose(release["precision_at_10"], 0.3)


def test_a_gallery_of_the_query_alone_has_no_value():
    found = rm.by_class(
        np.eye(3), np.zeros(3), config=rm.GalleryConfig(ranks=(1,)), batches=rm.draw_batches(
            3, size=2, seed=None
        )
    )  # fmt: skip
    np.testing.assert_array_equal(found["precision_at_1"], [1, 1, np.nan])
    assert mean(found["precision_at_1"], mean="queries") == 1


def test_the_mean_over_batches_weighs_a_small_batch_as_a_full_one():
    batches = rm.draw_batches(5, size=4, seed=None)
    values = np.array([0.0, 0, 0, 0, 1])
    assert mean(values, mean="queries", batches=batches) == pytest.approx(0.2)
    assert mean(values, mean="batches", batches=batches) == pytest.approx(0.5)
    drawn = rm.average(
        values, weights=np.array([[1, 1, 1, 1, 0], [0, 0, 0, 1, 3]]), mean="batches",
        batches=batches,
    )  # fmt: skip
    np.testing.assert_allclose(drawn, [0, 0.5])  # a gallery that was not drawn is left out


def test_batches_hold_every_record_once_and_depend_on_the_seed_alone():
    first, again, other = (rm.draw_batches(10, size=4, seed=seed) for seed in (0, 0, 1))
    assert [len(rows) for rows in first] == [4, 4, 2]
    assert sorted(np.concatenate(first).tolist()) == list(range(10))
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    assert (np.concatenate(first) != np.concatenate(other)).any()


def test_smaller_batches_score_higher():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, 8))
    similarity = features @ (features + rng.normal(size=(60, 8))).T
    labels = rng.integers(0, 5, 60)
    scores = []
    for size in (60, 10, 3):
        batches = rm.draw_batches(60, size=size, seed=0)
        values = rm.by_class(similarity, labels, config=rm.BENCHX, batches=batches)
        scores.append(mean(values["precision_at_1"], mean="batches", batches=batches))
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_equal_texts_are_one_entry_and_the_best_of_several_images_counts():
    first, member = rm.different_texts(["b", "a", "b", "c"])
    assert first.tolist() == [0, 1, 3] and member.tolist() == [0, 1, 0, 2]
    similarity = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1], [0.0, 0.4, 0.4], [0.1, 0.2, 0.3]])
    assert rm.partner_ranks(similarity, member).tolist() == [3, 2, 3, 1]
    # The other direction: every image of the text is right.
    own = member[None, :] == np.arange(3)[:, None]
    assert rm.partner_ranks(similarity.T, own).tolist() == [2, 3, 3]
    assert rm.different_texts([])[0].shape == (0,)


def test_recall_and_rank():
    found = rm.by_rank(np.array([1, 3, 7]), at=(1, 5))
    np.testing.assert_array_equal(found["recall_at_1"], [1, 0, 0])
    np.testing.assert_array_equal(found["recall_at_5"], [1, 1, 0])
    assert found["rank"].mean() == pytest.approx(11 / 3)


@pytest.mark.parametrize(
    ("field", "bad"),
    [("ranks", ()), ("ranks", (0,)), ("own", "x"), ("divisor", "k"), ("mean", "all")],
)
def test_bad_settings_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=f"^{field}: The value is"):
        rm.GalleryConfig(**{"ranks": (1,), field: bad})


def test_what_is_not_finite_or_does_not_fit_is_refused():
    with pytest.raises(DataError, match="1 similarities are not finite"):
        rm.by_class(np.array([[np.nan]]), np.zeros(1), config=KEPT)
    with pytest.raises(ValueError, match="of 3 records"):
        rm.by_class(np.eye(2), np.zeros(3), config=KEPT)
    with pytest.raises(ValueError, match="expected one at least"):
        rm.partner_ranks(np.eye(2), np.zeros((2, 2), bool))
