"""launch.bench: what it times, in which processes, and what it refuses."""

import contextlib
import functools
import io
import json
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.benchmarks import (
    alone,
    catalogue,
    counted,
    generated_set,
    gpu_suite,
    several,
    step_configs,
    synthetic,
    turns,
    usage,
)
from launch.benchmarks import steps as steps_lib
from launch.benchmarks.child import Child, ChildFailed
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.report_file import from_json
from launch.benchmarks.request import Request
from launch.benchmarks.result import HEAD
from launch.start.run import check_fits
from launch.start.without_data import program_of
from prior_jax.data.tokenizer import unknown_vocabulary
from prior_jax.errors import ConfigError
from prior_jax.sharding.placement import placement
from tests.launch import bench_results

ROOT = pathlib.Path(__file__).parents[2]
TINY = Request(tiny=True, blocks=2, steps=1, batch=8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospital")
    return str(generated_set.prepared(folder, studies=40, tiny=True))


def test_every_name_of_a_suite_is_in_the_catalogue():
    named = {*(name for name, _ in gpu_suite.STEPS), *gpu_suite.LARGEST, *several.RELEASED}
    assert named <= set(catalogue.BENCHMARKS)
    assert {(name, "bfloat16") for name in gpu_suite.LARGEST} <= set(gpu_suite.STEPS)
    assert gpu_suite.TRACED in gpu_suite.STEPS
    for name, one in catalogue.BENCHMARKS.items():
        assert f"{name} " in catalogue.listed() and one.about in catalogue.listed()


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"^--only: .*'prior_stage1_ful'.*'prior_stage1_full'"):
        catalogue.chosen(["machine", "prior_stage1_ful"])
    assert catalogue.chosen(["input", "machine", "input"]) == ("input", "machine")
    assert catalogue.chosen([]) == tuple(catalogue.BENCHMARKS)


@pytest.fixture
def one_device(monkeypatch):
    """Steps on the first of the simulated devices, which share few cores."""
    first = functools.partial(placement, devices=jax.devices()[:1])
    monkeypatch.setattr(steps_lib, "placement", first)


def test_a_step_is_timed_alone_and_with_its_input(prepared, one_device, tmp_path):
    request = Request(tiny=True, blocks=2, steps=2, batch=8, data=prepared, trace=str(tmp_path))
    found = alone.measure_here("gloria_release_full", request)
    assert (found.batch, found.count, found.unit, found.tiny) == (8, 8, "pairs", True)
    assert len(found.samples) == 2 and min(found.samples) > 0
    assert found.with_input is not None and 0 <= found.input_wait <= 1
    assert found.flops > 1e6 and found.bytes_moved > 1e5
    assert found.peak.product > 0 and found.peak.copy > 0
    assert found.host_peak_bytes > 10**8 and found.device_peak_bytes is None
    assert found.facts["tokens"] == found.facts["real_tokens"] == 32
    assert found.facts["temporary_bytes"] > 0 and np.isfinite(found.facts["loss"])
    assert list(pathlib.Path(found.facts["trace"]).rglob("*.xplane.pb"))


def test_batches_are_read_without_a_device(prepared):
    request = Request(tiny=True, blocks=2, steps=1, batch=4, data=prepared)
    found = alone.measure_here("input_release", request)
    assert (found.count, found.dtype, found.flops, found.peak) == (4, None, None, None)
    assert found.facts["text_mode"] == "release"


def config_of(name, request, tmp_path):
    """The config of a step of the catalogue."""
    step = catalogue.BENCHMARKS[name].opens.args[0]
    return step_configs.read(step, request, tmp_path)


@pytest.mark.parametrize(
    ("name", "batch"),
    [("prior_improved_stage1", 96), ("prior_improved_stage3", 96),
     ("lovt_improved", 32), ("mgca_improved", 72)],
)  # fmt: skip
def test_an_improved_form_takes_its_batch_of_a_card(name, batch, tmp_path):
    assert catalogue.BENCHMARKS[name].opens.args[0].batch == batch
    config = config_of(name, Request(batch=batch), tmp_path)
    assert config.model.sentence_region.hidden_every == 4
    place = placement(config.mesh, devices=jax.devices()[:1])
    check_fits(config, place)
    with pytest.raises(ConfigError, match="hidden_every"):
        check_fits(config_of(name, Request(batch=98), tmp_path), place)


def test_the_weights_are_the_same_wherever_they_are_drawn(tmp_path):
    config = config_of("clip", TINY, tmp_path)
    place = placement(config.mesh, devices=jax.devices()[:1])
    vocabulary = unknown_vocabulary(300)
    with jax.set_mesh(place.mesh):
        program = program_of(config, place, vocabulary=vocabulary)
        wanted = steps_lib.drawn(config, program, vocabulary=vocabulary)
        found = steps_lib.drawn_on(jax.devices()[1], config, program, vocabulary=vocabulary)
    assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, wanted)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((found, wanted)))


