"""The loss terms on held-out pairs, for the curves and for choosing the best checkpoint."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import DataError
from prior_jax.evaluate import box_scores, class_scores, local_use, mask_scores
from prior_jax.evaluate.features import to_host
from prior_jax.objectives.base import (
    Classifies,
    Detects,
    Segments,
    TrainObjective,
    weighted_sum,
)
from prior_jax.processes import activities
from prior_jax.types import Batch

# The key is fixed, so that an objective with random draws at validation draws the same each time.
_KEY = 0


class Validation:
    """Mean loss terms over one pass of held-out pairs, compiled once per stage and shape."""

    def __init__(self, objective: TrainObjective, merge: Callable[[Any, Any], Any]):
        """Prepares lazy compilation.

        Args:
          objective: objective that computes the terms.
          merge: function (params, rest) -> model, e.g. `ModelDefinition.merge`.
        """
        self._objective = objective

        def terms(params, rest, batch, step, *, stage):
            model = merge(params, rest)

            def terms_of(batch: Batch) -> Mapping[str, jax.Array]:
                return objective.loss_terms(
                    model, batch, stage=stage, step=step, key=jax.random.key(_KEY), train=False
                ).terms

            found, weights = terms_of(batch), objective.weights(stage)
            total = weighted_sum(found, weights)
            local = {}
            local_weights = {n: weights[n] for n in local_use.trained_terms(objective, stage)}
            if local_weights:
                local = local_use.local_sums(terms_of, batch, own=found, weights=local_weights)
            rows = ()
            if isinstance(objective, Classifies):
                rows = class_scores.scored(objective, model, batch)
            elif isinstance(objective, Detects):
                rows = box_scores.scored(objective, model, batch)
            elif isinstance(objective, Segments):
                rows = mask_scores.scored(objective, model, batch)
            return ({**found, "total": total}, local, jnp.sum(batch.weight)), rows

        self._terms = jax.jit(terms, static_argnames="stage")

    def __call__(
        self, params: Any, rest: Any, batches: Iterable[Batch], *, stage: str, step: int
    ) -> Mapping[str, float]:
        """Averages every term over the pairs.

        Args:
          params: parameters of the model, as `merge` takes them.
          rest: remaining state of the model, as `merge` takes it.
          batches: batches of one pass, on the devices; rows of weight 0 do not count.
          stage: name of the stage whose terms are computed.
          step: number of optimizer steps done.

        Returns:
          `validation_<term>_loss` for every term and `validation_total_loss`: means over batches,
          weighted by their numbers of pairs. A contrastive term depends on the batch size. With a
          local term that is trained also `local_use.NAMES`, over batches of two pairs or more.
          For a classifier also `class_scores.AUROC`, unless no class has both states; for a
          detector `box_scores.NAMES`, unless no image has a box; for a segmentation model
          `mask_scores.NAMES`, unless no image has a mask.

        Raises:
          DataError: if no batch holds a pair.
        """
        sums, local_sums = collections.Counter(), collections.Counter()
        pairs, compared, scored = 0.0, 0.0, []
        for batch in activities.each(activities.INPUT, batches):
            found, rows = self._terms(params, rest, batch, np.int32(step), stage=stage)
            terms, local, count = jax.device_get(found)
            if rows:
                scored.append(to_host(rows))
            pairs += float(count)
            sums.update({name: float(value * count) for name, value in terms.items()})
            if count > 1:  # the image of a single pair has no other to compare it with
                compared += float(count)
                local_sums.update({name: float(value * count) for name, value in local.items()})
        if not pairs:
            raise DataError(
                "The split 'validate' has no pair of an image and a report, so that no loss can be "
                "computed.",
                "Prepare a set that has such pairs in this split.",
            )
        means = {f"validation_{name}_loss": value / pairs for name, value in sums.items()}
        if local_sums:
            means |= local_use.use_of({name: v / compared for name, v in local_sums.items()})
        return means | (self._scores(scored) if scored else {})

    def _scores(self, scored: list[Any]) -> dict[str, float]:
        """Returns the numbers that an objective has beside its losses."""
        objective = self._objective
        if isinstance(objective, Detects):
            return box_scores.precision_of(scored, classes=len(objective.classes))
        if isinstance(objective, Segments):
            return mask_scores.dice_of(scored)
        return class_scores.area_of(scored)
