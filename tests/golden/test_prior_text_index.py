"""Token ids and sentence index against the release's own tokenisation of whole reports."""

import random

import numpy as np
import pytest

from prior_jax.data import text as text_lib
from prior_jax.data import tokenizer as tokenizer_lib
from tests.golden import reader

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def cases(golden_dir):
    return reader.load_json(golden_dir, "prior", "text_index")


@pytest.fixture(scope="module")
def tokenizer(golden_dir, cases):
    path = golden_dir / "prior" / "text_vocab.txt"
    return tokenizer_lib.open_tokenizer(
        tokenizer_lib.TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    )


def release_order(case):
    """The release shuffles the two sections' sentences together, in place."""
    sentences = [*(case["impression"] or []), *(case["findings"] or [])]
    random.Random(case["python_random_seed"]).shuffle(sentences)
    return sentences


def test_every_report_equals_the_release(cases, tokenizer):
    assert cases
    for name, case in cases.items():
        sentences = release_order(case)
        assert sentences == case["order_after_shuffle"], name
        encoded = text_lib.encode_report(
            sentences,
            tokenizer=tokenizer,
            mode="release",
            max_tokens=case["max_length"],
            max_sentences=len(sentences),
            name=name,
        )
        length = len(case["input_ids"])
        assert length == case["max_length"], name
        np.testing.assert_array_equal(encoded.tokens, case["input_ids"], err_msg=name)
        np.testing.assert_array_equal(encoded.token_mask, case["attention_mask"], err_msg=name)
        # The release numbers sentences from 1.
        ours = np.where(encoded.sentence_index < 0, -1, encoded.sentence_index + 1)
        np.testing.assert_array_equal(ours, case["sentence_index"], err_msg=name)
        owners = {number for number in case["sentence_index"] if number > 0}
        assert {1 + s for s in np.flatnonzero(encoded.sentence_mask)} == owners, name


def test_written_tokens_and_sentence_lengths_equal_the_release(cases, tokenizer):
    for name, case in cases.items():
        written = [tokenizer.token(i) for i in case["input_ids"]]
        assert written == case["tokens"], name
        counts = [len(ids) for ids in tokenizer.encode_ids(case["order_after_shuffle"])]
        assert counts == case["per_sentence_token_counts"], name


def test_prompts_equal_the_release(golden_dir, tokenizer):
    golden = reader.load_json(golden_dir, "prior", "zero_shot_prompts")
    for (label, prompts), rows in zip(
        golden["prompts"].items(), golden["input_ids_nonpad"], strict=True
    ):
        encoded = text_lib.encode_prompts(
            prompts, tokenizer=tokenizer, max_tokens=256, max_sentences=1
        )
        for row, mask, wanted in zip(encoded.tokens, encoded.token_mask, rows, strict=True):
            assert row[mask].tolist() == wanted, label


def test_the_paper_mode_never_drifts(cases, tokenizer):
    """Where the release's words merge, ours stay apart and every token keeps its owner."""
    for name, case in cases.items():
        order = case["order_after_shuffle"]
        sentences = [s for s, n in zip(order, case["per_sentence_token_counts"], strict=True) if n]
        encoded = text_lib.encode_report(
            sentences,
            tokenizer=tokenizer,
            mode="paper",
            max_tokens=1024,
            max_sentences=len(sentences),
            name=name,
        )
        assert encoded.sentence_mask.all(), name
        for number, sentence in enumerate(sentences):
            owned = encoded.tokens[encoded.sentence_index == number]
            np.testing.assert_array_equal(owned, tokenizer.encode(sentence).ids, err_msg=name)
