"""A sweep's config as dataclasses; `variants` makes the trials that it describes."""

import dataclasses
import functools
import itertools
import math
import pathlib
from typing import Any, Literal

import numpy as np

from launch.evaluation.tasks import Task, load_task
from launch.sweeps.flat_settings import flat
from prior_jax.errors import ConfigError, check_field, in_section
from prior_jax.near_names import no_config
from prior_jax.strict import build

Overrides = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A config of launch.train, with overrides.

    Attributes:
      config: file of the config, e.g. "configs/phantom.py" or "configs/baselines/phantom.py:clip".
      overrides: pairs (dotted name, value), e.g. (("optimizer.beta2", 0.99),).
    """

    config: str
    overrides: Overrides


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm(Source):
    """One of the alternatives that the sweep compares.

    Attributes:
      name: name of the table's row and of the folder: letters, digits, "_" and "-".
      reference: arm that this one is compared with; None for the reference of the sweep.
    """

    name: str
    reference: str | None = None

    def __post_init__(self):
        """Refuses a name that cannot name a folder."""
        plain = self.name.replace("_", "").replace("-", "").isalnum()
        check_field(self, "name", plain, "letters, digits, '_' and '-', because it names a folder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting with several values to try: either `values`, or the range `low` to `high`.

    Attributes:
      key: dotted name of the setting in the trial's config.
      values: values to choose from; () for a range.
      low: smallest value of a range.
      high: largest value of a range.
      log: whether the range is sampled uniformly in the logarithm.
    """

    key: str
    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False

    def __post_init__(self):
        """Refuses a choice that is neither values nor a range."""
        ranged = self.low is not None and self.high is not None
        if bool(self.values) == ranged or (self.low is None) != (self.high is None):
            raise ConfigError(
                f"The choice of {self.key!r} must have either values or a range: "
                f"{dataclasses.asdict(self)}.",
                "Give values, or low and high.",
            )
        least = 0.0 if self.log else -math.inf
        if self.low is not None and self.high is not None and not least < self.low < self.high:
            above = ", and both above 0 because the range is logarithmic" if self.log else ""
            raise ConfigError(
                f"The range of {self.key!r} is {self.low} to {self.high}.",
                f"Give a low that is below high{above}.",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """The settings that vary within every arm; all arms are tried at the same points.

    Attributes:
      sampler: "grid" tries every combination of the values, "random" draws points.
      choices: settings that vary.
      count: number of points of "random"; None with "grid".
      seed: seed of "random"; None with "grid".
    """

    sampler: Literal["grid", "random"]
    choices: tuple[Choice, ...]
    count: int | None
    seed: int | None

    def __post_init__(self):
        """Refuses a space without points."""
        check_field(self, "choices", bool(self.choices), "at least one choice")
        keys = [choice.key for choice in self.choices]
        check_field(self, "choices", len(set(keys)) == len(keys), "choices of different settings")
        random = self.sampler == "random"
        for name in ("count", "seed"):
            value = getattr(self, name)
            if (value is not None) != random or (random and value < (name == "count")):
                raise ConfigError(
                    f"The value is {value!r}, and the sampler is {self.sampler!r}.",
                    "Give a number with the sampler 'random', and None with 'grid'.",
                    where=name,
                )
        if not random and not all(choice.values for choice in self.choices):
            raise ConfigError(
                "The sampler 'grid' cannot try all values of a range.",
                "Give values for every choice, or use the sampler 'random'.",
                where="sampler",
            )

    def points(self) -> list[Overrides]:
        """Returns the points, each with a value for every choice."""
        keys = [choice.key for choice in self.choices]
        if self.sampler == "grid":
            every = itertools.product(*(choice.values for choice in self.choices))
            return [tuple(zip(keys, values, strict=True)) for values in every]
        rng = np.random.default_rng(self.seed)
        return [
            tuple((choice.key, _drawn(choice, rng)) for choice in self.choices)
            for _ in range(self.count or 0)
        ]


def _drawn(choice: Choice, rng: np.random.Generator) -> Any:
    share = float(rng.uniform())
    if choice.low is None or choice.high is None:
        return choice.values[int(share * len(choice.values))]
    if choice.log:
        return math.exp(math.log(choice.low) + share * math.log(choice.high / choice.low))
    return choice.low + share * (choice.high - choice.low)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """The training budget of every trial.

    Attributes:
      steps: number of steps of all stages together; the stages share them in proportion to the
        lengths in their config.
      batch_size: number of pairs in a step.
    """

    steps: int
    batch_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep: the settings of a file of configs/sweeps.

    Attributes:
      name: name of the table.
      data: config whose data and tokenizer every trial uses; they are made once if missing.
      arms: alternatives that are compared.
      space: settings that vary within each arm, or None.
      seeds: values of `config.seed` for the trials of each point.
      budget: budget of every trial, or None for the lengths and batch sizes of their configs.
      shared: overrides of every trial, applied before those of the arm.
      tasks: files of configs/eval, measured after training.
      metrics: columns of the table, "<results>.<metric>", e.g. "zero_shot.macro_auroc".
      reference: arm that those are compared with which name no other.
      confidence: confidence of the intervals; the tests have the level 1 - confidence.
    """

    name: str
    data: Source
    arms: tuple[Arm, ...]
    space: Space | None
    seeds: tuple[int, ...]
    budget: Budget | None
    shared: Overrides
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    reference: str
    confidence: float

    def __post_init__(self):
        """Refuses a sweep that yields no table."""
        names = [arm.name for arm in self.arms]
        if not len(set(names)) == len(names) > 0:
            must_be = "one or more arms, whose names differ"
            raise ConfigError.of_value("arms", names, must_be)
        differ = len(set(self.seeds)) == len(self.seeds) > 0
        check_field(self, "seeds", differ, "one or more numbers, all different")
        check_field(self, "reference", self.reference in names, f"the name of an arm: {names}")
        for index, arm in enumerate(self.arms):
            with in_section(f"arms[{index}]"):
                known = arm.reference is None or arm.reference in names
                check_field(arm, "reference", known, f"the name of an arm: {names}")
        check_field(self, "confidence", 0 < self.confidence < 1, "above 0 and below 1")
        check_field(self, "tasks", bool(self.tasks), "one or more files of configs/eval")
        results = {task.result for task in self.loaded_tasks()}
        for metric in self.metrics:
            if metric.partition(".")[0] not in results:
                raise ConfigError(
                    f"No task of the sweep has results for the metric {metric!r}.",
                    f"Write <results>.<metric>, with results one of {sorted(results)}.",
                    where="metrics",
                )

    @functools.cached_property
    def task_settings(self) -> dict[str, dict[str, Any]]:
        """Returns the file of each task -> dotted name -> JSON value of its settings."""
        return dict(zip(self.tasks, map(flat, self.loaded_tasks()), strict=True))

    def loaded_tasks(self) -> list[Task]:
        """Returns the tasks, after checking them."""
        for index, path in enumerate(self.tasks):
            file, _, _ = path.partition(":")
            if not pathlib.Path(file).is_file():
                raise ConfigError(
                    no_config(file),
                    "Give a file of configs/eval.",
                    where=f"tasks[{index}]",
                )
        return [load_task(path) for path in self.tasks]


def sweep_of(section: Any) -> Sweep:
    """Checks a sweep's settings.

    Raises:
      ConfigError: if a setting is unknown, missing or does not fit; the message names it.
    """
    return build(Sweep, section, name="sweep")
