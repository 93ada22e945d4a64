import base64
import json
import re

import numpy as np
import pytest

from prior_jax.evaluate import local_use
from prior_jax.report import charts, curves
from prior_jax.report.losses import Losses


def write(path, records, tail=""):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail)
    return path


def record(step, stage="stage1", **numbers):
    return {"step": step, "stage": stage, "lr": 1e-4, **numbers}


def titles(of):
    return [chart.title for chart in of]


def test_every_number_has_a_chart_with_the_total_first(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        [
            record(
                s, local_image_loss=1.0, total_loss=2.0, gradient_norm=3.0, input_wait=0.1, odd=s
            )
            for s in range(5)
        ],
    )
    drawn = curves.draw(curves.read_log(path))
    assert titles(drawn.losses) == ["Total loss", "Local image loss"]
    assert titles(drawn.others) == [
        "Learning rate",
        "Gradient norm",
        "Share of time waiting for input",
        "Odd",
    ]


def test_a_loss_without_weight_in_every_stage_is_marked():
    weights = {
        "stage1": {"local_image": 0.0, "local_text": 0.0},
        "stage2": {"local_image": 0.0, "local_text": 1.0, "prototype": 1.0},
    }
    records = [
        record(s, stage, local_image_loss=1.0, local_text_loss=1.0, prototype_loss=1.0)
        for s, stage in enumerate(weights)
    ]
    drawn = curves.draw(curves.Log(records=records, unreadable=0), losses=Losses(weights=weights))
    assert titles(drawn.losses) == [
        "Local image loss (weight 0: measured, not trained)",
        "Local text loss",
        "Prototype loss",
    ]


def test_charts_of_the_use_of_the_image_say_what_is_good_and_name_the_number():
    for name in local_use.NAMES:
        assert curves.title_of(name).endswith(f"({name})")
    assert "above 0 is good" in curves.title_of(local_use.NAMES[0])
    share = curves.title_of(local_use.SHARE)
    assert f"below {local_use.UNUSED} the texts hardly depend on the image" in share


@pytest.mark.parametrize("marked", [True, False])
def test_points_at_the_last_step_are_drawn_whole(marked):
    series = charts.Series(steps=np.array([0.0, 5.0]), values=np.array([0.2, 0.4]))
    chart = charts.line_chart(
        "Dice",
        series,
        held_out=None if marked else series,
        stages=[charts.Stage(name="all", first=0, last=5)],
        logarithmic=False,
        marked=marked,
    )
    drawn = base64.b64decode(chart.light.partition(",")[2]).decode()
    assert "<use" in drawn and not re.search(r"<g clip-path=[^>]*>\s*<use", drawn)


def test_a_file_that_a_kill_cut_off_is_read_as_far_as_it_goes(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [record(1), record(2)], tail='{"step": 3, "sta')
    log = curves.read_log(path)
    assert [r["step"] for r in log.records] == [1, 2]
    assert log.unreadable == 1


def test_of_two_lines_of_a_step_the_later_counts_and_steps_are_sorted(tmp_path):
    path = write(tmp_path / "m", [record(2, a=1.0), record(1, a=5.0), record(2, a=3.0)])
    series = curves.series_of(curves.read_log(path).records, "a")
    np.testing.assert_array_equal(series.steps, [1, 2])
    np.testing.assert_array_equal(series.values, [5, 3])


@pytest.mark.parametrize("line", ["[]", "3", '{"loss": 1}', '{"step": "x"}', '{"step": null}', "{"])
def test_a_line_that_is_no_record_is_counted(tmp_path, line):
    log = curves.read_log(write(tmp_path / "m", [record(1)], tail=line + "\n"))
    assert len(log.records) == 1 and log.unreadable == 1


def test_no_file_and_an_empty_file_are_an_empty_log(tmp_path):
    (tmp_path / "empty").write_text("")
    for name in ("absent", "empty"):
        log = curves.read_log(tmp_path / name)
        assert list(log.records) == [] and log.unreadable == 0


def test_null_and_nan_are_left_out(tmp_path):
    records = [record(1, a=None), record(2, a=5.0), record(3), record(4, a=7), record(5, a="x")]
    path = write(tmp_path / "m", records, tail='{"step": 6, "stage": "stage1", "a": NaN}\n')
    series = curves.series_of(curves.read_log(path).records, "a")
    np.testing.assert_array_equal(series.steps, [2, 4])
    np.testing.assert_array_equal(series.values, [5, 7])
    assert curves.series_of([record(1, a=None)], "a") is None


