"""Reads a WordPiece tokenizer from the files that users have.

    found = read_wordpiece(pathlib.Path("clinical_bert/vocab.txt"), lower_case=True)
    found.engine().encode("No effusion.").ids

A `vocab.txt` or `tokenizer.json` by itself is read as it is. With a `tokenizer_config.json` in the
same directory, it is read as transformers' AutoTokenizer reads the directory. Settings that
versions 4 and 5 of transformers read differently, and settings that this project does not support,
are refused by name (`wordpiece_settings`).
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.data.wordpiece import (
    MAX_CHARACTERS,
    PREFIX,
    Rules,
    WordPiece,
    bert_rules,
    lower_cases,
)
from prior_jax.data.wordpiece_ends import check_ends
from prior_jax.data.wordpiece_settings import (
    Settings,
    check_added,
    read_bytes,
    read_json,
    read_settings,
)
from prior_jax.errors import DataError, first_line

_MAX_ID = 2**31
_SPLITTERS = (
    "BertPreTokenizer", "CharDelimiterSplit", "Digits", "Punctuation", "Sequence", "Split",
    "UnicodeScripts", "Whitespace", "WhitespaceSplit",
)  # fmt: skip
_FOLLOW = (
    'to have the value followed, write "tokenizer_class": "PreTrainedTokenizerFast" into '
    "tokenizer_config.json"
)


def read_wordpiece(path: pathlib.Path, *, lower_case: bool | None = None) -> WordPiece:
    """Reads a tokenizer by itself or in its directory.

    Args:
      path: path of a vocab.txt or tokenizer.json.
      lower_case: whether text is lower-cased; None follows the files.

    Raises:
      DataError: if a value cannot be followed; names the file, the key and the value.
    """
    settings = read_settings(path.parent)
    json_file = path if path.suffix == ".json" else path.parent / "tokenizer.json"
    content = read_json(json_file) if json_file.exists() else None
    vocabulary = _vocabulary(path, content)
    check_added(settings, json_file, content, vocabulary)
    if content is None or (settings is None and _is_bare(content)):
        if settings is not None and settings.as_is:
            raise DataError(
                f"The class {settings.tokenizer_class} needs a tokenizer.json, which is missing.",
                "Add the tokenizer.json to the folder, or set the class to BertTokenizer.",
                where=f"{settings.path}: tokenizer_class",
            )
        rules = _as_bert(settings, lower_case)
    else:
        rules = _rules_of_json(json_file, content)
        check_ends(json_file, content)
        if settings is None or settings.as_is:
            rules = _as_said(rules, json_file, settings, lower_case)
        else:
            _refuse_other_than_bert(json_file, rules)
            rules = _as_bert(settings, lower_case)
    return WordPiece(vocabulary=vocabulary, rules=rules)


def read_alone(name: str, content: bytes, *, lower_case: bool) -> WordPiece:
    """Returns the tokenizer of a single file without settings from its directory.

    Args:
      name: name of the file, which determines its kind.
      content: content of the file.
      lower_case: whether text is lower-cased.
    """
    path = pathlib.Path(name)
    if path.suffix != ".json":
        return WordPiece(
            vocabulary=vocabulary_of_lines(path, content), rules=bert_rules(lower_case=lower_case)
        )
    document = json.loads(content)
    if _is_bare(document):
        rules = bert_rules(lower_case=lower_case)
        return WordPiece(vocabulary=_vocabulary_of_json(path, document), rules=rules)
    rules = _as_said(_rules_of_json(path, document), path, None, lower_case)
    return WordPiece(vocabulary=_vocabulary_of_json(path, document), rules=rules)


def vocabulary_of_lines(path: pathlib.Path, content: bytes) -> dict[str, int]:
    """Reads `vocab.txt`: the line number is the id; of a repeated word the last line counts."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file is not UTF-8 text ({error}).",
            "Give the vocab.txt of a BERT tokenizer, one word a line.",
            where=str(path),
        ) from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return {line.rstrip("\r"): index for index, line in enumerate(lines)}


