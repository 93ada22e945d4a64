import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from launch.bench_word_region import temporary_bytes
from prior_jax.losses import word_region
from prior_jax.losses.word_region import (
    word_region_attention,
    word_region_contrast,
    word_region_similarity,
)

BATCH, WORDS, REGIONS, FEATURES = 10, 5, 6, 8
RELEASE = {"softmax_over_words": True, "aggregate": "sum"}
PAPER = {"softmax_over_words": False, "aggregate": "mean"}


def both(words, regions, mask, weight, *, region_mask=None, **options):
    found = word_region_contrast(
        words, regions, word_mask=mask, weight=weight, region_mask=region_mask, **options
    )
    return jnp.stack([found.image_to_text, found.text_to_image])


def differentiated(**options):
    """Both directions and the gradient of a sum of them that tells them apart."""

    def loss(words, regions, mask, weight, region_mask=None):
        found = both(words, regions, mask, weight, region_mask=region_mask, **options)
        return found[0] + 2 * found[1], found

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


@pytest.fixture(scope="module")
def pairs():
    """Words, regions, mask and weight; captions of 1 to WORDS words, nothing padded else."""
    rng = np.random.default_rng(0)
    words = rng.standard_normal((BATCH, WORDS, FEATURES)).astype(np.float32)
    regions = rng.standard_normal((BATCH, REGIONS, FEATURES)).astype(np.float32)
    lengths = 1 + np.arange(BATCH) % WORDS
    mask = np.arange(WORDS)[None, :] < lengths[:, None]
    return words, regions, mask, np.ones(BATCH, np.float32)


@pytest.fixture(scope="module")
def whole():
    """The release's form without chunks."""
    return differentiated(**RELEASE)


def assert_same(actual, expected, *, rtol=1e-5):
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        theirs = np.asarray(theirs)
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * np.abs(theirs).max())


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def plain_similarity(
    words, regions, mask, *, softmax_over_words, aggregate, temp1=4.0, temp2=5.0, region_mask=None
):
    """Caption by caption, image by image, in float64 and with the context itself."""
    if region_mask is None:
        region_mask = np.ones(regions.shape[:2], bool)
    out = np.zeros((len(regions), len(words)))
    for i, j in np.ndindex(out.shape):
        w, r = words[j][mask[j]].astype(float), regions[i][region_mask[i]].astype(float)
        scores = w @ r.T
        if softmax_over_words:
            scores = softmax(scores, 0)
        context = softmax(temp1 * scores, 1) @ r
        norms = np.linalg.norm(w, axis=1) * np.linalg.norm(context, axis=1)
        exponents = np.exp(temp2 * (w * context).sum(1) / norms)
        out[i, j] = np.log({"sum": np.sum, "mean": np.mean, "max": np.max}[aggregate](exponents))
    return out


@pytest.mark.parametrize("softmax_over_words", [True, False])
@pytest.mark.parametrize("aggregate", ["sum", "mean", "max"])
def test_similarity_is_that_of_the_formula(pairs, softmax_over_words, aggregate):
    words, regions, mask, _ = pairs
    how = {"softmax_over_words": softmax_over_words, "aggregate": aggregate}
    how |= {"temp1": 3.0, "temp2": 2.0}
    region_mask = np.arange(REGIONS)[None, :] < 2 + np.arange(BATCH - 1)[:, None] % (REGIONS - 1)
    given = words, regions[1:], mask
    similarity = jax.jit(
        lambda w, r, m: word_region_similarity(
            w, r, word_mask=m, region_mask=jnp.asarray(region_mask), chunk=BATCH + 3, **how
        )
    )(*given)
    plain = plain_similarity(*given, region_mask=region_mask, **how)
    np.testing.assert_allclose(similarity, plain, rtol=1e-5, atol=1e-5)


def test_regions_that_cancel_keep_their_cosine(pairs):
    words, regions, mask, _ = pairs
    centred = regions - regions.mean(1, keepdims=True) + np.float32(0.01)
    how = {**RELEASE, "temp1": 0.05}
    similarity = word_region_similarity(words, centred, word_mask=mask, **how)
    plain = plain_similarity(words, centred, mask, **how)
    np.testing.assert_allclose(similarity, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [RELEASE, PAPER], ids=["release", "paper"])
