"""A dry run prints exactly what would run, and makes nothing."""

import json
import pathlib
import shlex
import subprocess
import sys

import pytest

from configs.sweeps import objectives

ROOT = pathlib.Path(__file__).parents[2]
OBJECTIVES = ["--config=configs/sweeps/objectives.py", "--config.seeds=(7,8)"]
DEBUG = ["--config=configs/baselines/phantom.py:clip", "--config.seed=3", "--config.name=a 'b'"]
ARMS = [arm["name"] for arm in objectives.get_config().arms]
TRIALS = range(2 * len(ARMS))  # for each of the two seeds
CLUSTER = "--cluster=configs/clusters/{}.py"
SLICE = ["--machine=configs/machines/v5e_16.py", "--machine.remat.image=none", "--pairs_per_chip=4"]
CASES = {
    "local": ("launch.sweep", OBJECTIVES),
    "print": ("launch.sweep", [*OBJECTIVES, "--queue=print"]),
    "array": (
        "launch.sweep",
        [*OBJECTIVES, "--queue=slurm", CLUSTER.format("slurm_cpu"), "--parallel=3"],
    ),
    "slurm": ("launch.submit", [*DEBUG, CLUSTER.format("slurm_gpu"), "--cluster.nodes=4"]),
    "tpu": ("launch.submit", [*DEBUG, CLUSTER.format("tpu_v5e"), *SLICE, "--name=other"]),
    "gke": ("launch.submit", [*DEBUG, CLUSTER.format("gke_h100"), "--cluster.mount={tmp}"]),
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Case -> the lines that it prints."""
    tmp = tmp_path_factory.mktemp("dry")
    workdir = tmp / "my run"
    cases = [
        {
            "program": program,
            "argv": [
                *(argument.replace("{tmp}", str(tmp)) for argument in argv),
                f"--workdir={workdir}",
                "--dry_run",
            ],
        }
        for program, argv in CASES.values()
    ]
    (tmp / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, "-m", "tests.launch.forks", tmp / "cases.json", tmp / "found.json"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    found = json.loads((tmp / "found.json").read_text())
    assert [result["code"] for result in found] == [0] * len(CASES), found
    assert not workdir.exists()
    lines = [result["out"].replace(str(workdir), "/my run").splitlines() for result in found]
    return dict(zip(CASES, lines, strict=True))


def test_local_trials_are_commands_of_the_train_program(printed):
    commands = [shlex.split(line) for line in printed["local"]]
    assert len(commands) == len(TRIALS)
    assert all(command[1:3] == ["-m", "launch.train"] for command in commands)
    folders = [f"--workdir=/my run/trials/{arm}/seed_{seed}" for seed in (7, 8) for arm in ARMS]
    assert [word for command in commands for word in command if "--workdir" in word] == folders
    assert all("--config.seed=7" in command for command in commands[: len(ARMS)])


def test_printed_trials_leave_what_is_collected(printed):
    commands = [shlex.split(line) for line in printed["print"]]
    given = ["-m", "launch.sweep", OBJECTIVES[0], "--config.seeds=(7, 8)", "--workdir=/my run"]
    assert [command[1:] for command in commands] == [[*given, f"--trial={n}"] for n in TRIALS]


def test_an_array_has_a_task_for_each_trial(printed):
    make, submit = (shlex.split(line) for line in printed["array"])
    assert make == ["mkdir", "-p", "--", "/my run/logs"]
    assert submit[0] == "sbatch" and "--array=" + ",".join(map(str, TRIALS)) + "%3" in submit
    assert submit[-5:-1] == ["-m", "launch.sweep", OBJECTIVES[0], "--config.seeds=(7, 8)"]


@pytest.mark.parametrize("case", ["slurm", "tpu", "gke"])
def test_a_cluster_gets_the_config_as_it_was_given(printed, case):
    text = "\n".join(printed[case])
    if case == "gke":
        # The manifest is YAML; its command is a list in JSON.
        (line,) = (line for line in printed[case] if "command: " in line)
        words = json.loads(line.partition("command: ")[2])
    elif case == "tpu":
        (line,) = (line for line in printed[case] if "one_process.sh" in line)
        words = shlex.split(shlex.split(line)[-1])
    else:
        assert "--nodes=4" in text
        words = shlex.split(printed[case][-1])
    start = words.index("launch.train")
    given = [*DEBUG, *SLICE] if case == "tpu" else DEBUG
    assert words[start + 1 : start + len(given) + 2] == [*given, "--workdir=/my run"]
    name = "other" if case == "tpu" else "my-run"
    assert name in text