def _vocabulary(path: pathlib.Path, content: Mapping[str, Any] | None) -> dict[str, int]:
    if path.suffix == ".json":
        return _vocabulary_of_json(path, content or {})
    vocabulary = vocabulary_of_lines(path, read_bytes(path))
    if content is not None:
        beside = path.parent / "tokenizer.json"
        other = _vocabulary_of_json(beside, content)
        differing = {word for word, _ in vocabulary.items() ^ other.items()}
        if differing:
            raise DataError(
                f"The vocabulary differs from that of {path.name} beside it. Words without the "
                f"same id in both: {len(differing)}, such as {min(differing)!r}.",
                "Keep only one of the two files, or make their vocabularies equal.",
                where=f"{beside}: model.vocab",
            )
    return vocabulary


def _vocabulary_of_json(path: pathlib.Path, content: Mapping[str, Any]) -> dict[str, int]:
    """Reads `model` of a `tokenizer.json`, which must be a WordPiece model of BERT's kind."""
    model = content.get("model", {})
    if not isinstance(model, dict):
        raise DataError(
            f"The value is of the type {type(model).__name__}, and no WordPiece model.",
            "Give the tokenizer.json of a BERT tokenizer.",
            where=f"{path}: model",
        )
    wanted = {
        "type": "WordPiece", "continuing_subword_prefix": PREFIX, "unk_token": "[UNK]"
    }  # fmt: skip
    for field, value in wanted.items():
        if model.get(field, "[UNK]" if field == "unk_token" else None) != value:
            raise DataError(
                f"The value is {model.get(field)!r}, but that of a BERT tokenizer is {value!r}.",
                "Give the tokenizer.json of a BERT tokenizer.",
                where=f"{path}: model.{field}",
            )
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not all(
        type(index) is int and 0 <= index < _MAX_ID for index in vocabulary.values()
    ):
        raise DataError(
            f"The value, of the type {type(vocabulary).__name__}, does not map words to ids.",
            "Give a vocabulary in which every word has an id, an integer from 0 to 2**31 - 1.",
            where=f"{path}: model.vocab",
        )
    broken = [word for word in vocabulary if not word.isascii() and not _is_text(word)]
    if broken:
        raise DataError(
            f"The word {broken[0]!a} contains half of a character, an unpaired surrogate.",
            "Remove the word from the vocabulary, or complete the character.",
            where=f"{path}: model.vocab",
        )
    return vocabulary