def test_a_number_that_is_never_finite_has_no_chart():
    drawn = curves.draw(curves.Log(records=[record(1, bad_loss=None, good_loss=1.0)], unreadable=0))
    assert titles(drawn.losses) == ["Good loss"]


def test_stages_touch_and_keep_their_order():
    names = ["stage1"] * 3 + ["stage2"] * 2 + ["stage3"]
    records = [record(10 * i, stage) for i, stage in enumerate(names)]
    found = [(s.name, s.first, s.last) for s in curves.stages_of(records)]
    assert found == [("stage1", 0, 20), ("stage2", 20, 40), ("stage3", 40, 50)]


def test_held_out_numbers_share_the_chart_of_the_training_ones():
    records = [record(s, total_loss=1.0, validate_total_loss=2.0) for s in range(3)]
    drawn = curves.draw(curves.Log(records=records, unreadable=0))
    assert titles(drawn.losses) == ["Total loss"]


def test_a_chart_says_in_words_what_it_shows_and_is_the_same_each_time():
    series = charts.Series(steps=np.arange(1.0, 4.0), values=np.array([3.0, 1.0, 2.0]))
    stages = [charts.Stage(name="stage1", first=1, last=3)]
    first, second = (
        charts.line_chart("Loss", series, held_out=None, stages=stages, logarithmic=False)
        for _ in range(2)
    )
    assert first == second
    assert "first 3, last 2, lowest 1, highest 3" in first.alt
    svg = base64.b64decode(first.light.split(",")[1]).decode()
    assert svg.startswith("<?xml") and "DOCTYPE" not in svg and "<metadata" not in svg


def test_what_was_evaluated_while_training_is_marked_and_never_smoothed():
    every = [record(s, evaluate_knn_macro_auroc=0.5 + s / 1000) for s in range(0, 320, 8)]
    for records in (every, every[:4]):
        (chart,) = curves.draw(curves.Log(records=records, unreadable=0)).evaluations
        svg = base64.b64decode(chart.light.split(",")[1]).decode()
        assert charts.LIGHT.line not in svg  # the colour of a line of training
        marks = [
            line for line in svg.splitlines() if "<use" in line and charts.LIGHT.accent in line
        ]
        assert len(marks) == len(records)


def test_what_only_a_validation_measures_is_marked_and_never_smoothed():
    records = [record(s, validation_macro_auroc=0.5 + s / 1000) for s in range(40)]
    charted = curves.draw(curves.Log(records=records, unreadable=0)).others
    (chart,) = (one for one in charted if one.title == "Validation macro AUROC")
    svg = base64.b64decode(chart.light.split(",")[1]).decode()
    assert charts.LIGHT.line not in svg
    marks = [line for line in svg.splitlines() if "<use" in line and charts.LIGHT.accent in line]
    assert len(marks) == len(records)


def test_a_validation_is_drawn_where_no_number_of_the_training_is_finite():
    records = [record(s, total_loss=None, validation_total_loss=2.0) for s in range(3)]
    drawn = curves.draw(curves.Log(records=records, unreadable=0))
    assert titles(drawn.losses) == ["Validation total loss"]


def test_a_single_peak_of_a_long_run_is_drawn():
    values = np.zeros(10000)
    values[4321], values[8765] = 50.0, -30.0
    shown = charts._shown(values)
    assert {4321, 8765} <= set(shown.tolist()) and (np.diff(shown) > 0).all()
    assert len(shown) <= 600 and charts._shown(values[:600]).tolist() == list(range(600))


def test_ten_thousand_steps_stay_a_small_picture():
    steps = np.arange(10000.0)
    series = charts.Series(steps=steps, values=np.random.default_rng(0).random(10000))
    chart = charts.line_chart("Loss", series, held_out=None, stages=[], logarithmic=False)
    assert len(chart.light) < 150_000


def test_smoothing_keeps_a_constant_and_a_slope():
    constant = charts._smooth(np.full(200, 3.0))
    np.testing.assert_allclose(constant, 3.0)
    slope = charts._smooth(np.arange(200.0))
    np.testing.assert_allclose(slope[20:-20], np.arange(200.0)[20:-20])
