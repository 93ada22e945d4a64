"""The losses of GLoRIA against numbers recorded from the authors' code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.losses.contrastive import cosine_contrastive
from prior_jax.losses.normalize import cosine_of_products
from prior_jax.losses.word_region import (
    word_region_attention,
    word_region_contrast,
    word_region_similarity,
)
from tests.golden.reader import assert_close, load

pytestmark = pytest.mark.golden

TOTALS = {
    "loss0": lambda loss: loss.image_to_text,
    "loss1": lambda loss: loss.text_to_image,
    "sum": lambda loss: loss.image_to_text + loss.text_to_image,
}


def rows(x):
    """[B, D, ...] of the release, flattened to [B, positions, D]."""
    return np.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2)


def ones(count):
    return jnp.ones((count,), jnp.float32)


def test_attention_fn(golden_dir):
    golden = load(golden_dir, "gloria", "attention_fn")
    for case in golden.cases("in/"):
        given = golden.prefix(f"in/{case}/")
        words, regions = map(rows, (given["query"], given["context"]))
        mask = np.ones(words.shape[:2], bool)
        cotangents = rows(given["cot_weighted"]), given["cot_attn"].reshape(*mask.shape, -1)

        def attend(words, regions, mask=mask, temp1=float(given["temp1"])):
            attention = word_region_attention(
                words, regions, word_mask=mask, temp1=temp1, softmax_over_words=True
            )
            return jnp.einsum("bwp,bpd->bwd", attention, regions), attention

        @jax.jit
        def run(words, regions, cotangents, attend=attend):
            outputs, pull = jax.vjp(attend, words, regions)
            return outputs, pull(cotangents)

        (weighted, attention), grads = run(words, regions, cotangents)
        assert_close(weighted, rows(golden[f"out/{case}/weighted_context"]), rtol=1e-4, name=case)
        expected = golden[f"out/{case}/attn"]
        assert_close(attention.reshape(expected.shape), expected, rtol=1e-4, name=case)
        for name, grad in zip(("query", "context"), grads, strict=True):
            expected = rows(golden[f"grad/{case}/{name}"])
            assert_close(grad, expected, rtol=1e-3, name=f"{case} {name}")


def test_cosine_similarity(golden_dir):
    golden = load(golden_dir, "gloria", "cosine_similarity")
    for case in golden.cases("in/"):
        given = golden.prefix(f"in/{case}/")
        axis = given.scalar("dim")

        def cosine(x1, x2, axis=axis):
            dot, square1, square2 = (jnp.sum(x, axis) for x in (x1 * x2, x1 * x1, x2 * x2))
            # The release squeezes a single row.
            return jnp.squeeze(cosine_of_products(dot, square1, square2))

        value, pull = jax.vjp(cosine, *map(jnp.asarray, (given["x1"], given["x2"])))
        assert_close(value, golden[f"out/{case}/sim"], rtol=1e-4, name=case)
        for name, grad in zip(("x1", "x2"), pull(jnp.asarray(given["cot"])), strict=True):
            expected = golden[f"grad/{case}/{name}"]
            # Vector by vector: next to the 1e8 of a zero vector, any other is small.
            mine, theirs = (np.moveaxis(np.asarray(x), axis, -1) for x in (grad, expected))
            for index in np.ndindex(theirs.shape[:-1]):
                assert_close(mine[index], theirs[index], rtol=1e-3, name=f"{case} {name} {index}")


def test_global_loss(golden_dir):
    golden = load(golden_dir, "gloria", "global_loss")
    for case in golden.cases("in/"):
        given = golden.prefix(f"in/{case}/")
        arrays = [jnp.asarray(given[name]) for name in ("cnn_code", "rnn_code")]

        @jax.jit
        def run(image, text, scale=given["temp3"]):
            def loss(image, text):
                found = cosine_contrastive(image, text, scale=scale, weight=ones(len(image)))
                return {name: total(found) for name, total in TOTALS.items()}

            return loss(image, text), jax.jacrev(loss, argnums=(0, 1))(image, text)

        values, grads = run(*arrays)
        for name in ("loss0", "loss1"):
            assert_close(values[name], golden[f"out/{case}/{name}"], rtol=1e-4, name=case)
        for name, pair in grads.items():
            for key, grad in zip(("cnn_code", "rnn_code"), pair, strict=True):
                expected = golden[f"grad/{case}/{name}/{key}"]
                assert_close(grad, expected, rtol=1e-3, name=f"{case} {name} {key}")


def enlarge(x, shape):
    """Zeros behind every axis, up to `shape`."""
    return np.pad(x, [(0, more - size) for size, more in zip(x.shape, shape, strict=True)])


@functools.partial(jax.jit, static_argnames=("aggregate", "walk"))
def run_local_loss(words, regions, word_mask, region_mask, weight, temps, *, aggregate, walk):
    masks = {"word_mask": word_mask, "region_mask": region_mask, "temp1": temps[0]}
    attending = {**masks, "softmax_over_words": True}
    comparing = {**attending, "temp2": temps[1], "aggregate": aggregate, "walk": walk}
    comparing["chunk"] = 1 if walk == "images" else None

    def loss(words, regions):
        found = word_region_contrast(words, regions, weight=weight, temp3=temps[2], **comparing)
        return TOTALS["sum"](found), found

    similarity = word_region_similarity(words, regions, **comparing)
    attention = word_region_attention(words, regions, **attending)
    (_, found), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(words, regions)
    return found, grads, similarity, attention


@pytest.mark.parametrize("walk", ["captions", "images"])
def test_local_loss(golden_dir, walk):
    """All cases padded to one size in every axis, so that two programs serve them all."""
    golden = load(golden_dir, "gloria", "local_loss")
    given = [
        (case, aggregate, golden.prefix(f"in/{case}/{aggregate}/"))
        for case in golden.cases("in/")
        for aggregate in golden.cases(f"in/{case}/")
    ]
    largest = [
        np.max([rows(arrays[name]).shape for *_, arrays in given], axis=0)
        for name in ("words_emb", "img_features")
    ]
    for case, aggregate, arrays in given:
        check_local_loss(golden, case, aggregate, arrays, largest, walk=walk)


def check_local_loss(golden, case, aggregate, given, largest, *, walk):
    expected = golden.prefix(f"out/{case}/{aggregate}/")
    parts = [rows(given[name]) for name in ("words_emb", "img_features")]
    lengths, batch = given["cap_lens"], len(parts[0])
    word_mask = np.arange(parts[0].shape[1])[None, :] < lengths[:, None]
    masks = word_mask, np.ones(parts[1].shape[:2], bool)
    found, grads, similarity, attention = run_local_loss(
        *(enlarge(part, shape) for part, shape in zip(parts, largest, strict=True)),
        *(enlarge(mask, shape[:2]) for mask, shape in zip(masks, largest, strict=True)),
        enlarge(np.ones(batch, np.float32), largest[0][:1]),
        given["temps"],
        aggregate=aggregate,
        walk=walk,
    )
    name = f"{case} {aggregate}"
    for key in ("loss0", "loss1"):
        assert_close(TOTALS[key](found), expected[key], rtol=1e-4, name=f"{name} {key}")
    theirs = expected["similarities_before_temp3"]
    assert_close(similarity[:batch, :batch], theirs, rtol=1e-4, name=name)
    for index, length in enumerate(lengths):
        maps = expected[f"att_map{index}"][0]
        mine = attention[index, :length, : parts[1].shape[1]].reshape(maps.shape)
        assert_close(mine, maps, rtol=1e-4, name=f"{name} map {index}")
        assert not np.any(attention[index, length:])
    for key, grad in zip(("words_emb", "img_features"), grads, strict=True):
        theirs = enlarge(rows(golden[f"grad/{case}/{aggregate}/{key}"]), grad.shape)
        assert_close(grad, theirs, rtol=1e-3, name=f"{name} {key}")
    assert not np.any(np.asarray(grads[0])[:batch, : word_mask.shape[1]][~word_mask])
