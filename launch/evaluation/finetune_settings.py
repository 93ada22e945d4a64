"""The settings of the tasks that train a model."""

import ast
import dataclasses
import math
import pathlib
import runpy
from typing import Any

from ml_collections import ConfigDict

from prior_jax.data import fractions
from prior_jax.errors import ConfigError, check_field, check_least, first_line
from prior_jax.near_names import no_config

_SUFFIX = ".py"
FRACTION_RULE: fractions.Rule = "stratified"
"""The rule that chooses the labelled part, unless the training keeps that of its config."""
KEEPS = ("images", "fraction", "length")
"""What a training may take from its config; see `FinetuneConfig.keeps`."""
EPOCHS = 100.0
"""Passes in the files of tasks; a training that keeps the length of its config does not read it."""
_OF_THE_TASK = {"data.path": "--task.data.path", "model.classes": "--task.classes"}
"""Settings that the task fills in and measures by, with the flag that sets them for both."""
_FRACTION = {"data.fraction": "--task.finetune.fraction"}
_KEPT_FRACTION = {
    f"data.fraction.{name}": "--task.finetune.config" for name in ("share", "rule", "seed")
}
"""The same of the labelled part, where it is the task's own and where it is that of the config."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """The training of a model on a labelled part of a set.

    Attributes:
      name: name of the way of training, the first part of the name of the results: letters and
        digits, such as "finetune" or "linear".
      config: file of a config of the task's objective under `configs/finetune`, with ":argument"
        where it takes one.
      overrides: changes of that config, "name=value" each. They are applied last, over what the
        task itself fills in. Where the fraction of the config is kept, `data.fraction.ids` names
        the paper's list of training records.
      fraction: share of the training patients whose labels are learnt, 0 excluded to 1; 1 %, 10 %
        and all in ConVIRT, arXiv:2010.00747, sec. 4.1.
      seed: seed of the choice of patients, of the order of the batches, of the head and, in the
        random baseline, of the encoder; 0 to 2**32 - 1.
      epochs: number of passes over the labelled part, above 0 and finite.
      max_steps: largest number of steps of the training, whatever the passes, >= 1; None for no
        limit.
      validations: number of times that the model is measured on the validation split, >= 1. The
        checkpoint with the best `config.checkpoint.best_metric` there, the macro AUROC of a
        classifier, is the one that is evaluated.
      keeps: what the training takes from its config, as the protocol of a paper does, where it
        otherwise takes it from the model or the task: "images" for size and normalisation,
        "fraction" for the rule that chooses the labelled part, whose share must be `fraction` (in
        which order, `labelled_part` says), and "length" for the stages and the validations, instead
        of `epochs` and `validations`.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    fraction: float
    seed: int
    epochs: float
    max_steps: int | None
    validations: int
    keeps: tuple[str, ...] = ()

    def __post_init__(self):
        """Refuses values with which nothing can be trained, and a config that does not exist."""
        plain = self.name.replace("_", "").isalnum()
        check_field(self, "name", plain, "letters, digits and '_'")
        check_field(self, "fraction", 0 < self.fraction <= 1, "above 0 and at most 1")
        check_field(self, "seed", 0 <= self.seed < 2**32, "an integer from 0 to 2**32 - 1")
        check_field(self, "epochs", 0 < self.epochs < math.inf, "a finite number above 0")
        some = self.max_steps is None or self.max_steps >= 1
        check_field(self, "max_steps", some, "at least 1, or None")
        check_least(self, validations=1)
        if "length" in self.keeps and self.epochs != EPOCHS:
            raise ConfigError(
                f"The value is {self.epochs:g}, but the training keeps the length of its config.",
                "Leave it out, or shorten the training by --task.finetune.max_steps.",
                where="epochs",
            )
        fraction = _KEPT_FRACTION if "fraction" in self.keeps else _FRACTION
        known = set(self.keeps) <= set(KEEPS)
        check_field(self, "keeps", known, f"a tuple of some of {', '.join(KEEPS)}")
        exists = file_of(self.config)[0].is_file()
        check_field(self, "config", exists, "a file of configs/finetune, with or without :argument")
        for change in self.overrides:
            name, _, _ = change.partition("=")
            given = "=" in change and name.strip()
            check_field(self, "overrides", bool(given), "a tuple of 'name=value'")
            for setting, flag in (_OF_THE_TASK | fraction).items():
                if _overlap(name.strip(), setting):
                    raise ConfigError(
                        f"The override {change!r} would train on what is not measured.",
                        f"Set {flag} instead.",
                        where="overrides",
                    )

    @property
    def result(self) -> str:
        """Returns the name of the results, such as `linear_1_percent`."""
        if self.fraction == 1:
            return self.name
        percent = f"{100 * self.fraction:g}".replace(".", "_")
        return f"{self.name}_{percent}_percent"


