import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from tests.nn import small

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(1))
    return jax.random.normal(keys[0], (2, 5, 16)), jax.random.normal(keys[1], (2, 9, 16))


@pytest.mark.parametrize("causal", [True, False])
def test_a_query_reaches_later_outputs_only_if_causal(inputs, causal):
    model = small.sentence_decoder(causal=causal)
    run = jax.jit(lambda q: model(q, inputs[1], train=False))
    base = run(inputs[0])
    moved = jnp.abs(run(inputs[0].at[:, 2, :4].add(1.0)) - base).max(axis=(0, 2))
    assert moved[2:].min() > 1e-4
    assert (moved[:2].max() > 1e-4) != causal
    if causal:
        assert moved[:2].max() == 0


def test_every_patch_reaches_every_query_in_any_order(inputs):
    queries, patches = inputs
    model = small.sentence_decoder(causal=True)
    run = jax.jit(lambda p: model(queries, p, train=False))
    base = run(patches)
    np.testing.assert_allclose(base, run(patches[:, ::-1]), atol=1e-5)
    for patch in (0, 8):
        moved = jnp.abs(run(patches.at[:, patch, :4].add(1.0)) - base)
        assert moved.max(axis=-1).min() > 1e-6


def test_positions_tell_equal_queries_apart(inputs):
    queries = jnp.ones_like(inputs[0])
    out = small.evaluate(small.sentence_decoder(), queries, inputs[1], train=False)
    assert jnp.abs(out[:, 0] - out[:, 1]).max() > 1e-3


def test_ways_to_run_the_layers_give_the_same_numbers(inputs):
    weights = jnp.cos(jnp.arange(160, dtype=jnp.float32)).reshape(2, 5, 16)
    results = [
        small.value_and_grads(
            small.sentence_decoder(scan_layers=scan, remat=remat),
            lambda m, q, p: (m(q, p, train=True, key=KEY) * weights).sum(),
            *inputs,
        )
        for scan, remat in (small.WAYS[0], small.WAYS[-1])
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *results)


def test_bfloat16_is_close_to_float32(inputs):
    full = small.evaluate(small.sentence_decoder(), *inputs, train=False)
    model = small.sentence_decoder(dtype=jnp.bfloat16)
    half = small.evaluate(model, *inputs, train=False)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(full, half.astype(jnp.float32), atol=0.15)


def test_it_carries_no_word_embedding():
    paths = nnx.to_flat_state(nnx.state(small.sentence_decoder()))
    assert not [path for path, _ in paths if "word" in str(path)]


def test_bad_use_is_refused_by_name(inputs):
    with pytest.raises(ValueError, match=r"SentenceDecoder drops at rate 0\.1"):
        small.sentence_decoder()(*inputs, train=True)
    with pytest.raises(ValueError, match="SentenceDecoder has 4 positions, the input has 5"):
        small.sentence_decoder(max_positions=4)(*inputs, train=False)
    with pytest.raises(ConfigError, match=r"^heads: .* divisor of hidden_size"):
        small.decoder_config(heads=3)
