"""The bank's lookup, noise, temperature and usage, whole and split over devices."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.losses.reconstruction import prototype_kl, prototype_l1
from prior_jax.nn.prototype_bank import PrototypeBank, bank_temperature

TEMPERATURE = jnp.full((), 0.9, jnp.float32)


def make_bank(num_prototypes=12, embed_dim=8, *, axis=None, dtype=jnp.float32) -> PrototypeBank:
    return PrototypeBank(num_prototypes, embed_dim, axis=axis, dtype=dtype, rngs=nnx.Rngs(0))


def rows_and_mask(batch=3, rows=5, embed_dim=8):
    x = jax.random.normal(jax.random.key(1), (batch, rows, embed_dim), jnp.float32)
    mask = jnp.arange(rows)[None, :] < jnp.arange(1, batch + 1)[:, None]
    return x, mask


def test_a_cold_lookup_returns_the_nearest_prototype():
    bank = make_bank()
    target = bank.embed[...][jnp.array([[3, 7]])]
    cold = jnp.full((), 1e-3, jnp.float32)
    lookup = bank(target, jnp.ones((1, 2), bool), temperature=cold)
    best = jnp.argmax(lookup.logits, axis=-1)
    np.testing.assert_allclose(lookup.prototypes, bank.embed[...][best], rtol=1e-6)


def test_a_hot_lookup_returns_the_mean_prototype():
    bank = make_bank()
    x, _ = rows_and_mask()
    hot = jnp.full((), 1e7, jnp.float32)
    lookup = bank(x, jnp.ones(x.shape[:2], bool), temperature=hot)
    mean = jnp.mean(bank.embed[...], axis=0)
    np.testing.assert_allclose(lookup.prototypes, jnp.broadcast_to(mean, x.shape), atol=1e-5)


def test_noise_changes_the_mixture_and_not_the_logits():
    bank = make_bank()
    x, mask = rows_and_mask()
    noise = bank.gumbel(jax.random.key(0), batch=3, rows=5)
    quiet = bank(x, mask, temperature=TEMPERATURE)
    noisy = bank(x, mask, temperature=TEMPERATURE, noise=noise)
    np.testing.assert_array_equal(quiet.logits, noisy.logits)
    assert not np.allclose(quiet.prototypes, noisy.prototypes)


def test_masked_rows_give_zeros_and_get_no_gradient():
    bank = make_bank()
    x, mask = rows_and_mask()
    graph, params = nnx.split(bank)

    def total(params, x):
        lookup = nnx.merge(graph, params)(x, mask, temperature=TEMPERATURE)
        return jnp.sum(jnp.sin(lookup.prototypes)), lookup.prototypes

    grad = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (_, prototypes), (bank_grad, x_grad) = grad(params, x)
    assert not np.any(np.asarray(prototypes)[~mask])
    assert not np.any(np.asarray(x_grad)[~mask])
    other = jnp.where(mask[..., None], x, 1e3)
    (_, _), (other_grad, _) = grad(params, other)
    np.testing.assert_array_equal(bank_grad["embed"][...], other_grad["embed"][...])


def test_noise_does_not_depend_on_padding():
    bank = make_bank()
    key = jax.random.key(3)
    small, large = bank.gumbel(key, batch=2, rows=3), bank.gumbel(key, batch=5, rows=9)
    np.testing.assert_array_equal(small, large[:2, :3])
    assert small.dtype == jnp.float32
    assert len(np.unique(np.asarray(large))) > 0.99 * large.size


def test_noise_is_standard_gumbel():
    noise = np.asarray(make_bank(4096).gumbel(jax.random.key(0), batch=4, rows=4))
    assert abs(noise.mean() - np.euler_gamma) < 0.02
    assert abs(noise.var() - np.pi**2 / 6) < 0.05


def test_noise_is_drawn_in_float32_whatever_the_compute_dtype():
    bank = make_bank(dtype=jnp.bfloat16)
    noise = bank.gumbel(jax.random.key(0), batch=2, rows=2)
    x, mask = rows_and_mask()
    lookup = bank(x.astype(jnp.bfloat16), mask, temperature=TEMPERATURE)
    assert noise.dtype == lookup.logits.dtype == lookup.probability.dtype == jnp.float32
    assert lookup.prototypes.dtype == jnp.bfloat16


def test_bfloat16_is_near_float32():
    x, mask = rows_and_mask()
    exact = make_bank()(x, mask, temperature=TEMPERATURE).prototypes
    near = make_bank(dtype=jnp.bfloat16)(x, mask, temperature=TEMPERATURE).prototypes
    np.testing.assert_allclose(near, exact, atol=0.1)


@pytest.mark.parametrize(("schedule", "end"), [("fixed", 1.0), ("linear", 0.1), ("exp", 0.1)])
def test_temperature_starts_at_start_and_ends_at_its_share(schedule, end):
    find = functools.partial(bank_temperature, start=0.8, schedule=schedule, total_steps=50)
    np.testing.assert_allclose(find(jnp.int32(0)), 0.8, rtol=1e-6)
    np.testing.assert_allclose(find(jnp.int32(50)), 0.8 * end, rtol=1e-5)


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(ValueError, match="'cosine'"):
        bank_temperature(jnp.int32(0), start=0.9, schedule="cosine", total_steps=5)


def test_rows_of_another_width_are_refused_by_name():
    with pytest.raises(ValueError, match=r"rows \(2, 3, 5\)"):
        make_bank().logits(jnp.zeros((2, 3, 5)))


def test_usage_counts_prototypes_in_even_use():
    bank = make_bank()
    cold = jnp.full((), 1e-3, jnp.float32)
    rows = 100 * jnp.eye(8, dtype=jnp.float32)[None]
    bank.embed[...] = jnp.eye(12, 8, dtype=jnp.float32)
    lookup = bank(rows, jnp.ones((1, 8), bool), temperature=cold)
    weight = jnp.ones((1, 8), jnp.float32)
    np.testing.assert_allclose(bank.usage(lookup, weight), 8.0, rtol=1e-5)
    half = weight.at[:, 4:].set(0)
    np.testing.assert_allclose(bank.usage(lookup, half), 4.0, rtol=1e-5)
    np.testing.assert_allclose(bank.usage(lookup, 0 * weight), 1.0)


def test_an_axis_without_a_mesh_is_an_error():
    with pytest.raises((ValueError, RuntimeError)):
        make_bank(axis="data").logits(jnp.zeros((1, 1, 8), jnp.float32))


# The bank split over devices.

K, D, BATCH, ROWS = 65_536, 16, 8, 3


def bank_step(bank, x, predicted, mask, key):
    """Every use that training makes of the bank: lookup with drawn noise, L1, KL, re-query."""
    noise = bank.gumbel(key, batch=x.shape[0], rows=x.shape[1])
    lookup = bank(x, mask, temperature=TEMPERATURE, noise=noise)
    again = bank(predicted, mask, temperature=TEMPERATURE)
    weight = mask.astype(jnp.float32)
    kl = prototype_kl(lookup.logits, again.logits, weight=weight, stop_target_gradient=False)
    l1 = prototype_l1(x, lookup.prototypes, weight=weight)
    usage = bank.usage(lookup, weight)
    return l1 + kl + jnp.mean(jnp.sin(again.prototypes)), (lookup.prototypes, usage)


def step_of(bank, learning_rate=0.1):
    """A jittable step with momentum: (params, momentum, inputs) -> new ones and values."""
    graph, _ = nnx.split(bank)

    def step(params, momentum, x, predicted, mask, key):
        def loss(params, x, predicted):
            return bank_step(nnx.merge(graph, params), x, predicted, mask, key)

        (value, aux), grads = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
            params, x, predicted
        )
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads[0])
        params = jax.tree.map(lambda p, m: p - learning_rate * m, params, momentum)
        return params, momentum, value, aux, grads[1:]

    return step


def inputs():
    keys = jax.random.split(jax.random.key(5), 3)
    x = jax.random.normal(keys[0], (BATCH, ROWS, D), jnp.float32)
    predicted = jax.random.normal(keys[1], (BATCH, ROWS, D), jnp.float32)
    mask = jnp.arange(ROWS)[None, :] < (1 + jnp.arange(BATCH)[:, None] % ROWS)
    return x, predicted, mask, keys[2]


@pytest.mark.multidevice
@pytest.mark.parametrize("shape", [{"data": 8}, {"data": 2, "bank": 4}])
def test_a_split_bank_gives_the_numbers_of_a_whole_one(shape):
    axis = "bank" if "bank" in shape else "data"
    whole = make_bank(K, D)
    params = nnx.as_pure(nnx.split(whole)[1])
    zeros = jax.tree.map(jnp.zeros_like, params)
    expected = jax.jit(step_of(whole))(params, zeros, *inputs())

    split = make_bank(K, D, axis=axis)
    mesh = jax.make_mesh(
        tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape)
    )
    over_bank, over_rows = NamedSharding(mesh, P(axis)), NamedSharding(mesh, P("data"))
    whole_place = NamedSharding(mesh, P())
    places = (over_bank, over_bank, over_rows, over_rows, over_rows, whole_place)
    arguments = jax.device_put((params, zeros, *inputs()), places)
    with jax.set_mesh(mesh):
        step = jax.jit(
            step_of(split),
            out_shardings=(over_bank, over_bank, whole_place, (over_rows, whole_place), over_rows),
        )
        compiled = step.lower(*arguments).compile()
        actual = jax.block_until_ready(step(*arguments))

    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, atol=2e-5 * scale, rtol=0)

    ways = shape[axis]
    shard = actual[0]["embed"].addressable_shards[0].data.shape
    assert shard == (K // ways, D)
    assert actual[1]["embed"].addressable_shards[0].data.shape == (K // ways, D)
    # No buffer of any device has an axis of all K prototypes, and none is as large as the bank.
    sizes = [
        [int(n) for n in dims.split(",") if n]
        for dims in re.findall(r"\b(?:f32|bf16|u32|s32|pred)\[([\d,]*)\]", compiled.as_text())
    ]
    assert sizes
    assert not [dims for dims in sizes if K in dims]
    assert max(np.prod(dims, dtype=np.int64) for dims in sizes) < K * D
    per_device = compiled.memory_analysis()
    assert per_device.argument_size_in_bytes < 2.5 * K * D * 4 / ways
