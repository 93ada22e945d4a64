"""GLoRIA at its real size, with parameters from a formula, against the authors' code."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.sources.gloria_names import gloria_table
from prior_jax.interop.torch.names import to_torch
from prior_jax.losses.word_region import word_region_attention
from prior_jax.objectives.base import weighted_sum
from prior_jax.objectives.gloria_config import TERMS
from prior_jax.objectives.gloria_model import matched_words
from prior_jax.vocabulary import Vocabulary
from tests.golden.formula import Formula
from tests.golden.gloria_model import (
    IMAGE,
    TEXT,
    channels_last,
    config_of,
    model_of,
    nchw,
    nhwc,
    tokens_of,
)
from tests.golden.reader import assert_close, is_key_bias, load, load_json

pytestmark = [pytest.mark.golden, pytest.mark.golden_full]

HEADS = 12  # of Bio_ClinicalBERT; no shape tells


def vocabulary_of(golden) -> Vocabulary:
    ids, mask = golden["in/caption_ids"], golden["in/attention_mask"] > 0
    shortest = int(mask.sum(1).min())
    row = int(mask.sum(1).argmin())
    cls, sep, pad = (int(ids[row, place]) for place in (0, shortest - 1, shortest))
    continues = golden["in/is_wordpiece_continuation_by_id"]
    bracketed = np.zeros(len(continues), bool)
    bracketed[[cls, sep, pad]] = True
    return Vocabulary(
        size=len(continues), pad=pad, cls=cls, sep=sep, starts_word=~continues, bracketed=bracketed
    )


def parameters(golden_dir, record):
    """By the rule that the file states, with the names and shapes of the checkpoint."""
    formula = Formula(golden_dir)
    keys = load_json(golden_dir, "gloria", "state_dict_keys_gloria_resnet50")["keys"]
    shapes = {name.removeprefix("gloria."): shape for name, (shape, _) in keys.items()}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("position_ids")}
    short = {name.removeprefix("img_encoder.").removeprefix("text_encoder."): name
             for name in shapes}  # fmt: skip
    assert len(short) == len(shapes)
    made = formula.params({name: shapes[full] for name, full in short.items()})
    params = {short[name]: value for name, value in made.items()}
    share = re.fullmatch(r".*local_embedder\.weight \*= ([0-9.]+)", record["param_rule"])
    assert share, record["param_rule"]
    params[f"{IMAGE}local_embedder.weight"] *= np.float32(share[1])
    assert any(name.startswith(TEXT) for name in params)
    return params, formula.input(record["imgs"].removeprefix("formula_params."))


@pytest.fixture(scope="module")
def run(golden_dir):
    golden = load(golden_dir, "gloria", "real_gloria_eval")
    record = load_json(golden_dir, "gloria", "real_gloria_eval")
    params, image = parameters(golden_dir, record)
    config = config_of(params, heads=HEADS, image_size=image.shape[-1])
    objective, model = model_of(params, config, vocabulary_of(golden))
    del params
    tokens, mask = tokens_of(golden)
    places = objective.find_words(tokens, mask)
    graph, state, rest = nnx.split(model, nnx.Param, ...)
    del model

    def loss(state, image):
        model = nnx.merge(graph, state, rest, copy=True)
        encoded = model.image_encoder(image, train=False)
        images = model.encode_image(image, train=False)
        captions = model.encode_text(tokens, mask, places, train=False)
        terms = objective.contrasts(
            images, captions, places, weight=jnp.ones((len(tokens),), jnp.float32)
        )
        total = weighted_sum(terms, objective.weights("pretrain"))
        return total, (terms, encoded, captions)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, aux), grads = step(nnx.as_pure(state), nhwc(image))
    named = to_torch(grads, gloria_table(config), partial=True)
    return golden, record, config, places, total, aux, named


def places_of(text):
    """The slices that a recorded name says: "[:, ::16]"."""
    return tuple(
        slice(*(int(n) if n else None for n in part.split(":")))
        for part in text[1:-1].replace(" ", "").split(",")
    )


def assert_part(whole, golden, name):
    """Compares the part of an array that was recorded, which its name says."""
    (key,) = (key for key in golden.prefix("out/") if key.split("[")[0] == name)
    part = whole[places_of(key.removeprefix(name))] if "[" in key else whole
    assert_close(part, golden[f"out/{key}"], rtol=1e-4, name=key)


def test_features_and_losses(run):
    golden, record, config, places, total, (terms, images, captions), _ = run
    assert_close(images.pooled, golden["out/global_ft"], rtol=1e-4)
    assert_part(nchw(images.region_map), golden, "local_ft")
    assert_close(images.global_, golden["out/img_emb_g"], rtol=1e-4)
    regions = np.asarray(images.regions).reshape(len(images.regions), *config.image.grid, -1)
    assert_part(nchw(regions), golden, "img_emb_l")
    assert_close(captions.report, golden["out/text_emb_g"], rtol=1e-4)
    assert_part(channels_last(captions.words), golden, "text_emb_l")
    mask = matched_words(places, config.choices)
    np.testing.assert_array_equal(np.sum(mask, axis=1), golden["out/cap_lens"])
    parts = dict(zip(("global0", "global1", "local0", "local1"), TERMS, strict=True))
    for part, term in parts.items():
        assert_close(terms[term], golden[f"out/{part}"], rtol=1e-4, name=part)
    assert_close(total, golden["out/loss"], rtol=1e-4)
    ordered = [terms[parts[name]] for name in ("local0", "local1", "global0", "global1")]
    np.testing.assert_allclose(ordered, record["parts"], rtol=1e-4)
    maps = word_region_attention(
        captions.words, images.regions, word_mask=mask, temp1=config.attention_scale,
        softmax_over_words=True,
    )  # fmt: skip
    recorded = golden["out/att_map0"]
    assert_close(np.asarray(maps)[0, : recorded.shape[1]].reshape(recorded.shape), recorded,
                 rtol=1e-4)  # fmt: skip
    np.testing.assert_allclose(np.max(maps, axis=(1, 2)), record["attn_peak"], rtol=1e-4)


def test_words(run):
    golden, record, _, places, _, _, _ = run
    for row, words in enumerate(record["sents"]):
        index = np.asarray(places.index)[row]
        spelt = [word for word in words if word != "[PAD]"]
        assert index.max() + 1 == len(spelt)
        for place, word in enumerate(spelt[1:-1], start=1):
            ids = golden["in/caption_ids"][row][index == place]
            assert word == "".join(f"w{i}" for i in ids) or word.startswith("w")


def test_gradients(run):
    golden, record, _, _, _, _, grads = run
    for name, norm in record["grad_l2_norms"].items():
        if not is_key_bias(name):
            actual = np.linalg.norm(grads[name].astype(np.float64))
            assert_close(actual, np.asarray(norm), rtol=1e-3, name=name)
    assert set(record["params_without_grad"]).isdisjoint(record["grad_l2_norms"])
    assert all(not np.any(grads[name]) for name in record["params_without_grad"])
    for name, gradient in golden.prefix("grad/").items():
        match = re.fullmatch(r"([\w.]+)(\[.*\])?", name)
        assert match, name
        ours = grads[match[1]]
        if match[2]:
            ours = ours[places_of(match[2])]
        # Behind fifty layers of ReLU: images moved by 3e-7 move the stem's gradient by 3e-3.
        stem = match[1] == f"{IMAGE}model.conv1.weight"
        assert_close(ours, gradient, rtol=5e-3 if stem else 1e-3, name=name)