@pytest.mark.parametrize("name", ["prior_stage1_lengths", "prior_stage1_full", "gloria_lengths"])
def test_a_drawn_batch_is_one_that_training_could_read(name, tmp_path):
    data = config_of(name, Request(batch=16), tmp_path).data
    lengths = synthetic.full_lengths if name.endswith("full") else synthetic.real_lengths
    found = lengths(data)
    vocabulary = unknown_vocabulary(300)
    batch = synthetic.batch_of(data, found, vocabulary=vocabulary, labels=3)
    assert found.padded in data.buckets and batch.tokens.shape == (16, found.padded)
    np.testing.assert_array_equal(batch.token_mask.sum(1), found.tokens)
    assert (batch.tokens[:, 0] == vocabulary.cls).all() and batch.labels.shape == (16, 3)
    assert (batch.tokens[~batch.token_mask] == vocabulary.pad).all()
    last = np.take_along_axis(batch.tokens, found.tokens[:, None] - 1, axis=1)
    assert (last == vocabulary.sep).all() and (batch.tokens == vocabulary.sep).sum() == 16
    for row in range(16):
        owners = np.unique(batch.sentence_index[row])
        assert owners[0] == -1
        np.testing.assert_array_equal(owners[1:], np.flatnonzero(batch.sentence_mask[row]))
    sentences = batch.sentence_mask.sum(1)
    assert sentences.max() <= (1 if name.startswith("gloria") else data.max_sentences)
    if name.endswith("full"):
        assert found.padded == data.max_tokens == found.tokens.min() and sentences.min() == 16
    else:
        assert found.padded < data.max_tokens


def test_operations_are_those_of_the_model_and_memory_that_of_the_compiler():
    def loss(x, w):
        again = jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=5)[0]
        return jnp.sum(again)

    lowered = jax.jit(loss).lower(jnp.ones((4, 8)), jnp.ones((8, 8)))
    found = counted.counts_of(lowered, lowered.compile())
    assert found.flops == 5 * 2 * 4 * 8 * 8
    assert found.bytes_moved > 0
    assert found.facts["argument_bytes"] == 4 * (4 * 8 + 8 * 8)
    assert "flops_not_counted" not in found.facts


def test_what_cannot_be_counted_is_told():
    class Unreadable:
        def compiler_ir(self, dialect):
            raise AttributeError(dialect)

        def as_text(self):
            return "no program"

        def memory_analysis(self):
            return types.SimpleNamespace(
                argument_size_in_bytes=1,
                temp_size_in_bytes=2,
                output_size_in_bytes=3,
                alias_size_in_bytes=4,
            )

    found = counted.counts_of(Unreadable(), Unreadable())
    assert found.flops is None and found.bytes_moved is None
    assert "AttributeError: hlo" in found.facts["flops_not_counted"]
    assert "ENTRY" in found.facts["bytes_not_counted"]


