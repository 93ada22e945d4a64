"""From the sections of a config to the objects that they describe."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from prior_jax.objectives.all_pairs import GATHERED, AllPairs, AllPairsConfig
from prior_jax.objectives.base import Objective
from prior_jax.objectives.kinds import KINDS, Setting
from prior_jax.sharding.placement import Placement
from prior_jax.train.stages import Stage
from prior_jax.vocabulary import Vocabulary


def objective(
    kind: str,
    model: Any,
    *,
    vocabulary: Vocabulary,
    schedule: Sequence[Stage],
    place: Placement,
    all_pairs: AllPairsConfig = GATHERED,
    labels: Sequence[str] = (),
) -> Objective:
    """Builds an objective for a tokenizer, a schedule and a mesh.

    Args:
      kind: key of `KINDS`.
      model: settings of the objective, as `config.RunConfig.model`.
      vocabulary: vocabulary of the tokenizer.
      schedule: stages in steps; () for a model that is not trained.
      place: where the bank and the batch lie.
      all_pairs: how the losses over all pairs of a batch are computed.
      labels: names of the labels of the set, for an objective that learns them.
    """
    if KINDS[kind].reads_reports:
        text = dataclasses.replace(model.text, vocab_size=vocabulary.size, pad_token=vocabulary.pad)
        model = dataclasses.replace(model, text=text)
    return KINDS[kind].make(
        model,
        Setting(
            vocabulary=vocabulary,
            lengths={stage.name: stage.steps for stage in schedule},
            bank_axis=place.bank_axis,
            batch_axis=place.batch_axis,
            all_pairs=AllPairs(
                config=all_pairs,
                axis=place.batch_axis,
                walk="images" if _is_one_cpu(place) else "captions",
            ),
            labels=tuple(labels),
        ),
    )


def _is_one_cpu(place: Placement) -> bool:
    return [device.platform for device in place.mesh.devices.flat] == ["cpu"]
