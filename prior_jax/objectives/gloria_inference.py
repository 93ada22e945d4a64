"""Inference with a trained GLoRIA: report features, similarities and attention."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import DataError
from prior_jax.losses.normalize import unit
from prior_jax.losses.word_region import word_region_attention, word_region_similarity
from prior_jax.nn.word_aggregate import WordPlaces, leading_words
from prior_jax.objectives.base import SimilarityKind
from prior_jax.objectives.gloria_config import GloriaConfig
from prior_jax.objectives.gloria_model import GloriaModel
from prior_jax.types import ImageFeatures, ReportFeatures

# Source: release, gloria/models/gloria_model.py, `get_local_similarities`, which uses this value
# whatever the temperatures of the model are (quirk G22).
_RELEASE_ATTENTION_SCALE = 4.0
_RELEASE_WORD_SCALE = 5.0


def encode_report(
    model: GloriaModel,
    tokens: jax.Array,
    token_mask: jax.Array,
    *,
    places: WordPlaces,
    word_mask: jax.Array | None = None,
) -> ReportFeatures:
    """Encodes words and whole reports in inference mode.

    Args:
      model: trained GLoRIA model.
      tokens: token ids, int32[B, L].
      token_mask: mask of the real tokens, bool[B, L].
      places: positions of the words among the tokens.
      word_mask: mask of the words that are compared, bool[B, L]: `prompt_words` or
        `retrieval_words` reproduce the release's behaviour on raw text. By default, the paper's
        mode compares the real words; the release's mode compares as many words after [CLS] as there
        are words without a bracket, which is what the release intended to count (quirk G18).

    Returns:
      Features in the compute dtype; row w is word w, where [CLS] is word 0.
    """
    captions = model.encode_text(tokens, token_mask, places, train=False)
    if word_mask is None:
        length = tokens.shape[1]
        counted = leading_words(places.unbracketed, length=length, first=1)
        word_mask = places.real if model.choices.score_words else counted
    words = jnp.where(word_mask[:, :, None], captions.words, jnp.zeros((), captions.words.dtype))
    return ReportFeatures(local=words, local_mask=word_mask, global_=captions.report)


def prompt_words(prompts: Sequence[str], *, length: int) -> np.ndarray:
    """Returns the mask of the words that the release's zero-shot classification compares.

    The number of words is the number of characters of the prompt.

    They begin after [CLS] and continue through [SEP] into the padding, whose zero vectors make
    every local score at least 0 (quirks G18, G19 and G21).

    Args:
      prompts: B raw prompts, including blanks at their ends.
      length: number L of tokens.

    Returns:
      The mask, bool[B, L].

    Raises:
      DataError: for a prompt of more than L - 1 characters. For these the release stops with a
        reshape error or, if the sizes happen to match, continues with wrong numbers (quirk G20).

    Source: release, gloria/models/gloria_model.py, `process_text` and `get_local_similarities`.
    """
    counts = [sum(character != "[" for character in prompt) for prompt in prompts]
    for prompt, count in zip(prompts, counts, strict=True):
        if count > length - 1:
            raise DataError(
                f"The prompt {prompt!r} has {count} characters, and the mode 'release' takes one "
                "position behind [CLS] for each of them.",
                f"Use prompts of at most {length - 1} characters.",
            )
    word = np.arange(length)[None, :]
    return (word >= 1) & (word <= np.asarray(counts, np.int32)[:, None])


def retrieval_words(places: WordPlaces) -> jax.Array:
    """Returns the mask of the words that the release's retrieval compares: bool[B, L].

    The release removes [CLS] twice, so the first word is lost and [SEP] is kept (quirk G30).
    Source: release, gloria/models/retrival_model.py.
    """
    return leading_words(places.unbracketed, length=places.real.shape[1], first=2)


@flax.struct.dataclass
class PairScores:
    """Scores of image-report pairs; higher is closer.

    Attributes:
      global_: cosines of the global embeddings, float32[Bi, Br].
      local: scores of words and the regions that they attend to, float32[Bi, Br].
    """

    global_: jax.Array
    local: jax.Array


def pair_scores(
    images: ImageFeatures, reports: ReportFeatures, *, config: GloriaConfig
) -> PairScores:
    """Scores every image against every report.

    Args:
      images: features of Bi images.
      reports: features of Br reports.
      config: configuration with the scales and fidelity choices.

    Returns:
      The scores. In the paper's mode the local score is Z of equation 6 with a mean over the words,
      in [-1, 1] like the global score; in the release's mode it is 5 times the cosine of the best
      word, so it outweighs the global score in their mean (quirk G22).

    Source: GLoRIA, ICCV 2021, section 3.3; release, gloria/models/gloria_model.py,
      `get_global_similarities` and `get_local_similarities`.
    """
    as_trained = config.choices.score_as_trained
    word_scale = config.word_scale if as_trained else _RELEASE_WORD_SCALE
    local = word_region_similarity(
        reports.local,
        images.local,
        word_mask=reports.local_mask,
        temp1=config.attention_scale if as_trained else _RELEASE_ATTENTION_SCALE,
        temp2=word_scale,
        softmax_over_words=not config.choices.single_softmax,
        aggregate="mean" if as_trained else "max",
        chunk=config.caption_chunk,
    )
    return PairScores(
        global_=_cosines(images, reports),
        local=local / jnp.float32(word_scale) if as_trained else local,
    )


def similarity(
    images: ImageFeatures,
    reports: ReportFeatures,
    *,
    config: GloriaConfig,
    kind: SimilarityKind = "both",
) -> jax.Array:
    """Returns one score per pair: the global score, the local score, or their mean.

    Returns:
      Scores, float32[Bi, Br]; higher is closer. The local score of a report without a word counts
      as 0.

    Source: release, gloria/gloria.py, `get_similarities`.
    """
    scores = pair_scores(images, reports, config=config)
    empty = ~jnp.any(reports.local_mask, axis=1)
    local = jnp.where(empty[None, :], jnp.float32(0), scores.local)
    both = (local + scores.global_) / 2
    return {"both": both, "local": local, "global": scores.global_}[kind]


def retrieval_scores(
    images: ImageFeatures, reports: ReportFeatures, *, config: GloriaConfig
) -> PairScores:
    """Computes both scores of the release's retrieval; the local one grows with the report.

    Args:
      images: features of Bi images.
      reports: features of Br reports, encoded with `retrieval_words`.
      config: configuration with the scales and fidelity choices.

    Returns:
      Both scores. The release ranks reports by the mean of the two, each standardised over the
      reports (`evaluate.prompt_scores.normalised`).

    Source: release, gloria/models/retrival_model.py, `_compute_local_similarity` and `retrieve`
      (quirk G31).
    """
    local = word_region_similarity(
        reports.local,
        images.local,
        word_mask=reports.local_mask,
        temp1=config.attention_scale,
        temp2=config.word_scale,
        softmax_over_words=not config.choices.single_softmax,
        aggregate="mean" if config.choices.word_mean else "sum",
        chunk=config.caption_chunk,
    )
    scaled = jnp.float32(config.contrast_scale) * local
    return PairScores(global_=_cosines(images, reports), local=scaled)


def text_attention(
    images: ImageFeatures, reports: ReportFeatures, *, config: GloriaConfig
) -> jax.Array:
    """Returns the attention of each word over the regions of its image.

    Args:
      images: features of B images.
      reports: features of their B reports.
      config: configuration with the scales and fidelity choices.

    Returns:
      Attention weights, float32[B, W, P]: rows of real words sum to 1 over the regions, in
      row-major order; other rows are 0.
    """
    return word_region_attention(
        reports.local,
        images.local,
        word_mask=reports.local_mask,
        temp1=config.attention_scale,
        softmax_over_words=not config.choices.single_softmax,
    )


def _cosines(images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
    return jnp.einsum("id,jd->ij", unit(images.global_), unit(reports.global_))