def test_loss_is_the_cross_entropy_of_the_similarities(pairs, options):
    words, regions, mask, _ = pairs
    logits = 10 * plain_similarity(words, regions, mask, **options)
    matched = np.diag(logits)
    to_text = np.log(np.exp(logits).sum(1)) - matched
    to_image = np.log(np.exp(logits).sum(0)) - matched
    found = jax.jit(lambda *given: both(*given, **options))(*pairs)
    np.testing.assert_allclose(found, [to_text.mean(), to_image.mean()], rtol=1e-4)


def test_attention_is_a_distribution_over_real_regions(pairs):
    words, regions, mask, _ = pairs
    region_mask = np.arange(REGIONS)[None, :] < 1 + np.arange(BATCH)[:, None] % REGIONS
    attention = word_region_attention(
        words,
        regions,
        word_mask=mask,
        region_mask=jnp.asarray(region_mask),
        softmax_over_words=True,
    )
    attention = np.asarray(attention)
    np.testing.assert_allclose(attention.sum(2)[mask], 1, rtol=1e-5)
    assert not attention[~mask].any()
    assert not np.moveaxis(attention, 1, 2)[~region_mask].any()


def test_words_compete_for_regions_only_in_the_release(pairs):
    words, regions, mask, _ = pairs
    for softmax_over_words in (True, False):
        attend = jax.jit(
            lambda w, s=softmax_over_words: word_region_attention(
                w, regions, word_mask=mask, softmax_over_words=s
            )
        )
        other = words.copy()
        other[:, 1] *= -1
        changed = np.abs(attend(words) - attend(other))[:, 0][mask[:, 1]].max(1)
        assert np.all(changed > 1e-4) if softmax_over_words else not changed.any()


@pytest.mark.parametrize("chunk", [1, 7, BATCH])
def test_chunks_change_neither_value_nor_gradient(pairs, whole, chunk):
    assert_same(differentiated(chunk=chunk, **RELEASE)(*pairs), whole(*pairs))


@pytest.mark.parametrize("regions", [REGIONS, FEATURES + 3], ids=["gram", "contexts"])
@pytest.mark.parametrize("options", [RELEASE, PAPER], ids=["release", "paper"])
def test_walking_over_images_changes_neither_value_nor_gradient(pairs, options, regions):
    words, _, mask, weight = pairs
    rng = np.random.default_rng(3)
    images = rng.standard_normal((BATCH, regions, FEATURES)).astype(np.float32)
    region_mask = np.arange(regions)[None, :] < 1 + np.arange(BATCH)[:, None] % regions
    weight = np.where(np.arange(BATCH) == 4, 0, weight).astype(np.float32)
    given = words, images, mask, weight
    for extra in ((), (region_mask,)):
        expected = differentiated(**options)(*given, *extra)
        assert_same(differentiated(walk="images", **options)(*given, *extra), expected)


@pytest.mark.parametrize("walk", ["captions", "images"])
def test_a_walk_keeps_no_attention_of_all_pairs(walk):
    batch, words, regions, features = 64, 8, 24, 8
    given = (
        np.ones((batch, words, features), np.float32),
        np.ones((batch, regions, features), np.float32),
        np.ones((batch, words), bool),
        np.ones(batch, np.float32),
    )
    compiled = differentiated(walk=walk, chunk=1, **RELEASE).lower(*given).compile()
    dots = 4 * batch * batch * words * regions
    assert compiled.memory_analysis().temp_size_in_bytes < 1.5 * dots


