"""Sets that are read for their images and labels alone: a tokenizer of nothing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from prior_jax.data.no_tokenizer import NoTokenizer
from prior_jax.data.set_statistics import Measurements
from prior_jax.data.text import SPECIALS
from prior_jax.data.tokenizer import Tokenizer, TokenizerConfig

TOKENIZER = TokenizerConfig(kind="none", path="", lower_case=False)
"""The tokenizer where no reports are read."""

SECTION: Mapping[str, Any] = {
    "tokenizer": dataclasses.asdict(TOKENIZER),
    "caption": "report",
    "text_mode": "paper",
    "text_sources": ("report",),
    "shuffle_sentences": False,
    "max_tokens": SPECIALS + 1,
    "max_sentences": 1,
    "buckets": (SPECIALS + 1,),
    "bucket_window": 1,
}
"""The fields of `config.data` that tell how reports are read, where none are."""


def reads_reports(tokenizer: Tokenizer) -> bool:
    """Returns whether reports are read with this tokenizer."""
    return not isinstance(tokenizer, NoTokenizer)


def unread(count: int) -> Measurements:
    """Returns measurements of `count` reports that are not read: none has a token."""
    return Measurements(
        tokens=np.zeros(count, np.int32),
        sentence=np.zeros(count, np.int32),
        source=np.zeros(count, np.int8),
    )
