"""A report's sentences -> token ids, and which sentence owns each token.

Two ways of joining sentences, `mode`:

- "paper": sentences are tokenised apart and put side by side, which equals joining them with a
  blank; every token's owner is known by construction. A report that is too long loses whole
  sentences from its end, and [SEP] stays.
- "release": codes/prior/data/pretrain/mimiccxr.py, `_tokenizer`. Sentences are joined with
  nothing between them, so "clear" and "Heart" become one word, while the index counts tokens of
  sentences tokenised apart: it drifts, over [SEP] and padding too. Long reports are sliced and
  lose [SEP].

The release numbers sentences from 1 in its index; here they count from 0.
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
    """The text side of one row, or of a batch with a leading axis, of a `Batch`.

    Attributes:
      tokens: int32[L].
      token_mask: bool[L].
      sentence_index: int32[L], 0 .. S-1, -1 where no sentence owns the token. In mode "release"
        it can also number [SEP] and padding, where the release's own index does.
      sentence_mask: bool[S], True where the sentence owns at least one token.
    """

    tokens: np.ndarray
    token_mask: np.ndarray
    sentence_index: np.ndarray
    sentence_mask: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Lengths in tokens, specials included; 0 where no sentence has a token, else >= 3.

    Attributes:
      report: of all sentences together.
      sentence: of the longest one alone.
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
    """Returns one sentence, drawn evenly from those that have a token; none if none has.

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
      sentences: in the order they are to be read (shuffle before).
      tokenizer: gives the ids.
      mode: "paper" or "release", see the module.
      max_tokens: L, [CLS] and [SEP] included; >= 3.
      max_sentences: S. Mode "paper" drops further sentences; "release" keeps their tokens, owned
        by no sentence.
      name: the record, for errors.

    Returns:
      tokens, mask and index of length L, sentence mask of length S.

    Raises:
      DataError: naming the record, if no sentence has a token.
    """
    encode = _encode_release if mode == "release" else _encode_paper
    ids, index = encode(sentences, tokenizer, max_tokens=max_tokens, max_sentences=max_sentences)
    if not (index >= 0).any():
        raise DataError(
            f"{name}: sentences",
            received=list(sentences)[:3],
            accepted="at least one sentence with a word in it",
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
    """Counts the tokens of a report in mode "paper", nothing truncated.

    The order of sentences does not matter, and dropping some can only shorten: no row of this
    report is longer.
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
      prompts: B texts.
      tokenizer: gives the ids.
      max_tokens: longest prompt, specials included.
      max_sentences: S of the arrays; only sentence 0 exists.
      length: L of the arrays, at most `max_tokens`; None for the longest prompt's.

    Returns:
      arrays of a `Batch`'s text side: [B, L] and [B, S].

    Raises:
      DataError: if there is no prompt, or one without a token.
    """
    if not prompts:
        raise DataError("prompts", received=list(prompts), accepted="at least one prompt")
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
        raise DataError("length", received=length, accepted=f"{longest} to {max_tokens}")
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
    """Whole sentences, in order, as long as they fit; the first one is cut if need be."""
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
    """Joined without a blank, indexed by lengths of sentences alone, then sliced."""
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
    return EncodedText(
        tokens=tokens,
        token_mask=np.arange(length) < len(ids),
        sentence_index=owner,
        sentence_mask=np.isin(np.arange(max_sentences), owner),
    )
