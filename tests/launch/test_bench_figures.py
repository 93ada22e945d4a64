"""Medians, reports and comparisons of launch.bench, without measuring anything."""

import dataclasses
import json

import pytest

from launch.benchmarks import against
from launch.benchmarks.child import ChildFailed
from launch.benchmarks.largest import largest, needed_bytes, next_batch
from launch.benchmarks.median import median_of
from launch.benchmarks.report_file import from_json, read
from prior_jax.errors import ConfigError, DataError
from tests.launch.bench_results import full_result, report, result


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [  # from tables of the sign test, e.g. Conover, Practical Nonparametric Statistics, A3
        (1, 1, 1, 0.0),
        (5, 1, 5, 0.9375),
        (6, 1, 6, 0.96875),
        (9, 2, 8, 0.9609375),
        (10, 2, 9, 0.978515625),
        (20, 6, 15, 0.9586105),
    ],
)
def test_the_interval_of_a_median_is_that_of_the_tables(count, low, high, coverage):
    found = median_of([*range(count, 0, -1)])
    assert (found.low, found.high) == (low, high)
    assert found.coverage == pytest.approx(coverage)
    assert found.value == (count + 1) / 2


def test_one_slow_block_moves_neither_median_nor_interval():
    calm = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9]
    assert median_of([*calm[:-1], 60.0]) == median_of(calm)


def test_a_report_is_read_as_it_was_written():
    beside = {"command": "x", "turns": 2}
    left = {"gloria_full": "time was over"}
    written = report([full_result(), result("input", [1.0], dtype=None, beside=beside)])
    written = dataclasses.replace(written, left_out=left, notes=("a",))
    assert from_json(written.to_json(), where="f") == written


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": [{"name": "x"}]}'])
def test_a_file_that_is_no_report_is_refused(text):
    with pytest.raises(DataError, match=r"^before\.json: The file is not a report"):
        from_json(text, where="before.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", None),
        ("seconds.value", float("nan")),
        ("seconds.low", 0.0),
        ("seconds.high", "1"),
        ("seconds.value", 10**400),
        ("host_peak_bytes", 0),
        ("device_peak_bytes", -1),
        ("batch", "98"),
    ],
)
def test_a_number_that_cannot_be_compared_is_refused_by_file_and_field(field, value, tmp_path):
    given = json.loads(report([full_result()]).to_json())
    *outer, last = field.split(".")
    place = given["results"][0]
    for name in outer:
        place = place[name]
    place[last] = value
    path = tmp_path / "before.json"
    path.write_text(json.dumps(given))
    with pytest.raises(DataError, match=rf"--against={path}: .*results\[0\]\.{field}|Overflow"):
        read(path, where="--against")


@pytest.mark.parametrize("change", [{"versions": None}, {"versions": ["jax"]}, {"results": {}}])
def test_a_section_of_a_report_of_another_type_is_refused_by_name(change):
    text = json.dumps(json.loads(report([]).to_json()) | change)
    with pytest.raises(DataError, match=rf"report\.{next(iter(change))}: "):
        from_json(text, where="f")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "before.json"
    path.write_bytes(bytes([0x80, 0xFF, 0x00, 0x9D]))
    with pytest.raises(DataError, match="not a report"):
        read(path, where="--against")


def test_a_row_has_rates_and_shares_of_the_machine():
    one = full_result()
    assert one.rate == pytest.approx(980)
    assert one.share_of_product == pytest.approx(0.5)
    assert one.share_of_copy == pytest.approx(0.2)
    row = one.row()
    for part in ("`prior_stage1_full`", "980 pairs", "0.3 (10 %)", "4.00", "0.05", "0.50 / 0.20"):
        assert part in row
    table = report([one], left_out={"gloria_full": "time was over"}).table()
    head = next(line for line in table.splitlines() if line.startswith("| benchmark"))
    assert head.count("|") == row.count("|") == 11
    assert "gloria_full: time was over" in table


def compared(new, old, threshold=0.1, **devices):
    return against.compare(report([new], **devices), report([old]), threshold=threshold)


SLOW, FAST = [1.2, 1.21, 1.22], [1.0, 1.01, 1.02]


def test_a_slower_benchmark_is_named_and_an_equal_one_is_not():
    (slower,) = compared(result("clip", SLOW), result("clip", FAST)).regressions
    assert slower.name == "clip, 98, bfloat16" and slower.verdict == "slower"
    assert slower.seconds == pytest.approx(1.21 / 1.01)
    assert not compared(result("clip", FAST), result("clip", FAST)).regressions
    (faster,) = compared(result("clip", FAST), result("clip", SLOW)).changes
    assert faster.verdict == "faster" and not faster.regressed


