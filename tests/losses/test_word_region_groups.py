"""The contrast of words with regions within groups of pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from prior_jax.losses.word_region import word_region_contrast
from prior_jax.losses.word_region_groups import grouped_word_region_contrast

ROWS, GROUP, WORDS, REGIONS, FEATURES = 12, 4, 3, 5, 8
OPTIONS = {"softmax_over_words": False, "aggregate": "mean", "chunk": 2, "walk": "images"}


@pytest.fixture(scope="module")
def pairs():
    """The second group has one real pair, the third lacks a pair and a caption's words."""
    rng = np.random.default_rng(0)
    words = rng.standard_normal((ROWS, WORDS, FEATURES)).astype(np.float32)
    regions = rng.standard_normal((ROWS, REGIONS, FEATURES)).astype(np.float32)
    mask = np.arange(WORDS) < 1 + np.arange(ROWS)[:, None] % WORDS
    mask[9] = False
    weight = np.array([1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1], np.float32)
    return words, regions, mask, weight


def both(loss, words, regions, mask, weight, **options):
    found = loss(words, regions, word_mask=mask, weight=weight, **OPTIONS, **options)
    return jnp.stack([found.image_to_text, found.text_to_image])


@jax.jit
def grouped(words, regions, mask, weight):
    def loss(words, regions):
        found = both(grouped_word_region_contrast, words, regions, mask, weight, group=GROUP)
        return found[0] + 2 * found[1], found

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(words, regions)


@jax.jit
def one_group(words, regions, mask, weight):
    return both(word_region_contrast, words, regions, mask, weight)


def test_it_is_the_mean_over_real_pairs_of_each_group_by_itself(pairs):
    (_, found), _ = grouped(*pairs)
    alone = [one_group(*(x[i : i + GROUP] for x in pairs)) for i in range(0, ROWS, GROUP)]
    real = np.array([4, 1, 2], np.float32)
    np.testing.assert_allclose(found, real @ np.stack(alone) / real.sum(), rtol=1e-5)
    np.testing.assert_allclose(alone[1], 0, atol=1e-6)


def test_pairs_of_other_groups_have_no_part(pairs):
    words, regions, mask, weight = pairs
    weight = np.where(np.arange(ROWS) < GROUP, weight, 0).astype(np.float32)
    (_, found), (to_words, to_regions) = grouped(words, regions, mask, weight)
    expected = one_group(*(x[:GROUP] for x in (words, regions, mask, weight)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for gradient in (to_words, to_regions):
        assert np.all(gradient[GROUP:] == 0) and np.any(gradient[:GROUP] != 0)


def test_each_group_leaves_its_own_masked_regions_out(pairs):
    words, regions, mask, weight = pairs
    seen = np.random.default_rng(1).random((ROWS, REGIONS)) < 0.6
    seen[0] = False  # an image without a region counts as padding

    def masked(loss, part, **options):
        given = (x[part] for x in pairs)
        return both(loss, *given, region_mask=seen[part], **options)

    found = masked(grouped_word_region_contrast, slice(None), group=GROUP)
    alone = [masked(word_region_contrast, slice(i, i + GROUP)) for i in range(0, ROWS, GROUP)]
    real = (weight > 0) & mask.any(axis=1) & seen.any(axis=1)
    real = real.reshape(-1, GROUP).sum(axis=1).astype(np.float32)
    np.testing.assert_allclose(found, real @ np.stack(alone) / real.sum(), rtol=1e-5)
    changed = np.where(seen[..., None], regions, 100).astype(np.float32)
    again = both(
        grouped_word_region_contrast, words, changed, mask, weight, region_mask=seen, group=GROUP
    )
    np.testing.assert_allclose(again, found, rtol=1e-5)


def test_padding_changes_neither_value_nor_gradient(pairs):
    words, regions, mask, weight = pairs
    padded = words.copy(), regions.copy(), mask, weight
    padded[0][[4, 10]] = padded[1][[4, 10]] = 1e3
    (_, one), gradients = grouped(*pairs)
    (_, other), others = grouped(*padded)
    np.testing.assert_allclose(one, other, rtol=1e-6)
    for mine, theirs in zip(gradients, others, strict=True):
        assert np.all(theirs[10] == 0)
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.multidevice
def test_groups_that_lie_on_a_device_each_change_nothing_and_send_nothing(pairs):
    mesh = jax.make_mesh((3,), ("data",), devices=jax.devices()[:3], axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    run = jax.jit(grouped.__wrapped__, in_shardings=rows)
    (_, together), gradients = run(*pairs)
    (_, alone), others = grouped(*pairs)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    for mine, theirs in zip(gradients, others, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    program = run.lower(*pairs).compile().as_text()
    assert "all-reduce" in program and "all-gather" not in program


def test_a_group_that_does_not_divide_the_batch_is_refused(pairs):
    with pytest.raises(ValueError, match=r"groups of 5.*divisor of 12"):
        both(grouped_word_region_contrast, *pairs, group=5)
