"""GLoRIA's reports to sentences and tokens against what the authors' code made of them."""

import numpy as np
import pytest

from prior_jax.data import text as text_lib
from prior_jax.data import tokenizer as tokenizer_lib
from prior_jax.data.gloria_text import split_report
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden

LIMIT = "path2sent_max_word_num_"


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load_json(golden_dir, "gloria", "text_preprocessing")


@pytest.fixture(scope="module")
def tokenizer(recorded, tmp_path_factory):
    path = tmp_path_factory.mktemp("gloria") / "vocab.txt"
    path.write_text("\n".join(recorded["vocab"]), encoding="utf-8")
    return tokenizer_lib.open_tokenizer(
        tokenizer_lib.TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    )


def encode(caption, tokenizer, length):
    """A caption is one text to the release, cut at its end: one sentence."""
    sizes = dict(tokenizer=tokenizer, max_sentences=1)
    if not caption:
        return text_lib.empty_report(length=length, **sizes)
    return text_lib.encode_report([caption], mode="paper", max_tokens=length, name=caption, **sizes)


def captions(recorded, key):
    """Path -> sentences of one recorded limit, by our splitter."""
    limit = int(key.removeprefix(LIMIT))
    found = {
        f"p{number}": split_report(report, mode="release", max_words=limit)
        for number, report in enumerate(recorded["reports"])
    }
    return {path: sentences for path, sentences in found.items() if sentences}


def test_texts_for_inference_equal_the_release(recorded, tokenizer):
    expected = recorded["process_text"]
    for number, report in enumerate(recorded["reports"]):
        caption = " ".join(split_report(report, mode="release"))
        assert caption == expected["cleaned"][number]
        encoded = encode(caption, tokenizer, recorded["word_num"])
        assert encoded.tokens.tolist() == expected["caption_ids"][number]
        assert encoded.token_mask.tolist() == expected["attention_mask"][number]
    assert not np.any(expected["token_type_ids"])


def test_sentences_for_training_equal_the_release(recorded):
    limits = [key for key in recorded if key.startswith(LIMIT)]
    assert limits
    for key in limits:
        found = captions(recorded, key)
        assert found == recorded[key]["path2sent"], key
        every = {f"p{number}" for number in range(len(recorded["reports"]))}
        # A report that is no text at all has no sentence to split.
        assert every - set(found) == set(recorded[key]["to_remove"]) - {"pnan"}, key


def test_captions_are_one_sentence_or_all_of_them(recorded, tokenizer):
    """The release draws with numpy's global generator, seeded before each setting."""
    calls = recorded["get_caption"]["calls"]
    seed = recorded["get_caption"]["numpy_seed_before_each_full_report_setting"]
    sentences = captions(recorded, max(recorded, key=lambda k: (k.startswith(LIMIT), len(k))))
    for full in (False, True):
        draws = np.random.RandomState(seed)
        for call in (call for call in calls if call["full_report"] == full):
            mine = sentences[call["path"]]
            caption = " ".join(mine) if full else mine[draws.randint(0, len(mine))]
            assert caption == call["sentence"]
            encoded = encode(caption, tokenizer, recorded["word_num"])
            assert encoded.tokens.tolist() == call["input_ids"]
            assert encoded.token_mask.sum() == call["x_len"]


def test_the_release_sorts_a_batch_by_length_but_not_its_paths(recorded, tokenizer):
    """Our batches keep their rows in place; the recorded rows are ours, reordered."""
    collate = recorded["collate"]
    paths = collate["path_out_UNSORTED"]
    sentences = captions(recorded, max(recorded, key=lambda k: (k.startswith(LIMIT), len(k))))
    rows = [encode(" ".join(sentences[path]), tokenizer, recorded["word_num"]) for path in paths]
    lengths = [int(row.token_mask.sum()) for row in rows]
    assert lengths == collate["cap_len_in"]
    order = collate["image_ids_out"]
    assert [rows[i].tokens.tolist() for i in order] == collate["caption_ids_out"]
    assert [lengths[i] for i in order] == collate["cap_lens_out"] == sorted(lengths)[::-1]
