"""Similarities, zero-shot answers and retrieval against those of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import DataError
from prior_jax.evaluate.prompt_scores import class_scores, normalised
from prior_jax.evaluate.prompts import PromptTable
from prior_jax.interop.torch.names import to_torch
from prior_jax.nn.word_aggregate import leading_words
from prior_jax.objectives import gloria_inference
from prior_jax.types import ImageFeatures, ReportFeatures
from tests.golden.gloria_model import Recorded, channels_last, nhwc, tokens_of
from tests.golden.reader import assert_close, assert_trees_close, load, load_json

pytestmark = pytest.mark.golden

KINDS = ("both", "local", "global")


def similarities(images, reports, config):
    """Each kind, compiled together."""

    @jax.jit
    def run(images, reports):
        return {
            kind: gloria_inference.similarity(images, reports, config=config, kind=kind)
            for kind in KINDS
        }

    return run(images, reports)


@pytest.fixture(scope="module")
def made(golden_dir):
    side = load(golden_dir, "gloria", "zero_shot")["in/imgs"].shape[-1]
    return Recorded(golden_dir, image_size=side)


def image_features(local, global_):
    """Of the release's [B, D, h, w] and [B, D]."""
    rows = local.transpose(0, 2, 3, 1).reshape(local.shape[0], -1, local.shape[1])
    rows, global_ = jnp.asarray(rows), jnp.asarray(global_)
    return ImageFeatures(local=rows, global_=global_, pooled=global_)


def test_similarities_of_given_features(golden_dir, made):
    golden = load(golden_dir, "gloria", "similarities")
    words = channels_last(golden["in/text_emb_l"])
    # Lengths count characters: the words behind [CLS], [SEP] and some of the padding.
    counts = jnp.asarray(golden["in/cap_lens"], jnp.int32)
    reports = ReportFeatures(
        local=jnp.asarray(words),
        local_mask=leading_words(counts, length=words.shape[1], first=1),
        global_=jnp.asarray(golden["in/text_emb_g"]),
    )
    images = image_features(golden["in/img_emb_l"], golden["in/img_emb_g"])
    found = similarities(images, reports, made.config)
    for kind in ("local", "global"):
        assert_close(found[kind], golden[f"out/{kind}"], rtol=1e-4, name=kind)


def test_overlong_prompts_are_refused_where_the_release_fails_or_goes_wrong(golden_dir):
    record = load_json(golden_dir, "gloria", "similarities_overlong")
    length = record["word_num"]
    assert record["positions"] == length - 1
    longest = gloria_inference.prompt_words(["a" * (length - 1)], length=length)
    assert longest.sum() == length - 1
    assert not longest[0, 0]
    for count, outcome in record["result_by_words_num"].items():
        assert outcome.startswith(("RuntimeError", "SILENT"))
        with pytest.raises(DataError, match=f"{count} characters"):
            gloria_inference.prompt_words(["a", "b" * int(count)], length=length)


class ZeroShot:
    """The recorded images and prompts, encoded."""

    def __init__(self, golden_dir, made, *, train):
        self.golden = golden = load(golden_dir, "gloria", "zero_shot")
        self.record = load_json(golden_dir, "gloria", "zero_shot")
        self.classes = list(self.record["prompts"])
        tokens, mask = (
            jnp.concatenate(parts)
            for parts in zip(
                *(tokens_of(golden, f"in/text/{name}/") for name in self.classes), strict=True
            )
        )
        self.owner = np.repeat(
            np.arange(len(self.classes)), [len(p) for p in self.record["prompts"].values()]
        )
        words = gloria_inference.prompt_words(
            [text for name in self.classes for text in self.record["prompts"][name]],
            length=tokens.shape[1],
        )
        counts = np.concatenate([golden[f"in/text/{name}/cap_lens"] for name in self.classes])
        np.testing.assert_array_equal(words.sum(1), counts)
        places = made.objective.find_words(tokens, mask)
        graph, state = nnx.split(made.model)

        @jax.jit
        def encode(state, image):
            model = nnx.merge(graph, state, copy=True)
            reports = gloria_inference.encode_report(
                model, tokens, mask, places=places, word_mask=jnp.asarray(words)
            )
            images = model.encode_image(image, train=train)
            return images, reports, nnx.state(model)

        image = nhwc(golden["in/imgs"])
        self.images, self.reports, after = encode(state, image)
        self.encode = lambda state: encode(state, image)[2]
        self.after = after
        self.similarities = similarities(self.images, self.reports, made.config)


@pytest.fixture(scope="module", params=("eval", "as_loaded"))
def zero_shot(request, golden_dir, made):
    mode = request.param
    return mode, ZeroShot(golden_dir, made, train=mode == "as_loaded")


