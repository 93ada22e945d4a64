"""Zero-shot classification: the class whose sentences are closest to the image.

The score of a class is the pooled similarity of the image to its affirming prompts, minus, if the
prompt table holds denials, that to its denying prompts. The settings of the papers' scores:

* PRIOR: `normalise` "softmax" and `local_weight` 0.5, with the prompts "release": the release adds
  a softmax of each part of the similarity.
* GLoRIA: `pool` "max" and `normalise` "z-score", with the prompts "gloria" or "gloria_release".
* CXR-CLIP (arXiv:2310.13292): `pool` "mean" for several classes; also `denial` "softmax" for each
  finding by itself, with a file of prompts such as "X" against "No X".
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from prior_jax import near_names
from prior_jax.errors import DataError, check_choice, check_field, check_least
from prior_jax.evaluate import bootstrap, labels, over_seeds, prompts
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens, fitting
from prior_jax.evaluate.prompt_scores import (
    Denial,
    Normalise,
    Pool,
    class_scores,
    normalised,
)
from prior_jax.evaluate.results import TaskResult
from prior_jax.evaluate.zero_shot_metrics import Answered
from prior_jax.objectives.base import SimilarityKind
from prior_jax.types import Batch

Mode = Literal["multi_label", "multi_class"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Draws of the same number of records of every class, whose metrics are averaged.

    Attributes:
      each: number of records of each class, 200 for 5x200.
      seeds: seed of each draw. PRIOR reports five, 114514 to 114518 (QtacierP/PRIOR issue 10); our
        generator draws other records by the same seed.
    """

    each: int
    seeds: tuple[int, ...]

    def __post_init__(self):
        """Refuses draws of nothing."""
        check_least(self, each=1)
        usable = min(self.seeds, default=-1) >= 0 and len(set(self.seeds)) == len(self.seeds)
        check_field(self, "seeds", usable, "one or more different seeds, all at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """Settings of zero-shot classification and its metrics.

    Attributes:
      mode: records that count: "multi_label" counts every record that the policy knows for a
        class's AUROC, but accuracy, F1 and kappa only on records with exactly one positive class;
        "multi_class" uses only those records for every metric (the 5x200 protocol of GLoRIA, ICCV
        2021, sec. 4.1, on a split drawn for it).
      pool: pooling over several sentences of a class: "mean", or "max" as in GLoRIA and in the
        release's global score.
      normalise: normalisation of the scores: "softmax" replaces a record's scores by their softmax
        over the classes, as the release does; the predicted class stays the same, the AUROC can
        change. "z-score" scales a class's scores over the records to mean 0 and deviation 1, as
        GLoRIA's release does; the class's AUROC stays the same, the predicted class can change. The
        records are those that `mode` counts, all of the split with "multi_label", and those of a
        draw by themselves.
      policy: treatment of uncertain and unmentioned findings.
      block: number of images and sentences compared at once.
      local_weight: weight of the local part of the similarity, where both parts are pooled and
        normalised by themselves and then added, as PRIOR's release does with 0.5 (arXiv:2307.12577;
        codes/prior/downstream/zero_classification_model.py, `shared_step`; quirk P46). None scores
        by the objective's similarity as a whole.
      draws: further measurements on draws of the records with one positive class; None for none.
        Not with "z-score" and `local_weight` together: the parts are added before the draws.
      denial: treatment of the denying prompts: "subtract" them from the affirming ones; "softmax"
        gives the affirming ones' share in a softmax over the two, as CXR-CLIP does. It is above 0.5
        where affirmation is the more similar, and ranks records and classes as the difference does;
        from a difference of 37 on, where it is 1 to the last digit, records are tied.
    """

    mode: Mode
    pool: Pool
    normalise: Normalise
    policy: labels.LabelPolicy
    block: int
    denial: Denial = "subtract"
    local_weight: float | None = None
    draws: DrawConfig | None = None

    def __post_init__(self):
        """Refuses unknown choices, useless weights, and draws that cannot be standardised."""
        choice = {"mode": Mode, "pool": Pool, "normalise": Normalise, "denial": Denial}
        for field, choices in choice.items():
            check_choice(self, field, get_args(choices))
        check_least(self, block=1)
        weight = self.local_weight
        usable = weight is None or 0 <= weight < math.inf
        check_field(self, "local_weight", usable, "finite and at least 0, or None")
        fits = self.draws is None or weight is None or self.normalise != "z-score"
        check_field(self, "draws", fits, "None where normalise is 'z-score' with a local_weight")


def evaluate_zero_shot(
    encoder: Encoder,
    batches: Iterable[Batch],
    *,
    table: prompts.PromptTable,
    tokens: ReportTokens,
    label_names: Sequence[str],
    patients: Sequence[str] | np.ndarray,
    config: ZeroShotConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Encodes a split, scores every class and computes the metrics.

    Args:
      encoder: encoder of the evaluated model.
      batches: batches of one pass over the split.
      table: prompts, from `prompts.prompt_table`.
      tokens: tokens of `table.texts`, in their order.
      label_names: label names of the data set, in the order of `Batch.labels`.
      patients: patient of each record of the split, [records]; the bootstrap resamples patients.
      config: settings of zero-shot classification.
      resampling: settings of the bootstrap intervals.

    Returns:
      `macro_auroc`, `auroc_<class>`, `accuracy`, `macro_f1`, `kappa`,
      `macro_average_precision`, `average_precision_<class>`, `macro_precision`, `macro_recall`.

    Raises:
      ConfigError: if a class is not a label of the data set.
      DataError: if a similarity is not finite, or the prompts and their tokens do not match.
    """
    _check_tokens(tokens, table)
    studies = encoder.studies(batches, reports=False)
    reports = encoder.prompts(tokens, block=fitting(config.block, len(tokens.tokens)))
    chosen = labels.select_columns(
        studies.labels,
        label_names=label_names,
        classes=table.classes,
        field="task.classes",
    )
    single = labels.apply_policy(chosen, policy=config.policy).single
    over = single if config.mode == "multi_class" else None
    found = measure(
        _scores(encoder, studies.images, reports, table=table, config=config, over=over),
        chosen,
        classes=table.classes,
        groups=np.asarray(patients)[studies.record],
        config=config,
        resampling=resampling,
    )
    return dataclasses.replace(found, settings={**found.settings, "prompts": _asked(table)})