def test_padding_changes_neither_value_nor_gradient(pairs, whole):
    """Of words, regions, captions and images, all at once, with junk in every place."""
    words, regions, mask, weight = pairs
    more, rows = (BATCH + 3, WORDS + 2), BATCH + 3
    large_words = np.full((*more, FEATURES), 9, np.float32)
    large_words[:BATCH, :WORDS] = np.where(mask[:, :, None], words, 7)
    large_regions = np.full((rows, REGIONS + 2, FEATURES), -9, np.float32)
    large_regions[:BATCH, :REGIONS] = regions
    large_mask = np.zeros(more, bool)
    large_mask[:BATCH, :WORDS] = mask
    large_mask[BATCH:] = [[True], [False], [True]]
    region_mask = np.zeros((rows, REGIONS + 2), bool)
    region_mask[:BATCH, :REGIONS] = True
    region_mask[BATCH:] = [[True], [True], [False]]
    # One row has no weight, one no word, one no region.
    large_weight = np.concatenate([weight, [0, 1, 1]]).astype(np.float32)
    values, (word_grad, region_grad) = differentiated(**RELEASE)(
        large_words, large_regions, large_mask, large_weight, region_mask
    )
    expected_values, expected_grads = whole(*pairs)
    assert_same(values, expected_values)
    real = word_grad[:BATCH, :WORDS], region_grad[:BATCH, :REGIONS]
    assert_same(real, expected_grads)
    assert not np.any(np.where(large_mask[:, :, None], 0, word_grad))
    assert not np.any(np.where(region_mask[:, :, None], 0, region_grad))
    assert not np.any(word_grad[BATCH:]) and not np.any(region_grad[BATCH:])
    assert not np.any(expected_grads[0][~mask])


def test_order_of_pairs_words_and_regions_does_not_matter(pairs, whole):
    rng = np.random.default_rng(1)
    order, words_order, regions_order = map(rng.permutation, (BATCH, WORDS, REGIONS))
    words, regions, mask, weight = pairs
    shuffled = whole(
        words[order][:, words_order],
        regions[order][:, regions_order],
        mask[order][:, words_order],
        weight,
    )
    values, (words_grad, regions_grad) = whole(*pairs)
    grads = words_grad[order][:, words_order], regions_grad[order][:, regions_order]
    assert_same(shuffled, (values, grads), rtol=2e-5)


def test_doubling_the_words_raises_sums_by_log_2_and_nothing_else(pairs):
    words, regions, mask, _ = pairs
    for aggregate, rise in {"sum": np.log(2), "mean": 0, "max": 0}.items():
        compare = jax.jit(
            lambda w, m, a=aggregate: word_region_similarity(
                w, regions, word_mask=m, softmax_over_words=False, aggregate=a
            )
        )
        twice = compare(np.concatenate([words, words], 1), np.concatenate([mask, mask], 1))
        np.testing.assert_allclose(twice, compare(words, mask) + np.float32(rise), atol=1e-5)


def test_dimensions_of_zeros_change_nothing_whichever_way_contexts_are_compared(pairs, whole):
    words, regions, mask, weight = pairs
    few = words[..., :4], regions[..., :4]
    many = tuple(np.pad(x, ((0, 0), (0, 0), (0, FEATURES - 4))) for x in few)
    assert few[1].shape[2] < REGIONS <= many[1].shape[2]
    expected, gradients = whole(*many, mask, weight)
    found, found_gradients = whole(*few, mask, weight)
    assert_same(found, expected)
    assert_same(found_gradients, tuple(x[..., :4] for x in gradients), rtol=1e-4)


def test_zero_vectors_have_finite_gradients(pairs, whole):
    words, regions, mask, weight = pairs
    words, regions = words.copy(), regions.copy()
    words[0, 0] = 0
    regions[1] = 0
    for leaf in jax.tree.leaves(whole(words, regions, mask, weight)):
        assert np.all(np.isfinite(leaf))


def test_a_batch_of_padding_costs_nothing(pairs, whole):
    words, regions, mask, weight = pairs
    (value, _), grads = whole(words, regions, mask, 0 * weight)
    assert float(value) == 0
    assert not any(np.any(grad) for grad in grads)


def test_half_precision_is_summed_in_float32(pairs):
    words, regions, mask, weight = pairs
    half = [jnp.asarray(x, jnp.bfloat16) for x in (words, regions)]
    single = [x.astype(jnp.float32) for x in half]
    loss = jax.jit(lambda *given: both(*given, mask, weight, **RELEASE))
    found = loss(*half)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, loss(*single), rtol=1e-5)


