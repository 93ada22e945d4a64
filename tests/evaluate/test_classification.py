"""The task of a trained classifier: classes by name, thresholds, intervals and subgroups."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics as sk

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import classification, results
from prior_jax.evaluate.bootstrap import BootstrapConfig
from prior_jax.evaluate.labels import LabelPolicy
from prior_jax.strict import build

LABELS = ("Edema", "Effusion", "Fracture")
FEW = BootstrapConfig(resamples=20, confidence=0.9, seed=0)
CONFIG = classification.ClassificationConfig(
    bins=10,
    policy=LabelPolicy(uncertain="ignore", unmentioned="negative"),
    age_edges=(50,),
    least_patients=5,
)


def answers(count, *, seed, classes=2):
    rng = np.random.default_rng(seed)
    return classification.Scored(
        odds=rng.normal(size=(count, classes)).astype(np.float32),
        labels=rng.choice([1, 0, -1, -2], (count, len(LABELS))).astype(np.int8),
        record=np.arange(count),
    )


def measured(test, *, validation=None, matched=None, exclusive=False, members=None):
    return classification.evaluate_classification(
        test,
        validation=validation,
        matched=matched or classification.match(("Pleural Effusion", "Edema"), LABELS),
        label_names=LABELS,
        exclusive=exclusive,
        patients=np.arange(len(test.record)) // 2,
        members=members or {},
        config=CONFIG,
        resampling=FEW,
    )


def test_classes_are_matched_by_their_synonyms_and_the_rest_is_named():
    found = classification.match(("Mass", "Pleural Effusion", "edema"), LABELS)
    assert found.classes == ("Pleural Effusion", "edema") and found.columns == (1, 2)
    assert found.without_label == ("Mass",) and found.without_class == ("Fracture",)
    assert found.renamed == {"Pleural Effusion": "Effusion", "edema": "Edema"}


def test_the_values_are_those_of_sklearn():
    test, validation = answers(200, seed=1), answers(100, seed=2)
    found = measured(test, validation=validation)
    json.dumps(found.settings, allow_nan=False)
    for column, (name, label) in enumerate((("pleural_effusion", 1), ("edema", 0))):
        kept = test.labels[:, label] != -1
        truth = test.labels[kept, label] == 1
        probability = 1 / (1 + np.exp(-test.odds[kept, column].astype(np.float64)))
        answer = probability >= found.settings["thresholds"][name]
        for metric, expected in {
            "auroc": sk.roc_auc_score(truth, probability),
            "average_precision": sk.average_precision_score(truth, probability),
            "brier": sk.brier_score_loss(truth, probability),
            "f1": sk.f1_score(truth, answer),
            "f1_above_half": sk.f1_score(truth, probability > 0.5),
            "accuracy": sk.accuracy_score(truth, answer),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, answer),
            "balanced_accuracy_above_half": sk.balanced_accuracy_score(truth, probability > 0.5),
        }.items():
            metric = found.metrics[f"{metric}_{name}"]
            assert metric.value == pytest.approx(expected, abs=1e-9)
            assert metric.low <= metric.value <= metric.high


def test_without_validation_there_is_no_threshold_and_the_reason_is_given():
    found = measured(answers(60, seed=3))
    assert found.settings["thresholds"] == {"pleural_effusion": None, "edema": None}
    assert np.isnan(found.metrics["macro_f1"].value)
    assert "validate" in found.settings["undefined"]["macro_f1"]
    assert not np.isnan(found.metrics["macro_f1_above_half"].value)


def test_each_undefined_metric_has_its_own_reason_and_a_mean_says_over_how_many_classes():
    test, validation = answers(60, seed=3), answers(40, seed=5)
    validation.labels[validation.labels[:, 0] == 1, 0] = 0  # no positive of Edema
    test.labels[:, 2] = -1  # Fracture counts nowhere
    found = measured(
        answers_of(test, 3),
        validation=answers_of(validation, 3),
        matched=classification.match(("Pleural Effusion", "Edema", "Fracture"), LABELS),
    )
    reasons, metrics = found.settings["undefined"], found.metrics
    assert reasons.keys() == {name for name, one in metrics.items() if np.isnan(one.value)}
    for kind in ("f1", "accuracy", "balanced_accuracy"):
        assert reasons[f"{kind}_edema"] == (
            "validate has no positive of the class to choose a threshold by"
        )
        assert reasons[f"{kind}_fracture"] == "no record of the class is counted"
    assert reasons["auroc_fracture"] == "no record of Fracture is counted"
    lines = results.format_table(found, found).splitlines()
    assert (
        "f1_edema, accuracy_edema, balanced_accuracy_edema are undefined: "
        "validate has no positive of the class to choose a threshold by."
    ) in lines
    over = {line.split()[0]: line for line in lines if line.startswith("macro_")}
    assert over["macro_f1"].endswith("over 1 of 3 classes")
    assert over["macro_f1_above_half"].endswith("over 2 of 3 classes")
    assert metrics["macro_f1"].value == metrics["f1_pleural_effusion"].value


def answers_of(scored, classes):
    odds = np.random.default_rng(9).normal(size=(len(scored.record), classes))
    return dataclasses.replace(scored, odds=odds.astype(np.float32))


def test_small_groups_are_named_and_left_out_and_unknown_values_counted():
    sex = np.array(["F"] * 30 + ["M"] * 24 + ["X"] * 4 + [""] * 2)
    unknown = np.full(60, "")
    found = measured(answers(60, seed=4), members={"sex": sex, "age": unknown}).settings
    groups = found["subgroups"]["sex"]
    assert list(groups["rows"]) == ["F", "M"] and groups["left_out"] == {"X": 2}
    assert groups["records_without_a_value"] == 2 and "macro_auroc" in groups["gaps"]
    assert found["attributes_not_recorded"] == ["age"]


def test_exclusive_classes_are_answered_by_the_most_probable():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 90)
    labels = np.where(np.arange(3) == truth[:, None], 1, 0).astype(np.int8)
    labels[:10] = 1  # several classes at once are no answer
    logits = rng.normal(size=(90, 3))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    odds = np.log(softmax) - np.log1p(-softmax)
    test = classification.Scored(odds=odds, labels=labels, record=np.arange(90))
    found = measured(test, matched=classification.match(LABELS, LABELS), exclusive=True)
    answer = softmax[10:].argmax(axis=1)
    assert found.settings["records"] == 80
    for name, expected in {
        "accuracy": sk.accuracy_score(truth[10:], answer),
        "macro_f1": sk.f1_score(truth[10:], answer, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(truth[10:], answer),
        "macro_auroc": sk.roc_auc_score(truth[10:], softmax[10:], multi_class="ovr"),
    }.items():
        assert found.metrics[name].value == pytest.approx(expected, abs=1e-9)
    several = classification.Scored(odds=odds[:10], labels=labels[:10], record=np.arange(10))
    with pytest.raises(DataError, match="exactly one"):
        measured(several, matched=classification.match(LABELS, LABELS), exclusive=True)


def test_a_class_that_is_never_predicted_counts_as_0_in_macro_precision_and_says_why():
    truth = np.arange(30) % 3
    labels = np.where(np.arange(3) == truth[:, None], 1, 0).astype(np.int8)
    labels[:3] = 1  # no answer, and not counted
    odds = np.where(np.arange(3) == (truth % 2)[:, None], 2.0, -2.0)  # Fracture is never answered
    test = classification.Scored(odds=odds, labels=labels, record=np.arange(30))
    found = measured(test, matched=classification.match(LABELS, LABELS), exclusive=True)
    expected = sk.precision_score(truth[3:], truth[3:] % 2, average="macro", zero_division=0)
    assert found.metrics["macro_precision"].value == pytest.approx(expected)
    reasons = found.settings["undefined"]
    assert reasons == {"precision_fracture": "the class is never predicted"}
    assert set(found.settings["positives"].values()) == {9}
    assert set(found.settings["counted"].values()) == {found.settings["records"]} == {27}
    assert "over 2 of 3 classes" not in results.format_table(found, found)


def test_macro_recall_says_over_how_many_classes_it_is_where_one_is_not_there_at_all():
    truth = np.arange(30) % 2
    labels = np.where(np.arange(3) == truth[:, None], 1, 0).astype(np.int8)
    odds = np.where(np.arange(3) == truth[:, None], 2.0, -2.0)
    test = classification.Scored(odds=odds, labels=labels, record=np.arange(30))
    found = measured(test, matched=classification.match(LABELS, LABELS), exclusive=True)
    lines = results.format_table(found, found).splitlines()
    over = {line.split()[0]: line for line in lines if line.startswith("macro_")}
    for kind in ("precision", "recall", "f1"):
        assert over[f"macro_{kind}"].endswith("over 2 of 3 classes")
    assert found.settings["undefined"]["recall_fracture"] == "no positive of the class is counted"


@pytest.mark.parametrize(
    ("field", "value"), [("bins", 0), ("least_patients", 0), ("age_edges", (60, 40))]
)
def test_wrong_settings_are_refused_by_name(field, value):
    section = {
        "bins": 1,
        "policy": {"uncertain": "ignore", "unmentioned": "negative"},
        "age_edges": (),
        "least_patients": 1,
        field: value,
    }
    with pytest.raises(ConfigError, match=rf"task\.{field}"):
        build(classification.ClassificationConfig, section, name="task")
