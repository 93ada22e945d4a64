import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.losses.local_alignment import local_text
from prior_jax.losses.sentence_region import local_contrast, spatial_positiveness

SCALE = jnp.full((), 4.0, jnp.float32)


def rows(batch=3, count=4, features=6):
    keys = jax.random.split(jax.random.key(0), 3)
    pair = [jax.random.normal(key, (batch, count, features), jnp.float32) for key in keys[:2]]
    mask = jnp.arange(count)[None, :] < jnp.array([[4], [2], [1]])
    share = jax.random.uniform(keys[2], (batch, count), jnp.float32, 0.1, 1)
    return *pair, mask, share


@jax.jit
def loss(a, b, mask, share, weight, positiveness=None):
    return local_contrast(
        a, b, scale=SCALE, mask=mask, row_weight=share, weight=weight, positiveness=positiveness
    )


def ones(batch):
    return jnp.ones((batch,), jnp.float32)


def by_loop(a, b, mask, share, positiveness):
    """Mean over reports of the weighted mean of -sum_m p(m | n) log softmax_m, both ways."""
    a, b, share = (np.asarray(x, np.float64) for x in (a, b, share))
    found = []
    for x, y, real, weight in zip(a, b, np.asarray(mask), share, strict=True):
        x, y = x[real], y[real]
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        target = positiveness[np.ix_(real, real)]
        target = target / target.sum(1, keepdims=True)
        both = 0.0
        for score in (4 * x @ y.T, 4 * y @ x.T):
            logs = score - np.log(np.exp(score).sum(1, keepdims=True))
            both = both - (target * logs).sum(1)
        found.append(np.average(both / 2, weights=weight[real]))
    return np.mean(found)


@pytest.mark.parametrize("positives", ["itself", "neighbours"])
def test_the_loss_is_that_of_a_loop_over_reports_and_rows(positives):
    a, b, mask, share = rows()
    spread = spatial_positiveness((2, 2), threshold=0.5, decay=1.0)
    target = {"itself": np.eye(4), "neighbours": spread}[positives]
    found = loss(a, b, mask, share, ones(3), None if positives == "itself" else spread)
    np.testing.assert_allclose(found, by_loop(a, b, mask, share, target), rtol=1e-5)


def test_alike_rows_of_one_sentence_match_the_unweighted_loss():
    a, b, mask, _ = rows()
    found = loss(a, b, mask, jnp.ones((3, 4), jnp.float32), ones(3))
    expected = local_text(a, b, scale=SCALE, mask=mask, weight=ones(3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rows_count_by_their_weight_whatever_its_scale():
    a, b, mask, share = rows()
    first = loss(a, b, mask, share, ones(3))
    np.testing.assert_allclose(loss(a, b, mask, 7 * share, ones(3)), first, rtol=1e-5)
    assert not np.isclose(loss(a, b, mask, share**3, ones(3)), first, rtol=1e-3)


def test_swapping_rows_and_contexts_does_not_change_the_loss():
    a, b, mask, share = rows()
    there, back = (loss(x, y, mask, share, ones(3)) for x, y in ((a, b), (b, a)))
    np.testing.assert_allclose(there, back, rtol=1e-6)


def test_padded_rows_and_pairs_change_neither_value_nor_gradient():
    a, b, mask, share = rows()
    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    value, grads = both(a, b, mask, share, ones(3))

    def grow(x, fill):
        return jnp.pad(x, ((0, 2), (0, 3)) + ((0, 0),) * (x.ndim - 2), constant_values=fill)

    weight = jnp.array([1, 1, 1, 0, 0], jnp.float32)
    big = grow(mask, False)
    grown = both(grow(a, 7.0), grow(b, jnp.nan), big, grow(share, 3.0), weight)
    np.testing.assert_allclose(grown[0], value, rtol=1e-6)
    for grad, grown_grad in zip(grads, grown[1], strict=True):
        np.testing.assert_allclose(grown_grad[:3, :4], grad, atol=1e-6)
        assert not np.any(np.asarray(grown_grad)[~np.asarray(big)])
    empty = loss(a, b, jnp.zeros_like(mask), share, ones(3))
    assert float(empty) == 0


def test_positives_are_near_places_and_themselves_most():
    found = spatial_positiveness((3, 4), threshold=0.5, decay=1.0)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert np.all(found.argmax(1) == np.arange(12))
    # Row 0 is the corner: (0, 1) is 1/5 of the 3 x 4 map's diagonal away, (2, 3) sqrt(13)/5.
    np.testing.assert_allclose(found[0, 1] / found[0, 0], np.exp(-1 / 5), rtol=1e-5)
    np.testing.assert_allclose(found[0, 4] / found[0, 0], np.exp(-1 / 5), rtol=1e-5)
    np.testing.assert_allclose(found[0, 5] / found[0, 0], np.exp(-(2**0.5) / 5), rtol=1e-5)
    assert found[0, 11] == 0
    near = spatial_positiveness((3, 4), threshold=0.5, decay=0.1)
    np.testing.assert_allclose(near[0, 1] / near[0, 0], np.exp(-2), rtol=1e-5)
    np.testing.assert_array_equal(
        spatial_positiveness((3, 4), threshold=0.0, decay=1.0), np.eye(12, dtype=np.float32)
    )


def test_mismatched_shapes_are_refused_by_name():
    a, b, mask, share = rows()
    with pytest.raises(ValueError, match=r"context \(3, 3, 6\)"):
        loss(a, b[:, :3], mask, share, ones(3))
    with pytest.raises(ValueError, match=r"row_weight \(3, 2\)"):
        loss(a, b, mask, share[:, :2], ones(3))
