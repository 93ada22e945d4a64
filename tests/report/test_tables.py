"""The tables of results: their words, notes and places on the axis."""

import pytest

from prior_jax.report import tables


@pytest.mark.parametrize(("value", "said"), [(0.271, True), (0.28, False)])
def test_a_calibration_error_below_its_interval_is_explained(value, said):
    error = {"value": value, "low": 0.273, "high": 0.342}
    metrics = {"macro_brier": {"value": 0.1, "low": 0.2, "high": 0.3}}
    metrics["macro_calibration_error"] = error
    content = {"task": "classification", "metrics": metrics, "untrained": {}, "settings": {}}
    notes = tables.task_of(content).notes
    assert [("arXiv:2012.08668" in note) for note in notes] == [True] * said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("macro_f1", "Macro F1"),
        ("precision_at_5", "Precision at 5"),
        ("report_to_image_recall_at_10", "Recall at 10"),
        ("auroc_pleural_effusion", "Pleural effusion"),
        ("kappa", "Cohen's kappa"),
        ("zero_shot", "Zero shot"),
    ],
)
def test_names_become_words(name, words):
    assert tables.words(name) == words


def test_places_on_the_axis_are_in_range_and_make_room_for_a_negative_kappa():
    content = {
        "task": "t",
        "metrics": {"kappa": {"value": -0.04, "low": -0.14, "high": 0.1}},
        "untrained": {"kappa": {"value": 0.0, "low": None, "high": None}},
        "settings": {},
    }
    table = tables.task_of(content).tables[0]
    assert table.axis == ("-0.2", "1.0")
    mark = table.rows[0].trained
    assert 0 <= mark.low < mark.value < mark.high <= 100
    assert table.rows[0].untrained.low is None
    assert table.rows[0].untrained.value == pytest.approx(100 * 0.2 / 1.2, abs=0.01)


@pytest.mark.parametrize(("value", "shown"), [(0.0, True), (0.4, True), (None, False)])
def test_a_headline_of_zero_is_shown_and_one_without_a_value_is_not(value, shown):
    metric = {"value": value, "low": value, "high": value}
    content = {"task": "t", "metrics": {"pixel_dice": metric}, "untrained": {}, "settings": {}}
    found = tables.headlines([tables.task_of(content)])
    assert [row.name for _, row in found] == ["pixel_dice"] * shown