def test_overlapping_intervals_and_small_ratios_are_no_regressions():
    wide = [0.9, 1.21, 1.4]
    assert not compared(result("clip", wide), result("clip", FAST)).regressions
    assert not compared(result("clip", SLOW), result("clip", FAST), threshold=0.3).regressions


def test_more_memory_is_a_regression():
    more = result("clip", FAST, device_peak_bytes=3 * 10**9)
    (found,) = compared(more, result("clip", FAST)).regressions
    assert found.verdict == "more memory"
    assert "more memory" in against.table(compared(more, result("clip", FAST)))


def test_other_sizes_and_other_devices_are_not_compared():
    found = compared(result("clip", SLOW, batch=48), result("clip", FAST))
    assert not found.changes and len(found.untold) == 2
    found = compared(result("clip", SLOW), result("clip", FAST), devices="1 x other (gpu)")
    assert not found.changes and "other" in found.untold[0]


@pytest.mark.parametrize("nan", [{"seconds": [float("nan")]}, {"device_peak_bytes": 0}])
def test_a_number_of_now_that_is_none_is_neither_like_before_nor_a_success(nan):
    given = {"seconds": FAST, "host_peak_bytes": 0} | nan
    found = compared(result("clip", **given), result("clip", FAST))
    assert found.changes[0].verdict == "not comparable" and not found.holds
    assert against.table(found).endswith("1 cannot be compared.")


def test_a_comparison_holds_only_if_something_was_compared():
    assert compared(result("clip", FAST), result("clip", FAST)).holds
    assert not compared(result("clip", SLOW), result("clip", FAST)).holds
    nothing = compared(result("clip", FAST), result("mgca", FAST))
    assert not nothing.holds and "No benchmark was compared." in against.table(nothing)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"names": ["mgca"]}, "none of the benchmarks.*It has clip"),
        ({"tiny": True}, "none of the benchmarks.* with --tiny"),
        ({"cpu_devices": 2}, r"is of 1 x fake \(gpu\), and 2 x cpu"),
    ],
)
def test_a_report_that_shares_nothing_is_refused_before_anything_is_measured(asked, problem):
    settings = {"names": ["clip", "input"], "tiny": False, "cpu_devices": None}
    old = report([result("clip", FAST)])
    against.check_shared(old, **settings)
    with pytest.raises(ConfigError, match=rf"^--against: .*{problem}"):
        against.check_shared(old, **settings | asked)


def test_the_next_batch_lies_on_the_line_through_the_last_two():
    # 20 bytes and one for each pair, on a device of 200.
    assert next_batch([(50, 70)], limit=200, multiple=1) == int(0.97 * 200 * 50 / 70)
    assert next_batch([(50, 70), (100, 120)], limit=200, multiple=1) == 174
    assert next_batch([(50, 70), (100, 120)], limit=200, multiple=8) == 168
    assert next_batch([(50, 70)], limit=10**9, multiple=8) == 400
    assert next_batch([(50, 70), (100, 120)], limit=200, multiple=1, refused=[110]) == 105


def planned(batch):
    return full_result(batch=batch, facts={
        "argument_bytes": 20, "temporary_bytes": batch, "new_result_bytes": 0,
    })  # fmt: skip


def out_of_memory():
    error = ChildFailed("The process ended.", "")
    error.tail = "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory"
    return error


def searched(room, *, seconds=1000, other=None):
    """Searches on a device of 200 bytes on which batches up to `room` run."""
    tried = []

    def measure(batch):
        tried.append(batch)
        if other is not None:
            raise other
        if batch > room:
            raise out_of_memory()
        return report([planned(batch)])

    found = largest(
        planned(50), measure, limit=200, multiple=2, seconds_left=lambda: seconds, trial_seconds=9
    )
    return found, tried


def test_the_largest_batch_is_found_where_the_plan_holds_and_where_it_does_not():
    assert needed_bytes(planned(50)) == 70
    found, tried = searched(room=174)
    assert found.fits == 174 and not found.refused and len(tried) == 2
    found, _ = searched(room=100)
    assert 96 <= found.fits <= 100 and min(found.refused) <= 104
    assert found.report.results[0].batch == found.fits


def test_the_search_ends_with_the_time_and_with_other_errors():
    found, tried = searched(room=174, seconds=5)
    assert found.report is None and found.fits == 50 and not tried and "time" in found.ended
    found, _ = searched(room=174, other=ChildFailed("No module named jax.", ""))
    assert "No module named jax" in found.ended and not found.refused
