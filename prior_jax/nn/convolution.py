"""Convolutions on NHWC, each computed in the form that takes the least time."""

import jax
import jax.numpy as jnp

Padding = tuple[tuple[int, int], tuple[int, int]]

# Rows of zeros before and after a map, for output pixels of even and of odd place.
_EVEN, _ODD = (1, 0), (0, 1)


def convolve(x: jax.Array, kernel: jax.Array, *, padding: Padding, stride: int = 1) -> jax.Array:
    """Convolves maps with a kernel.

    Args:
      x: input maps, [B, H, W, in].
      kernel: weights in the dtype of x, [kh, kw, in, out].
      padding: number of rows of zeros above and below, and of columns at the left and the right.
      stride: step in both directions, in pixels.

    Returns:
      Output maps in the dtype of x, [B, h, w, out].
    """
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def convolve_pixels(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves maps with a kernel of one pixel, which is a matrix product.

    Args:
      x: input maps, [B, h, w, in].
      kernel: weights in the dtype of x, [in, out].

    Returns:
      Output maps in the dtype of x, [B, h, w, out].
    """
    return jnp.einsum("bhwi,io->bhwo", x, kernel)


def _pixels_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve_pixels(x, kernel), (x, kernel)


def _pixels_backward(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients with respect to the input and the kernel.

    In the product that sums over pixels XLA transposes the first factor, on a CPU together with all
    that computes it. It is that with fewer channels; JAX would take the gradient in any case.
    """
    x, kernel = kept
    pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
    if x.shape[-1] <= gradient.shape[-1]:
        of_kernel = jax.lax.dot_general(x, gradient, pixels)
    else:
        of_kernel = jax.lax.dot_general(gradient, x, pixels).T
    return jnp.einsum("bhwo,io->bhwi", gradient, kernel), of_kernel


convolve_pixels.defvjp(_pixels_forward, _pixels_backward)


def convolve_doubled(
    x: jax.Array, kernel: jax.Array, *, skip: jax.Array | None = None
) -> jax.Array:
    """Convolves 3x3 with padding 1 after repeating every pixel twice in both directions.

    The doubled map is never made. An output pixel of even row sees two rows of the small map: the
    row above through the kernel's first row, and its own through the sum of the other two. At an
    odd row it is the other way round, and columns are alike. Hence each of the four kinds of output
    pixels is a 2x2 convolution of the small map, which takes 4 products where 9 were needed.

    Args:
      x: the small maps, [B, h, w, in].
      kernel: weights, float32[3, 3, in + skip, out]; the channels of x come first.
      skip: maps that are joined to the doubled ones, [B, 2 h, 2 w, skip], in the dtype of x.

    Returns:
      Output maps in the dtype of x, [B, 2 h, 2 w, out]. It differs from the plain form by rounding
      only; sums of weights are rounded to the dtype of x after they are taken.
    """
    features = x.shape[-1]
    rows = []
    for above, half in zip((_EVEN, _ODD), _halves(kernel[:, :, :features], axis=0), strict=True):
        parts = zip((_EVEN, _ODD), _halves(half, axis=1), strict=True)
        rows.append(
            [convolve(x, part.astype(x.dtype), padding=(above, left)) for left, part in parts]
        )
    y = interleave(rows)
    if skip is None:
        return y
    rest = kernel[:, :, features:].astype(x.dtype)
    return y + convolve(skip, rest, padding=((1, 1), (1, 1)))


def _halves(kernel: jax.Array, *, axis: int) -> tuple[jax.Array, jax.Array]:
    """Returns the two weights along an axis of three that pixels of even and odd place see."""
    first, middle, last = jnp.split(kernel, 3, axis=axis)
    even = jnp.concatenate([first, middle + last], axis=axis)
    odd = jnp.concatenate([first + middle, last], axis=axis)
    return even, odd


def interleave(rows: list[list[jax.Array]]) -> jax.Array:
    """Returns maps [B, 2 h, 2 w, C] with `rows[i][j]`, [B, h, w, C], at rows i and columns j."""
    batch, height, width, features = rows[0][0].shape
    y = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2)
    return y.reshape(batch, 2 * height, 2 * width, features)