def _check_tokens(tokens: ReportTokens, table: prompts.PromptTable) -> None:
    """Refuses tokens of another number of sentences than the table has."""
    if len(tokens.tokens) != len(table.texts):
        raise DataError(
            f"The table needs {len(table.texts)} tokenised prompts, but the number given is "
            f"{len(tokens.tokens)}.",
            "Tokenise all texts of the table, in their order.",
        )


def _asked(table: prompts.PromptTable) -> dict[str, dict[str, list[str]]]:
    """Returns the sentences that affirm and that deny each class."""
    found: dict[str, dict[str, list[str]]] = {
        name: {"affirm": [], "deny": []} for name in table.classes
    }
    for text, owner, affirms in zip(table.texts, table.owner, table.affirms, strict=True):
        found[table.classes[owner]]["affirm" if affirms else "deny"].append(text)
    return found


def _scores(encoder, images, reports, *, table, config, over) -> np.ndarray:
    """Returns the scores of the classes, of the whole similarity or of its parts, float[N, C]."""
    rows, columns = (fitting(config.block, len(found.global_)) for found in (images, reports))

    def part(kind: SimilarityKind) -> np.ndarray:
        return class_scores(
            encoder.similarity(images, reports, block=rows, columns=columns, kind=kind),
            table=table,
            pool=config.pool,
            normalise=config.normalise,
            denial=config.denial,
            over=over,
        )

    if config.local_weight is None:
        return part("both")
    return part("global") + np.float32(config.local_weight) * part("local")


