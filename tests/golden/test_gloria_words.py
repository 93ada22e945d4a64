"""Words made of pieces, and the text encoder, against the authors' code."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.torch.module_tables import bert_table
from prior_jax.interop.torch.names import to_torch
from prior_jax.nn.word_aggregate import find_words, sum_pieces
from prior_jax.objectives.gloria_model import matched_words
from tests.golden.gloria_model import Recorded, channels_last, tokens_of, vocabulary_of
from tests.golden.reader import assert_close, is_key_bias, load, load_json

pytestmark = pytest.mark.golden

# The file's variants: what the configuration says of them.
VARIANTS = {
    "sum": {},
    "mean": {"layer_pool": "mean"},
    "sum_norm": {"unit_text": True},
    "sum_no_agg_tokens": {"whole_words": False},
}
LAST = r"last(\d+)"  # so many layers, which the name says


@pytest.fixture(scope="module")
def aggregate(golden_dir):
    golden = load(golden_dir, "gloria", "aggregate_tokens")
    record = load_json(golden_dir, "gloria", "aggregate_tokens")
    tokens = jnp.asarray(golden["in/caption_ids"], jnp.int32)
    vocabulary = vocabulary_of(record["vocab"])
    places = find_words(tokens, tokens != vocabulary.pad, vocabulary=vocabulary)
    return golden, record, places


def test_every_token_finds_its_word(aggregate):
    golden, record, places = aggregate
    np.testing.assert_array_equal(places.index, golden["out/word_index_per_token"])
    ids = golden["in/caption_ids"]
    assert [[record["vocab"][i] for i in row] for row in ids] == record["tokens"]
    np.testing.assert_array_equal(np.max(places.index, 1) + 1, golden["out/n_words_incl_cls_sep"])


def test_the_words_of_the_training_loss_are_the_recorded_ones(aggregate, golden_dir):
    golden, record, places = aggregate
    config = Recorded(golden_dir, image_size=32).config
    release = np.asarray(matched_words(places, config.choices))
    np.testing.assert_array_equal(release.sum(1), golden["out/train_cap_lens"])
    assert record["train_cap_lens"] == golden["out/train_cap_lens"].tolist()
    for row, sentence in enumerate(record["sentences"]):
        words = [word for word, seen in zip(sentence, release[row], strict=True) if seen]
        assert words == record["words_used_by_training_local_loss"][row]
        real = [w for w, seen in zip(sentence, np.asarray(places.real)[row], strict=True) if seen]
        assert real == [word for word in sentence if word not in ("[CLS]", "[SEP]", "[PAD]")]


def test_pieces_are_summed_into_words(aggregate):
    golden, _, places = aggregate

    @jax.jit
    def run(embeddings):
        # The file keeps layers apart: [B, layers, L, D].
        return jax.vmap(lambda layer: sum_pieces(layer, places), in_axes=1, out_axes=1)(embeddings)

    words, back = jax.vjp(run, jnp.asarray(golden["in/embeddings"]))
    assert_close(words, golden["out/aggregated"], rtol=1e-5)
    assert_close(back(jnp.asarray(golden["in/cot"]))[0], golden["grad/embeddings"], rtol=1e-5)


# Two of them are differentiated; one is enough for every day.
EACH = [*VARIANTS, pytest.param("last", marks=pytest.mark.golden_full)]


def test_every_recorded_variant_is_compared(golden_dir):
    for case in load(golden_dir, "gloria", "bert_encoder").cases("in/"):
        assert case in VARIANTS or re.fullmatch(LAST, case), case


@pytest.fixture(scope="module", params=EACH)
def encoded(request, golden_dir):
    golden = load(golden_dir, "gloria", "bert_encoder")
    name = request.param
    if name == "last":
        (name,) = (case for case in golden.cases("in/") if re.fullmatch(LAST, case))
        changes = {"last_layers": int(name.removeprefix("last"))}
    else:
        changes = VARIANTS[name]
    made = Recorded(golden_dir, image_size=32, **changes)
    tokens, mask = tokens_of(golden)
    assert not np.any(golden["in/token_type_ids"])
    places = made.objective.find_words(tokens, mask)
    graph, params, rest = nnx.split(made.model, nnx.Param, ...)
    cot_word = jnp.asarray(channels_last(golden[f"in/{name}/cot_word"]))
    cot_sentence = jnp.asarray(golden[f"in/{name}/cot_sent"])

    def run(params):
        model = nnx.merge(graph, params, rest, copy=True)
        found = model.encode_text(tokens, mask, places, train=True)
        value = jnp.sum(found.words * cot_word) + jnp.sum(found.report * cot_sentence)
        return value, found

    differentiate = any(key.startswith(f"grad/{name}/") for key in golden)
    function = jax.grad(run, has_aux=True) if differentiate else run
    first, second = jax.jit(function)(nnx.as_pure(params))
    grads = to_torch(first["text_encoder"], bert_table(made.config.text)) if differentiate else None
    return golden, name, second, grads


def test_text_encoder(encoded):
    golden, name, found, grads = encoded
    words = golden[f"out/{name}/word_embeddings"]
    # Padded words are 0 / 0 in the release where it normalises (quirk G10), and 0 here.
    absent = np.isnan(words)
    assert absent.sum() == golden[f"out/{name}/word_embeddings_nan_count"]
    assert_close(channels_last(found.words), np.where(absent, 0, words), rtol=1e-4)
    assert_close(found.report, golden[f"out/{name}/sent_embeddings"], rtol=1e-4)
    if grads is None:
        return
    recorded = golden.prefix(f"grad/{name}/param/model.")
    for parameter, gradient in recorded.items():
        if not is_key_bias(parameter):
            assert_close(grads[parameter], gradient, rtol=1e-3, name=parameter)
    idle = [parameter for parameter in grads if parameter not in recorded]
    assert len(idle) == golden[f"out/{name}/params_without_grad_count"]
    assert all(not np.any(grads[parameter]) for parameter in idle)


def test_hidden_states(golden_dir):
    golden = load(golden_dir, "gloria", "bert_encoder")
    made = Recorded(golden_dir, image_size=32)
    tokens, mask = tokens_of(golden)
    graph, state = nnx.split(made.model.text_encoder)
    found = jax.jit(
        lambda state: nnx.merge(graph, state)(tokens, mask, train=False, hidden_states=True)
    )(state)
    assert_close(found.hidden_states, golden["out/hidden_states"], rtol=1e-4)
    assert_close(found.pooled, golden["out/pooler"], rtol=1e-4)
