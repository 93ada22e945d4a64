"""The tokenizer settings in the small files of a Hugging Face BERT directory.

Each setting that affects ids is either followed as transformers' AutoTokenizer follows it, or
refused with the name of its file and key; `wordpiece` combines the settings with the vocabulary.
Settings that affect only calls with padding or truncation (`model_max_length`, `truncation`,
`padding`) are ignored, since this project's tokenizers do neither.

Source: transformers 4.57 and 5.24, models/bert/tokenization_bert*.py and
models/auto/tokenization_auto.py.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.errors import DataError, first_line

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_ROLES = dict(
    zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL_TOKENS,
        strict=True)
)  # fmt: skip
_BERT = ("BertTokenizer", "BertTokenizerFast")
_AS_IS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_SWITCHES = {
    "do_lower_case": (True, False),
    "strip_accents": (True, False, None),
    "tokenize_chinese_chars": (True, False),
}
# Values of each key that change no id of BERT's.
_FIXED = {
    "do_basic_tokenize": (True, None),
    "never_split": (None, []),
    "wordpieces_prefix": ("##", None),
    "continuing_subword_prefix": ("##", None),
    "max_input_chars_per_word": (100, None),
    "padding_side": ("right", None),
    "auto_map": (None, {}),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of tokenizer_config.json and its companions.

    Attributes:
      path: path of tokenizer_config.json.
      tokenizer_class: name of the class that reads the directory; None is BERT's.
      lower_case: value of `do_lower_case`; None where it is not given.
      strip_accents: whether accents are removed; None follows `lower_case`.
      chinese: value of `tokenize_chinese_chars`; None where it is not given.
      added: tokens added to the vocabulary, as (file, key, token, id); the id may be None.
    """

    path: pathlib.Path
    tokenizer_class: str | None
    lower_case: bool | None
    strip_accents: bool | None
    chinese: bool | None
    added: tuple[tuple[pathlib.Path, str, Any, Any], ...]

    @property
    def as_is(self) -> bool:
        """Returns whether the class follows tokenizer.json and nothing else."""
        return self.tokenizer_class in _AS_IS


def read_settings(folder: pathlib.Path) -> Settings | None:
    """Reads the settings in a tokenizer's directory; returns None where there are none.

    Raises:
      DataError: if a setting is neither supported nor without effect.
    """
    files = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    paths = [folder / name for name in files]
    model = folder / "config.json"
    if not any(path.is_file() for path in (*paths, model)):
        return None
    config, special, more = (read_json(path) if path.is_file() else {} for path in paths)
    kind, where = config.get("tokenizer_class"), paths[0]
    if kind is None and model.is_file():
        kind, where = read_json(model).get("tokenizer_class"), model
    if kind is not None and kind not in (*_BERT, *_AS_IS):
        raise DataError(
            f"The tokenizer class {kind!r} is not supported.",
            f"Give a tokenizer of one of the classes {', '.join((*_BERT, *_AS_IS))}.",
            where=f"{where}: tokenizer_class",
        )
    for key, values in {**_SWITCHES, **_FIXED}.items():
        # In Python 1 == True, but 1 in JSON is not a boolean.
        if key in config and not any(
            config[key] == value and type(config[key]) is type(value) for value in values
        ):
            raise DataError(
                f"The value {json.dumps(config[key])} is not supported.",
                f"Set it to {' or '.join(json.dumps(value) for value in values)}.",
                where=f"{paths[0]}: {key}",
            )
    _check_roles(paths[0], config)
    _check_roles(paths[1], special)
    return Settings(
        path=paths[0],
        tokenizer_class=kind,
        lower_case=config.get("do_lower_case"),
        strip_accents=config.get("strip_accents"),
        chinese=config.get("tokenize_chinese_chars"),
        added=(
            *_added_by_id(paths[0], config),
            *((paths[2], "", token, index) for token, index in more.items()),
        ),
    )