def measure(
    scores: np.ndarray,
    label_columns: np.ndarray,
    *,
    classes: Sequence[str],
    groups: np.ndarray,
    config: ZeroShotConfig,
    resampling: bootstrap.BootstrapConfig,
) -> TaskResult:
    """Computes the metrics from a score for every record and class.

    Args:
      scores: scores, float[N, C].
      label_columns: label states of the same classes, int8[N, C].
      classes: names of the classes.
      groups: patient of each record, [N].
      config: settings, of which `mode`, `policy` and `draws` are used, and `normalise` for draws.
      resampling: settings of the bootstrap intervals.

    Returns:
      The metrics that `evaluate_zero_shot` names. An undefined metric is NaN, with its reason in
      `settings["undefined"]`; a class without AUROC is left out of the macro averages, and
      `settings["classes_left_out_of_macro"]` counts such classes.
    """
    truth = labels.apply_policy(label_columns, policy=config.policy)
    # A record with exactly one positive class counts for every class, mentioned or not.
    counted = (
        np.broadcast_to(truth.single[:, None], truth.known.shape)
        if config.mode == "multi_class"
        else truth.known
    )
    answered = Answered(
        scores=scores,
        positive=truth.positive,
        counted=counted,
        single=np.flatnonzero(truth.single),
        classes=tuple(classes),
    )
    found = bootstrap.intervals(answered.rows, groups=groups, config=resampling)
    undefined = answered.reasons(found)
    return TaskResult(
        metrics=found,
        settings={
            **_settings(answered, groups=groups, config=config),
            "undefined": undefined,
            "classes_left_out_of_macro": sum(name.startswith("auroc_") for name in undefined),
            "bootstrap": dataclasses.asdict(resampling),
            **_over_draws(answered, config=config, resampling=resampling),
        },
    )


def _over_draws(answered: Answered, *, config, resampling) -> dict[str, Any]:
    """Returns the metrics over draws of the records with one positive class, if any are asked for.

    Raises:
      DataError: if a class has too few records.
    """
    if config.draws is None:
        return {}
    right, classes = answered.right, answered.classes
    counts = np.bincount(right, minlength=len(classes))
    if counts.min() < config.draws.each:
        raise DataError(
            f"{config.draws.each} records of each class are to be drawn, but the numbers with "
            f"exactly one positive class are {dict(zip(classes, counts.tolist(), strict=True))}.",
            "Lower --task.zero_shot.draws.each, or choose a larger set or split.",
        )
    how: Normalise = "z-score" if config.normalise == "z-score" else "none"
    found = over_seeds.over_draws(
        answered.scores[answered.single],
        right,
        draws=[
            over_seeds.draw_per_class(right, each=config.draws.each, seed=seed)
            for seed in config.draws.seeds
        ],
        classes=classes,
        confidence=resampling.confidence,
        within=lambda drawn: normalised(drawn, how=how, axis=0),
    )
    return {"over_draws": {name: value.to_json() for name, value in found.items()}}


def _settings(answered: Answered, *, groups, config) -> dict[str, Any]:
    classes, counted = answered.classes, answered.counted
    names = [near_names.slug(name) for name in classes]
    positives = (answered.positive & counted).sum(axis=0)
    counts = np.bincount(answered.right, minlength=len(classes))
    return {
        **{k: v for k, v in dataclasses.asdict(config).items() if k != "block"},
        "classes": list(classes),
        "records": len(counted),
        "patients": len(np.unique(groups)),
        "records_with_one_positive_class": len(answered.single),
        "positives": dict(zip(names, positives.tolist(), strict=True)),
        "counted": dict(zip(names, counted.sum(axis=0).tolist(), strict=True)),
        "chance": {
            "macro_auroc": 0.5,
            **({"accuracy": 1.0 / len(classes), "kappa": 0.0} if len(classes) > 1 else {}),
            **{f"auroc_{name}": 0.5 for name in names},
        },
        "largest_class_share": float(counts.max() / counts.sum()) if counts.sum() else None,
    }
