"""PRIOR's small modules against numbers recorded from the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.losses.reconstruction import prototype_kl, prototype_l1
from prior_jax.nn.cross_attention import LocalCrossAttention
from prior_jax.nn.prototype_bank import PrototypeBank, bank_temperature
from prior_jax.nn.sentence_gather import SentenceAttention, compact_sentences, mean_sentences
from tests.golden.ragged import unpad
from tests.golden.reader import assert_close, load

pytestmark = pytest.mark.golden


def linears_from(module, params, names):
    """Copies torch linear weights into the named attributes of a module."""
    for attribute, torch_name in names.items():
        linear = getattr(module, attribute)
        linear.kernel[...] = jnp.asarray(params[f"{torch_name}.weight"].T)
        linear.bias[...] = jnp.asarray(params[f"{torch_name}.bias"])
    return module


def bank_of(embed) -> PrototypeBank:
    bank = PrototypeBank(*embed.shape, axis=None, dtype=jnp.float32, rngs=nnx.Rngs(0))
    bank.embed[...] = jnp.asarray(embed)
    return bank


def differentiate(function, module, *arrays):
    """Value and gradients of `function(module, *arrays)`, parameters as a plain dict."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def pure(params, *arrays):
        return function(nnx.merge(graph, params, rest, copy=True), *arrays)

    places = tuple(range(len(arrays) + 1))
    arrays = [jnp.asarray(x) for x in arrays]
    return jax.jit(jax.value_and_grad(pure, argnums=places))(nnx.as_pure(params), *arrays)


def gathered(golden, pool):
    index = golden["in/sentence_index"]
    # The release counts sentences from 1.
    index = np.where(index > 0, index - 1, -1).astype(np.int32)
    count = int(index.max()) + 2
    sentences, mask = pool(jnp.asarray(index), count)
    return compact_sentences(sentences, mask)


@pytest.mark.parametrize("case", ["avg", "attention"])
def test_sentence_gather(golden_dir, case):
    golden = load(golden_dir, "prior", "sentence_gather")
    module = SentenceAttention(golden["in/x"].shape[-1], dtype=jnp.float32, rngs=nnx.Rngs(0))
    names = {name: f"attention_pool.{name}" for name in ("query", "key")}
    linears_from(module, golden.prefix("param/attention/"), names)

    def pool(module, x, index, count):
        if case == "avg":
            return mean_sentences(x, index, num_sentences=count)
        return module(x, index, num_sentences=count)

    x = golden["in/x"]
    gather = nnx.jit(lambda module, x: gathered(golden, lambda i, n: pool(module, x, i, n)))
    sentences, mask = gather(module, jnp.asarray(x))
    mask = np.asarray(mask)
    np.testing.assert_array_equal(mask.sum(1), golden[f"out/{case}/lengths"])
    assert_close(unpad(sentences, mask), golden[f"out/{case}/rows"], rtol=1e-4)

    cotangent = np.zeros(sentences.shape, np.float32)
    cotangent[mask] = golden[f"in/{case}/cotangent"]

    def loss(module, x):
        sentences, _ = gathered(golden, lambda i, n: pool(module, x, i, n))
        return jnp.sum(sentences * cotangent)

    _, (params, grad) = differentiate(loss, module, x)
    assert_close(grad, golden[f"grad/{case}/in/x"], rtol=1e-3)
    if case == "attention":
        recorded = golden.prefix("grad/attention/param/attention_pool.")
        assert_close(params["key"]["kernel"], recorded["key.weight"].T, rtol=1e-3)
        assert_close(params["key"]["bias"], recorded["key.bias"], rtol=1e-3)
        assert_close(params["query"]["kernel"], recorded["query.weight"].T, rtol=1e-3)
        # A shift of every energy of a sentence: the true gradient of the query's bias is 0.
        scale = np.abs(recorded["query.weight"]).max()
        assert np.abs(np.asarray(params["query"]["bias"])).max() < 1e-4 * scale

    whole = jnp.zeros(x.shape[:2], jnp.int32)
    sentences, _ = pool(module, jnp.asarray(x), whole, 1)
    assert_close(sentences[:, 0], golden[f"out/{case}/rows_nobatch"], rtol=1e-4)


def test_local_cross_attention(golden_dir):
    golden = load(golden_dir, "prior", "local_cross_attention")
    width = golden["param/query1.weight"].shape[0]
    names = {name: name for name in ("query1", "key1", "value1", "query2", "key2", "value2")}
    module = LocalCrossAttention(width, dtype=jnp.float32, rngs=nnx.Rngs(0))
    linears_from(module, golden.prefix("param/"), names)
    parts = {
        "image_ctx": "image",
        "image_att": "image_attention",
        "text_ctx": "text",
        "text_att": "text_attention",
    }
    for case in golden.cases("in/"):
        masks = {}
        if f"in/{case}/mask1" in golden:
            masks["text_mask"] = jnp.asarray(golden[f"in/{case}/mask1"] > -1)[None]
            masks["image_mask"] = jnp.asarray(golden[f"in/{case}/mask2"] > -1)[None]

        def run(module, image, text, masks=masks):
            return module(image[None], text[None], **masks)

        image, text = golden[f"in/{case}/image"], golden[f"in/{case}/text"]
        context = nnx.jit(run)(module, jnp.asarray(image), jnp.asarray(text))
        for name, part in parts.items():
            actual = getattr(context, part)[0]
            assert_close(actual, golden[f"out/{case}/{name}"], rtol=1e-4, name=f"{case} {name}")

        def loss(module, image, text, case=case, run=run):
            context = run(module, image, text)
            return sum(
                jnp.sum(getattr(context, part)[0] * golden[f"in/{case}/cotangent_{name}"])
                for name, part in parts.items()
            )

        _, (params, image_grad, text_grad) = differentiate(loss, module, image, text)
        assert_close(image_grad, golden[f"grad/{case}/in/image"], rtol=1e-3, name=case)
        assert_close(text_grad, golden[f"grad/{case}/in/text"], rtol=1e-3, name=case)
        for name in names:
            recorded = golden.prefix(f"grad/{case}/param/{name}.")
            assert_close(params[name]["kernel"], recorded["weight"].T, rtol=1e-3, name=name)
            assert_close(params[name]["bias"], recorded["bias"], rtol=1e-3, name=name)


