"""The settings that a checkpoint stores, and the check that a run may resume from it."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from prior_jax.errors import CheckpointError
from prior_jax.train.options import TrainOptions
from prior_jax.train.stages import Schedule, Stage
from prior_jax.train.watched import EVALUATE, VALIDATE, interval_of

DATA_SET, TOKENIZER = "data set", "tokenizer"
"""Names under which a run's identity has the fingerprints of its prepared set and tokenizer."""


@dataclasses.dataclass(frozen=True)
class _Derived:
    """A fingerprint in a run's identity: no setting has it as its value, but one names the input.

    Attributes:
      name: pattern of the fingerprint's whole name in the identity.
      where: setting that names the input; the group of the pattern is filled in.
      given: input that the value is a fingerprint of.
      flag: flag that gives the input.
    """

    name: str
    where: str
    given: str
    flag: str


_DERIVED = (
    _Derived(DATA_SET, "config.data.path", "prepared set", "--config.data.path=DIR"),
    _Derived(
        TOKENIZER, "config.data.tokenizer.path", "tokenizer", "--config.data.tokenizer.path=FILE"
    ),
    _Derived(
        r"config\.data\.fraction\.ids",
        "config.data.fraction.ids",
        "list of ids",
        "--config.data.fraction.ids=FILE",
    ),
    _Derived(
        r"config\.init\.(image|text)(?:\.weights)?",
        r"config.init.\1.path",
        "folder of weights",
        r"--config.init.\1.path=DIR",
    ),
)
# Settings of `config.model` that change the use of memory alone, in whatever section they are.
_FREE = ("remat", "chunk", "caption_chunk")
# PRIOR's stage without its prototype bank.
_WITHOUT_BANK = "stage1"
# Fields of a stage in steps -> the settings that they are computed from.
_LENGTHS = {"steps": "length", "warmup_steps": "warmup"}


