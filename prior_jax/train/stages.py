"""The schedule of a run: its stages in sequence, and the learning rate in each."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from prior_jax.errors import ConfigError, check_choice, check_field, check_least, in_section

PAST_END = ("hold", "rise")
SCHEDULES = ("cosine", "cosine_late_peak", "linear", "constant", "plateau")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """Condition for lowering a stage's learning rate; the section `config.stages.<name>.plateau`.

    It works like torch's ReduceLROnPlateau with mode "min", a relative threshold and no cool-down,
    stepped after every validation.

    Attributes:
      metric: name of the watched number in the evaluation's results, the lower the better, e.g.
        "validation_total_loss".
      factor: factor that the rate is multiplied by; GLoRIA has 0.5 (release, gloria/builder.py).
      patience: validations without improvement that are tolerated: the next one lowers the rate and
        restarts the count; GLoRIA has 5.
      threshold: relative margin: a value improves the best b if it is below b (1 - threshold);
        torch's default is 1e-4.
      min_learning_rate: lower bound of the rate's peak; torch's default is 0.
      every: number of validations of which one is read; GLoRIA's fine-tuning configs read every
        third, which with a patience of 5 mostly comes too late (quirk G69).
    """

    metric: str
    factor: float
    patience: int
    threshold: float
    min_learning_rate: float
    every: int = 1

    def check(self) -> None:
        """Refuses values with which the rate would rise, or never fall.

        Raises:
          ConfigError: naming the value by its field.
        """
        check_field(self, "factor", 0 < self.factor < 1, "above 0 and below 1")
        check_field(self, "threshold", 0 <= self.threshold < 1, "at least 0 and below 1")
        check_least(self, patience=0, min_learning_rate=0, every=1)

    def improves(self, value: float, best: float) -> bool:
        """Returns whether `value` is lower than `best` by more than the threshold."""
        return value < best * (1.0 - self.threshold)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRates:
    """Name and learning rate of a stage.

    Attributes:
      name: name in the objective's `stages`, e.g. "stage1".
      schedule: rate after the warm-up: "cosine" falls to the end value; "constant" stays at
        the peak; "plateau" does so until validations stop improving, and is then lowered.
        "linear" falls to the end value by equal steps, as mmengine's PolyLR of power 1 (BenchX).
        "cosine_late_peak" is "cosine" with the peak at step `warmup`, one later, as in BenchX and
        Hugging Face's get_cosine_schedule_with_warmup.
        GLoRIA's release asks for a plateau, but its trainer never steps it, so that its rate is
        constant (quirk G53); its "warmup" scheduler is a constant rate of a hundredth of the
        nominal one, reached in four epochs from a thousandth (quirk G54).
      plateau: condition for lowering the rate with "plateau"; the other schedules ignore it.
      learning_rate: peak rate.
      learning_rate_start: rate of the very first step. In BenchX it is 0, so that the first step
        trains nothing (quirk B10).
      learning_rate_end: rate at the end of a cosine or of "linear"; the other schedules ignore it.
      weight_decay: see `OptimizerConfig.decay`.
    """

    name: str
    schedule: str
    plateau: PlateauConfig | None
    learning_rate: float
    learning_rate_start: float
    learning_rate_end: float
    weight_decay: float

    def __post_init__(self):
        """Refuses rates from which no schedule can be made."""
        for field in ("learning_rate", "learning_rate_start", "learning_rate_end", "weight_decay"):
            value = getattr(self, field)
            holds = math.isfinite(value) and value >= 0
            check_field(self, field, holds, "a finite number, 0 or above")
        self._check_schedule()

    def _check_schedule(self) -> None:
        check_choice(self, "schedule", SCHEDULES)
        if self.schedule != "plateau":
            return
        if self.plateau is None:
            raise ConfigError(
                "The schedule 'plateau' needs this section, and it is None.",
                "Fill in the section, or choose another schedule.",
                where="plateau",
            )
        with in_section("plateau"):
            self.plateau.check()
        must_be = "above 0 with the schedule 'plateau'"
        check_field(self, "learning_rate", self.learning_rate > 0, must_be)

    @property
    def watched(self) -> PlateauConfig | None:
        """Returns the condition that lowers the rate, or None if the rate is never lowered."""
        return self.plateau if self.schedule == "plateau" else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig(StageRates):
    """A stage as given in a config.

    Attributes:
      unit: unit of the lengths, `config.stage_unit`: "epochs" or "steps".
      length: epochs or steps of the stage.
      warmup: epochs or steps of the linear warm-up, part of the length.
      schedule_steps: optimizer steps that the schedule is laid out for, whatever the unit; None for
        the stage's length. BenchX lays out 3,000 for a training of up to 200 epochs, and its rate
        rises again behind them (quirk B10; `config.optimizer.past_end`).
    """

    unit: str
    length: float
    warmup: float
    schedule_steps: int | None = None

    def __post_init__(self):
        """Refuses a warm-up that does not fit into the stage."""
        super().__post_init__()
        check_field(self, "length", self.length > 0, f"a number of {self.unit} above 0")
        planned = self.schedule_steps
        check_field(self, "schedule_steps", planned is None or planned >= 1, "None, or at least 1")
        if not 0 <= self.warmup < self.length:
            raise ConfigError(
                f"The warm-up is {self.warmup:g} and the stage's length {self.length:g}, in "
                f"{self.unit}, so the warm-up does not fit into the stage.",
                self._remedy(),
                where="warmup",
            )
        if self.unit == "steps":
            self._check_steps(per_unit=1)

    def in_steps(self, steps_per_epoch: int) -> "Stage":
        """Returns the stage in optimizer steps.

        Args:
          steps_per_epoch: steps of an epoch; lengths in steps ignore it.

        Raises:
          ConfigError: for a stage without a step, or without one after its warm-up; the message
            names the field alone.
        """
        steps, warmup_steps = self._check_steps(
            per_unit=steps_per_epoch if self.unit == "epochs" else 1
        )
        rates = {field.name: getattr(self, field.name) for field in dataclasses.fields(StageRates)}
        return Stage(
            steps=steps, warmup_steps=warmup_steps, schedule_steps=self.schedule_steps, **rates
        )

    def _check_steps(self, *, per_unit: int) -> tuple[int, int]:
        """Returns the numbers of steps of the stage and of its warm-up, if both can be used."""
        steps, warmup_steps = round(self.length * per_unit), round(self.warmup * per_unit)
        if steps < 1:
            raise ConfigError(
                f"The length, {self.length:g} in {self.unit}, makes less than one step.",
                "Raise the length of the stage.",
                where="length",
            )
        if warmup_steps >= steps:
            raise ConfigError(
                f"The warm-up, {self.warmup:g} in {self.unit}, leaves no step: rounded, it "
                f"takes {warmup_steps} of the stage's {steps} steps.",
                self._remedy(),
                where="warmup",
            )
        if self.schedule_steps is not None and warmup_steps >= self.schedule_steps:
            raise ConfigError(
                f"The warm-up, {self.warmup:g} in {self.unit}, takes {warmup_steps} steps, and the "
                f"schedule is laid out for {self.schedule_steps} steps in all.",
                f"Lower the warmup or raise schedule_steps of the stage {self.name!r}.",
                where="warmup",
            )
        return steps, warmup_steps

    def _remedy(self) -> str:
        return f"Lower the warmup or raise the length of the stage {self.name!r}."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(StageRates):
    """One stage in optimizer steps.

    Each stage starts with a fresh optimizer state and its own warm-up (release,
    codes/prior/models/prior.py:580-593; PRIOR, arXiv:2307.12577, trains the same three stages).

    Attributes:
      steps: optimizer steps of this stage.
      warmup_steps: steps of the linear rise; the peak is reached at step warmup_steps - 1 and
        held at step warmup_steps. With 0 the stage starts at the peak.
      schedule_steps: length that the schedule is planned for; None means `steps`. The
        release plans floor(N / batch) steps an epoch and may take one more (quirk P15).
    """

    steps: int
    warmup_steps: int
    schedule_steps: int | None

    def __post_init__(self):
        """Refuses lengths from which no schedule can be made."""
        super().__post_init__()
        check_least(self, steps=1)
        fits = 0 <= self.warmup_steps < self.planned_steps
        must_be = f"at least 0 and below the {self.planned_steps} steps of the schedule"
        check_field(self, "warmup_steps", fits, must_be)

    @property
    def planned_steps(self) -> int:
        """Returns the length that the schedule is planned for."""
        return self.steps if self.schedule_steps is None else self.schedule_steps


class Schedule:
    """Stages in order; finds the stage to which a step of the run belongs."""

    def __init__(self, stages: Sequence[Stage]):
        """Stores the stages in the order in which they run.

        Args:
          stages: at least one stage, with distinct names.

        Raises:
          ConfigError: if there is none, or two share a name.
        """
        names = [stage.name for stage in stages]
        if not stages or len(set(names)) != len(names):
            raise ConfigError.of_value(
                "config.stages", names, "at least one stage, each named once"
            )
        self.stages = tuple(stages)
        self.total_steps = sum(stage.steps for stage in stages)

    def at(self, step: int) -> Stage:
        """Returns the stage of the step with this index (counted from 0 over the whole run)."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise ValueError(f"step {step} past the end of the last stage")

    def before(self, step: int) -> Stage:
        """Returns the stage of the last of so many steps, or the first one for none."""
        return self.at(max(step - 1, 0))

    def start(self, stage: Stage) -> int:
        """Returns the index of the stage's first step."""
        before = self.stages[: self.stages.index(stage)]
        return sum(earlier.steps for earlier in before)

    def end(self, stage: Stage) -> int:
        """Returns one past the index of the stage's last step."""
        return self.start(stage) + stage.steps

    def begun(self, steps: int) -> tuple[str, ...]:
        """Returns the names of the stages that have trained, after so many steps of the run."""
        return tuple(stage.name for stage in self.stages if self.start(stage) < steps)

    def ends_after(self, step: int) -> bool:
        """Returns True if the step with this index is its stage's last."""
        return step + 1 == self.end(self.at(step))


