"""Reads a Hugging Face directory of a BERT: sizes from config.json, and its tokenizer."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.data.tokenizer import TokenizerConfig, open_tokenizer
from prior_jax.data.wordpiece import lower_cases
from prior_jax.data.wordpiece_files import read_wordpiece
from prior_jax.errors import WeightsError, first_line

TOKENIZER_FILES = ("vocab.txt", "tokenizer.json")
"""Files that may hold the vocabulary; the first that exists is taken."""

_CONFIG = "config.json"

# Field of config.json -> value that `nn.bert` implements; an absent field means that value
# (transformers, BertConfig).
_FIXED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
# Our field -> field of transformers.
_SIZES = {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "vocab_size": "vocab_size",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertDirectory:
    """Content of the directory besides the weights.

    Attributes:
      sizes: fields of `nn.bert.BertConfig`.
      tokenizer: file of the vocabulary.
      lower_case: whether the tokenizer lower-cases text.
    """

    sizes: Mapping[str, Any]
    tokenizer: pathlib.Path
    lower_case: bool


def read_bert_directory(path: str | os.PathLike[str]) -> BertDirectory:
    """Reads config.json and finds the tokenizer.

    tokenizer_config.json says whether the tokenizer lower-cases; without that file, tokenizer.json
    does; without either, the value is True, as transformers assumes even for a cased vocabulary
    (so it reads Bio_ClinicalBERT).

    Args:
      path: path of a directory with config.json and vocab.txt or tokenizer.json.

    Raises:
      WeightsError: naming file and field, if one is absent, damaged, or describes a model that
        `nn.bert` does not implement.
    """
    folder = pathlib.Path(path)
    if not folder.is_dir():
        raise WeightsError(
            "This is no directory.",
            f"Give a directory with {_CONFIG}, weights and {' or '.join(TOKENIZER_FILES)}.",
            where=str(folder),
        )
    config = _read_json(folder / _CONFIG)
    for field, wanted in _FIXED.items():
        if config.get(field, wanted) != wanted:
            raise WeightsError(
                f"The value is {config[field]!r}, and only {wanted!r} is implemented.",
                f"Give a BERT whose {field} is {wanted!r}.",
                where=f"{folder / _CONFIG}: {field}",
            )
    sizes: dict[str, Any] = {}
    for ours, theirs in _SIZES.items():
        size = config.get(theirs)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise WeightsError.of_value(f"{folder / _CONFIG}: {theirs}", size, "a positive integer")
        sizes[ours] = size
    dropout = config.get("hidden_dropout_prob", 0.1)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float):
        raise WeightsError.of_value(
            f"{folder / _CONFIG}: hidden_dropout_prob", dropout, "a number from 0 to 1"
        )
    sizes["dropout"] = float(dropout)
    tokenizer = _tokenizer_file(folder)
    lower_case = lower_cases(read_wordpiece(tokenizer).rules)
    return BertDirectory(sizes=sizes, tokenizer=tokenizer, lower_case=lower_case)


def check_tokenizer(file: pathlib.Path, *, lower_case: bool, vocab_size: int, fewer: bool) -> int:
    """Refuses a tokenizer whose ids do not fit the word embedding.

    Args:
      file: path of a vocab.txt or tokenizer.json.
      lower_case: whether the tokenizer lower-cases.
      vocab_size: rows of the word embedding.
      fewer: whether the tokenizer may have fewer ids than that.

    Returns:
      The number of the tokenizer's ids.

    Raises:
      DataError: if the file is no WordPiece tokenizer of BERT's.
      WeightsError: if the tokenizer has more ids than the embedding has rows, or fewer where it may
        not.
    """
    config = TokenizerConfig(kind="wordpiece", path=str(file), lower_case=lower_case)
    found = open_tokenizer(config).vocab_size
    if found > vocab_size or (found < vocab_size and not fewer):
        raise WeightsError(
            f"The tokenizer has {found} entries, but the word embedding has {vocab_size} rows.",
            "Give the tokenizer that the weights were trained with.",
            where=str(file),
        )
    return found


def _tokenizer_file(folder: pathlib.Path) -> pathlib.Path:
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        "The directory has no tokenizer.",
        f"Put one of {', '.join(TOKENIZER_FILES)} into it.",
        where=str(folder),
    )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"The file cannot be read as JSON ({first_line(error)}).",
            "Copy or download the directory again.",
            where=str(path),
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"The file holds a {type(content).__name__} and not a JSON object.",
            "Copy or download the directory again.",
            where=str(path),
        )
    return content