@pytest.mark.parametrize("name", ["words", "regions", "word_mask", "region_mask", "weight"])
def test_bad_shapes_are_refused_by_name(pairs, name):
    words, regions, mask, weight = pairs
    given = {"words": words, "regions": regions, "word_mask": mask, "weight": weight}
    given["region_mask"] = np.ones((BATCH, REGIONS), bool)
    given[name] = given[name][:4]
    with pytest.raises(ValueError, match=rf"\b{name} \(4"):
        word_region_contrast(**given, **RELEASE)
    for part in ("words", "regions"):
        wide = {**given, "words": words, "regions": regions}
        wide[part] = wide[part][:, :, :3]
        del wide["weight"]
        wide["word_mask"], wide["region_mask"] = mask, None
        with pytest.raises(ValueError, match=rf"{part} \({BATCH}, \d, 3\)"):
            word_region_similarity(**wide, **RELEASE)


def test_bad_options_are_refused_by_name(pairs):
    words, regions, mask, _ = pairs
    for options, message in (
        ({**RELEASE, "aggregate": "median"}, "aggregate 'median' .*'sum', 'mean', 'max'"),
        ({**RELEASE, "chunk": 0}, "chunk is 0.*at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            word_region_similarity(words, regions, word_mask=mask, **options)
    with pytest.raises(ValueError, match=r"words \(9, .* same number of rows"):
        word_region_attention(words[1:], regions, word_mask=mask[1:], softmax_over_words=True)


@pytest.mark.multidevice
def test_sharding_the_batch_changes_nothing_and_gathers_words_alone(monkeypatch):
    monkeypatch.setattr(word_region, "KEPT_BYTES", 0)  # as in a large batch
    batch, chunk = 24, 7
    rng = np.random.default_rng(2)
    words = rng.standard_normal((batch, WORDS, FEATURES)).astype(np.float32)
    regions = rng.standard_normal((batch, REGIONS, FEATURES)).astype(np.float32)
    mask = np.arange(WORDS)[None, :] < 1 + np.arange(batch)[:, None] % WORDS
    weight = np.ones(batch, np.float32)
    weight[-2:] = 0
    given = words, regions, mask, weight
    loss = differentiated(chunk=chunk, **RELEASE)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, P("data"))
    placed = jax.device_put(given, place)
    compiled = loss.lower(*placed).compile()
    assert_same(jax.block_until_ready(compiled(*placed)), loss(*given))
    sizes = {
        tuple(map(int, shape.split(",")))
        for shape in re.findall(r"f32\[([\d,]+)\]", compiled.as_text())
    }
    largest = max(words.size, chunk * (batch // 8) * WORDS * REGIONS)
    assert max(int(np.prod(size)) for size in sizes) <= largest
    gathered = re.findall(r"f32\[([\d,]+)\]\S* all-gather\(", compiled.as_text())
    assert gathered
    assert not any(str(REGIONS) in shape.split(",")[1:] for shape in gathered)


def test_a_small_batch_keeps_the_products_and_has_the_same_gradient(monkeypatch):
    rng = np.random.default_rng(5)
    words, regions = (
        rng.standard_normal((BATCH, count, FEATURES)).astype(np.float32)
        for count in (WORDS, REGIONS)
    )
    given = words, regions, np.ones((BATCH, WORDS), bool), np.ones(BATCH, np.float32)
    found = {}
    size = 2 * 4 * BATCH * BATCH * WORDS * REGIONS  # with regions, and with their Gram matrices
    for limit in (size, size - 1):
        monkeypatch.setattr(word_region, "KEPT_BYTES", limit)
        lowered = differentiated(chunk=2, **RELEASE).lower(*given)
        found[limit] = lowered.as_text().count("stablehlo.dot_general"), lowered.compile()(*given)
    (kept, one), (again, other) = found.values()
    assert kept < again
    assert_same(one, other)


def test_memory_grows_with_the_batch_and_not_with_its_square(monkeypatch):
    monkeypatch.setattr(word_region, "KEPT_BYTES", 0)  # as in a large batch
    sizes = {"words": 16, "regions": 32, "features": 8, "aggregate": "sum"}
    # Smaller batches fit into buffers that XLA rounds up, each version in its own way.
    small, large = (temporary_bytes(batch, chunk=2, **sizes) for batch in (128, 256))
    assert 1.5 < large / small < 2.5
