"""Every command of the documents can be given, or commands.toml says why it is not tried."""

import ast
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from configs.finetune import classification
from data_prep import chexpert, nih
from prior_jax.objectives.label_targets import columns_of

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
# What a line in a block begins with if it is a command, behind settings of the environment.
PROGRAMS = (
    "bash", "git", "gcloud", "kubectl", "pip", "pyright", "pytest", "python", "python3", "ruff",
    "sbatch", "scancel", "scontrol", "sphinx-build", "srun",
)  # fmt: skip
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ +)*(?:{'|'.join(PROGRAMS)})(?: |$)")
# A block and its language; those of these languages are no input of a shell.
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.M | re.S)
OTHER_LANGUAGES = ("python", "text", "toml", "json")
LISTED = tomllib.loads((ROOT / "tests" / "commands.toml").read_text())


def commands_of(text):
    """The commands in the blocks of a document, each on one line and without its comment."""
    for indent, language, block in BLOCK.findall(text):
        if language in OTHER_LANGUAGES:
            continue
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            for part in re.sub(r" +#.*", "", line.removeprefix(indent)).split(" && "):
                if COMMAND.match(part):
                    yield part.strip()


COMMANDS = sorted({c for document in DOCUMENTS for c in commands_of(document.read_text())})

# Prepared set of the documents -> its labels; MIMIC-CXR's are CheXpert's.
LABELS = {"mimic": chexpert.LABELS, "nih": nih.LABELS}

# Commands with a mistake -> what is said of it.
DEBUG = "python -m launch.train --config=configs/debug.py --workdir=/tmp/x"
WRONG = {
    f"{DEBUG} --config.data.batch=1": "batch",
    f"{DEBUG} --config.data.batch_size=many": "batch_size",
    f"{DEBUG} --work=1": "work",
    f"{DEBUG} words": "words",
    DEBUG.replace("debug", "absent"): "configs/absent.py",
    DEBUG.replace("train", "absent"): "launch.absent",
    f"{DEBUG.replace('train', 'submit')} --dry_run": "cluster",
    "python -m data_prep.verify --path=/tmp/x --samples=1": "samples",
}


def words(command):
    """The words of a command without the settings of the environment."""
    found = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", found[0]):
        found.pop(0)
    return found


def own_module(command):
    """The module of this project that a command runs, or None."""
    found = words(command)
    if found[:2] == ["python", "-m"] and found[2].split(".")[0] in ("launch", "data_prep"):
        return found[2]
    return None


def untried():
    """Commands that need not be tried."""
    return {entry["command"] for entry in LISTED["untried"]}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Command -> what its program says of it, for all programs of this project."""
    tmp = tmp_path_factory.mktemp("commands")
    tried = [command for command in COMMANDS if own_module(command) and command not in untried()]
    tried += WRONG
    cases = [{"module": own_module(command), "argv": words(command)[3:]} for command in tried]
    (tmp / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-m", "tests.parsing", tmp / "cases.json", tmp / "found.json"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    return dict(zip(tried, json.loads((tmp / "found.json").read_text()), strict=True))


def test_the_commands_are_found():
    assert len(COMMANDS) > 60
    assert "python -m launch.train --config=configs/debug.py --workdir=/tmp/prior_debug" in COMMANDS
    block = "```\nA=1 python -m launch.a --b \\\n  --c && pytest  # all\nx\n```\n"
    found = list(commands_of(block))
    assert found == ["A=1 python -m launch.a --b --c", "pytest"]
    assert not list(commands_of("```text\npython -m launch.train\n```\npython -m launch.train\n"))


def test_every_program_knows_the_flags_and_settings_that_its_commands_name(refusals):
    given = {command: said for command, said in refusals.items() if command not in WRONG}
    assert given and {command: said for command, said in given.items() if said} == {}


@pytest.mark.parametrize("command", WRONG)
def test_a_flag_or_setting_that_is_not_there_is_noticed(refusals, command):
    assert WRONG[command] in refusals[command]


def test_the_classes_of_every_classifier_are_labels_of_its_set():
    sets = set()
    for command in COMMANDS:
        flags = dict(word[2:].split("=", 1) for word in words(command) if "=" in word)
        if not flags.get("config", "").startswith("configs/finetune/classification.py"):
            continue
        given = flags.get("config.model.classes")
        classes = ast.literal_eval(given) if given else classification.get_config().model.classes
        data_set = pathlib.Path(flags["config.data.path"]).name
        assert columns_of(classes, LABELS[data_set]), command
        sets.add(data_set)
    assert sets == set(LABELS)


def test_every_test_command_names_files_and_options_that_are_there(request):
    for command in COMMANDS:
        if words(command)[0] != "pytest":
            continue
        for word in words(command)[1:]:
            if word.startswith("tests"):
                assert (ROOT / word).exists(), command
            elif word.startswith("--"):  # an unknown one raises
                request.config.getoption(word.split("=")[0].removeprefix("--").replace("-", "_"))


def test_every_install_command_names_extras_that_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for command in COMMANDS:
        if words(command)[0] == "pip":
            assert words(command)[1] == "install", command
            what = words(command)[-1]
            found = re.fullmatch(r"(?:\.|prior_jax)(?:\[([\w,]+)\])?", what)
            assert found, command
            extras = set((found[1] or "").split(",")) - {""}
            assert extras <= set(project["optional-dependencies"]), command


def test_every_other_command_is_listed_with_a_reason():
    tried = {c for c in COMMANDS if own_module(c) or words(c)[0] in ("pytest", "pip")}
    assert set(COMMANDS) - tried - untried() == set()


def test_the_list_has_no_command_that_no_document_gives():
    listed = [entry["command"] for part in ("untried", "run") for entry in LISTED[part]]
    assert len(listed) == len(set(listed))
    assert set(listed) - set(COMMANDS) == set()
    for entry in LISTED["untried"]:
        assert len(entry["reason"].split()) > 3, entry
    for entry in LISTED["run"]:
        assert (ROOT / entry["test"]).is_file(), entry
