"""The task "classification" on a prepared set, with a classifier of random weights."""

import dataclasses

import jax
import pytest

from configs.eval import classification
from launch.evaluation import classify
from launch.evaluation.task_results import measure, remarks
from launch.evaluation.tasks import task_of
from prior_jax.errors import ConfigError
from tests import fixtures
from tests.launch import subjects

CLASSES = ("Pleural Effusion", "Cardiomegaly", "Mass")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    path = subjects.write_set(folder / "set")
    return subjects.classifier(path, folder, classes=CLASSES)


def task(**changes):
    config = classification.get_config()
    config.batch_size = 16
    config.bootstrap.resamples = 20
    config.classification.least_patients = 5
    config.update(changes)
    return task_of(config)


def test_a_classifier_is_measured_by_class_and_subgroup(subject):
    opened = subjects.splits_of(subject)
    with jax.set_mesh(subject.place.mesh):
        found = measure(task(), subject.trained, subject=subject, opened=opened)
        other = measure(task(), subject.untrained, subject=subject, opened=opened)
    assert found.settings["classes"] == ["Pleural Effusion", "Cardiomegaly"]
    assert set(found.settings["subgroups"]) == {"sex", "age", "view"}
    assert set(found.settings["subgroups"]["view"]["rows"]) == {"AP", "PA"}
    assert found.metrics["macro_brier"].value != other.metrics["macro_brier"].value
    assert 0 <= found.metrics["macro_auroc"].value <= 1


def test_what_has_no_partner_is_said(subject):
    said = remarks(task(), subject, subjects.splits_of(subject)("test"))
    assert said == [
        "Pleural Effusion is the label Effusion",
        "classes without a label of the set: Mass",
        "labels that the model does not tell: No Finding",
    ]


def test_thresholds_of_the_split_that_is_measured_are_said(subject):
    opened = subjects.splits_of(subject)
    said = remarks(task(split="validate"), subject, opened("validate"))
    assert sum("thresholds are chosen on the split that is measured" in one for one in said) == 1


def test_classes_with_too_few_positives_are_named_in_the_results(subject):
    opened = subjects.splits_of(subject)
    names, positives = opened("test").split.label_names, (opened("test").labels == 1).sum(axis=0)
    counts = dict(zip(names, positives.tolist(), strict=True))
    few = min(("Effusion", "Cardiomegaly"), key=lambda name: counts[name])
    given = task(min_positives=counts[few] + 1)
    said = remarks(given, subject, opened("test"))
    assert f"{counts[few]} positive records in test" in said[-1]
    with jax.set_mesh(subject.place.mesh):
        found = measure(given, subject.trained, subject=subject, opened=opened)
    (name,) = found.settings["left_out"]
    assert name not in found.settings["classes"] and name.endswith(few)


def test_classes_are_chosen_or_refused_by_name(subject):
    data = subjects.splits_of(subject)("test")
    objective = classify.classifier_of(subject, task="classification")
    found = classify.chosen(task(classes=("effusion",)), objective, data)
    assert found.classes == ("Pleural Effusion",) and found.columns == (0,)
    assert classify.chosen(task(exclude=("effusion",)), objective, data).columns == (1,)
    with pytest.raises(ConfigError, match=r"task\.classes.*not trained to tell Gout"):
        classify.chosen(task(classes=("Gout",)), objective, data)
    with pytest.raises(ConfigError, match="None of the model's classes"):
        classify.chosen(task(exclude=("effusion", "Cardiomegaly")), objective, data)


def test_another_model_is_refused_with_the_remedy(subject):
    other = dataclasses.replace(subject, objective=object(), objective_name="gloria")
    with pytest.raises(ConfigError, match=r"'gloria'.*configs/finetune.*probe\.py"):
        measure(task(), other.trained, subject=other, opened=lambda _: None)


def test_a_set_without_a_validation_split_has_no_thresholds(tmp_path):
    records = [subjects.study(i) for i in range(30)]
    path = fixtures.write_splits(tmp_path / "set", {"train": [], "validate": [], "test": records})
    found = subjects.classifier(path, tmp_path, classes=CLASSES[:2])
    with jax.set_mesh(found.place.mesh):
        result = measure(task(), found.trained, subject=found, opened=subjects.splits_of(found))
    assert result.settings["thresholds"] == {"pleural_effusion": None, "cardiomegaly": None}