def settings_of(options: TrainOptions, schedule: Schedule) -> dict[str, Any]:
    """Returns the settings that determine a run's numbers, as JSON values for its checkpoints."""
    stopping = options.early_stopping
    return {
        "seed": options.seed,
        "identity": json.loads(json.dumps(dict(options.identity))),
        "early_stopping": None if stopping is None else dataclasses.asdict(stopping),
        "validate_every": options.validate_every,
        "evaluate_every": options.evaluate_every,
        "evaluate": json.loads(json.dumps(dict(options.evaluation))),
        "stages": [_stage(stage) for stage in schedule.stages],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    """Returns a stage as JSON values, in the form that checkpoints of earlier versions hold."""
    values = dataclasses.asdict(stage)
    if stage.plateau is not None and stage.plateau.every == 1:
        del values["plateau"]["every"]
    return values


def identity_of_model(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of `config.model` that change a run's numbers.

    The size of hidden squares is none of them where no square is hidden.
    """
    kept = {
        name: identity_of_model(value) if isinstance(value, Mapping) else value
        for name, value in section.items()
        if name not in _FREE
    }
    if not kept.get("hidden_every"):
        kept.pop("hidden_side", None)
    return kept


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
    begun = schedule.stages.index(schedule.before(step)) + 1
    names = ["seed", "early_stopping"]
    # Validations and evaluations change the numbers only with early stopping or a plateau.
    waited = [stage.watched.metric for stage in schedule.stages[:begun] if stage.watched]
    if ours["early_stopping"]:
        waited.append(ours["early_stopping"]["metric"])
    decide = {interval_of(metric) for metric in waited}
    names += [VALIDATE] * (VALIDATE in decide) + [EVALUATE, "evaluate"] * (EVALUATE in decide)
    pairs = {f"config.{name}": (ours[name], theirs.get(name)) for name in names}
    our_names, their_names = (
        [stage["name"] for stage in settings["stages"][:begun]] for settings in (ours, theirs)
    )
    pairs["config.stages"] = our_names, their_names
    for i in range(min(begun, len(theirs["stages"]))):
        # The names are compared first, so that both stages have this one.
        name = f"config.stages.{their_names[i]}"
        pairs[name] = ours["stages"][i], theirs["stages"][i]
    _refuse_differences(pairs, workdir=workdir)
    if set(their_names) - {_WITHOUT_BANK}:
        _check_bank_schedule(ours, theirs, workdir=workdir)


def _check_bank_schedule(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, workdir: Any
) -> None:
    """Refuses other lengths of the stages over which a prototype bank's temperature falls.

    The temperature of a step depends on the steps of all stages with the bank, of the ones to come
    as well. See `objectives.prior_config.BankConfig`.
    """
    bank = (ours["identity"].get("config.model") or {}).get("bank") or {}
    now, then = (
        sum(stage["steps"] for stage in settings["stages"] if stage["name"] != _WITHOUT_BANK)
        for settings in (ours, theirs)
    )
    if bank.get("schedule", "fixed") != "fixed" and now != then:
        raise CheckpointError(
            "The temperature of the prototype bank falls over the stages after "
            f"{_WITHOUT_BANK}. They have {now} steps together, but had {then} steps in the run "
            f"whose checkpoint is in {workdir}, so that the temperature would jump.",
            f"Set the lengths of the stages as config.json in {workdir} has them to resume, or use "
            "another --workdir.",
            where="config.stages",
        )


def check_identity(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, workdir: Any) -> None:
    """Refuses a run whose settings differ from those that a checkpoint was trained with.

    Args:
      ours: known part of the run's identity: name -> JSON value.
      theirs: whole identity that the checkpoint stores.
      workdir: folder of the run, for the message.

    Raises:
      CheckpointError: naming the setting that differs, the objective before all others.
    """
    ours, theirs = _as_now(ours), _as_now(theirs)
    names = sorted(ours, key=lambda name: (name != "config.objective", name))
    _refuse_differences({name: (ours[name], theirs.get(name)) for name in names}, workdir=workdir)


def _as_now(identity: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leaves out settings that change no number, which earlier versions kept in an identity."""
    model = identity.get("config.model")
    if not isinstance(model, Mapping):
        return identity
    return {**identity, "config.model": identity_of_model(model)}


def _refuse_differences(pairs: Mapping[str, tuple[Any, Any]], *, workdir: Any) -> None:
    for name, both in pairs.items():
        for field, now, then in differences(name, *both):
            raise _difference(field, now, then, workdir=workdir)


def _difference(field: str, now: Any, then: Any, *, workdir: Any) -> CheckpointError:
    """Returns the error for one value that differs, with a remedy that a user can follow."""
    for known in _DERIVED:
        found = re.fullmatch(known.name, field)
        if found is not None:
            return _of_derived(known, found, now, then, workdir=workdir)
    stage = re.fullmatch(r"(config\.stages\.\w+)\.(\w+)", field)
    kept = f"as config.json in {workdir} has it"
    if field == "config.stages":
        problem = f"The stages that have begun are {now!r}, but those of the checkpoint in "
        problem += f"{workdir} are {then!r}."
        remedy = f"Give the stages {', '.join(map(str, then))} first"
    elif stage is not None and stage[2] in _LENGTHS:
        field = f"{stage[1]}.{_LENGTHS[stage[2]]}"
        problem = f"The value makes {now!r} steps, but the checkpoint in {workdir} was trained "
        problem += f"with {then!r} steps."
        remedy = f"Set it {kept}"
    elif field in (f"config.{VALIDATE}", f"config.{EVALUATE}"):
        done = "validated" if field.endswith(VALIDATE) else "evaluated"
        problem = f"The model is {done} every {now!r} steps, but that of the checkpoint in "
        problem += f"{workdir} was {done} every {then!r} steps."
        remedy = f"Set it, and config.validate_unit, {kept}"
    else:
        problem = f"The value is {now!r}, but the checkpoint in {workdir} was trained with "
        problem += f"{then!r}."
        remedy = f"Set it {kept}" if isinstance(then, Mapping) else f"Set it to {then!r}"
    return CheckpointError(problem, f"{remedy} to resume, or use another --workdir.", where=field)


def _of_derived(
    known: _Derived, found: re.Match[str], now: Any, then: Any, *, workdir: Any
) -> CheckpointError:
    where, flag = found.expand(known.where), found.expand(known.flag)
    if then is None:
        problem = f"The checkpoint in {workdir} was trained without a {known.given}."
        remedy = "Set it to None to resume, or use another --workdir."
    else:
        had = f"the checkpoint in {workdir} was trained with"
        if now is None:
            problem = f"There is no {known.given}, but {had} one ({_fingerprint(then)})."
        else:
            problem = f"The {known.given} ({_fingerprint(now)}) is not the one that {had} "
            problem += f"({_fingerprint(then)})."
        remedy = f"Give that one with {flag} to resume, or use another --workdir."
    return CheckpointError(problem, remedy, where=where)


def _fingerprint(value: Any) -> str:
    """Returns the fingerprint of a set, a tokenizer, a list or weights, for a message."""
    return f"fingerprint {value['weights'] if isinstance(value, Mapping) else value}"


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
