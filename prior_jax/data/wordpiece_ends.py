"""Checks that a tokenizer.json puts [CLS] before a text and [SEP] after it."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.data.wordpiece import WordPiece, bert_rules
from prior_jax.data.wordpiece_settings import SPECIAL_TOKENS
from prior_jax.errors import DataError, first_line


def check_ends(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Refuses a post-processor that does not put [CLS] before a text and [SEP] after it.

    Args:
      path: path of a tokenizer.json, for error messages.
      content: JSON value of the file, with a model's vocabulary.

    Raises:
      DataError: if the post-processor does something else; names it.
    """
    if content.get("post_processor") is None:
        return
    import tokenizers

    unknown = _undefined(content["post_processor"])
    if unknown:
        raise _refused(path, f"The post-processor uses the undefined token {unknown[0]!r}.")
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    plain = WordPiece(vocabulary=vocabulary, rules=bert_rules(lower_case=False)).document()
    try:
        document = {**plain, "post_processor": content["post_processor"]}
        engine = tokenizers.Tokenizer.from_str(json.dumps(document))
        ids = engine.encode("[MASK]x", add_special_tokens=True).ids
    except Exception as error:  # the library raises a plain Exception
        problem = f"The package tokenizers cannot read the post-processor ({first_line(error)})."
        raise _refused(path, problem) from error
    kind = content["post_processor"].get("type")
    # The processor contains ids, which must equal those of the file's vocabulary.
    words = content["model"]["vocab"]
    if (ids[:1], ids[-1:]) != ([words.get("[CLS]")], [words.get("[SEP]")]):
        raise _refused(path, f"The post-processor {kind} puts other ids at the ends of a text.")
    body = engine.encode("[MASK]x", add_special_tokens=False).ids
    if ids[1:-1] != body:
        raise _refused(path, f"The post-processor {kind} changes the text between its ends.")


def _refused(path: pathlib.Path, problem: str) -> DataError:
    return DataError(
        problem,
        "Give a post-processor that puts [CLS] before a text and [SEP] after it, or null.",
        where=f"{path}: post_processor",
    )


def _undefined(processor: Any) -> list[Any]:
    """Returns the special tokens that a template uses without defining them.

    The library panics at such tokens.
    """
    if not isinstance(processor, dict):
        return []
    below = processor.get("processors")
    children = below if isinstance(below, list) else []
    found = [name for child in children for name in _undefined(child)]
    defined = processor.get("special_tokens")
    defined = defined if isinstance(defined, dict) else {}
    for template in ("single", "pair"):
        pieces = processor.get(template)
        for piece in pieces if isinstance(pieces, list) else ():
            token = piece.get("SpecialToken") if isinstance(piece, dict) else None
            name = token.get("id") if isinstance(token, dict) else None
            if token is not None and not (isinstance(name, str) and name in defined):
                found.append(name)
    return found
