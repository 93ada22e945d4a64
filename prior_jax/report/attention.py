"""Where the sentences or words of reports look in their images, ready to be drawn."""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from prior_jax.data.tokenizer import Tokenizer, words_of
from prior_jax.evaluate import prompts
from prior_jax.evaluate.embed import to_host
from prior_jax.objectives.base import Objective, ShowsAttention
from prior_jax.report.examples import AttentionExample
from prior_jax.types import Batch

WORDS_SHOWN = 6


def attention_examples(
    objective: Objective,
    model: nnx.Module,
    batch: Batch,
    *,
    pictures: np.ndarray,
    titles: Sequence[str],
    sentences: Sequence[Sequence[str]],
    tokenizer: Tokenizer,
) -> tuple[AttentionExample, ...]:
    """Attention maps of some studies.

    Args:
      objective: of the model; one whose text looks at no places gives no example.
      model: trained.
      batch: the studies, a row each.
      pictures: float[N, H, W], the images.
      titles: [N].
      sentences: [N], each report's, in the order of `batch.sentence_index`.
      tokenizer: of the batch.

    Returns:
      One example a study: every sentence, or the words that name findings, at most
      `WORDS_SHOWN` of them.
    """
    if not isinstance(objective, ShowsAttention):
        return ()

    def compute(batch):
        images = objective.encode_image(model, batch.image)
        reports = objective.encode_report(
            model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask
        )
        return objective.text_attention(model, images, reports)

    attention = np.asarray(to_host(jax.jit(compute)(batch)), np.float32)
    side = round(attention.shape[-1] ** 0.5)
    host, found = to_host(batch), []
    for row, title in enumerate(titles):
        if objective.text_unit == "sentence":
            texts = {i: sentences[row][i] for i in np.flatnonzero(host.sentence_mask[row]).tolist()}
        else:
            words = words_of(host.tokens[row][host.token_mask[row]], tokenizer=tokenizer)
            texts = telling(words, count=WORDS_SHOWN)
        found.append(
            AttentionExample(
                title=title,
                image=pictures[row],
                attention=attention[row, list(texts)],
                grid=(side, side),
                texts=tuple(texts.values()),
            )
        )
    return tuple(found)


def telling(words: Sequence[str], *, count: int) -> dict[int, str]:
    """The words that name findings, else the longest, in the order of the text.

    Args:
      words: of `tokenizer.words_of`.
      count: how many at most.

    Returns:
      Number of the word -> the word, without the punctuation that clings to it.
    """
    plain = {i: word.strip(".,;:()").lower() for i, word in enumerate(words) if word[:1] != "["}
    names = {
        name
        for finding in prompts.known_classes()
        if finding != "No Finding"
        for name in prompts.finding_words(finding)
    }
    ranked = sorted(plain, key=lambda i: (plain[i] not in names, -len(plain[i]), i))
    return {i: plain[i] for i in sorted(ranked[:count])}
