"""The block of convolutional decoders: doubles the map, joins a finer map, convolves twice."""

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.nn.layers import (
    BatchNorm,
    Conv,
    torch_uniform,
    torch_uniform_bias,
)


class ConvPair(nnx.Module):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = False,
        kernel_init: nnx.Initializer = torch_uniform,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the convolutions.

        Args:
          in_features: number of input channels.
          out_features: number of output channels.
          use_bias: whether the convolutions have a bias, which the following batch normalisation
            cancels.
          kernel_init: initialiser of the kernels.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """

        def conv(inputs):
            return Conv(
                inputs,
                out_features,
                kernel_size=3,
                use_bias=use_bias,
                kernel_init=kernel_init,
                dtype=dtype,
                rngs=rngs,
            )

        self.conv1 = conv(in_features)
        self.norm1 = BatchNorm(out_features, dtype=dtype)
        self.conv2 = conv(out_features)
        self.norm2 = BatchNorm(out_features, dtype=dtype)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, in] to [B, h, w, out]."""
        return self._after_first(self.conv1(x), train=train)

    def _after_first(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps the output of the first convolution to that of the pair."""
        x = jax.nn.relu(self.norm1(x, train=train))
        return jax.nn.relu(self.norm2(self.conv2(x), train=train))


class DoublingConv(nnx.Module):
    """A transposed convolution of stride 2, which turns every pixel into 2x2 pixels."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates `kernel` float32[2, 2, in, out] and `bias`, as in torch's ConvTranspose2d."""
        init = torch_uniform_bias(4 * out_features)  # torch uses the fan of the output side here
        shape = (2, 2, in_features, out_features)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(init(rngs.params(), (out_features,), jnp.float32))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, in] to dtype[B, 2 h, 2 w, out]."""
        kernel = self.kernel[...].astype(self.dtype)
        y = jnp.einsum("bhwc,yxco->bhywxo", x.astype(self.dtype), kernel)
        batch, height, _, width, _, features = y.shape
        y = y.reshape(batch, 2 * height, 2 * width, features)
        return y + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)


class DecoderBlock(ConvPair):
    """Doubles the map, joins the encoder's map of the new size, then convolves twice."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        skip_features: int = 0,
        learned: bool = False,
        kernel_init: nnx.Initializer = torch_uniform,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates the convolutions.

        Args:
          in_features: number of channels of the coarse map.
          out_features: number of output channels.
          skip_features: number of channels of the finer map that is joined; 0 for none.
          learned: whether doubling is a transposed convolution to `out_features` and all
            convolutions have a bias; otherwise pixels are repeated.
          kernel_init: initialiser of the 3x3 kernels.
          dtype: compute dtype; parameters and batch statistics are float32.
          rngs: source of the initial parameters.
        """
        super().__init__(
            (out_features if learned else in_features) + skip_features,
            out_features,
            use_bias=learned,
            kernel_init=kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        if learned:
            self.upsample = DoublingConv(in_features, out_features, dtype=dtype, rngs=rngs)
        else:
            self.upsample = None

    def __call__(self, x: jax.Array, skip: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Maps [B, h, w, in] to [B, 2 h, 2 w, out].

        A block with a skip connection also takes the finer map, [B, 2 h, 2 w, skip].
        """
        if self.upsample is None:
            return self._after_first(self.conv1.doubled(x, skip), train=train)
        x = self.upsample(x)
        if skip is not None:
            x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
        return super().__call__(x, train=train)
