"""What the launcher makes of a set that is there already."""

from configs import debug
from data_prep import mimic_cxr
from data_prep.kit.writer import ProgramChanged
from data_prep.phantom import hospital
from launch.start import prepare
from prior_jax.config import read_config


def test_a_run_goes_on_with_the_set_that_an_earlier_version_has_prepared(tmp_path, monkeypatch):
    def changed(*_):
        raise ProgramChanged("--out", received="a set", accepted="another")

    monkeypatch.setattr(hospital, "draw_phantom", lambda *_, **__: None)
    monkeypatch.setattr(mimic_cxr, "prepare", changed)
    config = debug.get_config()
    config.data.tokenizer.path = str(tmp_path / "tokenizer.model")
    read = read_config(config, workdir=tmp_path)
    prepare.make_absent(read, tmp_path)
    assert read.data.path == str(tmp_path / "data" / "set")
