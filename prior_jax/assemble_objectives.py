"""From the section `config.model` to an objective: one row a name that `config.objective` takes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from prior_jax.errors import ConfigError
from prior_jax.objectives.base import Objective
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import PriorConfig
from prior_jax.sharding.rules import Rule
from prior_jax.strict import build
from prior_jax.train.stages import Stage
from prior_jax.types import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where arrays lie.

    Attributes:
      mesh: the devices on named axes.
      data_axes: axes over which the rows of a batch are split.
      bank_axis: axis of the prototype bank, or None.
      rules: of every array of the state.
    """

    mesh: Mesh
    data_axes: tuple[str, ...]
    bank_axis: str | None
    rules: tuple[Rule, ...]


def mapping(section: Any) -> dict[str, Any]:
    """A section as a dictionary that may be changed."""
    return dict(section.items())


def derive(section: Any, values: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Adds what follows from other sections; giving it as well is an error."""
    section = mapping(section)
    for key, value in values.items():
        if key in section:
            accepted = f"nothing: it follows from the rest and is {value!r}"
            raise ConfigError(f"{name}.{key}", received=section[key], accepted=accepted)
    return section | dict(values)


def _prior(
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    schedule: Sequence[Stage],
    place: Placement,
) -> PriorObjective:
    model, image = mapping(config["model"]), config["data"]["image"]
    encoder = mapping(model["image"])
    encoder["resnet"] = derive(
        encoder["resnet"], {"in_channels": image["channels"]}, name="config.model.image.resnet"
    )
    model["image"] = derive(encoder, {"image_size": image["size"]}, name="config.model.image")
    model["text"] = derive(
        model["text"],
        {"vocab_size": vocabulary.size, "pad_token": vocabulary.pad},
        name="config.model.text",
    )
    lengths = {stage.name: stage.steps for stage in schedule}
    without_bank = lengths.pop("stage1", 0)
    model["bank"] = derive(
        model["bank"],
        {"start_step": without_bank, "steps": max(sum(lengths.values()), 1)},
        name="config.model.bank",
    )
    sharded = place.mesh.size > 1
    return PriorObjective(
        build(PriorConfig, model, name="config.model"),
        bank_axis=place.bank_axis,
        batch_axis=place.data_axes if sharded and place.data_axes else None,
    )


@dataclasses.dataclass(frozen=True)
class Kind:
    """One objective.

    Attributes:
      stages: names of its stages, in their usual order.
      make: builds it from the whole config, the vocabulary, the schedule and the placement.
    """

    stages: tuple[str, ...]
    make: Callable[[Mapping[str, Any], Vocabulary, Sequence[Stage], Placement], Objective]


KINDS: Mapping[str, Kind] = {
    "prior": Kind(stages=PriorObjective.stages, make=_prior),
}
