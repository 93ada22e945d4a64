"""Converts a report's sentences to token ids and the sentence that owns each token.

There are two ways of joining sentences, selected by `mode`:

- "paper": sentences are tokenised separately and concatenated, which equals joining them with a
  blank; the sentence of every token is known by construction. A report that is too long loses
  whole sentences from its end, and keeps [SEP].
- "release": codes/prior/data/pretrain/mimiccxr.py, `_tokenizer`. Sentences are joined with
  nothing between them, so "clear" and "Heart" become one word, while the index counts the tokens
  of separately tokenised sentences: it drifts, also over [SEP] and padding. Long reports are
  truncated and lose [SEP].

The release numbers sentences from 1 in its index; this module numbers them from 0.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from prior_jax.data.tokenizer import Tokenizer
from prior_jax.errors import DataError

MODES = ("paper", "release")
CAPTIONS = ("report", "sentence")
SPECIALS = 2  # [CLS] and [SEP]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodedText:
    """The text fields of a `Batch`, for one row or with a leading batch axis.

    Attributes:
      tokens: token ids, int32[L].
      token_mask: mask of the real tokens, bool[L].
      sentence_index: sentence that owns each token, int32[L], 0 .. S-1, -1 for none. In mode
        "release", [SEP] and padding can also have a number, where they have one in the release's
        own index.
      sentence_mask: mask of the sentences that own at least one token, bool[S].
    """

    tokens: np.ndarray
    token_mask: np.ndarray
    sentence_index: np.ndarray
    sentence_mask: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Lengths in tokens, including special tokens; 0 where no sentence has a token, else >= 3.

    Attributes:
      report: length of all sentences together.
      sentence: length of the longest sentence alone.
    """

    report: int
    sentence: int


def shuffled(sentences: Sequence[str], *, rng: np.random.Generator) -> list[str]:
    """Returns the sentences in random order, each once.

    Source: release, codes/prior/transoforms/language.py (SentenceShuffle).
    """
    return [sentences[int(i)] for i in rng.permutation(len(sentences))]


def drawn_sentence(
    sentences: Sequence[str], *, tokenizer: Tokenizer, rng: np.random.Generator
) -> list[str]:
    """Returns one random sentence that has a token, or no sentence if none has one.

    All sentences with a token are equally probable.

    Source: GLoRIA's release, gloria/datasets/pretraining_dataset.py (get_caption, full_report
      false). Differs: its workers draw from copies of one generator, so they repeat each other.
    """
    order = shuffled(sentences, rng=rng)
    return next(([text] for text in order if len(tokenizer.encode_ids([text])[0])), [])


def encode_report(
    sentences: Sequence[str],
    *,
    tokenizer: Tokenizer,
    mode: Literal["paper", "release"],
    max_tokens: int,
    max_sentences: int,
    name: str,
) -> EncodedText:
    """Encodes one report, padded to `max_tokens`.

    Args:
      sentences: sentences in the order in which they are read (to be shuffled before).
      tokenizer: tokenizer that gives the token ids.
      mode: mode of joining sentences, "paper" or "release", see the module.
      max_tokens: number L of tokens, including [CLS] and [SEP]; >= 3.
      max_sentences: number S of sentences. Mode "paper" drops further sentences; "release" keeps
        their tokens without an owner.
      name: name of the record, for error messages.

    Returns:
      Tokens, mask and index of length L, sentence mask of length S.

    Raises:
      DataError: if no sentence has a token; names the record.
    """
    encode = _encode_release if mode == "release" else _encode_paper
    ids, index = encode(sentences, tokenizer, max_tokens=max_tokens, max_sentences=max_sentences)
    if not (index >= 0).any():
        raise DataError(
            f"No sentence contains a word; the sentences are {list(sentences)[:3]}.",
            "Give at least one sentence with a word in it.",
            where=name,
        )
    return _padded(ids, index, tokenizer=tokenizer, length=max_tokens, max_sentences=max_sentences)


def empty_report(*, tokenizer: Tokenizer, length: int, max_sentences: int) -> EncodedText:
    """Encodes the absence of a report: [CLS] [SEP] and no sentence."""
    ids = np.array([tokenizer.cls_id, tokenizer.sep_id], np.int32)
    index = np.full(SPECIALS, -1, np.int32)
    return _padded(ids, index, tokenizer=tokenizer, length=length, max_sentences=max_sentences)


def cut_to(text: EncodedText, length: int) -> EncodedText:
    """Shortens padding; `length` must hold every real token."""
    return EncodedText(
        tokens=text.tokens[..., :length],
        token_mask=text.token_mask[..., :length],
        sentence_index=text.sentence_index[..., :length],
        sentence_mask=text.sentence_mask,
    )


