"""The metrics of zero-shot classification, from the scores of the classes."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from prior_jax.evaluate import classification_metrics as at_decision
from prior_jax.evaluate import metrics, ranking, undefined
from prior_jax.evaluate.bootstrap import Interval

_OF_ANSWERS = ("accuracy", "macro_f1", "kappa", "macro_precision", "macro_recall")
"""Metrics of which class is the answer, which one class alone does not have."""
_FIRST = ("macro_auroc", "accuracy", "macro_f1", "kappa", "macro_average_precision")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answered:
    """The scores of N records, with the truth.

    Attributes:
      scores: scores, float[N, C]; higher = more likely.
      positive: whether each record is positive for each class, bool[N, C].
      counted: whether each record counts for the AUROC of each class, bool[N, C].
      single: records that count for the answers, with exactly one positive class, int[M].
      classes: names of the C classes.
    """

    scores: np.ndarray
    positive: np.ndarray
    counted: np.ndarray
    single: np.ndarray
    classes: tuple[str, ...]

    @property
    def right(self) -> np.ndarray:
        """Returns the true class of each record of `single`, int[M]."""
        return self.positive[self.single].argmax(axis=1)

    def rows(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Computes the metrics under R weightings of the records, float[R, N] -> float[R] each."""
        count = len(self.classes)
        found = ranking.ranking(
            self.scores, self.positive, self.counted, classes=self.classes, weights=weights
        )
        given = self.scores[self.single].argmax(axis=1)
        matrix = metrics.confusion(
            self.right, given, classes=count, weights=weights[:, self.single]
        )
        found["accuracy"] = metrics.accuracy(matrix)
        found["macro_f1"] = metrics.macro_f1(matrix)
        found["kappa"] = metrics.cohen_kappa(matrix)
        for name, each in (
            ("macro_precision", at_decision.class_precision(matrix)),
            ("macro_recall", at_decision.class_recall(matrix)),
        ):
            found[name] = at_decision.macro(each, matrix=matrix)
        if count == 1:
            found |= {name: np.full(len(weights), np.nan) for name in _OF_ANSWERS}
        return {name: found[name] for name in [*_FIRST, *(n for n in found if n not in _FIRST)]}

    def reasons(self, found: Mapping[str, Interval]) -> dict[str, str]:
        """Returns why metrics are undefined, by metric name; empty if all are defined."""
        reasons = ranking.reasons(self.positive, self.counted, classes=self.classes)
        if len(self.classes) == 1:
            reasons |= dict.fromkeys(_OF_ANSWERS, "a single class is always the answer")
        elif not self.single.size:
            reasons |= dict.fromkeys(_OF_ANSWERS, "no record has exactly one positive class")
        complete = "chance agreement is complete: every record and prediction is of one class"
        lacking = [name for name in undefined.without_value(found) if name not in reasons]
        return reasons | dict.fromkeys(lacking, complete)