def _overlap(one: str, other: str) -> bool:
    """Tells whether two names of a config are the same setting, or one is a part of the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def file_of(path: str) -> tuple[pathlib.Path, str | None]:
    """Splits "file.py:argument" into the file and the argument; None for no argument."""
    file, given, argument = path.partition(f"{_SUFFIX}:")
    return (pathlib.Path(f"{file}{_SUFFIX}"), argument) if given else (pathlib.Path(path), None)


def read_file(path: str, *, where: str) -> ConfigDict:
    """Returns the config of a file, "file.py" or "file.py:argument".

    Args:
      path: path of the file, with its argument.
      where: name of the setting that names the file, for the error message.

    Raises:
      ConfigError: if there is no such file, it makes no config, or it refuses the argument.
    """
    file, argument = file_of(path)
    if not file.is_file():
        raise ConfigError(no_config(str(file)), "Give the file of a config.", where=where)
    try:
        make = runpy.run_path(str(file)).get("get_config")
        if make is not None:
            return make() if argument is None else make(argument)
    except (ConfigError, SyntaxError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, ConfigError) else first_line(error)
        raise ConfigError(
            f"{path!r} makes no config ({reason.rstrip('.')}).",
            "Give the file of a config, with ':' and an argument only if the file takes it.",
            where=where,
        ) from error
    raise ConfigError(
        f"The file {file} has no function get_config.", "Give the file of a config.", where=where
    )


def training_config(wanted: FinetuneConfig, objective: str) -> ConfigDict:
    """Returns the config of a training as its file makes it.

    Args:
      wanted: settings of the training.
      objective: objective of the task.

    Raises:
      ConfigError: if it cannot be read, is of another objective, or keeps another share of the set
        than the task names.
    """
    where = "task.finetune.config"
    config = read_file(wanted.config, where=where)
    if config.get("objective") != objective:
        raise ConfigError.of_value(where, wanted.config, f"a config of the objective {objective!r}")
    own = config.data.get("fraction")
    share = 1.0 if own is None else own.share
    if "fraction" in wanted.keeps and not math.isclose(share, wanted.fraction):
        raise ConfigError.of_value(
            "task.finetune.fraction", wanted.fraction, f"{share:g}, the share of {wanted.config}"
        )
    return config


def override(config: ConfigDict, changes: tuple[str, ...]) -> None:
    """Changes values of a config in place.

    Args:
      config: config to change.
      changes: "name=value" each; the value is a Python literal, or else a string.

    Raises:
      ConfigError: for a name that the config does not have, or a value of another type.
    """
    for change in changes:
        name, _, text = (part.strip() for part in change.partition("="))
        *sections, last = name.split(".")
        try:
            section: Any = config
            for one in sections:
                section = section[one]
            if not isinstance(section, ConfigDict) or last not in section:
                raise KeyError(last)
            section[last] = _value(text)
        except (KeyError, TypeError, AttributeError) as error:
            wrong = isinstance(error, TypeError) and "type" in str(error)
            raise ConfigError(
                f"The override {change!r} gives a value of another type."
                if wrong
                else f"The override {change!r} names nothing in the config.",
                "Give 'name=value' with a setting of the config, such as "
                "'stages.finetune.learning_rate=1e-4'.",
                where="task.finetune.overrides",
            ) from error


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
