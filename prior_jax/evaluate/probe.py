"""Linear probe: logistic regression on the features of the frozen image encoder.

There is one regression per finding on `ImageFeatures.pooled`, standardised on the training records.
The strength of the penalty is chosen once for all findings, on the validation records.
"""

import dataclasses
import functools
import importlib.util
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from prior_jax import near_names
from prior_jax.errors import ConfigError, DataError, check_field, check_least
from prior_jax.evaluate import bootstrap, labels, ranking
from prior_jax.evaluate.features import Pooled
from prior_jax.evaluate.results import TaskResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Training of the probe.

    Attributes:
      fraction: share of the training patients that the probe is trained on, 0 excluded to 1; 1 %,
        10 % and all in ConVIRT, arXiv:2010.00747, sec. 4.1. The patients of a smaller fraction are
        among those of a larger one.
      seed: seed of the choice of patients, >= 0.
      penalties: values of C to choose from, > 0: C is the inverse of the weight of the squared norm
        relative to the sum of the losses over the records.
      max_iterations: largest number of iterations of each regression, >= 1.
      policy: treatment of uncertain and unmentioned findings, in every split.
    """

    fraction: float
    seed: int
    penalties: tuple[float, ...]
    max_iterations: int
    policy: labels.LabelPolicy

    def __post_init__(self):
        """Refuses values with which nothing can be trained."""
        check_field(self, "fraction", 0.0 < self.fraction <= 1.0, "above 0 and at most 1")
        usable = bool(self.penalties) and all(0 < one < math.inf for one in self.penalties)
        check_field(self, "penalties", usable, "one or more finite numbers, all above 0")
        check_least(self, max_iterations=1, seed=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """Probe inputs of one split: features float32[N, F], and the truth [N, C]."""

    features: np.ndarray
    truth: labels.Truth


def evaluate_probe(
    *,
    train: Pooled,
    validate: Pooled,
    test: Pooled,
    train_patients: np.ndarray,
    test_patients: np.ndarray,
    label_names: Sequence[str],
    classes: Sequence[str],
    config: ProbeConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Trains on one split, chooses the penalty on another and measures on a third.

    Args:
      train: pooled features of the training split; all splits are encoded by the same encoder.
      validate: pooled features of the validation split, which choose the penalty by the macro
        AUROC; among equal ones the strongest penalty is chosen.
      test: pooled features of the test split, on which the metrics are measured.
      train_patients: patient of each row of `train`, [N].
      test_patients: patient of each row of `test`, [N]; the bootstrap resamples patients.
      label_names: label names of the data set, in the order of the labels.
      classes: names of the evaluated findings.
      config: settings of the probe's training.
      resampling: settings of the bootstrap intervals. The intervals are those of one trained probe;
        they do not include the variation from the choice of training patients.

    Returns:
      `macro_auroc`, `auroc_<class>`, `macro_average_precision`, `average_precision_<class>`. A
      class for which the chosen training records are all positive or all negative is NaN, with its
      reason in `settings["undefined"]`.

    Raises:
      ConfigError: if a class is not a label of the data set.
      DataError: if a split has no record.
    """
    kept = choose_patients(train_patients, fraction=config.fraction, seed=config.seed)
    mean, std = _standard(train.features[kept])
    read = functools.partial(
        _part, mean=mean, std=std, label_names=label_names, classes=classes, policy=config.policy
    )
    learnt, compared, measured = read(train, kept), read(validate), read(test)
    fit, chosen = _choose(learnt, compared, classes=classes, config=config)
    found = _measure(fit, measured, classes, np.asarray(test_patients), resampling)
    training = _of_training(fit, learnt, np.asarray(train_patients)[kept], classes)
    settings = {**found.settings, **dataclasses.asdict(config), **chosen, **training}
    return dataclasses.replace(found, settings=settings)


def check_installed() -> None:
    """Refuses to continue if scikit-learn is missing.

    Raises:
      ConfigError: if scikit-learn is missing; names the extra that installs it.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            "The linear probe needs the package scikit-learn, which is not installed.",
            "Run pip install 'prior_jax[probe]'.",
            where="task.task",
        )


def choose_patients(patients: np.ndarray, *, fraction: float, seed: int) -> np.ndarray:
    """Returns the rows of a share of the patients, with all rows of each chosen patient.

    Args:
      patients: patient of each row, str[N] or int[N].
      fraction: share of the distinct patients, rounded up.
      seed: seed of the choice; with the same seed, a smaller fraction's patients are a subset of a
        larger one's.

    Returns:
      Row numbers, int64[M], ascending.
    """
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    # The small subtraction makes 0.1 of 10 patients, 1.0000000000000002 in floating point, one
    # patient.
    count = int(np.ceil(fraction * len(names) - 1e-9))
    return np.flatnonzero(np.isin(member.reshape(-1), order[:count]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fit:
    """A linear score per class.

    It holds float64[F, C], float64[C], whether each class could be learnt, and whether each
    regression stopped too early.
    """

    weights: np.ndarray
    bias: np.ndarray
    learnt: tuple[bool, ...]
    unfinished: tuple[bool, ...]

    def scores(self, features: np.ndarray) -> np.ndarray:
        return features.astype(np.float64) @ self.weights + self.bias


def _fit(part: _Part, *, penalty: float, config: ProbeConfig) -> _Fit:
    """Fits one regression per class; a class that cannot be learnt gets the score 0."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    learnable = _learnable(part.truth)
    features, classes = part.features.shape[1], len(learnable)
    weights, bias = np.zeros((features, classes)), np.zeros(classes)
    unfinished = []
    for index in np.flatnonzero(learnable):
        rows = part.truth.known[:, index]
        model = LogisticRegression(C=penalty, max_iter=config.max_iterations)
        with warnings.catch_warnings():
            # Reported in the settings as `not_converged`.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(part.features[rows].astype(np.float64), part.truth.positive[rows, index])
        weights[:, index], bias[index] = model.coef_[0], np.ravel(model.intercept_)[0]
        unfinished.append(bool(np.max(model.n_iter_) >= config.max_iterations))
    return _Fit(weights=weights, bias=bias, learnt=tuple(learnable), unfinished=tuple(unfinished))


