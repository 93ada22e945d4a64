"""Flags of launch.bench that are refused, and what a process of its own is given."""

import dataclasses
import math
import types

import pytest

from launch.benchmarks import alone, flag_checks
from launch.benchmarks.request import Request
from prior_jax.errors import ConfigError


class Given(dict):
    """Stands in for absl's flags, all at their defaults but those that are given."""

    def __init__(self, **given):
        names = (
            *("only", "suite", "peer", "against", "out", "seconds", "threshold"),
            *(field.name for field in dataclasses.fields(Request)),
        )
        values = dict.fromkeys(names) | {"mode": "alone", "only": []}
        values |= {"threshold": 0.1, "seconds": 600.0} | given
        super().__init__(
            {k: types.SimpleNamespace(value=v, present=k in given) for k, v in values.items()}
        )

    def __getattr__(self, name):
        return self[name].value


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"suite": "gpu", "only": ["clip"]}, "--only"),
        ({"suite": "gpu", "batch": 4}, "--batch"),
        ({"suite": "gpu", "dtype": "float32"}, "--dtype"),
        ({"suite": "gpu", "peer": "x"}, "--peer"),
        ({"suite": "gpu_beside"}, "--peer"),
        ({"suite": "gpu", "mode": "here"}, "--mode"),
        ({"mode": "here", "against": "x"}, "--against"),
        ({"mode": "here", "peer": "x"}, "--peer"),
        ({"mode": "turns"}, "--only"),
        ({"peer": "x", "steps": 1}, "--steps"),
        ({"peer": "x", "trace": "x"}, "--trace"),
        ({"threshold": 0.2}, "--threshold"),
        ({"against": "x", "threshold": math.nan}, "--threshold"),
        ({"seconds": 5.0}, "--seconds"),
        ({"suite": "gpu", "seconds": math.nan}, "--seconds"),
        ({"mode": "turns", "only": ["clip"], "blocks": 2}, "--blocks"),
        ({"mode": "compile", "trace": "x"}, "--trace"),
    ],
)
def test_flags_that_do_not_fit_are_refused_by_name(given, where):
    with pytest.raises(ConfigError, match=rf"^{where}: "):
        flag_checks.check(Given(**given))


def test_flags_that_fit_are_not_refused():
    peer = {"suite": "gpu_beside", "peer": "python x.py"}
    for given in ({}, {"suite": "gpu"}, peer, {"only": ["clip"]}):
        flag_checks.check(Given(**given))


@pytest.mark.parametrize(
    ("flag", "names", "reader"),
    [
        ("batch", ["machine"], "prepare"),
        ("trace", ["input", "checkpoint"], "zero_shot"),
        ("dtype", ["prepare"], "machine"),
        ("data", ["word_region_paper"], "start_cold"),
        ("cache_dir", ["start_warm"], "checkpoint"),
    ],
)
def test_a_flag_that_no_benchmark_reads_is_refused_with_those_that_do(flag, names, reader):
    given = Given(**{flag: "x"})
    with pytest.raises(ConfigError, match=rf"^--{flag}: .*{names[0]}.* choose one of .*{reader}"):
        flag_checks.check_read(given, names)
    flag_checks.check_read(given, [*names, reader])


def test_a_process_is_given_what_its_benchmark_reads():
    request = Request(batch=4, steps=3, trace="x", cache_dir="y")
    found = alone.command_of("machine", request, mode="here")
    assert found[-2:] == ["--steps=3", "--cache_dir=y"] and "--batch=4" not in found
    found = alone.command_of("clip", request, mode="compile")
    assert found[-2:] == ["--batch=4", "--cache_dir=y"]


@pytest.mark.parametrize(
    ("command", "problem"),
    [("", "empty"), ("/no/such/program 1", "'/no/such/program'"), ("python 'x", "quotation")],
)
def test_a_peer_that_cannot_be_started_is_refused(command, problem, tmp_path):
    with pytest.raises(ConfigError, match=rf"^--peer: .*{problem}"):
        flag_checks.check(Given(peer=command))


def test_the_folder_of_the_report_is_made_and_a_file_that_cannot_be_written_refused(tmp_path):
    flag_checks.check(Given(out=str(tmp_path / "a" / "b" / "now.json")))
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("kept")
    flag_checks.check(Given(out=str(tmp_path / "file")))
    assert (tmp_path / "file").read_text() == "kept"
    for out in (tmp_path, tmp_path / "file" / "now.json"):
        with pytest.raises(ConfigError, match=r"^--out: .*cannot be written"):
            flag_checks.check(Given(out=str(out)))
