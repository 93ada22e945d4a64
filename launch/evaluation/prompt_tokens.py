"""Tokens of sentences that belong to no report, as a model reads them."""

import dataclasses
from collections.abc import Sequence

from launch.evaluation.subject import Opened, Subject
from prior_jax.data import text
from prior_jax.evaluate.features import ReportTokens


def tokens_of(subject: Subject, data: Opened, texts: Sequence[str]) -> ReportTokens:
    """Returns the tokens of N sentences, cut to the lengths that the model reads."""
    tokens = text.encode_prompts(
        texts,
        tokenizer=data.split.tokenizer,
        max_tokens=subject.data.max_tokens,
        max_sentences=subject.data.max_sentences,
    )
    return ReportTokens(**dataclasses.asdict(tokens))
