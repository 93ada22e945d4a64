"""The schedule of a run: its stages, one after the other, and the learning rate in each."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from prior_jax.errors import ConfigError

PAST_END = ("hold", "rise")
SCHEDULES = ("cosine", "constant", "plateau")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """When the learning rate of a stage falls; the section `config.stages.<name>.plateau`.

    torch's ReduceLROnPlateau with mode "min", a relative threshold and no cool-down, stepped
    after every validation.

    Attributes:
      metric: name in the evaluation's answer, the lower the better, e.g. "validation_total_loss".
      factor: what the rate is multiplied by; GLoRIA has 0.5 (release, gloria/builder.py).
      patience: validations without improvement that are borne: the one after lowers the rate and
        counts anew; GLoRIA has 5.
      threshold: a value improves the best b if it is below b (1 - threshold); torch's default
        is 1e-4.
      min_learning_rate: the rate's peak never falls below; torch's default is 0.
    """

    metric: str
    factor: float
    patience: int
    threshold: float
    min_learning_rate: float

    def check(self, field: str) -> None:
        """Refuses values by which the rate would rise, or never fall.

        Args:
          field: dotted name of the section, for the error.

        Raises:
          ConfigError: naming the value.
        """
        bounds = {
            "factor": (0 < self.factor < 1, "0 < x < 1"),
            "patience": (self.patience >= 0, ">= 0"),
            "threshold": (0 <= self.threshold < 1, "0 <= x < 1"),
            "min_learning_rate": (self.min_learning_rate >= 0, ">= 0"),
        }
        for name, (holds, accepted) in bounds.items():
            if not holds:
                raise ConfigError(
                    f"{field}.{name}", received=getattr(self, name), accepted=accepted
                )

    def improves(self, value: float, best: float) -> bool:
        """Whether `value` is lower than `best` by enough."""
        return value < best * (1.0 - self.threshold)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRates:
    """What a stage is called, and its learning rate.

    Attributes:
      name: as the objective knows it, e.g. "stage1".
      schedule: what follows the warm-up: "cosine" falls to the end value; "constant" stays at
        the peak; "plateau" does so until validations stop improving, and is then lowered.
        GLoRIA's release asks for a plateau, but its trainer never steps it, so that its rate is
        constant (quirk 53); its "warmup" scheduler is a constant rate of a hundredth of the
        nominal one, reached in four epochs from a thousandth (quirk 54).
      plateau: when "plateau" lowers the rate; the other schedules do not read it.
      learning_rate: the peak of the learning rate, which the warm-up ends at.
      learning_rate_start: rate of the very first step.
      learning_rate_end: rate at the end of the cosine; the other schedules do not read it.
      weight_decay: strength of the weight decay; `OptimizerConfig.decay` says how it acts.
    """

    name: str
    schedule: str
    plateau: PlateauConfig | None
    learning_rate: float
    learning_rate_start: float
    learning_rate_end: float
    weight_decay: float

    def __post_init__(self):
        """Refuses rates that make no schedule."""
        for field in ("learning_rate", "learning_rate_start", "learning_rate_end", "weight_decay"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(self._field(field), received=value, accepted="a number >= 0")
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                self._field("schedule"), received=self.schedule, accepted=f"one of {SCHEDULES}"
            )
        if self.schedule != "plateau":
            return
        if self.plateau is None:
            raise ConfigError(
                self._field("plateau"), received=None, accepted="a section, with this schedule"
            )
        self.plateau.check(self._field("plateau"))
        if self.learning_rate == 0:
            raise ConfigError(
                self._field("learning_rate"), received=0.0, accepted="> 0, with this schedule"
            )

    def _field(self, name: str) -> str:
        return f"config.stages.{self.name}.{name}"

    @property
    def watched(self) -> PlateauConfig | None:
        """What lowers the rate, or None where nothing does."""
        return self.plateau if self.schedule == "plateau" else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig(StageRates):
    """A stage as a config gives it.

    Attributes:
      unit: what the lengths count, `config.stage_unit`: "epochs" or "steps".
      length: epochs or steps of the stage.
      warmup: epochs or steps of the linear warm-up, part of the length.
    """

    unit: str
    length: float
    warmup: float

    def __post_init__(self):
        """Refuses a warm-up that does not fit into the stage."""
        super().__post_init__()
        if not self.length > 0:
            raise ConfigError(
                self._field("length"),
                received=self.length,
                accepted=f"a number of {self.unit} above 0",
            )
        if not 0 <= self.warmup < self.length:
            raise ConfigError(
                self._field("warmup"),
                received=self.warmup,
                accepted=f"0 or more, and less than the stage's length of {self.length:g} "
                f"{self.unit}: {self._remedy()}",
            )

    def in_steps(self, steps_per_epoch: int) -> "Stage":
        """Returns the stage in optimizer steps.

        Args:
          steps_per_epoch: steps of an epoch; lengths in steps ignore it.

        Raises:
          ConfigError: for a stage without a step, or without one behind its warm-up.
        """
        unit = steps_per_epoch if self.unit == "epochs" else 1
        steps, warmup_steps = round(self.length * unit), round(self.warmup * unit)
        if steps < 1:
            raise ConfigError(
                self._field("length"),
                received=self.length,
                accepted=f"{self.unit} that make at least one step: raise "
                f"--{self._field('length')}",
            )
        if warmup_steps >= steps:
            raise ConfigError(
                self._field("warmup"),
                received=self.warmup,
                accepted=f"{self.unit} that leave a step behind them: rounded, the warm-up takes "
                f"{warmup_steps} of the stage's {steps} steps; {self._remedy()}",
            )
        rates = {field.name: getattr(self, field.name) for field in dataclasses.fields(StageRates)}
        return Stage(steps=steps, warmup_steps=warmup_steps, schedule_steps=None, **rates)

    def _remedy(self) -> str:
        return f"lower --{self._field('warmup')} or raise --{self._field('length')}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(StageRates):
    """One stage in optimizer steps.

    Each stage starts with a fresh optimizer state and its own warm-up (release,
    codes/prior/models/prior.py:580-593; PRIOR, arXiv:2307.12577, trains the same three stages).

    Attributes:
      steps: optimizer steps of this stage.
      warmup_steps: steps of the linear rise; the peak is reached at step warmup_steps - 1 and
        held at step warmup_steps. 0 starts at the peak.
      schedule_steps: the length that the schedule is laid out for; None means `steps`. The
        release plans floor(N / batch) steps an epoch and may take one more (quirk 15).
    """

    steps: int
    warmup_steps: int
    schedule_steps: int | None

    def __post_init__(self):
        """Refuses lengths that make no schedule."""
        super().__post_init__()
        if self.steps < 1:
            raise ConfigError(self._field("steps"), received=self.steps, accepted="at least 1")
        if not 0 <= self.warmup_steps < self.planned_steps:
            raise ConfigError(
                self._field("warmup_steps"),
                received=self.warmup_steps,
                accepted=f"0 up to one less than the {self.planned_steps} steps of the schedule",
            )

    @property
    def planned_steps(self) -> int:
        """The length that the schedule is laid out for."""
        return self.steps if self.schedule_steps is None else self.schedule_steps


class Schedule:
    """Stages in order; answers which of them a step of the run belongs to."""

    def __init__(self, stages: Sequence[Stage]):
        """Takes the stages in the order in which they run.

        Args:
          stages: at least one, with distinct names.

        Raises:
          ConfigError: if there is none, or two share a name.
        """
        names = [stage.name for stage in stages]
        if not stages or len(set(names)) != len(names):
            raise ConfigError(
                "config.stages", received=names, accepted="at least one stage, of distinct names"
            )
        self.stages = tuple(stages)
        self.total_steps = sum(stage.steps for stage in stages)

    def at(self, step: int) -> Stage:
        """The stage of the step with this index (counted from 0 over the whole run)."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise ValueError(f"step {step} past the end of the last stage")

    def start(self, stage: Stage) -> int:
        """Index of the stage's first step."""
        before = self.stages[: self.stages.index(stage)]
        return sum(earlier.steps for earlier in before)

    def end(self, stage: Stage) -> int:
        """One past the index of the stage's last step."""
        return self.start(stage) + stage.steps

    def ends_after(self, step: int) -> bool:
        """True if the step with this index is its stage's last."""
        return step + 1 == self.end(self.at(step))