def test_similarities_of_each_class(zero_shot):
    mode, found = zero_shot
    for kind in KINDS:
        scores = np.asarray(found.similarities[kind])
        for index, name in enumerate(found.classes):
            expected = found.golden[f"out/{mode}/similarities_{kind}/{name}"]
            ours = scores[:, found.owner == index]
            assert_close(ours, expected, rtol=1e-4, name=f"{kind} {name}")


def answers(found, rows=slice(None)):
    """The release's zero-shot scores: the best prompt of a class, standardised over the images."""
    texts = tuple(text for name in found.classes for text in found.record["prompts"][name])
    table = PromptTable(
        classes=tuple(found.classes),
        texts=texts,
        owner=found.owner,
        affirms=np.ones(len(texts), bool),
    )
    similarity = np.asarray(found.similarities["both"])[rows]
    return class_scores(similarity, table=table, pool="max", normalise="z-score")


def test_zero_shot_classification(zero_shot):
    mode, found = zero_shot
    assert found.record[mode]["columns"] == found.classes
    scores = answers(found)
    # Standardising divides by small deviations: similarities within 1e-5 of 5 become 1e-3.
    assert_close(scores, found.golden[f"out/{mode}/zero_shot"], rtol=1e-3)
    assert np.argmax(scores, axis=1).tolist() == found.record[mode]["argmax"]
    single = f"out/{mode}/zero_shot_single_image_not_normalised"
    if single in found.golden:
        assert_close(answers(found, slice(0, 1)), found.golden[single], rtol=1e-4)


def test_scoring_as_loaded_moves_the_batch_statistics(zero_shot, made):
    mode, found = zero_shot
    if mode != "as_loaded":
        return
    state = found.after
    # The images are encoded again for every class.
    for _ in found.classes[1:]:
        state = found.encode(state)
    after = to_torch(nnx.as_pure(nnx.filter_state(state, nnx.BatchStat)), made.table, partial=True)
    assert_trees_close(after, found.golden.prefix("out/as_loaded/buffer_after/"), rtol=1e-4)


def spelt(ids, index, vocab):
    """The words of one caption, [CLS] and [SEP] included."""
    words = [""] * (1 + int(np.max(index)))
    for token, place in zip(ids, np.asarray(index), strict=True):
        if place >= 0:
            words[place] += vocab[token].removeprefix("##")
    return words


def test_retrieval(golden_dir, made):
    golden = load(golden_dir, "gloria", "retrieval")
    record = load_json(golden_dir, "gloria", "retrieval")
    tokens, mask = tokens_of(golden)
    places = made.objective.find_words(tokens, mask)
    np.testing.assert_array_equal(places.unbracketed, golden["out/cap_lens"])
    words = gloria_inference.retrieval_words(places)

    @nnx.jit
    def encode(model, image):
        captions = model.encode_text(tokens, mask, places, train=False)
        reports = gloria_inference.encode_report(
            model, tokens, mask, places=places, word_mask=words
        )
        return captions, reports, model.encode_image(image, train=False)

    captions, reports, images = encode(made.model, nhwc(golden["in/img"]))
    # The release's targets lack [CLS], and it skips one word more.
    assert_close(channels_last(captions.words)[:, :, 1:], golden["out/target_local"], rtol=1e-4)
    assert_close(reports.global_, golden["out/target_global"], rtol=1e-4)
    for row, compared in enumerate(record["words_actually_compared"]):
        sentence = spelt(golden["in/caption_ids"][row], places.index[row], made.vocab)
        pairs = zip(sentence, np.asarray(words)[row], strict=False)
        assert [word for word, seen in pairs if seen] == compared
    score = jax.jit(lambda i, r: gloria_inference.retrieval_scores(i, r, config=made.config))
    scores = score(images, reports)
    assert_close(scores.local[0], golden["out/local_similarity_sum"], rtol=1e-4)
    rankings = {
        "both": sum(
            normalised(np.asarray(part), how="z-score", axis=1)
            for part in (scores.local, scores.global_)
        ),
        "local": scores.local,
        "global": scores.global_,
    }
    texts = {}
    for kind, ranking in rankings.items():
        expected = golden[f"out/rank_{kind}"]
        order = np.argsort(-np.asarray(ranking)[0], kind="stable")[: len(expected)]
        np.testing.assert_array_equal(order, expected, err_msg=kind)
        for place, text in zip(order.tolist(), record[kind]["retrieved"], strict=True):
            assert texts.setdefault(place, text) == text
    # The mean over words, which the release has an argument for and does not use.
    mean = scores.local[0] / made.config.contrast_scale - np.log(np.asarray(words).sum(1))
    assert_close(made.config.contrast_scale * mean, golden["out/local_similarity_mean"], rtol=1e-4)