def count_tokens(sentences: Sequence[str], *, tokenizer: Tokenizer) -> TokenCounts:
    """Counts the tokens of a report in mode "paper", without truncation.

    The order of sentences does not matter, and dropping sentences can only shorten a row, so no row
    of this report is longer.
    """
    lengths = [len(ids) for ids in tokenizer.encode_ids(sentences)]
    if not any(lengths):
        return TokenCounts(report=0, sentence=0)
    return TokenCounts(report=sum(lengths) + SPECIALS, sentence=max(lengths) + SPECIALS)


def encode_prompts(
    prompts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    max_tokens: int,
    max_sentences: int,
    length: int | None = None,
) -> EncodedText:
    """Encodes prompts as reports of one sentence each, for zero-shot classification.

    Args:
      prompts: texts of B prompts.
      tokenizer: tokenizer that gives the token ids.
      max_tokens: longest prompt in tokens, including special tokens.
      max_sentences: number S of sentences of the arrays; only sentence 0 exists.
      length: length L of the arrays, at most `max_tokens`; None for that of the longest prompt.

    Returns:
      Text fields of a `Batch`: [B, L] and [B, S].

    Raises:
      DataError: if there is no prompt, or a prompt has no token.
    """
    if not prompts:
        raise DataError("There is no prompt to encode.", "Give at least one prompt.")
    rows = [
        encode_report(
            [prompt],
            tokenizer=tokenizer,
            mode="paper",
            max_tokens=max_tokens,
            max_sentences=max_sentences,
            name=f"prompt {prompt!r}",
        )
        for prompt in prompts
    ]
    longest = max(int(row.token_mask.sum()) for row in rows)
    if length is not None and not longest <= length <= max_tokens:
        raise DataError.of_value(
            "length", length, f"from {longest}, the longest prompt, to {max_tokens}, max_tokens"
        )
    return stack([cut_to(row, length or longest) for row in rows])


def stack(rows: Sequence[EncodedText]) -> EncodedText:
    """Stacks rows of one length into a batch."""
    return EncodedText(
        **{
            field.name: np.stack([getattr(row, field.name) for row in rows])
            for field in dataclasses.fields(EncodedText)
        }
    )


def _encode_paper(
    sentences: Sequence[str], tokenizer: Tokenizer, *, max_tokens: int, max_sentences: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes whole sentences, in order, as far as they fit; cuts the first one if necessary."""
    room = max_tokens - SPECIALS
    ids: list[np.ndarray] = []
    for sentence in tokenizer.encode_ids(sentences):
        if len(ids) == max_sentences:
            break
        if len(sentence) == 0:
            continue
        if len(sentence) > room:
            if not ids:
                ids.append(sentence[:room])
            break
        ids.append(sentence)
        room -= len(sentence)
    owner = [np.full(len(part), number, np.int32) for number, part in enumerate(ids)]
    none = np.array([-1], np.int32)
    cls, sep = np.array([[tokenizer.cls_id], [tokenizer.sep_id]], np.int32)
    return np.concatenate([cls, *ids, sep]), np.concatenate([none, *owner, none])


def _encode_release(
    sentences: Sequence[str], tokenizer: Tokenizer, *, max_tokens: int, max_sentences: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes sentences joined without a blank, then truncates.

    The index is counted from the lengths of separately tokenised sentences.
    """
    joined, *alone = tokenizer.encode_ids(["".join(sentences), *sentences])
    ids = np.concatenate([[tokenizer.cls_id], joined, [tokenizer.sep_id]]).astype(np.int32)
    index = np.full(max(len(ids), max_tokens), -1, np.int32)
    start = 1
    for number, sentence in enumerate(alone):
        if number < max_sentences:
            index[start : start + len(sentence)] = number
        start += len(sentence)
    return ids[:max_tokens], index[:max_tokens]


def _padded(
    ids: np.ndarray, index: np.ndarray, *, tokenizer: Tokenizer, length: int, max_sentences: int
) -> EncodedText:
    tokens = np.full(length, tokenizer.pad_id, np.int32)
    tokens[: len(ids)] = ids
    owner = np.full(length, -1, np.int32)
    owner[: len(index)] = index
    present = np.zeros(max_sentences, bool)
    present[owner[owner >= 0]] = True
    return EncodedText(
        tokens=tokens,
        token_mask=np.arange(length) < len(ids),
        sentence_index=owner,
        sentence_mask=present,
    )