def check_added(
    settings: Settings | None,
    json_file: pathlib.Path,
    content: Mapping[str, Any] | None,
    vocabulary: Mapping[str, int],
) -> None:
    """Refuses tokens added to the vocabulary, because they are cut out of a text first.

    Args:
      settings: settings of the directory.
      json_file: path of a tokenizer.json, for error messages.
      content: JSON value of the file; None where it is absent.
      vocabulary: vocabulary, word -> id.

    Raises:
      DataError: if a token is none of SPECIAL_TOKENS, or has another id.
    """
    added = list(settings.added) if settings is not None else []
    entries = (content or {}).get("added_tokens") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(
            f"The value, of the type {type(entries).__name__}, is not a list of objects.",
            "Give a list of tokens with their ids, or remove the key.",
            where=f"{json_file}: added_tokens",
        )
    added += [
        (json_file, "added_tokens", entry.get("content"), entry.get("id")) for entry in entries
    ]
    for path, key, token, index in added:
        where = ": ".join(part for part in (str(path), key) if part)
        if token not in SPECIAL_TOKENS:
            raise DataError(
                f"The token {token!r} is added to the vocabulary, which is not supported.",
                f"Remove every added token but {', '.join(SPECIAL_TOKENS)}.",
                where=where,
            )
        if index is not None and index != vocabulary.get(token):
            raise DataError(
                f"The id is {index!r} here, but {vocabulary.get(token)!r} in the vocabulary.",
                "Make the two ids equal.",
                where=f"{where}: {token}",
            )


def read_bytes(path: pathlib.Path) -> bytes:
    """Reads the bytes of a tokenizer's file.

    Raises:
      DataError: if the file is absent, unreadable or empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The tokenizer file cannot be read ({error.strerror}).",
            "Give the path of a readable tokenizer file.",
            where=str(path),
        ) from error
    if not content:
        raise DataError(
            "The tokenizer file is empty.", "Give a whole tokenizer file.", where=str(path)
        )
    return content


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Raises:
      DataError: if the file is absent, or does not hold an object.
    """
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"The file is not JSON ({first_line(error)}).",
            "Give a whole tokenizer file.",
            where=str(path),
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"The file holds a JSON value of the type {type(content).__name__}, not an object.",
            "Give a tokenizer file in the form that transformers writes.",
            where=str(path),
        )
    return content


def _check_roles(path: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Refuses special tokens other than BERT's."""
    for key, wanted in _ROLES.items():
        if key in config and _text(config[key]) != wanted:
            raise DataError(
                f"The token is {config[key]!r}, but BERT's is {wanted!r}.",
                "Give a tokenizer with the special tokens of BERT.",
                where=f"{path}: {key}",
            )
    for key in ("bos_token", "eos_token"):
        if config.get(key) is not None and _text(config[key]) not in SPECIAL_TOKENS:
            raise DataError(
                f"The token {config[key]!r} is none of BERT's special tokens.",
                "Set it to null, or give a tokenizer with the special tokens of BERT.",
                where=f"{path}: {key}",
            )
    for key in ("additional_special_tokens", "extra_special_tokens"):
        tokens = config.get(key) or []
        tokens = list(tokens.values()) if isinstance(tokens, dict) else tokens
        if not isinstance(tokens, list) or any(_text(t) not in SPECIAL_TOKENS for t in tokens):
            raise DataError(
                f"The value is {config[key]!r}, with tokens that are none of BERT's.",
                f"Remove every token but {', '.join(SPECIAL_TOKENS)}.",
                where=f"{path}: {key}",
            )


def _text(token: Any) -> Any:
    """Returns the text of a token, which may be an object with settings."""
    return token.get("content") if isinstance(token, dict) else token


def _added_by_id(path: pathlib.Path, config: Mapping[str, Any]) -> list[tuple]:
    key = "added_tokens_decoder"
    entries = config.get(key) or {}
    if not isinstance(entries, dict) or not all(index.isdecimal() for index in entries):
        raise DataError(
            f"The value {entries!r} does not map ids to tokens.",
            "Give an object with one token for each id, or remove the key.",
            where=f"{path}: {key}",
        )
    return [(path, key, _text(token), int(index)) for index, token in entries.items()]
