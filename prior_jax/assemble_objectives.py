"""From the section `config.model` to an objective: one row a name that `config.objective` takes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from prior_jax.errors import ConfigError
from prior_jax.objectives.all_pairs import GATHERED, AllPairs, AllPairsConfig
from prior_jax.objectives.base import Objective
from prior_jax.objectives.clip import ClipConfig, ClipObjective
from prior_jax.objectives.convirt import ConvirtConfig, ConvirtObjective
from prior_jax.objectives.gloria import GloriaObjective
from prior_jax.objectives.gloria_config import GloriaConfig
from prior_jax.objectives.lovt import LovtConfig, LovtObjective
from prior_jax.objectives.mgca import MgcaConfig, MgcaObjective
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import PriorConfig
from prior_jax.objectives.siglip import SiglipConfig, SiglipObjective
from prior_jax.objectives.two_tower import OneStageObjective, TowersConfig
from prior_jax.sharding.rules import Rule
from prior_jax.strict import build
from prior_jax.train.stages import Stage
from prior_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where arrays lie.

    Attributes:
      mesh: the devices on named axes.
      data_axes: axes over which the rows of a batch are split.
      bank_axis: axis of the prototype bank, or None.
      rules: of every array of the state.
      pairs: how the losses over all pairs of a batch are computed.
    """

    mesh: Mesh
    data_axes: tuple[str, ...]
    bank_axis: str | None
    rules: tuple[Rule, ...]
    pairs: AllPairsConfig = GATHERED

    @property
    def batch_axis(self) -> tuple[str, ...] | None:
        """The axes over which a batch is really split, None where one device has it all."""
        return self.data_axes if self.mesh.size > 1 and self.data_axes else None

    @property
    def all_pairs(self) -> AllPairs:
        """The losses over all pairs on these devices."""
        return AllPairs(config=self.pairs, axis=self.batch_axis)


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


def _with_encoders(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """The section `config.model` with what its encoders take from data and tokenizer."""
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
    return model


def _prior(
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    schedule: Sequence[Stage],
    place: Placement,
) -> PriorObjective:
    model = _with_encoders(config, vocabulary)
    lengths = {stage.name: stage.steps for stage in schedule}
    without_bank = lengths.pop("stage1", 0)
    model["bank"] = derive(
        model["bank"],
        {"start_step": without_bank, "steps": max(sum(lengths.values()), 1)},
        name="config.model.bank",
    )
    return PriorObjective(
        build(PriorConfig, model, name="config.model"),
        bank_axis=place.bank_axis,
        batch_axis=place.batch_axis,
        all_pairs=place.all_pairs,
    )


def _gloria(
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    schedule: Sequence[Stage],
    place: Placement,
) -> GloriaObjective:
    del schedule
    model = build(GloriaConfig, _with_encoders(config, vocabulary), name="config.model")
    rows = config["data"]["batch_size"] // config["optimizer"]["accumulate_steps"]
    if model.local_group is not None and rows % model.local_group:
        raise ConfigError(
            "config.model.local_group",
            received=model.local_group,
            accepted=f"a divisor of {rows}, the pairs that a step sees at once",
        )
    return GloriaObjective(model, vocabulary=vocabulary, all_pairs=place.all_pairs)


def _baseline(objective: type[OneStageObjective], settings: type[TowersConfig]) -> "Kind":
    """The row of an objective of one stage that needs no more than its section."""

    def make(
        config: Mapping[str, Any],
        vocabulary: Vocabulary,
        schedule: Sequence[Stage],
        place: Placement,
    ) -> OneStageObjective:
        del schedule
        section = _with_encoders(config, vocabulary)
        return objective(
            build(settings, section, name="config.model"),
            vocabulary=vocabulary,
            all_pairs=place.all_pairs,
        )

    return Kind(stages=objective.stages, make=make)


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
    "gloria": Kind(stages=GloriaObjective.stages, make=_gloria),
    "convirt": _baseline(ConvirtObjective, ConvirtConfig),
    "clip": _baseline(ClipObjective, ClipConfig),
    "siglip": _baseline(SiglipObjective, SiglipConfig),
    "lovt": _baseline(LovtObjective, LovtConfig),
    "mgca": _baseline(MgcaObjective, MgcaConfig),
}
