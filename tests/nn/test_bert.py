import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn import bert, transformer
from prior_jax.nn.bert import Bert
from tests.nn import small

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def reports():
    tokens = jax.random.randint(jax.random.key(1), (3, 7), 1, 30)
    mask = jnp.arange(7)[None] < jnp.asarray([7, 4, 2])[:, None]
    return jnp.where(mask, tokens, 0), mask


def real_rows(model, tokens, mask, **kwargs):
    """A number that hangs on every real row in its own way."""
    out = model(tokens, mask, **{"train": False, **kwargs})
    weights = jnp.sin(jnp.arange(out.last_hidden_state.size, dtype=jnp.float32))
    weights = weights.reshape(out.last_hidden_state.shape)
    rows = jnp.where(mask[..., None], out.last_hidden_state.astype(jnp.float32) * weights, 0.0)
    return rows.sum() + out.pooled.astype(jnp.float32).sum()


def test_padding_changes_neither_value_nor_gradient(reports):
    tokens, mask = reports
    model = small.bert()
    weights = jnp.sin(jnp.arange(3 * 7 * 16, dtype=jnp.float32)).reshape(3, 7, 16)

    def loss(model, tokens, mask):
        out = model(tokens, mask, train=False)
        rows = out.last_hidden_state[:, :7] * weights * mask[:, :7, None].astype(jnp.float32)
        return rows.sum() + out.pooled.sum()

    value, grads, _ = small.value_and_grads(model, lambda m: loss(m, tokens, mask))
    longer = jnp.pad(mask, ((0, 0), (0, 4)))
    other = jnp.where(longer, jnp.pad(tokens, ((0, 0), (0, 4))), 17)
    value_2, grads_2, _ = small.value_and_grads(model, lambda m: loss(m, other, longer))
    np.testing.assert_allclose(value, value_2, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, grads_2)


def test_a_real_token_changes_the_others(reports):
    tokens, mask = reports
    model = small.bert()
    other = tokens.at[1, 3].set(tokens[1, 3] % 29 + 1)
    base, moved = (
        small.evaluate(model, x, mask, train=False).last_hidden_state for x in (tokens, other)
    )
    assert jnp.abs(base - moved)[1, :4].max(axis=-1).min() > 1e-3
    np.testing.assert_array_equal(base[0], moved[0])


def test_order_of_the_words_matters(reports):
    tokens, mask = reports
    model = small.bert()
    other = tokens.at[0, 1:].set(tokens[0, :0:-1])
    base, moved = (small.evaluate(model, x, mask, train=False).pooled for x in (tokens, other))
    assert jnp.abs(base - moved)[0].max() > 1e-3


def test_ways_to_run_the_layers_give_the_same_numbers(reports):
    results = [
        small.value_and_grads(
            small.bert(scan_layers=scan, remat=remat),
            lambda m: real_rows(m, *reports, train=True, key=KEY),
        )
        for scan, remat in small.WAYS
    ]
    for result in results[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-5), results[0], result
        )


def test_hidden_states_start_at_the_embeddings_and_end_at_the_last(reports):
    for scan_layers in (True, False):
        model = small.bert(scan_layers=scan_layers)
        out = small.evaluate(model, *reports, train=False, hidden_states=True)
        assert out.hidden_states.shape == (3, 3, 7, 16)
        np.testing.assert_array_equal(out.hidden_states[-1], out.last_hidden_state)
        assert jnp.abs(jnp.diff(out.hidden_states, axis=0)).max(axis=(1, 2, 3)).min() > 1e-2
    assert small.evaluate(small.bert(), *reports, train=False).hidden_states is None


def test_bfloat16_is_close_to_float32_and_parameters_stay_float32(reports):
    full = small.bert()
    half = small.bert(dtype=jnp.bfloat16)
    a = small.evaluate(full, *reports, train=False)
    b = small.evaluate(half, *reports, train=False)
    assert b.last_hidden_state.dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(nnx.state(half)))
    np.testing.assert_allclose(
        a.last_hidden_state, b.last_hidden_state.astype(jnp.float32), atol=0.1
    )


def test_dropout_follows_its_key_and_is_off_outside_training(reports):
    model = small.bert()
    run = jax.jit(lambda key: model(*reports, train=True, key=key).last_hidden_state)
    np.testing.assert_array_equal(run(KEY), run(KEY))
    assert jnp.abs(run(KEY) - run(jax.random.key(4))).max() > 0.1
    evaluated = small.evaluate(model, *reports, train=False, key=KEY).last_hidden_state
    expected = small.evaluate(model, *reports, train=False).last_hidden_state
    np.testing.assert_array_equal(evaluated, expected)
    assert jnp.abs(run(KEY) - evaluated).max() > 0.1


