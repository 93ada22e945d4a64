"""All that a run is told, as one frozen tree of dataclasses.

`config.read_config` makes it from a config; nothing after that sees an `ml_collections.ConfigDict`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prior_jax.data.pipeline import DataConfig
from prior_jax.errors import ConfigError, in_section
from prior_jax.evaluate.while_training import OF_TEXT, EvaluateConfig
from prior_jax.interop.initial import InitConfig
from prior_jax.objectives.all_pairs import AllPairsConfig
from prior_jax.objectives.kinds import KINDS
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.options import TrainOptions
from prior_jax.train.stages import Stage, StageConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSection(MeshConfig):
    """The section `config.mesh`: a config has to say what `MeshConfig` leaves to defaults.

    Attributes:
      all_pairs: how the losses over all pairs of a batch are computed.
    """

    bank_axis: str | None = dataclasses.field()
    rules: tuple[tuple[str, tuple[str | tuple[str, ...] | None, ...]], ...] = dataclasses.field()
    all_pairs: AllPairsConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Radiographs and reports to draw where no data set is given.

    Attributes:
      studies: number of studies over all splits.
      seed: seed of the drawing.
      size: pixels of an image's shorter side.
      validate: share of the patients in the split "validate".
      test: share of the patients in the split "test".
    """

    studies: int
    seed: int
    size: int
    validate: float
    test: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What a run makes where it is absent; the section `config.prepare`.

    Attributes:
      phantom: drawn and prepared under the workdir if `config.data.path` is None; None where a
        prepared set must be given.
      vocab_size: pieces of the sentencepiece model trained on the set's training reports if
        `config.data.tokenizer.path` is None; not to be given where no reports are read.
    """

    phantom: PhantomConfig | None
    vocab_size: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that a run is told.

    Attributes:
      given: the config as it was given, JSON values; a run keeps it and is known by it.
      name: name of the run, for people.
      objective: which objective is trained, a key of `objectives.kinds.KINDS`.
      model: settings of the objective, the dataclass `KINDS[objective].settings`. What only the
        tokenizer knows is that of a tokenizer of `prepare.vocab_size` pieces; `assemble.objective`
        puts the opened tokenizer's in its place.
      data: the section `config.data`; paths that were not given are those under the workdir.
      makes_set: whether the prepared set is drawn and made by the run.
      makes_tokenizer: whether the tokenizer is trained by the run.
      prepare: what the run makes where it is absent.
      init: weights that the run starts from.
      quick_compile: whether compiling is to be quick rather than its result; rounding may differ.
      stage_unit: what the lengths of the stages count, "epochs" or "steps".
      stages: stages in the order of the objective.
      optimizer: settings of the optimizer that the stages share.
      mesh: how the devices are laid out.
      train: seed, logging, checkpoints, validation and watchdog; `options` has the steps between
        validations and between evaluations.
      validate_unit: what `config.validate_every` and `config.evaluate_every` count, "steps" or
        "epochs" (which needs stages in epochs).
      evaluate: what is measured every `config.evaluate_every`; may be None if that is 0.
      after: paths of the evaluation configs to run once training has ended.
    """

    given: Mapping[str, Any]
    name: str
    objective: str
    model: Any
    data: DataConfig
    makes_set: bool
    makes_tokenizer: bool
    prepare: PrepareConfig
    init: InitConfig
    quick_compile: bool
    stage_unit: str
    stages: tuple[StageConfig, ...]
    optimizer: OptimizerConfig
    mesh: MeshSection
    train: TrainOptions
    after: tuple[str, ...]
    validate_unit: str = "steps"
    evaluate: EvaluateConfig | None = None

    def __post_init__(self):
        """Refuses sections that do not fit together."""
        if not self.stages:
            known = KINDS[self.objective].stages
            raise ConfigError(
                "The config has no stage, so there is nothing to train.",
                f"Give one or more of the stages {', '.join(known)}.",
                where="config.stages",
            )
        if self.validate_unit == "epochs" and self.stage_unit != "epochs":
            raise ConfigError(
                "Validations are counted in epochs, and stages in steps.",
                "Count both in epochs, or validations in steps.",
                where="config.validate_unit",
            )
        self._check_evaluates()
        rows = self.data.batch_size // self.optimizer.accumulate_steps
        with in_section("config.model"):
            KINDS[self.objective].check_rows(self.model, rows)
        with in_section("config.mesh.all_pairs"):
            KINDS[self.objective].check_form(self.mesh.all_pairs)

    def _check_evaluates(self) -> None:
        """Refuses evaluations of nothing, and of text by a model that reads none."""
        if not self.train.evaluate_every:
            return
        if self.evaluate is None:
            raise ConfigError.of_value(
                "config.evaluate", None, "a section, or config.evaluate_every must be 0"
            )
        named = [task for task in self.evaluate.tasks if task in OF_TEXT]
        if named and not KINDS[self.objective].reads_reports:
            raise ConfigError(
                f"The tasks {' and '.join(map(repr, named))} read text, and the objective "
                f"{self.objective!r} has no text encoder.",
                "Leave them out, as with --config.evaluate.tasks=\"('knn',)\".",
                where="config.evaluate.tasks",
            )

    @property
    def repeats_release(self) -> bool:
        """Returns whether the run repeats the authors' release of PRIOR throughout.

        That is, in its model, text and tokenizer. A run that departs from the release in any of
        these compares fidelities, as the arm of `configs/sweeps/objectives.py` does.
        """
        return (
            self.objective == "prior"
            and self.model.fidelity == "release"
            and not self.model.switched_choices
            and self.data.text_mode == "release"
            and self.data.tokenizer.kind == "wordpiece"
        )

    def check_data(self) -> None:
        """Refuses a config that names no data set or tokenizer, and cannot make one.

        Raises:
          ConfigError: naming the flag to give.
        """
        if self.makes_set and self.prepare.phantom is None:
            raise ConfigError(
                "There is no data set: the path is None, and config.prepare.phantom, which would "
                "be drawn instead, is None too.",
                "Give --config.data.path=DIR, the folder of a prepared set.",
                where="config.data.path",
            )
        if self.makes_tokenizer and self.data.tokenizer.kind != "sentencepiece":
            raise ConfigError(
                "There is no tokenizer: the path is None, and a run cannot make a tokenizer of "
                f"the kind {self.data.tokenizer.kind!r}.",
                "Give --config.data.tokenizer.path=FILE, a vocab.txt or tokenizer.json.",
                where="config.data.tokenizer.path",
            )

    def options(self, *, steps_per_epoch: int) -> TrainOptions:
        """Returns the options of training, with the steps between validations and evaluations."""
        unit = steps_per_epoch if self.validate_unit == "epochs" else 1
        every = {name: steps * unit for name, steps in self.train.every.items()}
        return dataclasses.replace(self.train, **every)

    def schedule(self, *, steps_per_epoch: int) -> tuple[Stage, ...]:
        """Returns the stages in steps.

        Args:
          steps_per_epoch: steps of an epoch of the training split; lengths in steps ignore it.

        Raises:
          ConfigError: for a stage without a step, or without one after its warm-up.
        """
        found: list[Stage] = []
        for stage in self.stages:
            with in_section(f"config.stages.{stage.name}"):
                found.append(stage.in_steps(steps_per_epoch))
        return tuple(found)
