import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.nn.heads import Predictor, ProjectionHead, projection


def test_projection_is_drawn_as_the_release_draws_it():
    linear = projection(400, 300, dtype=jnp.float32, rngs=nnx.Rngs(0))
    kernel, bias = np.asarray(linear.kernel[...]), np.asarray(linear.bias[...])
    assert abs(kernel.std() * 400**0.5 - 1) < 0.02
    assert np.abs(kernel).max() > 2 * 400**-0.5
    assert np.abs(bias).max() <= 400**-0.5
    assert bias.std() > 0


def test_predictor_is_linear_relu_linear():
    predictor = Predictor(8, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 3, 8), jnp.float32)
    hidden = np.maximum(np.asarray(predictor.hidden(x)), 0)
    assert hidden.shape == (2, 3, 4)
    np.testing.assert_allclose(predictor(x), predictor.output(jnp.asarray(hidden)), rtol=1e-5)


def test_compute_dtype_leaves_parameters_alone():
    predictor = Predictor(8, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert predictor(jnp.ones((1, 8))).dtype == jnp.bfloat16
    assert predictor.hidden.kernel[...].dtype == jnp.float32


def test_a_head_is_linear_or_linear_relu_linear():
    x = jax.random.normal(jax.random.key(0), (2, 3, 8), jnp.float32)
    flat = ProjectionHead(8, 5, hidden_features=None, dtype=jnp.float32, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(flat(x), flat.output(x))
    deep = ProjectionHead(8, 5, hidden_features=7, dtype=jnp.float32, rngs=nnx.Rngs(0))
    hidden = np.maximum(np.asarray(deep.hidden(x)), 0)
    assert hidden.shape == (2, 3, 7)
    np.testing.assert_allclose(deep(x), deep.output(jnp.asarray(hidden)), rtol=1e-5)
