"""Converts text to token ids: sentencepiece or WordPiece behind one small interface.

Both return ids without special tokens, and the characters that each token covers; `text.py` adds
[CLS], [SEP] and padding.
"""

import abc
import dataclasses
import hashlib
import json
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from prior_jax.data import wordpiece, wordpiece_files
from prior_jax.data.no_tokenizer import NoTokenizer
from prior_jax.data.wordpiece_settings import SPECIAL_TOKENS, read_bytes
from prior_jax.errors import DataError, check_choice, check_field, first_line
from prior_jax.vocabulary import Vocabulary

_BLANK = "\u2581"  # sentencepiece's sign for the blank before a word


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Settings of the tokenizer of the reports.

    Attributes:
      kind: kind of tokenizer: "sentencepiece" (a model of `data_prep.train_tokenizer`),
        "wordpiece" (BERT), or "none", where no reports are read.
      path: path of the sentencepiece model, or of a `vocab.txt` or `tokenizer.json`.
      lower_case: whether the text is first lower-cased. The release does so, on the cased
        vocabulary of Bio_ClinicalBERT, because its repository has no tokenizer_config; use True for
        the release's weights.
    """

    kind: Literal["sentencepiece", "wordpiece", "none"]
    path: str
    lower_case: bool

    def __post_init__(self):
        """Raises ConfigError for an unknown kind or an empty path."""
        check_choice(self, "kind", tuple(TOKENIZERS))
        check_field(self, "path", self.kind == "none" or bool(self.path), "the path of a file")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """The tokens of one text, without special tokens.

    Attributes:
      ids: token ids, int32[n].
      spans: span of each token, int32[n, 2]: the first character of the text that the token covers,
        and one past the last; surrounding blanks are excluded, so a token made of a blank alone
        covers nothing.
    """

    ids: np.ndarray
    spans: np.ndarray


class Tokenizer(Protocol):
    """The interface that the pipeline, prompts and checkpoints need of a tokenizer.

    Attributes:
      name: kind and file name of the tokenizer, for reports.
      fingerprint: sha256 of everything that determines the ids; stored in checkpoints.
      vocab_size: size of the vocabulary; ids are 0 .. vocab_size - 1.
      pad_id: id of [PAD].
      unk_id: id of [UNK].
      cls_id: id of [CLS].
      sep_id: id of [SEP].
      mask_id: id of [MASK].
    """

    name: str
    fingerprint: str
    vocab_size: int
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def encode(self, text: str) -> Encoding:
        """Returns ids and spans of one text."""
        ...

    def encode_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32[n] for each text, faster than `encode`."""
        ...

    def token(self, token_id: int) -> str:
        """Returns the written form of a token, for reports."""
        ...

    def starts_word(self, token_id: int) -> bool:
        """Returns whether a token begins a word rather than continuing one."""
        ...


