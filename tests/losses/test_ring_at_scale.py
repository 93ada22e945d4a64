"""A global batch of 32,768 pairs on eight devices: the memory of both forms, and the numbers."""

import jax
import numpy as np
import pytest

from launch.bench_ring import arguments, mesh_of, temporary_bytes, value_and_gradient

BATCH, CHUNK = 32768, 1024
pytestmark = [pytest.mark.slow, pytest.mark.multidevice]


@pytest.fixture(autouse=True)
def optimised():
    """As a run compiles, not as tests do: what the compiler fuses is not held."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def scores_of(image, text, scale):
    """Blocks of rows of the scores, in float64."""
    for start in range(0, BATCH, CHUNK):
        rows = slice(start, start + CHUNK)
        yield rows, scale * image[rows] @ text.T


def pulled(image, text, scale, gradient_of):
    """Gradients of images, texts and scale from (rows, scores) -> the scores' gradient."""
    image_gradient, text_gradient, total = np.zeros_like(image), np.zeros_like(text), 0.0
    for rows, scores in scores_of(image, text, scale):
        gradient = gradient_of(rows, scores)
        total += np.sum(gradient * scores) / scale
        image_gradient[rows] = scale * gradient @ text
        text_gradient += scale * gradient.T @ image[rows]
    return image_gradient, text_gradient, total


def contrastive(image, text, scale, bias):
    """Value and gradients, the scores being below 20 in size."""
    row, column, partner = np.zeros(BATCH), np.zeros(BATCH), np.zeros(BATCH)
    for rows, scores in scores_of(image, text, scale):
        grown = np.exp(scores)
        row[rows], column = grown.sum(1), column + grown.sum(0)
        partner[rows] = np.diag(scores[:, rows])

    def gradient_of(rows, scores):
        grown = np.exp(scores) / (2 * BATCH)
        gradient = grown / row[rows, None] + grown / column
        gradient[np.arange(CHUNK), np.arange(BATCH)[rows]] -= 1 / BATCH
        return gradient

    value = np.mean((np.log(row) + np.log(column)) / 2 - partner)
    return value, (*pulled(image, text, scale, gradient_of), 0.0)


def sigmoid(image, text, scale, bias):
    """Value and gradients."""
    sums = {"value": 0.0, "bias": 0.0}

    def gradient_of(rows, scores):
        logits = scores + bias
        places = np.arange(CHUNK), np.arange(BATCH)[rows]
        sums["value"] += np.log1p(np.exp(logits)).sum() - logits[places].sum()
        gradient = 1 / (1 + np.exp(-logits))
        gradient[places] -= 1
        sums["bias"] += gradient.sum()
        return gradient / BATCH

    gradients = pulled(image, text, scale, gradient_of)
    return sums["value"] / BATCH, (*gradients, sums["bias"] / BATCH)


@pytest.mark.parametrize("name", ["contrastive", "sigmoid"])
def test_the_ring_takes_at_most_a_sixth_of_the_memory(name):
    sizes = {"batch": BATCH, "features": 512, "chunk": CHUNK, "mesh": mesh_of(8)}
    gathered, ring = (temporary_bytes(name, form=form, **sizes) for form in ("gathered", "ring"))
    assert gathered > BATCH**2 / 8 * 4
    assert 6 * ring <= gathered


@pytest.mark.parametrize("plain", [contrastive, sigmoid])
def test_value_and_gradient_are_those_of_all_pairs(plain):
    mesh, given = mesh_of(8), arguments(BATCH, features=16)
    with jax.set_mesh(mesh):
        step = value_and_gradient(plain.__name__, form="ring", chunk=CHUNK, mesh=mesh)
        value, gradients = jax.block_until_ready(step(*given))
    wanted, wanted_gradients = plain(*(np.asarray(x, np.float64) for x in given))
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for mine, theirs in zip(gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
