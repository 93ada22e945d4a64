"""The maximum over windows that a ResNet's stem ends with, with a gradient of its own."""

import functools

import jax
import jax.numpy as jnp

from prior_jax.nn.convolution import interleave

# Pixels of a window in their order: row and column from its first pixel.
_PLACES = tuple((row, column) for row in range(3) for column in range(3))


def max_pool_stem(x: jax.Array) -> jax.Array:
    """Computes the 3x3 maximum, stride 2, padding 1, after a ResNet's first convolution.

    The gradient goes to the first of the window's pixels that has the maximum, as in torch.

    Args:
      x: input maps, [B, H, W, C].

    Returns:
      Maps [B, ceil(H / 2), ceil(W / 2), C] in the dtype of x.
    """
    return _max_pool((x.shape[1], x.shape[2]), x)


# XLA's gradient of a maximum over windows carries four indices beside each value. On a CPU it takes
# 0.43 CPU-seconds with the value, for 16 maps of 112 x 112 x 64, and 0.13 in this form.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _max_pool(size: tuple[int, int], x: jax.Array) -> jax.Array:
    del size
    return jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding=((0, 0), (1, 1), (1, 1), (0, 0)),
    )


def _forward(size: tuple[int, int], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the maxima, and the place of the first one in each window, int8[B, h, w, C].

    The place is that of the largest pixel so far, and not of a pixel that equals the maximum: XLA
    may compute x anew for either, rounded in another way, and then none would.
    """
    height, width = (-(-side // 2) for side in size)
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-jnp.inf)

    def seen(row: int, column: int) -> jax.Array:
        return padded[:, row : row + 2 * height : 2, column : column + 2 * width : 2]

    y = seen(*_PLACES[0])
    place = jnp.zeros(y.shape, jnp.int8)
    for index, (row, column) in enumerate(_PLACES[1:], start=1):
        pixel = seen(row, column)
        place = jnp.where(pixel > y, jnp.int8(index), place)
        y = jnp.maximum(y, pixel)
    return y, place


def _backward(size: tuple[int, int], place: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    """Returns the gradient with respect to the input.

    A pixel of even row is in the middle row of one window, one of odd row in the last row of a
    window and in the first row of the next; columns are alike.
    """
    _, height, width, _ = gradient.shape
    wide = jnp.pad(gradient, ((0, 0), (0, 1), (0, 1), (0, 0)))
    places = jnp.pad(place, ((0, 0), (0, 1), (0, 1), (0, 0)))

    def part(row: int, column: int, down: int, right: int) -> jax.Array:
        window = slice(None), slice(down, down + height), slice(right, right + width)
        return jnp.where(places[window] == _PLACES.index((row, column)), wide[window], 0)

    even, odd = ((1, 0),), ((2, 0), (0, 1))  # row in the window, and how many windows further
    rows = [
        [
            functools.reduce(
                jnp.add,
                [
                    part(row, column, down, right)
                    for row, down in lines
                    for column, right in columns
                ],
            )
            for columns in (even, odd)
        ]
        for lines in (even, odd)
    ]
    return (interleave(rows)[:, : size[0], : size[1]],)


_max_pool.defvjp(_forward, _backward)