def look_up(bank, rows, temperature, noise):
    count = rows.shape[0]
    return bank(
        rows[None],
        jnp.ones((1, count), bool),
        temperature=jnp.asarray(temperature, jnp.float32),
        noise=jnp.asarray(noise)[None],
    )


def recon(bank, rows, temperature, noise):
    lookup = look_up(bank, rows, temperature, noise)
    weight = jnp.ones((1, rows.shape[0]), jnp.float32)
    return lookup, prototype_l1(rows[None], lookup.prototypes, weight=weight)


def test_bank_lookup(golden_dir):
    golden = load(golden_dir, "prior", "spb")
    bank = bank_of(golden["param/embed.weight"])
    x = golden["in/x"]
    lookup, loss = nnx.jit(recon)(bank, jnp.asarray(x), golden["in/tau"], golden["in/gumbel"])
    assert_close(lookup.prototypes[0], golden["out/output"], rtol=1e-4)
    assert_close(lookup.logits[0], golden["out/dist"], rtol=1e-4)
    assert_close(loss, golden["out/loss"], rtol=1e-4)
    choice = np.asarray(jnp.argmax(lookup.probability[0], axis=-1))
    np.testing.assert_array_equal(choice, golden["out/embed_ind"])

    def total(bank, x):
        lookup, loss = recon(bank, x, golden["in/tau"], golden["in/gumbel"])
        mixed = jnp.sum(lookup.prototypes[0] * golden["in/cotangent"])
        return golden.scalar("in/lambda") * loss + mixed

    _, (params, grad) = differentiate(total, bank, x)
    assert_close(grad, golden["grad/in/x"], rtol=1e-3)
    assert_close(params["embed"], golden["grad/param/embed.weight"], rtol=1e-3)


def test_bank_query_and_rank_3_input(golden_dir):
    golden = load(golden_dir, "prior", "spb")
    bank = bank_of(golden["param/embed.weight"])
    x = jnp.asarray(golden["in/x"])
    lookup = nnx.jit(look_up)(bank, x, golden["in/tau"], golden["in/query/gumbel"])
    assert_close(lookup.prototypes[0], golden["out/query/output"], rtol=1e-4)
    # The recorded rank-3 input is the first rows of x as [n, 1, D] or [1, n, D].
    noise = golden["in/rank3/gumbel"]
    lookup, loss = nnx.jit(recon)(bank, x[: noise.shape[0]], golden["in/tau"], noise)
    assert_close(lookup.prototypes[0], golden["out/rank3/output"], rtol=1e-4)
    assert_close(loss, golden["out/rank3/loss"], rtol=1e-4)


def test_bank_at_low_temperature(golden_dir):
    golden = load(golden_dir, "prior", "spb")
    bank = bank_of(golden["param/embed.weight"])
    tau, noise = golden["in/lowtemp/tau"], golden["in/lowtemp/gumbel"]

    def total(bank, x):
        _, loss = recon(bank, x, tau, noise)
        return loss

    value, (params, x) = differentiate(total, bank, golden["in/x"])
    assert_close(value, golden["out/lowtemp/loss"], rtol=1e-4)
    assert_close(x, golden["grad/lowtemp/in/x"], rtol=1e-3)
    assert_close(params["embed"], golden["grad/lowtemp/param/embed.weight"], rtol=1e-3)
    lookup = nnx.jit(look_up)(bank, jnp.asarray(golden["in/x"]), tau, noise)
    assert_close(lookup.prototypes[0], golden["out/lowtemp/output"], rtol=1e-4)


def test_bank_divergence(golden_dir):
    golden = load(golden_dir, "prior", "spb")
    bank = bank_of(golden["param/embed.weight"])

    def loss(bank, logits, x):
        weight = jnp.ones((1, x.shape[0]), jnp.float32)
        return prototype_kl(
            bank.logits(x[None]),
            bank.logits(logits[None]),
            weight=weight,
            stop_target_gradient=False,
        )

    value, (params, logits, x) = differentiate(loss, bank, golden["in/kl/logits"], golden["in/x"])
    assert_close(value, golden["out/kl/loss"], rtol=1e-4)
    assert_close(logits, golden["grad/kl/in/logits"], rtol=1e-3)
    assert_close(x, golden["grad/kl/in/x"], rtol=1e-3)
    assert_close(params["embed"], golden["grad/kl/param/embed.weight"], rtol=1e-3)


@pytest.mark.parametrize("schedule", ["fixed", "linear", "exp"])
def test_bank_temperature(golden_dir, schedule):
    golden = load(golden_dir, "prior", "spb")
    recorded = golden[f"out/temp/{schedule}"]
    actual = bank_temperature(
        jnp.arange(len(recorded), dtype=jnp.int32),
        start=golden["out/temp/fixed"][0],
        schedule=schedule,
        total_steps=golden.scalar("in/temp/total_step"),
    )
    assert_close(jnp.broadcast_to(actual, recorded.shape), recorded, rtol=1e-6)