def _is_text(word: str) -> bool:
    """Returns whether a word has no unpaired surrogate, which JSON can write but no file hold."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_bare(content: Mapping[str, Any]) -> bool:
    """Returns whether JSON is only a vocabulary.

    The library always writes `normalizer` and `pre_tokenizer`, if only as null.
    """
    return not {"normalizer", "pre_tokenizer"} & content.keys()


def _rules_of_json(path: pathlib.Path, content: Mapping[str, Any]) -> Rules:
    """Returns the rules that a `tokenizer.json` describes, if the library can read them."""
    most = content["model"].get("max_input_chars_per_word", MAX_CHARACTERS)
    if type(most) is not int or most < 0:
        raise DataError.of_value(
            f"{path}: model.max_input_chars_per_word", most, "an integer of 0 or more"
        )
    for name in _types(content.get("pre_tokenizer")):
        if name not in _SPLITTERS:
            raise DataError(
                f"The pre-tokenizer {name!r} is not supported.",
                f"Give a tokenizer that uses only {', '.join(_SPLITTERS)}.",
                where=f"{path}: pre_tokenizer",
            )
    rules = Rules(
        normalizer=content.get("normalizer"),
        pre_tokenizer=content.get("pre_tokenizer"),
        max_characters=most,
    )
    import tokenizers

    for name in ("normalizer", "pre_tokenizer"):
        document = WordPiece(vocabulary={"[UNK]": 0}, rules=rules).document()
        other = "pre_tokenizer" if name == "normalizer" else "normalizer"
        try:
            tokenizers.Tokenizer.from_str(json.dumps({**document, other: None}))
        except Exception as error:  # the library raises a plain Exception
            raise DataError(
                f"The package tokenizers cannot read this {name} ({first_line(error)}).",
                f"Give a {name} that the installed version of tokenizers reads.",
                where=f"{path}: {name}",
            ) from error
    return rules


def _types(node: Any) -> list[str]:
    """Returns the types of a pre-tokenizer and of those nested in it."""
    if not isinstance(node, dict):
        return []
    below = node.get("pretokenizers", [])
    inner = [name for child in below for name in _types(child)] if isinstance(below, list) else []
    return [str(node.get("type")), *inner]


def _as_bert(settings: Settings | None, lower_case: bool | None) -> Rules:
    """Returns the rules that transformers builds from the settings alone."""
    said = settings.lower_case if settings is not None else None
    lower = lower_case if lower_case is not None else said is not False
    if settings is None:
        return bert_rules(lower_case=lower)
    return bert_rules(
        lower_case=lower,
        strip_accents=settings.strip_accents,
        chinese=settings.chinese is not False,
    )


def _as_said(
    rules: Rules, path: pathlib.Path, settings: Settings | None, lower_case: bool | None
) -> Rules:
    """Returns the rules of a `tokenizer.json` itself."""
    field = f"{path}: normalizer"
    normalizer = rules.normalizer or {}
    if settings is not None:
        _refuse_contradiction(settings, rules, field)
    if lower_case is None:
        return rules
    if normalizer.get("type") == "BertNormalizer":
        return dataclasses.replace(rules, normalizer={**normalizer, "lowercase": lower_case})
    found = lower_cases(rules, field=field)
    if found != lower_case:
        does = "lower-cases text" if found else "keeps case"
        raise DataError(
            f"The normalizer {normalizer.get('type')} {does}, which contradicts "
            f"lower_case={lower_case}.",
            f"Set lower_case={found}, as the normalizer does.",
            where=field,
        )
    return rules


def _refuse_contradiction(settings: Settings, rules: Rules, field: str) -> None:
    """Refuses settings that contradict tokenizer.json, for classes that read only that file."""
    normalizer = rules.normalizer or {}
    found = {
        "do_lower_case": lower_cases(rules, field=field),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars"),
    }
    said = {
        "do_lower_case": settings.lower_case,
        "strip_accents": settings.strip_accents,
        "tokenize_chinese_chars": settings.chinese,
    }
    for key, value in said.items():
        if value is not None and value != found[key]:
            raise DataError(
                f"The value is {json.dumps(value)}, but the class {settings.tokenizer_class} "
                f"follows tokenizer.json, where it is {json.dumps(found[key])}.",
                f"Set {key} to {json.dumps(found[key])}.",
                where=f"{settings.path}: {key}",
            )


def _refuse_other_than_bert(path: pathlib.Path, rules: Rules) -> None:
    """Refuses rules that versions of transformers read differently for BertTokenizer."""
    normalizer = rules.normalizer or {}
    checks = (
        ("normalizer", normalizer.get("type"), "BertNormalizer"),
        ("normalizer.clean_text", normalizer.get("clean_text"), True),
        ("pre_tokenizer", (rules.pre_tokenizer or {}).get("type"), "BertPreTokenizer"),
        ("model.max_input_chars_per_word", rules.max_characters, MAX_CHARACTERS),
    )
    for field, value, wanted in checks:
        if value != wanted:
            raise DataError(
                f"The value is {json.dumps(value)}, which BertTokenizer of transformers 4 follows "
                "and that of 5 does not.",
                f"Set it to {json.dumps(wanted)}; {_FOLLOW}.",
                where=f"{path}: {field}",
            )
