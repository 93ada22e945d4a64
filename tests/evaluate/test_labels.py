import numpy as np
import pytest

from prior_jax.errors import ConfigError
from prior_jax.evaluate import labels

LABELS = np.array([[1, 0, -2], [1, -1, 0], [1, 1, 0], [-2, -2, -2], [0, -1, 0]], np.int8)


def apply(uncertain, unmentioned):
    policy = labels.LabelPolicy(uncertain=uncertain, unmentioned=unmentioned)
    return labels.apply_policy(LABELS, policy=policy)


def test_ignored_labels_are_not_counted():
    truth = apply("ignore", "ignore")
    np.testing.assert_array_equal(truth.known, (LABELS == 0) | (LABELS == 1))
    np.testing.assert_array_equal(truth.positive & truth.known, LABELS == 1)


def test_negative_and_positive_count_as_they_say():
    np.testing.assert_array_equal(apply("negative", "negative").positive, LABELS == 1)
    assert apply("negative", "negative").known.all()
    truth = apply("positive", "negative")
    np.testing.assert_array_equal(truth.positive, (LABELS == 1) | (LABELS == -1))


def test_an_open_question_keeps_a_record_from_having_one_class():
    assert apply("ignore", "negative").single.tolist() == [True, False, False, False, False]
    assert apply("negative", "ignore").single.tolist() == [True, True, False, False, False]
    assert apply("positive", "negative").single.tolist() == [True, False, False, False, True]


def test_columns_follow_the_classes_whatever_their_spelling():
    found = labels.select_columns(
        LABELS,
        label_names=["Edema", "Pleural Effusion", "Mass"],
        classes=["mass", "Effusion"],
        field="task.classes",
    )
    np.testing.assert_array_equal(found, LABELS[:, [2, 1]])


@pytest.mark.parametrize("classes", [["Gout"], ["Edema", "edema"], []])
def test_classes_the_data_does_not_have_are_refused_by_name(classes):
    with pytest.raises(ConfigError, match=r"task\.classes.*Edema"):
        labels.select_columns(
            LABELS[:, :1], label_names=["Edema"], classes=classes, field="task.classes"
        )


def test_a_label_of_no_meaning_is_refused():
    policy = labels.LabelPolicy(uncertain="ignore", unmentioned="ignore")
    with pytest.raises(ValueError, match="-3"):
        labels.apply_policy(np.array([[-3]]), policy=policy)


def test_an_unknown_policy_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"^uncertain: "):
        labels.LabelPolicy(uncertain="maybe", unmentioned="ignore")


def test_two_labels_of_a_set_that_are_one_class_are_refused():
    given = np.zeros((1, 3), np.int8)
    names = ("Effusion", "Edema", "Pleural Effusion")
    with pytest.raises(ConfigError, match="The labels Effusion and Pleural Effusion of the data"):
        labels.select_columns(given, label_names=names, classes=("effusion",), field="task.classes")
    labels.select_columns(given, label_names=names, classes=("Edema",), field="task.classes")
    with pytest.raises(ConfigError, match=r"are the same class.*--task\.exclude"):  # by default
        labels.select_columns(given, label_names=names, classes=names, field="task.classes")