def test_every_layer_and_place_draws_with_a_key_of_its_own(reports, monkeypatch):
    keys = []

    def record(x, *, rate, key):
        del rate
        keys.append(tuple(jax.random.key_data(key).tolist()))
        return x

    monkeypatch.setattr(transformer, "dropout", record)
    monkeypatch.setattr(bert, "dropout", record)
    small.bert(scan_layers=False)(*reports, train=True, key=KEY)
    assert len(keys) == 1 + 2 * 3
    assert len(set(keys)) == len(keys)


def test_training_without_a_key_is_refused_unless_nothing_drops(reports):
    with pytest.raises(ValueError, match=r"Bert drops at rate 0\.1 in training"):
        small.bert()(*reports, train=True)
    small.evaluate(small.bert(dropout=0.0), *reports, train=True)


def test_the_embedding_of_padding_gets_no_gradient(reports):
    tokens, mask = reports
    loss = lambda m: m(tokens, mask, train=False).last_hidden_state[:, :, 0].sum()  # noqa: E731
    _, grads, _ = small.value_and_grads(small.bert(), loss)
    assert not np.any(grads["word_embedding"][0])
    _, grads, _ = small.value_and_grads(small.bert(pad_token=29), loss)
    assert np.any(grads["word_embedding"][0])


def test_layers_start_different_and_embeddings_as_small_as_berts():
    model = Bert(small.bert_config(), dtype=jnp.float32, rngs=nnx.Rngs(0))
    kernel = model.layers.self_attention.query.kernel[...]
    assert kernel.shape == (2, 16, 16)
    assert jnp.abs(kernel[0] - kernel[1]).max() > 0.01
    np.testing.assert_allclose(np.std(model.word_embedding[...]), 0.02, rtol=0.1)


def test_the_activation_is_the_exact_gelu():
    config = small.bert_config()
    model = small.filled(
        lambda: transformer.FeedForward(config, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    x = np.asarray(2 * jax.random.normal(KEY, (1, 5, 16)), np.float64)
    inner = x @ np.asarray(model.inner.kernel[...]) + np.asarray(model.inner.bias[...])
    active = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    y = x + active @ np.asarray(model.outer.kernel[...]) + np.asarray(model.outer.bias[...])
    y = (y - y.mean(-1, keepdims=True)) / y.std(-1, keepdims=True)
    expected = y * np.asarray(model.norm.scale[...]) + np.asarray(model.norm.bias[...])
    np.testing.assert_allclose(model(jnp.asarray(x, jnp.float32), key=None), expected, atol=2e-6)


def test_bert_base_has_its_known_number_of_parameters():
    config = dataclasses.replace(
        small.bert_config(), hidden_size=768, layers=12, heads=12, intermediate_size=3072,
        max_positions=512, vocab_size=30522,
    )  # fmt: skip
    model = nnx.eval_shape(lambda: Bert(config, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    assert small.count(model) == 109_482_240


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("heads", 5),
        ("layers", 0),
        ("dropout", 1.0),
        ("remat", "some"),
        ("vocab_size", 0),
        ("pad_token", 30),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        small.bert_config(**{field: value})


def test_a_report_beyond_the_positions_is_refused(reports):
    with pytest.raises(ValueError, match="Bert has 5 positions, the input has 7"):
        small.bert(max_positions=5)(*reports, train=False)


def test_what_the_first_token_takes_is_the_last_layers_attention(reports):
    tokens, mask = reports
    model = small.bert()
    found = small.evaluate(model, tokens, mask, train=False, hidden_states=True)
    taken = np.asarray(model.first_token_attention(found, mask))
    np.testing.assert_allclose(taken.sum(axis=1), 1, rtol=1e-5)
    assert not np.any(taken[~np.asarray(mask)])
    hidden, last = np.asarray(found.hidden_states[-2]), model.layers.self_attention
    query, key = (
        (hidden @ np.asarray(part.kernel[-1]) + np.asarray(part.bias[-1])).reshape(3, 7, 4, 4)
        for part in (last.query, last.key)
    )
    score = np.einsum("bhd,bkhd->bhk", query[:, 0], key) / 2
    weights = np.exp(score) * np.asarray(mask)[:, None, :]
    weights = (weights / weights.sum(2, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(taken, weights, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="hidden_states"):
        model.first_token_attention(dataclasses.replace(found, hidden_states=None), mask)
