"""metrics.jsonl, the terminal, TensorBoard and W&B."""

import importlib.util
import io
import json
import sys
import types

import pytest

from prior_jax.errors import ConfigError
from prior_jax.train import metrics
from prior_jax.train.metrics import MetricsFile, Progress, TensorBoard, open_writers
from tests.train import toy


def record(step, **changes):
    fields = {"step": step, "stage": "first", "total_loss": 1.5, "lr": 1e-3}
    return fields | {"pairs_per_second": 12.0, "input_wait": 0.25} | changes


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_later_lines_and_cut_ones_are_dropped_on_opening(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, done=0)
    for step in range(1, 6):
        first.write(record(step))
    first.close()
    whole = path.read_bytes()
    for tail in (b"", b'{"step": 6, "sta', b'{"step": 2}', b"\x00\x00\n", b"[]\n"):
        path.write_bytes(whole + tail)
        again = MetricsFile(path, done=3)
        assert steps(path) == [1, 2, 3]
        again.write(record(4))
        again.flush()
        again.close()
        assert steps(path) == [1, 2, 3, 4]


def test_every_line_is_json_even_if_a_metric_is_not_finite(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", done=0)
    file.write(record(1, spread=float("nan"), other=float("inf")))
    file.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert line["spread"] is None and line["other"] is None and line["total_loss"] == 1.5


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_shows_speed_wait_and_time_left():
    for stream, start in ((Terminal(), "\r"), (io.StringIO(), "")):
        progress = Progress(total=200, done=0, stream=stream)
        progress.write(record(100))
        progress.close()
        text = stream.getvalue()
        assert text.startswith(start + ("\x1b[K" if start else "") + "step 100/200 first")
        assert "loss 1.5000 | 12.0 pairs/s | input wait 25 % | ETA 0:00" in text
        assert text.count("\n") == 1


def test_steps_that_a_stage_skips_take_no_time(monkeypatch):
    seconds = iter([0.0, 100.0, 101.0, 201.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(seconds))
    progress = Progress(total=200, done=0, stream=io.StringIO())
    for step, stage in ((50, "first"), (100, "second"), (150, "second")):
        progress.write(record(step, stage=stage))
    # 2 s a step, then 50 steps in 1 s that were not done, then 2 s a step.
    lines = progress._stream.getvalue().splitlines()
    assert [line.rsplit("ETA ")[1] for line in lines] == ["5:00", "3:20", "1:40"]


def test_time_that_is_left_out_is_not_waited_for(monkeypatch):
    seconds = iter([0.0, 160.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(seconds))
    progress = Progress(total=200, done=0, stream=io.StringIO())
    metrics.Writers([progress]).leave_out(60.0)
    progress.write(record(100))
    assert progress._stream.getvalue().endswith("ETA 1:40\n")


def test_long_times_are_shown_in_hours():
    assert metrics._clock(3 * 3600 + 62.4) == "3:01:02"
    assert metrics._clock(59.6) == "1:00"


def test_tensorboard_holds_the_numbers(tmp_path):
    board = TensorBoard(tmp_path, done=0)
    board.write(record(1))
    board.flush()
    board.close()
    (file,) = tmp_path.iterdir()
    raw = file.read_bytes()
    assert b"total_loss" in raw and b"input_wait" in raw and b"first" not in raw


def test_wandb_has_to_be_installed_where_asked_for(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        metrics.importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name)
    )
    config = toy.replace(toy.LOG, wandb_project="chest")
    with pytest.raises(ConfigError, match=r"config\.log\.wandb_project: .*'chest'.*pip install"):
        open_writers(config, workdir=tmp_path, total=1, done=0, primary=True)


def test_wandb_goes_on_with_a_run_and_takes_a_new_one_for_another(tmp_path, monkeypatch):
    begun = []
    module = types.SimpleNamespace(init=lambda **given: begun.append(given))
    monkeypatch.setitem(sys.modules, "wandb", module)
    for done in (0, 12, 0, 12):  # the second run in the folder begins anew
        metrics.Wandb("chest", workdir=tmp_path, done=done)
    ids = [given["id"] for given in begun]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert all(given["project"] == "chest" and given["resume"] == "allow" for given in begun)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"metrics\.jsonl: .*Is a directory"):
        open_writers(toy.LOG, workdir=tmp_path, total=1, done=0, primary=True)


def test_only_the_first_process_writes(tmp_path):
    writers = open_writers(toy.LOG, workdir=tmp_path, total=1, done=0, primary=False)
    writers.write(record(1))
    writers.close()
    assert list(tmp_path.iterdir()) == []


def test_intervals_below_one_are_refused():
    with pytest.raises(ConfigError, match=r"every_steps: The value is 0"):
        toy.replace(toy.LOG, every_steps=0)
