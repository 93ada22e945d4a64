"""The settings that a checkpoint stores, and the check that a run may resume from it."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from prior_jax.errors import CheckpointError
from prior_jax.train.options import TrainOptions
from prior_jax.train.stages import Schedule, Stage


def settings_of(options: TrainOptions, schedule: Schedule) -> dict[str, Any]:
    """Returns the settings that determine a run's numbers, as JSON values for its checkpoints."""
    stopping = options.early_stopping
    return {
        "seed": options.seed,
        "identity": json.loads(json.dumps(dict(options.identity))),
        "early_stopping": None if stopping is None else dataclasses.asdict(stopping),
        "validate_every": options.validate_every,
        "stages": [_stage(stage) for stage in schedule.stages],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    """Returns a stage as JSON values, in the form that checkpoints of earlier versions hold."""
    values = dataclasses.asdict(stage)
    if stage.plateau is not None and stage.plateau.every == 1:
        del values["plateau"]["every"]
    return values


def check_same(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, schedule: Schedule, workdir: Any
) -> None:
    """Refuses a checkpoint that this run could not have written.

    Args:
      ours: settings from `settings_of`.
      theirs: host values of the checkpoint: its settings, and "step".
      schedule: schedule of this run.
      workdir: folder of the run, for the message.

    Raises:
      CheckpointError: naming the setting that differs, with both values.
    """
    everything = dict.fromkeys(theirs["identity"]) | dict(ours["identity"])
    check_identity(everything, theirs["identity"], workdir=workdir)
    step = theirs["step"]
    if step > schedule.total_steps:
        raise CheckpointError(
            f"The stages have {schedule.total_steps} steps in all, fewer than the {step} steps of "
            f"the checkpoint in {workdir}.",
            "Lengthen the stages, or use another --workdir.",
            where="config.stages",
        )
    # Future stages may change; stages that have begun may not.
    begun = schedule.stages.index(schedule.at(max(step - 1, 0))) + 1
    names = ["seed", "early_stopping"]
    # Validations change the numbers only with early stopping or a plateau.
    if ours["early_stopping"] or any(stage.watched for stage in schedule.stages[:begun]):
        names.append("validate_every")
    pairs = {f"config.{name}": (ours[name], theirs.get(name)) for name in names}
    begun_names = [
        [stage["name"] for stage in settings["stages"][:begun]] for settings in (ours, theirs)
    ]
    pairs["config.stages"] = begun_names[0], begun_names[1]
    for i in range(min(begun, len(theirs["stages"]))):
        pairs[f"config.stages[{i}]"] = ours["stages"][i], theirs["stages"][i]
    _refuse_differences(pairs, workdir=workdir)


def check_identity(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, workdir: Any) -> None:
    """Refuses a run whose settings differ from those that a checkpoint was trained with.

    Args:
      ours: known part of the run's identity: name -> JSON value.
      theirs: whole identity that the checkpoint stores.
      workdir: folder of the run, for the message.

    Raises:
      CheckpointError: naming the setting that differs, the objective before all others.
    """
    names = sorted(ours, key=lambda name: (name != "config.objective", name))
    _refuse_differences({name: (ours[name], theirs.get(name)) for name in names}, workdir=workdir)


def _refuse_differences(pairs: Mapping[str, tuple[Any, Any]], *, workdir: Any) -> None:
    for name, both in pairs.items():
        for field, now, then in differences(name, *both):
            raise CheckpointError(
                f"The value is {now!r}, but the checkpoint in {workdir} was trained with {then!r}.",
                f"Set it to {then!r} to resume, or use another --workdir.",
                where=field,
            )


def differences(name: str, now: Any, then: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields the innermost values in which two JSON trees differ.

    Args:
      name: dotted name of both trees.
      now: tree of the current run.
      then: tree to compare with.

    Yields:
      Dotted name and both values; a key that only one tree has is None in the other.
    """
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for key in sorted(now.keys() | then.keys()):
            yield from differences(f"{name}.{key}", now.get(key), then.get(key))
    elif now != then:
        yield name, now, then
