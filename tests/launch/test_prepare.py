"""What the launcher makes of a set that is there already."""

import dataclasses
import sys
from multiprocessing import spawn

import pytest

from configs import debug
from configs.prior import paper, release
from data_prep import mimic_cxr
from data_prep.kit.writer import ProgramChanged
from data_prep.phantom import hospital
from launch import train
from launch.start import prepare
from prior_jax.config import read_config
from prior_jax.data import manifest as manifest_lib
from prior_jax.errors import ConfigError, DataError
from tests import fixtures


def test_a_run_goes_on_with_the_set_that_an_earlier_version_has_prepared(tmp_path, monkeypatch):
    def changed(*_):
        raise ProgramChanged("A set is there.", "Choose another folder.", where="--out")

    monkeypatch.setattr(hospital, "draw_phantom", lambda *_, **__: None)
    monkeypatch.setattr(mimic_cxr, "prepare", changed)
    config = debug.get_config()
    config.data.tokenizer.path = str(tmp_path / "tokenizer.model")
    read = read_config(config, workdir=tmp_path)
    prepare.make_absent(prepare.missing(read), tmp_path)
    assert read.data.path == str(tmp_path / "data" / "set")


def test_only_what_is_made_is_announced(tmp_path, caplog):
    config = debug.get_config()
    config.prepare.phantom.studies = 20
    config.data.tokenizer.path = str(tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer.model").touch()  # which is not made, then
    wanted, said = prepare.missing(read_config(config, workdir=tmp_path)), []
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            prepare.make_absent(wanted, tmp_path)
        said.append([word for word in ("drawing", "preparing") if f"{word} " in caplog.text])
    assert said == [["drawing", "preparing"], []]


def test_workers_that_prepare_do_not_import_the_program_that_trains(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", train)

    def imported():
        return [key for key in spawn.get_preparation_data("worker") if key.startswith("init_main")]

    assert imported() == ["init_main_from_name"]
    with prepare.light_workers():
        assert imported() == []
    assert imported() == ["init_main_from_name"]


def test_another_phantom_in_the_workdir_is_refused_by_its_setting(tmp_path):
    config = debug.get_config()
    wanted = prepare.missing(read_config(config, workdir=tmp_path))
    hospital._claim(tmp_path / "data" / "raw", wanted.phantom)
    config.prepare.phantom.studies += 1
    other = prepare.missing(read_config(config, workdir=tmp_path))
    with pytest.raises(DataError, match="holds a phantom of other settings: studies") as error:
        prepare.make_absent(other, tmp_path)
    assert error.value.where == "config.prepare.phantom"
    assert error.value.remedy.endswith(f"{tmp_path} holds, or use another --workdir.")


@pytest.mark.parametrize("share", [0.9, -0.5])
def test_shares_that_do_not_add_up_are_refused_by_their_section(tmp_path, share):
    config = debug.get_config()
    config.prepare.phantom.update(dict(validate=share, test=share))
    with pytest.raises(ConfigError) as error:
        prepare.missing(read_config(config, workdir=tmp_path))
    assert error.value.where == "config.prepare.phantom"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return fixtures.write_prepared(
        tmp_path_factory.mktemp("prepared") / "set", studies=8, validate=2, test=2
    )


def checked(prepared, config, *, parser, **changes):
    manifest = manifest_lib.load_manifest(prepared)
    settings = {**manifest.settings, **({} if parser is None else {"parser": parser})}
    manifest_lib.save_manifest(dataclasses.replace(manifest, settings=settings), prepared)
    config.data.path = str(prepared)
    config.data.tokenizer.path = "tokenizer"
    config.update_from_flattened_dict(changes)
    try:
        prepare.check_set(read_config(config, workdir=prepared))
    finally:
        manifest_lib.save_manifest(manifest, prepared)


def test_the_release_refuses_a_set_of_another_parser_and_names_both(prepared):
    with pytest.raises(ConfigError, match=r"prepared with --parser=paper.*--parser=release"):
        checked(prepared, release.get_config(), parser="paper")


def test_other_runs_and_sets_are_let_through(prepared):
    checked(prepared, release.get_config(), parser="release")
    checked(prepared, release.get_config(), parser=None)
    checked(prepared, paper.get_config(), parser="paper")
    # A comparison of fidelities on one set, with a tokenizer of its own.
    changes = {"data.tokenizer.kind": "sentencepiece"}
    checked(prepared, release.get_config(), parser="paper", **changes)
