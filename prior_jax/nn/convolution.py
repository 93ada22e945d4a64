"""Convolutions on NHWC, each computed in the form that takes the least time."""

import functools
import math

import jax
import jax.numpy as jnp

Padding = tuple[tuple[int, int], tuple[int, int]]

# Rows of zeros before and after a map, for output pixels of even and of odd place.
_EVEN, _ODD = (1, 0), (0, 1)

_PIXELS = 2**14  # of all maps that a block of rows has at most, see `_kernel_gradient_in_blocks`


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
    if stride == 1 and _is_large(x):
        return _convolve_large(x, kernel, padding)
    return _convolve(x, kernel, padding, stride)


def _convolve(x: jax.Array, kernel: jax.Array, padding: Padding, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _is_large(x: jax.Array) -> bool:
    """Returns whether XLA's gradient of a kernel is slow on a CPU for maps of this shape.

    Measured with 8 maps, in CPU-seconds, XLA's form and blocks of rows: 224 pixels and 48 channels
    0.81 and 0.23, 112 and 96 0.44 and 0.16, 56 and 192 0.15 and 0.12, 28 and 384 0.13 and 0.09. The
    maps of a ResNet-50 are as fast or faster in XLA's form.
    """
    side, channels = min(x.shape[1:3]), x.shape[3]
    return side >= 112 or (side >= 28 and channels >= 192)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_large(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return _convolve(x, kernel, padding)


def _large_forward(
    x: jax.Array, kernel: jax.Array, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, padding), (x, kernel)


def _large_backward(
    padding: Padding, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    tall, wide, *_ = kernel.shape

    def plain(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: _convolve(x, kernel, padding), kernel)[1](gradient)[0]

    blocks = functools.partial(_kernel_gradient_in_blocks, size=(tall, wide), padding=padding)
    of_kernel = jax.lax.platform_dependent(x, gradient, cpu=blocks, default=plain)
    (of_x,) = jax.vjp(lambda x: _convolve(x, kernel, padding), x)[1](gradient)
    return of_x, of_kernel


_convolve_large.defvjp(_large_forward, _large_backward)


def _kernel_gradient_in_blocks(
    x: jax.Array, gradient: jax.Array, *, size: tuple[int, int], padding: Padding
) -> jax.Array:
    """Computes the gradient with respect to a kernel as matrix products, a block of rows at a time.

    The pixels that a kernel sees are laid side by side, for few enough rows to stay in the cache.
    Sums are float32, or float64 for maps of float64.

    Args:
      x: input maps, [B, H, W, in].
      gradient: gradient with respect to the output maps, [B, h, w, out].
      size: height and width of the kernel in pixels.
      padding: padding of the convolution, whose stride is 1.

    Returns:
      The gradient in the dtype of x, [kh, kw, in, out].
    """
    (batch, height, width, features), (tall, wide) = gradient.shape, size
    if gradient.size == 0:
        return jnp.zeros((*size, x.shape[-1], features), x.dtype)
    sums = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    most = max(1, _PIXELS // (batch * width))
    rows = max(n for n in range(1, height + 1) if height % n == 0 and n <= most)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        seen = jax.lax.dynamic_slice_in_dim(x, index * rows, rows + tall - 1, axis=1)
        block = jax.lax.dynamic_slice_in_dim(gradient, index * rows, rows, axis=1)
        patches = jnp.concatenate(
            [
                seen[:, down : down + rows, right : right + width]
                for down in range(tall)
                for right in range(wide)
            ],
            axis=-1,
        )
        pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
        return total + jax.lax.dot_general(block, patches, pixels, preferred_element_type=sums)

    total = jnp.zeros((features, math.prod(size) * x.shape[-1]), sums)
    total = jax.lax.fori_loop(0, height // rows, add, total)
    return total.reshape(features, *size, x.shape[-1]).transpose(1, 2, 3, 0).astype(x.dtype)


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
    odd row it is the other way round, and columns are alike, so that 4 products do where 9 were
    needed. On a CPU each of the four kinds of output pixels is a 2x2 convolution of the small map.
    Elsewhere all are one 4x4 convolution of the small map with zeros between its pixels, the form
    of a transposed convolution, whose output needs no interleaving in memory.

    Args:
      x: the small maps, [B, h, w, in].
      kernel: weights, float32[3, 3, in + skip, out]; the channels of x come first.
      skip: maps that are joined to the doubled ones, [B, 2 h, 2 w, skip], in the dtype of x.

    Returns:
      Output maps in the dtype of x, [B, 2 h, 2 w, out]. It differs from the plain form by rounding
      only; sums of weights are rounded to the dtype of x after they are taken.
    """
    features = x.shape[-1]
    y = _convolve_doubled(x, kernel[:, :, :features])
    if skip is None:
        return y
    rest = kernel[:, :, features:].astype(x.dtype)
    return y + convolve(skip, rest, padding=((1, 1), (1, 1)))


@jax.custom_vjp
def _convolve_doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(x, kernel, cpu=_in_four_parts, default=_between_zeros)


def _doubled_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve_doubled(x, kernel), (x, kernel)


def _doubled_backward(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def backward(form):
        return lambda x, kernel, gradient: jax.vjp(form, x, kernel)[1](gradient)

    return jax.lax.platform_dependent(
        *kept, gradient, cpu=backward(_in_four_parts), default=backward(_between_zeros)
    )


_convolve_doubled.defvjp(_doubled_forward, _doubled_backward)


def _in_four_parts(x: jax.Array, kernel: jax.Array) -> jax.Array:
    rows = []
    for above, half in zip((_EVEN, _ODD), _halves(kernel, axis=0), strict=True):
        parts = zip((_EVEN, _ODD), _halves(half, axis=1), strict=True)
        rows.append(
            [convolve(x, part.astype(x.dtype), padding=(above, left)) for left, part in parts]
        )
    return interleave(rows)


def _between_zeros(x: jax.Array, kernel: jax.Array) -> jax.Array:
    for axis in (0, 1):
        (first, own_even), (own_odd, last) = (
            jnp.split(half, 2, axis=axis) for half in _halves(kernel, axis=axis)
        )
        kernel = jnp.concatenate([first, own_odd, own_even, last], axis=axis)
    return jax.lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


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
