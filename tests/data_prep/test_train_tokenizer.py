import json

import pytest
import sentencepiece

from data_prep import manifest, train_tokenizer
from data_prep.kit import cli
from prior_jax.data.tokenizer import SPECIAL_TOKENS
from prior_jax.errors import ConfigError, DataError
from tests.data_prep import hospital

WORDS = "lung heart clear effusion nodule left right small large evidence Edema".split()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rows = []
    for number in range(60):
        (folder / f"{number}.jpg").write_bytes(hospital.jpeg(number))
        word = WORDS[number % len(WORDS)]
        text = f"The {word} is {WORDS[(number * 5) % len(WORDS)]}. No {word} {word}."
        if number >= 50:
            text = "Ωμέγα."  # in the test split only
        rows.append(
            {
                "image": f"{number}.jpg",
                "split": "train" if number < 50 else "test",
                "text": text,
            }
        )
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest.prepare(
        manifest.Paths(manifest=str(folder / "rows.jsonl")),
        manifest.Settings(),
        cli.RunOptions(out=str(folder / "out"), workers=1),
    )
    return folder / "out"


def train(prepared, out, **settings):
    path = train_tokenizer.train(
        train_tokenizer.Settings(path=str(prepared), out=str(out), **settings)
    )
    return path, sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())


def test_special_tokens_have_their_ids_and_are_never_made_from_text(prepared, tmp_path):
    _, model = train(prepared, tmp_path / "t.model", vocab_size=60)
    assert tuple(model.id_to_piece(i) for i in range(5)) == SPECIAL_TOKENS
    assert set(model.encode("[MASK] [CLS] [PAD]")) & {0, 2, 3, 4} == set()


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_same_set_and_settings_give_the_same_bytes(prepared, tmp_path, algorithm):
    first, _ = train(prepared, tmp_path / "a.model", vocab_size=60, algorithm=algorithm)
    second, _ = train(prepared, tmp_path / "b.model", vocab_size=60, algorithm=algorithm)
    assert first.read_bytes() == second.read_bytes()
    described = json.loads((tmp_path / "a.settings.json").read_text())
    assert described["sha256"] == cli.sha256_of(first)
    assert described["sentences_read"] == 100


def test_case_is_folded_or_kept(prepared, tmp_path):
    _, folded = train(prepared, tmp_path / "f.model", vocab_size=60)
    assert folded.encode("EDEMA") == folded.encode("edema")
    _, kept = train(prepared, tmp_path / "k.model", vocab_size=60, lower_case=False)
    assert kept.encode("Edema") != kept.encode("edema")


def test_other_splits_are_not_read(prepared, tmp_path):
    _, model = train(prepared, tmp_path / "t.model", vocab_size=60)
    assert 1 in model.encode("Ωμέγα")


def test_a_small_corpus_gives_what_it_supports(prepared, tmp_path):
    _, model = train(prepared, tmp_path / "t.model", vocab_size=5000)
    assert 30 < model.get_piece_size() < 5000


def test_memory_is_bounded_by_an_even_draw(prepared, tmp_path):
    train(prepared, tmp_path / "t.model", vocab_size=60, sentences=40)
    assert json.loads((tmp_path / "t.settings.json").read_text())["sentences_read"] == 40


def test_bad_settings_are_refused_by_name(prepared, tmp_path):
    with pytest.raises(ConfigError, match="--vocab_size"):
        train_tokenizer.Settings(path="x", vocab_size=5)
    with pytest.raises(ConfigError, match="--algorithm"):
        train_tokenizer.Settings(path="x", algorithm="word")
    with pytest.raises(DataError, match=r"--vocab_size.*sentences do not support 8 "):
        train(prepared, tmp_path / "t.model", vocab_size=8)
    with pytest.raises(DataError, match=r"manifest\.json"):
        train(tmp_path, tmp_path / "t.model")