def test_the_peak_of_a_process_is_told_while_it_runs():
    command = [sys.executable, "-c", "x = b'1' * 10**8; print(1, flush=True); input()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert usage.peak_of(child.pid) > 10**8
    child.communicate(b"\n")
    assert usage.peak_of(child.pid) is None
    assert usage.cpu_seconds() > 0


def fake(seconds, *words):
    return [sys.executable, "-m", "tests.launch.fake_peer", str(seconds), *words]


def beside(peer, tmp_path, seconds=0.2):
    out = tmp_path / "report.json"
    wanted = turns.Turns(steps=4, count=6)
    out.write_text(bench_results.report([bench_results.result("clip", [seconds])]).to_json())
    ours = fake(seconds, "ours")
    return turns.beside(ours, " ".join(fake(peer)), name="clip", out=out, turns=wanted)


def test_a_peer_takes_turns_and_the_first_steps_are_left_out(tmp_path):
    found = beside(0.1, tmp_path)
    (result,) = found.results
    assert result.beside["ratio"]["value"] == pytest.approx(2.0)
    assert result.beside["ratio"]["high"] == pytest.approx(2.0)
    assert result.beside["seconds"]["high"] == pytest.approx(0.1)
    assert (result.beside["turns"], result.beside["peak_bytes"]) == (6, 5)
    assert "ratio 2.000 [2.000, 2.000] over 6 turns" in found.table()


def test_a_peer_that_ends_early_is_named_with_its_last_line(tmp_path):
    with pytest.raises(ChildFailed, match=r"ended early, with the code 3: CUDA is not there"):
        beside("end", tmp_path)


@pytest.mark.parametrize("seconds", [0, "nan"])
def test_a_peer_that_tells_no_seconds_is_named_with_what_it_told(seconds, tmp_path):
    with pytest.raises(ChildFailed, match=r"is told as \{'seconds': (0.0|nan)"):
        beside(seconds, tmp_path)


def counting(done):
    return Repeated(run=done.append, unit="pairs", count=2, batch=2, steps=1, blocks=1)


def test_our_process_speaks_the_protocol_of_a_peer():
    done, out = [], io.StringIO()
    timing = turns.serve(counting(done), given=io.StringIO("4\n4\n4\n"), out=out)
    size, *steps = map(json.loads, out.getvalue().splitlines())
    assert size == {"batch": 2, "dtype": None}
    assert done == [1] * 12 and len(steps) == 12
    assert len(timing.seconds) == 6
    assert timing.seconds[0] == steps[5]["seconds"]


@contextlib.contextmanager
def no_devices(monkeypatch, tmp_path, *, fails=()):
    """A suite whose parts do nothing; the names of those that are measured."""
    measured = []

    def measure(name, request, *, seconds, environment=None):
        label = f"{name}, {request.dtype}, {request.batch}"
        if name in fails:
            raise ChildFailed(f"{name} broke.", "")
        measured.append(label)
        made = bench_results.full_result(name, dtype=request.dtype, batch=request.batch or 98)
        return bench_results.report([made])

    monkeypatch.setattr(gpu_suite, "measure_alone", measure)
    monkeypatch.setattr(gpu_suite.generated_set, "prepared", lambda *_, **__: tmp_path / "set")
    monkeypatch.setattr(gpu_suite.Suite, "_jobs", lambda self: iter(()))
    yield measured


def suite(tmp_path, saved, seconds=600.0):
    return gpu_suite.Suite(Request(tiny=True), tmp_path, seconds=seconds, save=saved.append).run()


def test_the_suite_measures_all_its_parts_and_then_larger_batches(monkeypatch, tmp_path):
    saved = []
    with no_devices(monkeypatch, tmp_path) as measured:
        found = suite(tmp_path, saved)
    steps = [f"{name}, {dtype}, None" for name, dtype in gpu_suite.STEPS]
    assert measured[: len(steps) + 1] == ["machine, None, None", *steps]
    assert len(measured) > len(steps) + len(gpu_suite.LARGEST)
    assert not found.left_out and saved[-1] == found
    assert len(found.notes) == len(gpu_suite.LARGEST)


def test_what_the_suite_cannot_measure_is_named(monkeypatch, tmp_path):
    with no_devices(monkeypatch, tmp_path, fails=["prior_stage3_full"]):
        found = suite(tmp_path, [])
    assert found.left_out["prior_stage3_full, float32"] == "prior_stage3_full broke."
    assert "largest batch of prior_stage3_full" in found.left_out
    with no_devices(monkeypatch, tmp_path) as measured:
        found = suite(tmp_path, [], seconds=0.0)
    assert not measured and len(found.left_out) == 1 + len(gpu_suite.STEPS) + len(gpu_suite.LARGEST)


def test_it_is_told_what_is_measured_and_the_rows_stand_under_one_head(monkeypatch, capsys, caplog):
    def measure(name, request, **_):
        if name == "mgca":
            raise ChildFailed("mgca broke.", "")
        return bench_results.report([bench_results.full_result(name)])

    monkeypatch.setattr(several, "measure_alone", measure)
    with caplog.at_level("INFO", logger="absl"):
        several.each(["mgca", "clip", "lovt"], TINY, save=lambda report: None)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"measuring {name}" for name in ("mgca, 1 of 3", "clip, 2 of 3", "lovt, 3 of 3")
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == HEAD.splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == ["clip", "lovt"]


def test_the_suite_tells_what_it_measures_under_one_head(monkeypatch, tmp_path, capsys, caplog):
    with no_devices(monkeypatch, tmp_path), caplog.at_level("INFO", logger="absl"):
        suite(tmp_path, [])
    for name, dtype in gpu_suite.STEPS:
        assert f"measuring {name}, {dtype}, " in caplog.text
    assert "trying a batch of" in caplog.text
    out = capsys.readouterr().out
    assert out.startswith(HEAD) and out.count(HEAD) == 1


def test_a_program_that_cannot_be_started_is_a_failure_of_the_child(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\0")
    program.chmod(0o755)
    with pytest.raises(ChildFailed, match="cannot be started"):
        Child([str(program)], tmp_path)


def test_the_program_measures_in_a_process_of_its_own_and_compares(tmp_path):
    before = tmp_path / "before.json"
    command = [
        sys.executable, "-m", "launch.bench", "--tiny", "--only=machine", "--cpu_devices=2",
        "--blocks=6", f"--out={tmp_path / 'now.json'}", f"--against={before}",
    ]  # fmt: skip
    earlier = bench_results.result(
        "machine", [1e-9], dtype="float32", batch=2, tiny=True, host_peak_bytes=1
    )
    devices = "2 x cpu (cpu)"
    before.write_text(bench_results.report([earlier], devices=devices).to_json())
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1, run.stderr
    assert "machine, 2, float32: slower" in run.stdout
    assert "1 of 1 benchmarks became worse." in run.stdout
    found = from_json((tmp_path / "now.json").read_text(), where="now.json")
    (result,) = found.results
    assert len(result.samples) == 6 and result.flops == 2 * 2 * 128**3
    assert found.versions["devices"] == devices and "--only=machine" in found.command
