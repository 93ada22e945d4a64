"""The objectives by the names that `config.objective` accepts."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from prior_jax.data import region_targets
from prior_jax.errors import check_choice, check_field, in_section
from prior_jax.objectives.all_pairs import FORMS, AllPairs, AllPairsConfig, Form
from prior_jax.objectives.base import Objective
from prior_jax.objectives.classification import ClassificationConfig, ClassificationObjective
from prior_jax.objectives.clip import ClipConfig, ClipObjective
from prior_jax.objectives.convirt import ConvirtConfig, ConvirtObjective
from prior_jax.objectives.detection import DetectionConfig, DetectionObjective
from prior_jax.objectives.gloria import GloriaObjective
from prior_jax.objectives.gloria_config import GloriaConfig
from prior_jax.objectives.local_towers import LocalTowersConfig
from prior_jax.objectives.lovt import LovtConfig, LovtObjective
from prior_jax.objectives.mgca import MgcaConfig, MgcaObjective
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import PriorConfig
from prior_jax.objectives.segmentation import SegmentationObjective
from prior_jax.objectives.segmentation_config import SegmentationConfig
from prior_jax.objectives.siglip import SiglipConfig, SiglipObjective
from prior_jax.objectives.two_tower import OneStageObjective, TowersConfig
from prior_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Inputs of an objective besides its own configuration section.

    Attributes:
      vocabulary: vocabulary of the tokenizer.
      lengths: number of optimizer steps of each stage that is run, stage -> steps; empty for a
        model that is not trained.
      bank_axis: mesh axis over which the prototype bank is split; None for a bank that is not
        split.
      batch_axis: mesh axes over which batches are split; None on one device.
      all_pairs: form in which the losses over all pairs of a batch are computed.
      labels: names of the labels of the set, in the order of a batch's labels; () for a model that
        sees no labels.
    """

    vocabulary: Vocabulary
    lengths: Mapping[str, int]
    bank_axis: str | None
    batch_axis: tuple[str, ...] | None
    all_pairs: AllPairs
    labels: tuple[str, ...] = ()


def _any_rows(settings: Any, rows: int) -> None:
    """Accepts every number of pairs."""
    del settings, rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """The entry of one objective in the table of objectives.

    Attributes:
      stages: names of the objective's stages, in their usual order.
      settings: dataclass of the configuration section `config.model`.
      make: function that builds the objective from its configuration (which includes the
        tokenizer's sizes) and a `Setting`.
      derived: values that `make` computes, part of the section -> values, so users do not set them.
      check_rows: function that refuses a configuration incompatible with the number of pairs per
        step; its ConfigError names the field alone.
      pair_forms: forms in which the objective's losses over all pairs exist; see
        `AllPairsConfig.form`.
      regions: what the objective learns of a set's findings, "boxes" or "masks". Its configuration
        then has `classes`, and `config.data` the section `regions`; None for neither.
      reads_reports: whether the model has a text encoder. Without one, `config.model.text` and the
        fields of `config.data` that concern reports are not to be given.
    """

    stages: tuple[str, ...]
    settings: type[Any]
    make: Callable[[Any, Setting], Objective]
    derived: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    check_rows: Callable[[Any, int], None] = _any_rows
    pair_forms: tuple[Form, ...] = FORMS
    regions: region_targets.Kind | None = None
    reads_reports: bool = True

    def check_form(self, config: AllPairsConfig) -> None:
        """Refuses a form that a loss of the objective does not have.

        Raises:
          ConfigError: naming the field alone.
        """
        check_choice(config, "form", self.pair_forms)


def _prior(settings: PriorConfig, setting: Setting) -> PriorObjective:
    lengths = dict(setting.lengths)
    start = lengths.pop("stage1", 0)
    bank = dataclasses.replace(settings.bank, start_step=start, steps=max(sum(lengths.values()), 1))
    return PriorObjective(
        dataclasses.replace(settings, bank=bank),
        bank_axis=setting.bank_axis,
        batch_axis=setting.batch_axis,
        all_pairs=setting.all_pairs,
    )


def _gloria(settings: GloriaConfig, setting: Setting) -> GloriaObjective:
    return GloriaObjective(settings, vocabulary=setting.vocabulary, all_pairs=setting.all_pairs)


def _classification(settings: ClassificationConfig, setting: Setting) -> ClassificationObjective:
    return ClassificationObjective(settings, labels=setting.labels)


def _detection(settings: DetectionConfig, setting: Setting) -> DetectionObjective:
    del setting
    return DetectionObjective(settings)


def _segmentation(settings: SegmentationConfig, setting: Setting) -> SegmentationObjective:
    del setting
    return SegmentationObjective(settings)


def _check_local_groups(settings: GloriaConfig, rows: int) -> None:
    _check_group(settings, "local_group", rows)


def _check_groups(settings: PriorConfig | LocalTowersConfig, rows: int) -> None:
    if settings.sentence_region is not None:
        with in_section("sentence_region"):
            _check_group(settings.sentence_region, "group", rows)
            if settings.sentence_region.hidden_every:
                _check_group(settings.sentence_region, "hidden_every", rows)


def _check_group(settings: Any, field: str, rows: int) -> None:
    group = getattr(settings, field)
    must_be = f"a divisor of {rows}, the number of pairs that a step sees at once"
    check_field(settings, field, group is None or rows % group == 0, must_be)


def _baseline(
    objective: type[OneStageObjective],
    settings: type[TowersConfig],
    check_rows: Callable[[Any, int], None] = _any_rows,
) -> Kind:
    """Returns the entry of a one-stage objective that needs only its configuration section."""

    def make(settings: TowersConfig, setting: Setting) -> OneStageObjective:
        return objective(settings, vocabulary=setting.vocabulary, all_pairs=setting.all_pairs)

    return Kind(
        stages=objective.stages,
        settings=settings,
        make=make,
        check_rows=check_rows,
        pair_forms=objective.pair_forms,
    )


KINDS: Mapping[str, Kind] = {
    "prior": Kind(
        stages=PriorObjective.stages,
        settings=PriorConfig,
        make=_prior,
        derived={"bank": {"start_step": 0, "steps": 1}},
        check_rows=_check_groups,
    ),
    "gloria": Kind(
        stages=GloriaObjective.stages,
        settings=GloriaConfig,
        make=_gloria,
        check_rows=_check_local_groups,
    ),
    "convirt": _baseline(ConvirtObjective, ConvirtConfig),
    "clip": _baseline(ClipObjective, ClipConfig),
    "siglip": _baseline(SiglipObjective, SiglipConfig),
    "lovt": _baseline(LovtObjective, LovtConfig, _check_groups),
    "mgca": _baseline(MgcaObjective, MgcaConfig, _check_groups),
    "classification": Kind(
        stages=ClassificationObjective.stages,
        settings=ClassificationConfig,
        make=_classification,
        reads_reports=False,
    ),
    "detection": Kind(
        stages=DetectionObjective.stages,
        settings=DetectionConfig,
        make=_detection,
        regions="boxes",
        reads_reports=False,
    ),
    "segmentation": Kind(
        stages=SegmentationObjective.stages,
        settings=SegmentationConfig,
        make=_segmentation,
        regions="masks",
        reads_reports=False,
    ),
}