def open_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """Reads a tokenizer from disk.

    Raises:
      DataError: if the file is absent, damaged or lacks one of SPECIAL_TOKENS; names the file, and
        the field in it.
    """
    return TOKENIZERS[config.kind](pathlib.Path(config.path), lower_case=config.lower_case)


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Returns the properties of a tokenizer that a model needs."""
    ids = range(tokenizer.vocab_size)
    return Vocabulary(
        size=tokenizer.vocab_size,
        pad=tokenizer.pad_id,
        cls=tokenizer.cls_id,
        sep=tokenizer.sep_id,
        starts_word=np.array([tokenizer.starts_word(i) for i in ids], bool),
        bracketed=np.array([tokenizer.token(i).startswith("[") for i in ids], bool),
    )


def words_of(tokens: np.ndarray, *, tokenizer: Tokenizer) -> list[str]:
    """Returns the words of a tokenised text, where [CLS] is word 0.

    Words are counted as in `nn.word_aggregate`.

    Args:
      tokens: token ids, int32[L], without padding.
      tokenizer: tokenizer of the tokens.
    """
    words: list[str] = []
    for token in tokens.tolist():
        piece = tokenizer.token(token)
        if tokenizer.starts_word(token) or not words:
            words.append("")
        words[-1] += piece.removeprefix(wordpiece.PREFIX).removeprefix(_BLANK)
    return words


def unknown_vocabulary(size: int) -> Vocabulary:
    """Returns the vocabulary of a tokenizer that is not yet trained: each token is a word."""
    special = np.arange(size) < len(SPECIAL_TOKENS)
    return Vocabulary(
        size=size,
        pad=SPECIAL_TOKENS.index("[PAD]"),
        cls=SPECIAL_TOKENS.index("[CLS]"),
        sep=SPECIAL_TOKENS.index("[SEP]"),
        starts_word=np.ones(size, bool),
        bracketed=special,
    )


class _LazyEngine(abc.ABC):
    """Holds a tokenizer's file as bytes and builds the library's object on first use.

    Worker processes get the bytes by pickling, so every worker uses what the parent read, even if
    the file has changed since.
    """

    def __init__(self, path: pathlib.Path, *, kind: str, lower_case: bool):
        """Reads the file and computes the fingerprint."""
        self.name = f"{kind}:{path.name}"
        self._path = str(path)
        self._lower_case = lower_case
        self._content = read_bytes(path)
        digest = hashlib.sha256(f"{kind} lower_case={lower_case}\n".encode())
        digest.update(self._content)
        self.fingerprint = digest.hexdigest()
        self._engine: Any = None
        self._lock = threading.Lock()

    def __getstate__(self):
        return {**self.__dict__, "_engine": None, "_lock": None}

    def __setstate__(self, state):
        vars(self).update(state, _lock=threading.Lock())

    def _get_engine(self) -> Any:
        with self._lock:
            if self._engine is None:
                self._engine = self._build()
            return self._engine

    @abc.abstractmethod
    def _build(self) -> Any:
        """Builds the library's object from the file's bytes."""

    def _set_specials(self, ids: Mapping[str, int]) -> None:
        for name, token in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL_TOKENS, strict=True):
            if token not in ids:
                raise DataError(
                    f"The vocabulary lacks the special token {token}.",
                    f"Give a tokenizer that has all of {', '.join(SPECIAL_TOKENS)}.",
                    where=self._path,
                )
            setattr(self, f"{name}_id", ids[token])


class SentencePieceTokenizer(_LazyEngine):
    """A sentencepiece model whose ids 0 .. 4 are SPECIAL_TOKENS."""

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(self, path: pathlib.Path, *, lower_case: bool):
        """Reads the model.

        Raises:
          DataError: if the file is no model, or its first five pieces are not SPECIAL_TOKENS.
        """
        super().__init__(path, kind="sentencepiece", lower_case=lower_case)
        engine = self._get_engine()
        self.vocab_size = int(engine.get_piece_size())
        count = min(self.vocab_size, len(SPECIAL_TOKENS))
        pieces = tuple(engine.id_to_piece(i) for i in range(count))
        if pieces != SPECIAL_TOKENS:
            raise DataError(
                f"The ids 0 to {len(SPECIAL_TOKENS) - 1} belong to {pieces}, but must belong to "
                f"{SPECIAL_TOKENS}.",
                "Give a model that data_prep.train_tokenizer wrote.",
                where=str(path),
            )
        self._set_specials({piece: i for i, piece in enumerate(pieces)})

    def _build(self) -> Any:
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self._content)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(
                f"The file is not a sentencepiece model ({first_line(error)}).",
                "Give a model that data_prep.train_tokenizer wrote.",
                where=self._path,
            ) from error

    def encode(self, text: str) -> Encoding:
        """Returns ids and spans of one text."""
        text = self._prepared(text)
        pieces = self._get_engine().encode(text, out_type="proto").pieces
        character = _byte_to_character(text)
        spans = np.zeros((len(pieces), 2), np.int32)
        for row, piece in enumerate(pieces):
            spans[row] = _without_blanks(text, character[piece.begin], character[piece.end])
        return Encoding(ids=np.array([piece.id for piece in pieces], np.int32), spans=spans)

    def encode_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32[n] for each text."""
        engine = self._get_engine()
        return [np.array(engine.encode(self._prepared(t), out_type=int), np.int32) for t in texts]

    def token(self, token_id: int) -> str:
        """Returns the piece."""
        return self._get_engine().id_to_piece(int(token_id))

    def starts_word(self, token_id: int) -> bool:
        """Returns whether the piece is a special token or begins with the blank sign."""
        return token_id < len(SPECIAL_TOKENS) or self.token(token_id).startswith(_BLANK)

    def _prepared(self, text: str) -> str:
        return _lower(text) if self._lower_case else text


