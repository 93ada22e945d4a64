"""None, and a section in the place of None, on the command line."""

import json
import pathlib
import subprocess
import sys

import pytest

from configs import debug
from configs.baselines import lovt
from launch.start import whole_settings
from prior_jax.config import read_config
from prior_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).parents[2]
DEBUG, LOVT = "--config=configs/debug.py", "--config=configs/baselines/lovt.py"
STOPPING = dict(metric="validation_total_loss", min_delta=0.0, mode="min", patience=3)
# Name -> arguments, and the settings that the config then has.
ACCEPTED = {
    "a section": ([LOVT, "--config.early_stopping=None"], {"early_stopping": None}),
    "a section below another": ([DEBUG, "--config.init.image=None"], {"init.image": None}),
    "a number": ([DEBUG, "--config.validate_every=None"], {"validate_every": None}),
    "a value without equals": ([DEBUG, "-config.seed", "None"], {"seed": None}),
    "a path": (
        [DEBUG, "--config.data.path=/data", "--config.data.path=None"],
        {"data.path": None},
    ),
    "a tuple": ([DEBUG, "--config.data.image.mean=None"], {"data.image.mean": None}),
    "a value after it": (
        [DEBUG, "--config.validate_every=None", "--config.validate_every=3"],
        {"validate_every": 3},
    ),
    "a section in the place of None": (
        [DEBUG, f"--config.early_stopping={STOPPING}"],
        {"early_stopping": STOPPING},
    ),
    "a section after it": (
        [LOVT, "--config.early_stopping=None", f"--config.early_stopping={STOPPING}"],
        {"early_stopping": STOPPING},
    ),
    "a section that the parser takes": (
        [LOVT, f"--config.early_stopping={STOPPING}"],
        {"early_stopping": STOPPING},
    ),
    "text that contains it": ([DEBUG, "--config.name=None_of_them"], {"name": "None_of_them"}),
}
# Name -> arguments, and the line that refuses them.
REFUSED = {
    "unknown": (
        [DEBUG, "--config.erly_stopping=None"],
        "config.erly_stopping: There is no setting 'erly_stopping' in config. Did you mean "
        "'early_stopping'?",
    ),
    "no section": (
        [DEBUG, "--config.seed.x=None"],
        "config.seed.x: config.seed is not a section; its value is 0.",
    ),
    "a part of it before": (
        [LOVT, "--config.early_stopping.patience=3", "--config.early_stopping=None"],
        "config.early_stopping.patience: The setting lies within config.early_stopping, which "
        "another argument sets to None as a whole. Leave out --config.early_stopping or "
        "--config.early_stopping.patience.",
    ),
    "a part of it behind": (
        [LOVT, "--config.early_stopping=None", "--config.early_stopping.patience=3"],
        "config.early_stopping.patience: The setting lies within",
    ),
    "of a config that is not given": (
        [DEBUG, "--task.data.path=None"],
        "--task.data.path: --task is not given. Give --task=FILE, or leave the setting out.",
    ),
    "a number in the place of None": (
        [DEBUG, "--config.early_stopping=3"],
        "config.early_stopping: The file of the config leaves the setting at None, and",
    ),
}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("parsed")
    cases = {**ACCEPTED, **REFUSED}
    (tmp / "cases.json").write_text(json.dumps([argv for argv, _ in cases.values()]))
    command = [sys.executable, "-m", "tests.launch.parsed", tmp / "cases.json", tmp / "out.json"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    found = json.loads((tmp / "out.json").read_text())
    return dict(zip(cases, found, strict=True))


def at(config, setting):
    for key in setting.split("."):
        config = config[key]
    return config


@pytest.mark.parametrize("case", ACCEPTED)
def test_the_config_has_what_the_command_line_says(parsed, case):
    found, (_, expected) = parsed[case], ACCEPTED[case]
    assert found["code"] == 0, found["said"]
    assert {name: at(found["config"], name) for name in expected} == expected
    # A job on a cluster gets the same overrides.
    file, *overrides = found["arguments"]
    assert file.startswith("--config=configs/")
    assert set(overrides) == {f"--config.{name}={value}" for name, value in expected.items()}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_set_is_refused_in_one_line(parsed, case):
    found, (_, line) = parsed[case], REFUSED[case]
    assert found["code"] == 2
    assert found["said"].startswith(line) and found["said"].count("\n") == 1, found["said"]


def settings(config, name=""):
    """Every setting and section."""
    for key, value in config.items():
        yield f"{name}{key}"
        if isinstance(value, dict):
            yield from settings(value, f"{name}{key}.")


@pytest.mark.parametrize("make", [debug.get_config, lovt.get_config])
def test_none_in_any_place_is_accepted_or_refused_by_the_name_of_the_place(make, tmp_path):
    refused = 0
    for setting in settings(make().to_dict()):
        config = make()
        config.data.path = config.data.path or "/data"
        config.lock()
        whole_settings.put(config, whole_settings.Whole("config", setting, None), {})
        try:
            read_config(config, workdir=tmp_path)
        except ConfigError as error:
            refused += 1
            section = setting.rpartition(".")[0]
            assert error.where in (f"config.{setting}", f"config.{section}"), (setting, error)
    assert refused > 50
