"""Small projections on top of the encoders, initialised as in the release."""

import jax
from flax import nnx

from prior_jax.nn.layers import linear, torch_linear, torch_uniform_bias


def projection(
    in_features: int, out_features: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    """Creates `layers.linear` with normal weights and torch's uniform bias.

    The weights are drawn from normal(0, in_features ** -0.5).

    Source: release, codes/prior/models/prior.py, `inititalize_parameters`.
    """
    return linear(
        in_features,
        out_features,
        kernel_init=nnx.initializers.normal(in_features**-0.5),
        bias_init=torch_uniform_bias(in_features),
        dtype=dtype,
        rngs=rngs,
    )


class Predictor(nnx.Module):
    """Linear, ReLU, linear: predicts the patches of one view from those of the other.

    Source: release, codes/prior/models/prior.py (`predictor`); SimSiam, arXiv:2011.10566,
    section 3. Differs from SimSiam: no batch normalisation (quirk P21).
    """

    def __init__(self, embed_dim: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        """Creates the linear maps D -> D // 2 -> D.

        Args:
          embed_dim: size D of the embeddings.
          dtype: compute dtype; parameters are float32.
          rngs: source of the initial parameters.
        """
        self.hidden = projection(embed_dim, embed_dim // 2, dtype=dtype, rngs=rngs)
        self.output = torch_linear(embed_dim // 2, embed_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., D] to dtype[..., D]."""
        return self.output(jax.nn.relu(self.hidden(x)))


class ProjectionHead(nnx.Module):
    """Projection from an encoder's output to the embedding space of images and reports.

    Source: linear in CLIP, arXiv:2103.00020, section 2.3; linear, ReLU, linear in ConVIRT,
    arXiv:2010.00747, section 2.3. Differs from LoVT's and MGCA's: no batch normalisation, whose
    statistics would include padded words and sentences.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates one linear map or two.

        Args:
          in_features: size of the last axis of the input.
          out_features: size of the last axis of the output.
          hidden_features: inner width; None for a linear head.
          dtype: compute dtype; parameters are float32.
          rngs: source of the initial parameters.
        """
        if hidden_features is None:
            self.hidden = None
        else:
            self.hidden = torch_linear(in_features, hidden_features, dtype=dtype, rngs=rngs)
            in_features = hidden_features
        self.output = projection(in_features, out_features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., in] to dtype[..., out]."""
        if self.hidden is not None:
            x = jax.nn.relu(self.hidden(x))
        return self.output(x)
