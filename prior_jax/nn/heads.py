"""Small maps on top of the encoders, with the initialisation of the release."""

import jax
import jax.numpy as jnp
from flax import nnx


def linear(
    in_features: int,
    out_features: int,
    *,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    stddev: float | None = None,
) -> nnx.Linear:
    """A linear map initialised as torch's `nn.Linear`, or with normal weights.

    Args:
      in_features: size of the last axis of the input.
      out_features: size of the last axis of the output.
      dtype: compute dtype; parameters are float32.
      rngs: the `params` stream initialises.
      stddev: None for torch's uniform(-1/sqrt(in), 1/sqrt(in)); else the weights are
        normal(0, stddev), as `inititalize_parameters` of the release does for projections.

    Returns:
      The module, kernel [in, out] and bias [out].

    Source: torch.nn.Linear; release, codes/prior/models/prior.py.
    """
    bound = in_features**-0.5
    uniform = _uniform(bound)
    kernel = uniform if stddev is None else nnx.initializers.normal(stddev)
    return nnx.Linear(
        in_features,
        out_features,
        dtype=dtype,
        param_dtype=jnp.float32,
        kernel_init=kernel,
        bias_init=uniform,
        rngs=rngs,
    )


def _uniform(bound: float):
    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, out_sharding=None):
        del out_sharding  # Placement belongs to whoever compiles the initialisation.
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Predictor(nnx.Module):
    """Linear, ReLU, linear: predicts one view's patches from the other's.

    Source: release, codes/prior/models/prior.py (`predictor`); SimSiam, arXiv:2011.10566,
    section 3. Differs from SimSiam: no batch normalisation (quirk 21).
    """

    def __init__(self, embed_dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Builds D -> D // 2 -> D.

        Args:
          embed_dim: D.
          dtype: compute dtype; parameters are float32.
          rngs: the `params` stream initialises.
        """
        hidden = embed_dim // 2
        self.hidden = linear(embed_dim, hidden, dtype=dtype, rngs=rngs, stddev=embed_dim**-0.5)
        self.out = linear(hidden, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., D] to [..., D]."""
        return self.out(jax.nn.relu(self.hidden(x)))
