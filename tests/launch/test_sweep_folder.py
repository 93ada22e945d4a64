"""The mark of a sweep in its folder."""

import json

import pytest

from launch import sweep
from launch.sweeps.config import sweep_of
from launch.sweeps.variants import variants
from prior_jax.errors import ConfigError, DataError
from tests import fixtures
from tests.launch import forks, mistakes
from tests.launch.small_sweep import changed_debug, settings


def test_a_folder_belongs_to_one_sweep(tmp_path):
    def claim(**changes):
        section = settings(**changes)
        checked = sweep_of(section)
        sweep.claim(tmp_path, checked, variants(checked), settings=section)

    plain = settings().arms[0]
    for prototypes in (16, 16):
        changed = changed_debug(tmp_path, f"config.model.bank.num_prototypes = {prototypes}")
        arms = (plain, dict(name="other", config=changed, overrides=()))
        claim(arms=arms)
    with pytest.raises(ConfigError, match=r"sweep\.seeds: The value is \[0, 1\].*\[0, 1, 2\]"):
        claim(arms=arms, seeds=(0, 1))
    # Marks of earlier versions say nothing of tasks and data.
    mark = tmp_path / "sweep.json"
    told = json.loads(mark.read_text())
    assert any(": task." in name for name in told) and any("sweep.data: " in name for name in told)
    older = {k: v for k, v in told.items() if ": task." not in k and "sweep.data: " not in k}
    mark.write_text(json.dumps(older))
    claim(arms=arms)
    name = next(name for name in told if name.endswith("task.split"))
    mark.write_text(json.dumps(told | {name: "validate"}))
    with pytest.raises(ConfigError, match=r"configs/eval/.*: task\.split: .*'test'.*'validate'"):
        claim(arms=arms)
    mark.write_text(json.dumps(told))
    # Another reference changes no trial.
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"sweep.reference": "plain"}))
    claim(arms=(plain, {**arms[1], "reference": "other"}), reference="other")
    # The same settings, but of a config whose file has changed.
    changed_debug(tmp_path, "config.model.bank.num_prototypes = 8")
    with pytest.raises(ConfigError, match=r"other: config\.model\.bank\.num_prototypes: .* 8, but"):
        claim(arms=arms)


def test_a_folder_is_not_marked_before_its_data_is_found(tmp_path):
    """The mark holds what tells the data apart, so that the mended command would differ from it."""
    workdir, data = tmp_path / "sweep", tmp_path / "set"
    tokenizer = fixtures.train_sentencepiece(tmp_path / "tokenizer.model")
    overrides = (("data.path", str(data)), ("data.tokenizer.path", str(tokenizer)))
    command = (
        "launch.sweep",
        [
            mistakes.OBJECTIVES,
            f"--config.data.overrides={overrides}",
            "--config.seeds=(7,)",
            f"--workdir={workdir}",
            "--queue=print",
        ],
    )
    (refused,) = forks.run_all([command])
    mistakes.assert_one_line(refused, r"data\.path: .*set is not a prepared set")
    assert not workdir.exists()
    fixtures.write_prepared(data, studies=40, validate=4, test=4)
    (accepted,) = forks.run_all([command])
    assert accepted["code"] == 0, accepted["err"]
    assert (workdir / "sweep.json").is_file() and "--trial=0" in accepted["out"]


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_mark_is_refused_by_its_file(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(DataError, match=r"sweep\.json: The file does not hold the settings"):
        sweep.claim(tmp_path, sweep_of(settings()), [], settings=settings())
