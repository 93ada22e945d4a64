import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.nn.log_scale import MAX_LOG_SCALE, clamp_from_above, log_scale


def test_the_parameter_is_the_logarithm_of_the_inverse_temperature():
    np.testing.assert_allclose(jnp.exp(log_scale(0.07)[...]), 1 / 0.07, rtol=1e-6)


def test_clamped_scales_can_only_fall_at_the_limit():
    limit = jnp.full((), MAX_LOG_SCALE, jnp.float32)
    np.testing.assert_allclose(jnp.exp(clamp_from_above(limit + 3)), 100, rtol=1e-5)
    assert float(jax.grad(lambda s: -clamp_from_above(s))(limit + 1)) == 0
    assert float(jax.grad(clamp_from_above)(limit)) == 1
    assert float(jax.grad(lambda s: -clamp_from_above(s))(limit - 1)) == -1
