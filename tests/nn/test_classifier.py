import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.nn.classifier import ImageClassifier
from tests.nn import small


def pooled(encoder, image, *, train):
    return encoder(image, train=train)[1]


def classifier(**arguments):
    return small.filled(
        lambda: ImageClassifier(
            small.image_encoder(pool="mean", image_size=16),
            pooled,
            features=small.resnet_config().features,
            classes=3,
            rngs=nnx.Rngs(0),
            **arguments,
        )
    )


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 16, 16, 1))


def train_pass(images, **arguments):
    """Logits, gradients and statistics of one training pass, and of evaluation before it."""
    model = classifier(**arguments)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def run(params, images):
        module = nnx.merge(graphdef, params, rest, copy=True)
        before = nnx.as_pure(nnx.state(module, nnx.BatchStat))
        evaluated = module(images, train=False)
        logits = module(images, train=True)
        after = nnx.as_pure(nnx.state(module, nnx.BatchStat))
        return jnp.sum(jnp.sin(logits)), (evaluated, logits, before, after)

    grads, outputs = jax.jit(jax.grad(run, has_aux=True))(params, images)
    return nnx.as_pure(grads), *outputs


def moved(before, after):
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return [not np.array_equal(a, b) for a, b in pairs]


def test_a_frozen_encoder_is_the_same_in_training(images):
    grads, evaluated, logits, before, after = train_pass(images, frozen=True)
    assert logits.shape == (4, 3)
    np.testing.assert_array_equal(evaluated, logits)
    assert not any(moved(before, after))
    assert not any(np.any(x) for x in jax.tree.leaves(grads["encoder"]))
    assert all(np.any(x) for x in jax.tree.leaves(grads["classifier"]))


def test_statistics_of_the_release_drift_under_a_frozen_encoder(images):
    grads, evaluated, logits, before, after = train_pass(
        images, frozen=True, drifting_statistics=True
    )
    assert not np.allclose(evaluated, logits)
    assert all(moved(before, after))
    assert not any(np.any(x) for x in jax.tree.leaves(grads["encoder"]))


def test_an_encoder_that_is_not_frozen_is_trained(images):
    grads, _, _, before, after = train_pass(images, frozen=False)
    assert all(moved(before, after))
    assert all(np.any(x) for x in jax.tree.leaves(grads))