def _choose(
    train: _Part, validate: _Part, *, classes: Sequence[str], config: ProbeConfig
) -> tuple[_Fit, dict[str, Any]]:
    """Trains with each penalty, and compares them by the macro AUROC of the validation records.

    Returns:
      The best fit, that with the strongest penalty if none has an AUROC; and its penalty with the
      AUROC of each, for the settings.
    """
    once = np.ones((1, len(validate.features)), np.float32)
    fits: dict[float, _Fit] = {}
    areas: dict[float, float] = {}
    for penalty in sorted(config.penalties):
        fits[penalty] = _fit(train, penalty=penalty, config=config)
        scores = ranking.ranking(
            fits[penalty].scores(validate.features),
            validate.truth.positive,
            validate.truth.known,
            classes=classes,
            weights=once,
        )
        areas[penalty] = float(scores["macro_auroc"][0])
    # `max` keeps the first of equal values, which is the smallest C.
    chosen = max(areas, key=lambda penalty: np.nan_to_num(areas[penalty], nan=-1.0))
    return fits[chosen], {
        "chosen_penalty": chosen,
        "validation_macro_auroc": {f"{c:g}": _json(area) for c, area in areas.items()},
    }


def _measure(fit: _Fit, part: _Part, classes, groups, resampling) -> TaskResult:
    scores, truth = fit.scores(part.features), part.truth
    known = truth.known & fit.weights.any(axis=0)

    def statistics(weights):
        return ranking.ranking(scores, truth.positive, known, classes=classes, weights=weights)

    return TaskResult(
        metrics=bootstrap.intervals(statistics, groups=groups, config=resampling),
        settings={
            "classes": list(classes),
            "records": len(scores),
            "patients": len(np.unique(groups)),
            "positives": _positives(truth, classes),
            "chance": {"macro_auroc": 0.5}
            | {f"auroc_{near_names.slug(label)}": 0.5 for label in classes},
            "undefined": ranking.reasons(truth.positive, known, classes=classes)
            | _unlearnt(fit, classes),
            "bootstrap": dataclasses.asdict(resampling),
        },
    )


def _of_training(fit: _Fit, learnt: _Part, patients: np.ndarray, classes) -> dict[str, Any]:
    """Returns what the settings say about the records that the probe was trained on."""
    return {
        "not_converged": sum(fit.unfinished),
        "features": int(learnt.features.shape[1]),
        "train_records": len(learnt.features),
        "train_patients": len(np.unique(patients)),
        "train_positives": _positives(learnt.truth, classes),
    }


def _part(
    split: Pooled, rows: np.ndarray | None = None, *, mean, std, label_names, classes, policy
) -> _Part:
    """Standardises the features of a split's rows, and selects their truth."""
    features, states = split.features, split.labels
    if rows is not None:
        features, states = features[rows], states[rows]
    truth = labels.truth_of(states, label_names=label_names, classes=classes, policy=policy)
    return _Part(features=(features - mean) / std, truth=truth)


def _standard(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean and standard deviation, float32[F].

    The standard deviation of a constant feature is replaced by 1.
    """
    if not len(features):
        raise DataError(
            "The split 'train' has no record to train the probe on.",
            "Give a prepared set with records in this split.",
        )
    std = features.std(axis=0)
    return features.mean(axis=0), np.where(std > 0, std, np.float32(1))


def _learnable(truth: labels.Truth) -> list[bool]:
    """Returns whether each class has records with and without it."""
    each = [
        positive[known] for positive, known in zip(truth.positive.T, truth.known.T, strict=True)
    ]
    return [bool(positive.any() and not positive.all()) for positive in each]


def _unlearnt(fit: _Fit, classes: Sequence[str]) -> dict[str, str]:
    """Returns why metrics of the classes that could not be learnt are undefined."""
    return {
        f"{name}_{near_names.slug(label)}": "the training records are all positive or all negative "
        f"for {label}"
        for label, learnt in zip(classes, fit.learnt, strict=True)
        if not learnt
        for name in ranking.METRICS
    }


def _positives(truth: labels.Truth, classes) -> dict[str, int]:
    counts = (truth.positive & truth.known).sum(axis=0).tolist()
    return {near_names.slug(name): count for name, count in zip(classes, counts, strict=True)}


def _json(number: float) -> Any:
    return None if np.isnan(number) else number
