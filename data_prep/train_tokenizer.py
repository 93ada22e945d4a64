"""Trains a sentencepiece tokenizer on the training reports of a prepared set.

    python -m data_prep.train_tokenizer --path=/data/prepared/mimic --out=tokenizer.model

Writes the model and, beside it, `tokenizer.settings.json` with the sha256 of its inputs and
outputs. Ids 0 to 4 are [PAD], [UNK], [CLS], [SEP] and [MASK]. The same set and settings give the
same bytes.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
import random
from collections.abc import Iterator

import tqdm

from data_prep.kit import cli
from prior_jax.data import manifest as manifest_lib
from prior_jax.data import schema, stored_example
from prior_jax.data.tokenizer import SPECIAL_TOKENS
from prior_jax.errors import ConfigError, DataError

SETTINGS_SUFFIX = ".settings.json"
# sentencepiece silently drops longer lines.
_LONGEST_SENTENCE = 4192


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that determine the tokenizer's bytes."""

    path: str = cli.setting("Directory of the prepared set.")
    out: str = cli.setting(
        "Path of the model; by default tokenizer.model in the set's directory.", default=""
    )
    vocab_size: int = cli.setting(
        "Number of pieces, including the special ones. 8192 cover radiology's vocabulary: reports "
        "have about 1.3 pieces for each word. A small set gives as many pieces as it supports.",
        default=8192,
    )
    lower_case: bool = cli.setting("Convert text to lower case.", default=True)
    algorithm: str = cli.setting("Algorithm, unigram or bpe.", default="unigram")
    label_sentences: bool = cli.setting("Also read sentences made from labels.", default=True)
    sentences: int = cli.setting(
        "Largest number of sentences to read, drawn from all; limits the memory.", default=1_000_000
    )
    seed: int = cli.setting("Seed of the drawing of sentences.", default=0)

    def __post_init__(self):
        """Refuses invalid values."""
        checks = {
            "vocab_size": (self.vocab_size > len(SPECIAL_TOKENS) + 1, "more than 6"),
            "algorithm": (self.algorithm in ("unigram", "bpe"), "unigram or bpe"),
            "sentences": (self.sentences >= 1, "1 or more"),
        }
        for name, (valid, must_be) in checks.items():
            if not valid:
                raise ConfigError.of_value(f"--{name}", getattr(self, name), must_be)


def train(settings: Settings) -> pathlib.Path:
    """Trains and writes the tokenizer.

    Returns:
      The path of the model.

    Raises:
      DataError: if the set is missing or damaged, or has no training sentence.
    """
    root = pathlib.Path(settings.path)
    manifest = manifest_lib.load_manifest(root)
    out = pathlib.Path(settings.out or root / "tokenizer.model")
    content, used = _trained(sample_sentences(root, manifest, settings), settings)
    digest = hashlib.sha256(content).hexdigest()
    recorded = dataclasses.asdict(settings)
    del recorded["path"], recorded["out"]
    description = {
        "program": "data_prep.train_tokenizer",
        "settings": recorded,
        "sentences_read": used,
        "vocab_size": _pieces(content),
        "special_tokens": SPECIAL_TOKENS,
        "shards": {name: value for name, value in manifest.shards.items() if "-train." in name},
        "sha256": digest,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    schema.write_atomically(out, content)
    text = json.dumps(description, indent=2) + "\n"
    schema.write_atomically(out.with_name(out.stem + SETTINGS_SUFFIX), text.encode())
    return out


def sample_sentences(
    root: pathlib.Path, manifest: manifest_lib.Manifest, settings: Settings
) -> list[str]:
    """Returns at most `settings.sentences` training sentences, drawn uniformly from all."""
    draw = random.Random(settings.seed)
    chosen: list[str] = []
    seen = 0
    for sentence in _training_sentences(root, manifest, settings):
        seen += 1
        if len(chosen) < settings.sentences:
            chosen.append(sentence)
        else:
            place = draw.randrange(seen)
            if place < settings.sentences:
                chosen[place] = sentence
    if not chosen:
        raise DataError(
            "The split train has no sentence to train on; the studies of the set by source of "
            f"their text: {dict(manifest.text_sources)}.",
            "Prepare a set with reports, or with sentences made from labels "
            "(data_prep.manifest --label_sentences).",
            where=str(root),
        )
    return chosen


def _training_sentences(
    root: pathlib.Path, manifest: manifest_lib.Manifest, settings: Settings
) -> Iterator[str]:
    from array_record.python import array_record_module

    parse = stored_example.parser(schema.features_of(root))
    shards = [name for name in manifest.shards if "-train." in name]
    for name in tqdm.tqdm(shards, unit=" shards", desc="data_prep.train_tokenizer"):
        try:
            reader = array_record_module.ArrayRecordReader(str(root / name))
        except (ValueError, RuntimeError) as error:
            raise DataError(
                f"The shard cannot be read: {error}.",
                "Check the set with data_prep.verify, and prepare it again.",
                where=str(root / name),
            ) from error
        for place in range(reader.num_records()):
            record = schema.Record.from_example(parse(reader.read([place])[0]))
            if record.text_source == schema.TEXT_LABELS and not settings.label_sentences:
                continue
            yield from record.sentences
        reader.close()


def _trained(sentences: list[str], settings: Settings) -> tuple[bytes, int]:
    """Returns (bytes of the model, number of sentences read)."""
    import sentencepiece

    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text[:_LONGEST_SENTENCE] for text in sentences),
            model_writer=model,
            model_type=settings.algorithm,
            vocab_size=settings.vocab_size,
            # A small set gives only as many pieces as it supports.
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="nmt_nfkc_cf" if settings.lower_case else "nmt_nfkc",
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=pad,
            unk_piece=unk,
            bos_piece=cls,
            eos_piece=sep,
            control_symbols=[mask],
            # Otherwise float sums, and so the pieces, would depend on the number of threads.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        message = " ".join(str(error).split())
        raise DataError(
            f"{len(sentences)} sentences do not support {settings.vocab_size} pieces ({message}).",
            "Change --vocab_size, or train on a larger set.",
            where="--vocab_size",
        ) from error
    return model.getvalue(), len(sentences)


def _pieces(content: bytes) -> int:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=content).get_piece_size()


def main() -> None:
    """Runs the program on its flags."""
    settings = cli.from_flags(Settings)
    out = train(settings)
    description = json.loads(out.with_name(out.stem + SETTINGS_SUFFIX).read_text())
    print(
        f"{out}: {description['vocab_size']} pieces from {description['sentences_read']} sentences"
    )


if __name__ == "__main__":
    cli.run(main, Settings)
