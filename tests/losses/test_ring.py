"""The ring forms are the plain losses: in value, in every gradient, however blocks are cut."""

import functools
import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from prior_jax.losses import ring_pairs
from prior_jax.losses.contrastive import cosine_contrastive, paired_contrastive
from prior_jax.losses.normalize import unit
from prior_jax.losses.ring_walk import Plan
from prior_jax.losses.sigmoid import paired_sigmoid
from prior_jax.losses.word_region import word_region_contrast

BATCH, FEATURES, WORDS, REGIONS = 22, 6, 3, 4  # 22 is a multiple of neither 4 devices nor 5 rows
# Loss -> a number that all its pairs share.
LEARNED = {"contrast": "scale", "cosine": "scale", "sigmoid": "bias", "word_region": "temp3"}
PAIRS = ("contrast", "cosine", "sigmoid")
ONE = Plan(axis=None, rows=5, columns=4)
MANY = Plan(axis=("slice", "data"), rows=4, columns=3)


@functools.cache
def given():
    """Arrays with a leading axis of B, and numbers that all pairs share."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal((BATCH, *shape)).astype(np.float32)

    lengths = 1 + np.arange(BATCH) % WORDS
    word_mask = np.arange(WORDS)[None] < lengths[:, None]
    word_mask[4] = False  # a caption without a word
    region_mask = np.arange(REGIONS)[None] < 1 + np.arange(BATCH)[:, None] % REGIONS
    features = {
        "image": draw(FEATURES),
        "text": draw(FEATURES),
        "words": draw(WORDS, FEATURES),
        "regions": draw(REGIONS, FEATURES),
    }
    weight = np.where(np.isin(np.arange(BATCH), (0, 7, 20, 21)), 0, 1).astype(np.float32)
    for name in ("image", "text"):
        features[name][weight == 0] = 50  # junk, which must stay out
    shared = {"scale": np.float32(7), "bias": np.float32(-2), "temp3": np.float32(6)}
    masks = {"word_mask": word_mask, "region_mask": region_mask, "weight": weight}
    return {**features, **shared}, masks


def one_number(found):
    """Of both directions a sum that tells them apart."""
    return found.image_to_text + 2 * found.text_to_image


def pair_losses(values, masks, plan):
    """Name -> loss of whole images and texts: plain ones where `plan` is None."""
    if plan is None:
        contrast, cosine, sigmoid = paired_contrastive, cosine_contrastive, paired_sigmoid
    else:
        contrast, cosine, sigmoid = (
            functools.partial(function, plan=plan)
            for function in (
                ring_pairs.ring_paired_contrastive,
                ring_pairs.ring_cosine_contrastive,
                ring_pairs.ring_paired_sigmoid,
            )
        )
    pair = values["image"], values["text"]
    units = [unit(x) for x in pair]
    given = {"scale": values["scale"], "weight": masks["weight"]}
    return {
        "contrast": contrast(*units, **given, image_share=0.75),
        "cosine": one_number(cosine(*pair, **given)),
        "sigmoid": sigmoid(*units, **given, bias=values["bias"]),
    }


def losses_of(values, masks, plan):
    """Name -> loss: plain ones where `plan` is None."""
    local = word_region_contrast
    if plan is not None:
        local = functools.partial(ring_pairs.ring_word_region_contrast, plan=plan)
    parts = local(
        values["words"],
        values["regions"],
        **masks,
        temp3=values["temp3"],
        softmax_over_words=True,
        aggregate="sum",
    )
    return {**pair_losses(values, masks, plan), "word_region": one_number(parts)}


def differentiated(plan, names=tuple(LEARNED)):
    """Values and gradients of all losses in one program."""

    def everything(values, masks):
        return {
            name: jax.value_and_grad(lambda v, n=name: losses_of(v, masks, plan)[n])(values)
            for name in names
        }

    # Nearly all the time goes into compiling: spend less of it.
    return jax.jit(everything, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def plain():
    return differentiated(None)


def assert_same(actual, expected, *, tolerance=1e-5):
    for name, (value, gradients) in expected.items():
        np.testing.assert_allclose(actual[name][0], value, rtol=tolerance, err_msg=name)
        for key, wanted in gradients.items():
            atol = tolerance * max(1e-3, float(np.abs(wanted).max()))
            found = actual[name][1][key]
            message = f"{name}, {key}"
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=atol, err_msg=message)


@pytest.fixture(scope="module")
def in_blocks():
    return differentiated(ONE, PAIRS)


def only(names, found):
    return {name: found[name] for name in names}


def test_blocks_change_neither_value_nor_gradient(plain, in_blocks):
    expected = plain(*given())
    assert_same(in_blocks(*given()), only(PAIRS, expected))
    for name, shared in LEARNED.items():
        assert abs(float(expected[name][1][shared])) > 1e-4, name


@pytest.mark.multidevice
def test_devices_on_two_axes_and_copies_change_neither_value_nor_gradient(plain):
    mesh = jax.make_mesh((2, 2, 2), ("slice", "data", "model"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        found = jax.block_until_ready(differentiated(MANY, ("word_region",))(*given()))
    assert_same(found, only(("word_region",), plain(*given())))
    _, gradients = found["word_region"]
    for name in ("words", "regions"):
        assert not np.any(gradients[name][given()[1]["weight"] == 0])


def test_padding_gets_no_gradient(in_blocks):
    values, masks = given()
    for _, gradients in in_blocks(values, masks).values():
        for name in ("image", "text"):
            assert not np.any(gradients[name][masks["weight"] == 0])


def test_a_batch_of_padding_costs_nothing(in_blocks):
    values, masks = given()
    for value, gradients in in_blocks(values, {**masks, "weight": 0 * masks["weight"]}).values():
        assert float(value) == 0
        assert not any(np.any(gradient) for gradient in gradients.values())


def test_large_scores_do_not_overflow(plain, in_blocks):
    values, masks = given()
    values = {**values, "scale": np.float32(2000)}
    found, expected = in_blocks(values, masks), plain(values, masks)
    assert_same({"contrast": found["contrast"]}, {"contrast": expected["contrast"]}, tolerance=1e-4)


def largest(jaxpr):
    """Entries of the largest array of a program, its inner programs included."""
    found = [math.prod(v.aval.shape) for equation in jaxpr.eqns for v in equation.outvars]
    found += [
        largest(getattr(inner, "jaxpr", inner))
        for equation in jaxpr.eqns
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns"))
        if hasattr(inner, "eqns")
    ]
    return max(found, default=0)


@pytest.mark.parametrize("name", PAIRS)
def test_no_array_holds_the_pairs_of_a_batch(name):
    batch, wide = 64, 2
    values = {n: np.ones((batch, wide), np.float32) for n in ("image", "text")}
    values |= {n: np.float32(1) for n in ("scale", "bias")}

    def loss(values, plan):
        arguments = {"weight": np.ones(batch, np.float32)}
        return pair_losses(values, arguments, plan)[name]

    sizes = {}
    for plan in (None, Plan(axis=None, rows=8, columns=4)):
        program = jax.make_jaxpr(jax.grad(lambda v, p=plan: loss(v, p)))(values)
        sizes[plan] = largest(program.jaxpr)
    plain, ring = sizes.values()
    assert plain == batch**2
    assert ring == batch * wide


def test_bad_input_is_refused_by_name():
    values, masks = given()
    pairs = values["image"], values["text"]
    with pytest.raises(ValueError, match=re.escape("image (22, 6), text (22, 6) and weight (4,)")):
        ring_pairs.ring_paired_contrastive(*pairs, scale=1.0, weight=masks["weight"][:4], plan=ONE)
    with pytest.raises(ValueError, match=r"mesh .* no axis .*'data'"):
        ring_pairs.ring_paired_contrastive(*pairs, scale=1.0, weight=masks["weight"], plan=MANY)
    for name in ("rows", "columns"):
        with pytest.raises(ValueError, match=f"{name} is 0.*at least 1"):
            Plan(axis=None, **{"rows": 1, "columns": 1, name: 0})