def learning_rate(stage: Stage, step: jax.Array | int, *, past_end: str) -> jax.Array:
    """Linear warm-up, then half a cosine down to the end value, or the peak.

    With W warm-up steps, T planned steps, rates s (start), b (peak), e (end) and step t:
      t < W:  s + (b - s) t / (W - 1)          (t = 0 gives s, also where W = 1)
      else:   e + (b - e) sin^2(pi/2 (T - t) / (T - W)) with the schedule "cosine",
              b with "constant" and "plateau" (whose lowering is `patience.Patience.factor`).

    Source: lightning-bolts 0.4.0, LinearWarmupCosineAnnealingLR, stepped once an optimizer step
    (release, codes/prior/models/prior.py:580-593). Its (1 + cos) / 2 is written as a squared
    sine here, which stays accurate in float32 near the end of the schedule.

    Args:
      stage: lengths and rates.
      step: int32[], index of the step within the stage, from 0.
      past_end: what follows step T: "rise" repeats the release, whose cosine climbs again
        (quirk 15); "hold" stays at the end value.

    Returns:
      float32[], the learning rate of that step.

    Raises:
      ConfigError: if `past_end` is neither.
    """
    if past_end not in PAST_END:
        raise ConfigError(
            "config.optimizer.past_end", received=past_end, accepted=f"one of {PAST_END}"
        )
    warmup, planned = stage.warmup_steps, stage.planned_steps
    t = jnp.asarray(step, jnp.int32)
    remaining = (planned - t).astype(jnp.float32)
    if past_end == "hold":
        remaining = jnp.maximum(remaining, jnp.float32(0))
    start, peak, end = (
        jnp.float32(rate)
        for rate in (stage.learning_rate_start, stage.learning_rate, stage.learning_rate_end)
    )
    rising = start + (peak - start) * (t.astype(jnp.float32) / jnp.float32(max(warmup - 1, 1)))
    if stage.schedule != "cosine":
        return jnp.where(t < warmup, rising, peak)
    angle = jnp.float32(math.pi / 2) * remaining / jnp.float32(planned - warmup)
    falling = end + (peak - end) * jnp.square(jnp.sin(angle))
    return jnp.where(t < warmup, rising, falling)