class WordPieceTokenizer(_LazyEngine):
    """BERT's tokenizer: clean, split on blanks and punctuation, longest match first."""

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(self, path: pathlib.Path, *, lower_case: bool):
        """Reads `vocab.txt` or `tokenizer.json`, and the settings in its directory."""
        super().__init__(path, kind="wordpiece", lower_case=lower_case)
        self.wordpiece = wordpiece_files.read_wordpiece(path, lower_case=lower_case)
        if self.wordpiece.rules != wordpiece.bert_rules(lower_case=lower_case):
            # The file alone does not determine the ids.
            document = json.dumps(self.wordpiece.document(), sort_keys=True)
            self.fingerprint = hashlib.sha256(f"wordpiece {document}".encode()).hexdigest()
        vocabulary = self.wordpiece.vocabulary
        self._set_specials(vocabulary)
        # This is not the number of words: if a word occurs twice, its first id belongs to no word.
        self.vocab_size = max(vocabulary.values()) + 1
        self._words = {index: word for word, index in vocabulary.items()}

    def _build(self) -> Any:
        return self.wordpiece.engine()

    def encode(self, text: str) -> Encoding:
        """Returns ids and spans of one text."""
        encoded = self._get_engine().encode(text, add_special_tokens=False)
        spans = np.array(encoded.offsets, np.int32).reshape(-1, 2)
        return Encoding(ids=np.array(encoded.ids, np.int32), spans=spans)

    def encode_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32[n] for each text."""
        engine = self._get_engine()
        return [np.array(engine.encode(t, add_special_tokens=False).ids, np.int32) for t in texts]

    def token(self, token_id: int) -> str:
        """Returns the word or word piece."""
        return self._words.get(int(token_id), "[UNK]")

    def starts_word(self, token_id: int) -> bool:
        """Returns whether the piece lacks the prefix of pieces that continue a word."""
        return not self.token(token_id).startswith(wordpiece.PREFIX)


TOKENIZERS: dict[str, Any] = {
    "sentencepiece": SentencePieceTokenizer,
    "wordpiece": WordPieceTokenizer,
    "none": NoTokenizer,
}


def portable_file(config: TokenizerConfig) -> tuple[str, bytes]:
    """Returns one self-contained file that gives the same ids in any directory.

    Args:
      config: settings of the tokenizer.

    Returns:
      Name and content: the tokenizer's own file where that is sufficient, otherwise a
      `tokenizer.json` that includes the settings from its directory.
    """
    path = pathlib.Path(config.path)
    content = read_bytes(path)
    if config.kind != "wordpiece":
        return path.name, content
    found = wordpiece_files.read_wordpiece(path, lower_case=config.lower_case)
    if wordpiece_files.read_alone(path.name, content, lower_case=config.lower_case) == found:
        return path.name, content
    document = json.dumps(found.document(), ensure_ascii=False, indent=1)
    return "tokenizer.json", f"{document}\n".encode()


def _lower(text: str) -> str:
    """Lower-cases without changing the number of characters, so that spans stay valid."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _byte_to_character(text: str) -> Sequence[int]:
    """Maps a byte offset of the UTF-8 form to the character that contains it."""
    if text.isascii():
        return range(len(text) + 1)
    widths = [len(c.encode("utf-8")) for c in text]
    return [*np.repeat(np.arange(len(text)), widths).tolist(), len(text)]


def _without_blanks(text: str, begin: int, end: int) -> tuple[int, int]:
    """Trims blanks from both ends of a span."""
    while begin < end and text[begin].isspace():
        begin += 1
    while end > begin and text[end - 1].isspace():
        end -= 1
    return begin, end
