"""Attention of reports' sentences or words over their images, prepared for drawing."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from prior_jax.data.tokenizer import Tokenizer, words_of
from prior_jax.evaluate import finding_words, prompts
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Studies
from prior_jax.objectives.base import Encodes, ShowsAttention
from prior_jax.report.examples import AttentionExample
from prior_jax.types import Batch

WORDS_SHOWN = 6


def attention_examples(
    objective: Encodes,
    encoder: Encoder,
    studies: Studies,
    batch: Batch,
    *,
    rows: Sequence[int],
    pictures: np.ndarray,
    titles: Sequence[str],
    sentences: Sequence[Sequence[str]],
    masks: Sequence[Mapping[str, np.ndarray]],
    tokenizer: Tokenizer,
) -> tuple[AttentionExample, ...]:
    """Computes the attention maps of some studies.

    Args:
      objective: objective of the model; one without text attention gives no example.
      encoder: encoder of the trained model.
      studies: features of a split, including reports.
      batch: batch of the N studies to show, one row each, on the host.
      rows: rows of these studies in `studies`, [N].
      pictures: images, float[N, H, W].
      titles: title of each study, [N].
      sentences: sentences of each report, [N], in the order of `batch.sentence_index`.
      masks: masks of the findings of each study that are known, [N], label -> bool[H, W].
      tokenizer: tokenizer of the batch.

    Returns:
      One example per study: every sentence, or the words that name findings, at most `WORDS_SHOWN`
      of them.
    """
    if not isinstance(objective, ShowsAttention):
        return ()
    chosen = jax.tree.map(lambda x: x[list(rows)], (studies.images, studies.reports))
    attention = encoder.attention(*chosen, block=len(rows))
    side = round(attention.shape[-1] ** 0.5)
    found = []
    for row, title in enumerate(titles):
        texts = _texts(objective, batch, row, sentences=sentences[row], tokenizer=tokenizer)
        found.append(
            AttentionExample(
                title=title,
                image=pictures[row],
                attention=attention[row, list(texts)],
                grid=(side, side),
                spacing=objective.patch_spacing,
                texts=tuple(texts.values()),
                truth=tuple(named(text, masks[row]) for text in texts.values()),
            )
        )
    return tuple(found)


def _texts(
    objective: ShowsAttention, batch: Batch, row: int, *, sentences: Sequence[str], tokenizer
) -> dict[int, str]:
    """Returns the sentences or words of a report that are shown, by their numbers in it."""
    if objective.text_unit == "sentence":
        return {i: sentences[i] for i in np.flatnonzero(batch.sentence_mask[row]).tolist()}
    tokens = np.asarray(batch.tokens[row])[batch.token_mask[row]]
    return telling(words_of(tokens, tokenizer=tokenizer), count=WORDS_SHOWN)


def named(text: str, masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Returns where the findings are that a text names by a word.

    Args:
      text: sentence or word.
      masks: masks of findings by their labels, bool[H, W]; a label that no word is known to name
        is left out.

    Returns:
      bool[H, W]; None if the text names none of the findings.
    """
    words = {prompts.canonical(name): prompts.finding_words(name) for name in _findings()}
    found = [
        mask
        for label, mask in masks.items()
        if finding_words.mentions(text, words.get(prompts.canonical(label), ()))
    ]
    return np.any(found, axis=0) if found else None


def _findings() -> list[str]:
    return [name for name in prompts.known_classes() if name != "No Finding"]


def telling(words: Sequence[str], *, count: int) -> dict[int, str]:
    """Selects the words that name findings, or else the longest, in the order of the text.

    Args:
      words: words of a text, from `tokenizer.words_of`.
      count: largest number of words to select.

    Returns:
      Selected words, number of the word -> the word, without the punctuation attached to it.
    """
    plain = {i: word.strip(".,;:()").lower() for i, word in enumerate(words) if word[:1] != "["}
    names = {name for finding in _findings() for name in prompts.finding_words(finding)}
    ranked = sorted(plain, key=lambda i: (plain[i] not in names, -len(plain[i]), i))
    return {i: plain[i] for i in sorted(ranked[:count])}
