"""Scores of classes: the similarities to a class's sentences, pooled and normalised.

The docstring of `zero_shot` lists the papers' choices.
"""

from typing import Literal

import numpy as np
from scipy import special

from prior_jax.errors import ConfigError
from prior_jax.evaluate import prompts
from prior_jax.evaluate.features import not_finite

Pool = Literal["mean", "max"]
Normalise = Literal["none", "softmax", "z-score"]
Denial = Literal["subtract", "softmax"]


def class_scores(
    similarity: np.ndarray,
    *,
    table: prompts.PromptTable,
    pool: Pool,
    normalise: Normalise,
    denial: Denial = "subtract",
    over: np.ndarray | None = None,
) -> np.ndarray:
    """Pools the similarities to a class's sentences into one score.

    Args:
      similarity: similarity to each sentence of the table, float[N, P].
      table: table of the sentences.
      pool: pooling over sentences, see `ZeroShotConfig`.
      normalise: normalisation, see `ZeroShotConfig`; a single record, or a class whose scores are
        all equal, has no deviation: the record keeps its scores, the class gets 0.
      denial: treatment of denying prompts, see `ZeroShotConfig`.
      over: records over which "z-score" standardises, bool[N]; None for all.

    Returns:
      Scores, float32[N, C], or float64 where `denial` is "softmax"; higher = more likely.

    Raises:
      ConfigError: if `denial` is "softmax" and a class has no denying prompt.
      DataError: if a similarity is not finite.
    """
    check_denials(table, denial=denial)
    if not np.isfinite(similarity).all():
        raise not_finite("The similarities of images and texts")
    pooled = {"mean": np.mean, "max": np.max}[pool]
    columns = []
    for index in range(len(table.classes)):
        affirming = similarity[:, (table.owner == index) & table.affirms]
        denying = similarity[:, (table.owner == index) & ~table.affirms]
        score = pooled(affirming, axis=1)
        columns.append(score - pooled(denying, axis=1) if denying.shape[1] else score)
    scores = np.stack(columns, axis=1).astype(np.float32)
    if denial == "softmax":
        # The softmax over two values is the logistic function of their difference, which is exactly
        # 1 in float32 from a difference of 18 on, and in float64 from one of 37 on.
        scores = special.expit(scores.astype(np.float64))
    return normalised(scores, how=normalise, axis=0 if normalise == "z-score" else 1, over=over)


def check_denials(table: prompts.PromptTable, *, denial: Denial) -> None:
    """Refuses to compare with denials that do not exist.

    Args:
      table: table of the sentences.
      denial: treatment of denying prompts, see `ZeroShotConfig`.

    Raises:
      ConfigError: if `denial` is "softmax" and a class has no denying prompt.
    """
    denied = set(table.owner[~table.affirms].tolist())
    lacking = [name for index, name in enumerate(table.classes) if index not in denied]
    if denial == "softmax" and lacking:
        raise ConfigError(
            f"'softmax' compares affirming with denying prompts; {', '.join(lacking)} has none.",
            "Set --task.prompts.negatives=True with prompts that deny, or denial='subtract'.",
            where="task.zero_shot.denial",
        )


def normalised(
    scores: np.ndarray, *, how: Normalise, axis: int, over: np.ndarray | None = None
) -> np.ndarray:
    """Normalises the scores along an axis, to make them comparable with their neighbours.

    Args:
      scores: scores, float[N, M].
      how: normalisation: "softmax"; "z-score" to mean 0 and population standard deviation 1; "none"
        for no change.
      axis: axis of the normalisation, 0 or 1.
      over: places of the axis whose mean and deviation "z-score" takes, bool[N] or bool[M]; None
        for all.

    Returns:
      Normalised scores, float[N, M]; with "z-score" 0 where all scores of `over` are equal, and
      unchanged where there are fewer than two.
    """
    if how == "softmax":
        scores = np.exp(scores - scores.max(axis=axis, keepdims=True))
        return scores / scores.sum(axis=axis, keepdims=True)
    if how == "none":
        return scores
    measured = scores if over is None else np.compress(over, scores, axis=axis)
    if measured.shape[axis] < 2:
        return scores
    centred = scores - measured.mean(axis=axis, keepdims=True)
    # Tests the scores themselves: through rounding, equal scores can have a nonzero deviation.
    varies = measured.max(axis=axis, keepdims=True) > measured.min(axis=axis, keepdims=True)
    deviation = np.where(varies, measured.std(axis=axis, keepdims=True), np.float32(1))
    return np.where(varies, centred / deviation, np.float32(0))
