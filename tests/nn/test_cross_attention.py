import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.nn.cross_attention import LocalCrossAttention, SharedCrossAttention


def attention(dtype=jnp.float32):
    return LocalCrossAttention(8, dtype=dtype, rngs=nnx.Rngs(0))


def features(count=4):
    keys = jax.random.split(jax.random.key(0), 2)
    patches = jax.random.normal(keys[0], (2, 9, 8), jnp.float32)
    sentences = jax.random.normal(keys[1], (2, count, 8), jnp.float32)
    return patches, sentences, jnp.arange(count)[None, :] < jnp.array([[count], [2]])


def attend(module, patches, sentences, mask):
    return module(patches, sentences, image_mask=mask[:, None, :], text_mask=mask[:, :, None])


def test_attention_lies_between_0_and_1_and_is_not_normalised():
    context = attention()(*features()[:2])
    for weights in (context.image_attention, context.text_attention):
        assert np.all((np.asarray(weights) > 0) & (np.asarray(weights) < 1))
    assert not np.allclose(context.text_attention.sum(-1), 1)
    assert context.image_attention.shape == (2, 9, 4)
    assert context.text_attention.shape == (2, 4, 9)


def test_contexts_are_attention_times_values():
    module = attention()
    patches, sentences, _ = features()
    context = module(patches, sentences)
    text = context.text_attention @ module.value1(patches)
    image = context.image_attention @ module.value2(sentences)
    np.testing.assert_allclose(context.text, text, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(context.image, image, rtol=1e-4, atol=1e-5)


def test_padded_sentences_change_neither_value_nor_gradient():
    module = attention()
    patches, sentences, mask = features()

    def total(patches, sentences):
        context = attend(module, patches, sentences, mask)
        return jnp.sum(jnp.sin(context.image)) + jnp.sum(jnp.sin(context.text)), context

    grad = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    (value, context), grads = grad(patches, sentences)
    junk = jnp.where(mask[..., None], sentences, jnp.float32(77))
    (other, _), other_grads = grad(patches, junk)
    np.testing.assert_allclose(value, other, rtol=1e-6)
    np.testing.assert_allclose(grads[0], other_grads[0], atol=1e-6)
    hidden = ~np.asarray(mask)
    assert not np.any(np.asarray(grads[1])[hidden])
    assert not np.any(np.asarray(other_grads[1])[hidden])
    assert not np.any(np.asarray(context.text)[hidden])


def test_a_batch_is_its_reports_one_by_one():
    module = attention()
    patches, sentences, mask = features()
    whole = attend(module, patches, sentences, mask)
    for row in range(2):
        length = int(mask[row].sum())
        alone = module(patches[row : row + 1], sentences[row : row + 1, :length])
        np.testing.assert_allclose(whole.image[row], alone.image[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(whole.text[row, :length], alone.text[0], rtol=1e-4, atol=1e-5)


def test_attention_alone_is_that_of_the_contexts():
    module = attention()
    patches, sentences, _ = features()
    context = module(patches, sentences)
    image, text = module.attention(patches[0], sentences[0])
    np.testing.assert_allclose(image, context.image_attention[0], rtol=1e-5)
    np.testing.assert_allclose(text, context.text_attention[0], rtol=1e-5)


def test_bfloat16_is_near_float32():
    patches, sentences, _ = features()
    exact = attention()(patches, sentences)
    near = attention(jnp.bfloat16)(patches, sentences)
    assert near.image.dtype == jnp.bfloat16
    assert near.text_attention.dtype == jnp.float32
    np.testing.assert_allclose(near.text_attention, exact.text_attention, atol=0.02)
    np.testing.assert_allclose(near.text.astype(jnp.float32), exact.text, atol=0.1)


def test_mismatched_shapes_are_refused_by_name():
    patches, sentences, _ = features()
    with pytest.raises(ValueError, match=r"sentences \(1, 4, 8\)"):
        attention()(patches, sentences[:1])


def shared():
    return SharedCrossAttention(8, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_shared_attention_is_a_softmax_of_one_score_both_ways():
    module = shared()
    patches, sentences, mask = features()
    context = module(patches, sentences, mask)
    score = np.asarray(jnp.einsum("bpd,bsd->bps", module.key(patches), module.key(sentences)))
    weights = np.exp(score / 8**0.5) * np.asarray(mask)[:, None, :]
    image = weights / weights.sum(2, keepdims=True)
    text = np.swapaxes(np.exp(score / 8**0.5), 1, 2)
    text = text / text.sum(2, keepdims=True) * np.asarray(mask)[:, :, None]
    np.testing.assert_allclose(context.image_attention, image, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(context.text_attention, text, rtol=1e-4, atol=1e-7)
    mixed = module.output(jnp.asarray(text) @ module.value(patches))
    np.testing.assert_allclose(context.text, mixed, rtol=1e-4, atol=1e-5)
    mixed = module.output(jnp.asarray(image) @ module.value(sentences))
    np.testing.assert_allclose(context.image, mixed, rtol=1e-4, atol=1e-5)


def test_padded_sentences_do_not_touch_shared_attention():
    module = shared()
    patches, sentences, mask = features()

    def total(patches, sentences, mask):
        context = module(patches, sentences, mask)
        text = jnp.where(mask[..., None], jnp.sin(context.text), jnp.float32(0))
        return jnp.sum(jnp.sin(context.image)) + jnp.sum(text)

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    value, grads = both(patches, sentences, mask)
    longer = jnp.pad(sentences, ((0, 0), (0, 3), (0, 0)), constant_values=9.0)
    other, other_grads = both(patches, longer, jnp.pad(mask, ((0, 0), (0, 3))))
    np.testing.assert_allclose(other, value, rtol=1e-5)
    np.testing.assert_allclose(other_grads[0], grads[0], atol=1e-5)
    np.testing.assert_allclose(other_grads[1][:, :4], grads[1], atol=1e-5)
    assert not np.any(other_grads[1][:, 4:])