def learning_rate(stage: Stage, step: jax.Array | int, *, past_end: str) -> jax.Array:
    """Computes a linear warm-up, then half a cosine down to the end value, or the peak.

    With W warm-up steps, T planned steps, rates s (start), b (peak), e (end) and step t:
      t < W:  s + (b - s) t / (W - 1)          (t = 0 gives s, also where W = 1),
              s + (b - s) t / W with "cosine_late_peak"
      else:   e + (b - e) sin^2(pi/2 (T - t) / (T - W)) with the schedules of a cosine,
              e + (b - e) max((T - t) / (T - W), 0) with "linear",
              b with "constant" and "plateau" (whose lowering is `patience.Patience.factor`).

    Source: lightning-bolts 0.4.0, LinearWarmupCosineAnnealingLR, stepped once an optimizer step
    (release, codes/prior/models/prior.py:580-593). Its (1 + cos) / 2 is written as a squared
    sine here, which stays accurate in float32 near the end of the schedule.

    Args:
      stage: lengths and rates.
      step: int32[], index of the step within the stage, from 0.
      past_end: rate after step T: "rise" repeats the release, whose cosine climbs again
        (quirk P15); "hold" stays at the end value.

    Returns:
      float32[], the learning rate of that step.

    Raises:
      ConfigError: if `past_end` is neither.
    """
    if past_end not in PAST_END:
        raise ConfigError.of_value("config.optimizer.past_end", past_end, f"one of {PAST_END}")
    warmup, planned = stage.warmup_steps, stage.planned_steps
    t = jnp.asarray(step, jnp.int32)
    remaining = (planned - t).astype(jnp.float32)
    if past_end == "hold":
        remaining = jnp.maximum(remaining, jnp.float32(0))
    start, peak, end = (
        jnp.float32(rate)
        for rate in (stage.learning_rate_start, stage.learning_rate, stage.learning_rate_end)
    )
    ramp = warmup if stage.schedule == "cosine_late_peak" else max(warmup - 1, 1)
    rising = start + (peak - start) * (t.astype(jnp.float32) / jnp.float32(max(ramp, 1)))
    if stage.schedule in ("constant", "plateau"):
        return jnp.where(t < warmup, rising, peak)
    if stage.schedule == "linear":
        left = jnp.maximum(remaining / jnp.float32(planned - warmup), jnp.float32(0))
    else:
        angle = jnp.float32(math.pi / 2) * remaining / jnp.float32(planned - warmup)
        left = jnp.square(jnp.sin(angle))
    falling = end + (peak - end) * left
    return jnp.where(t < warmup, rising, falling)
