"""Jobs of Slurm: what is submitted, what becomes of its processes, and of jobs that are stopped."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from configs.clusters import slurm_cpu, slurm_gpu
from launch.clusters.slurm import job
from launch.clusters.work import Work, default_name
from launch.submit import cluster_of, run_all
from prior_jax.errors import ConfigError
from tests.launch import fake_slurm

ROOT = pathlib.Path(__file__).parents[2]
WORDS = ("two words", "$HOME 'and' \"more\"", "")
SCRIPTS = sorted(path for end in ("sbatch", "sh") for path in (ROOT / "launch").rglob(f"*.{end}"))


def cluster(**changes):
    config = slurm_cpu.get_config()
    config.update(changes)
    return cluster_of(config)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder with a blank and a percent sign, and a cluster of one machine."""
    for name, value in fake_slurm.install(tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "my 100%job"


def work(workdir, behaviour):
    return Work(
        name="run",
        workdir=workdir,
        module="tests.launch.fake_program",
        arguments=(behaviour, *WORDS),
    )


def train(workdir, behaviour, *, nodes):
    """Submits a job and waits for it; returns its exit code and its processes' logs."""
    commands = job.train(cluster(nodes=nodes), work(workdir, behaviour))
    assert run_all(commands, dry_run=False) == 0
    code = int((workdir.parent / "bin" / "state" / "codes").read_text())
    logs = [workdir / "logs" / f"process_{index}.log" for index in range(nodes)]
    assert sorted(workdir.rglob("*.log")) == [workdir / "logs" / "job_4711.log", *logs]
    return code, [log.read_text().splitlines() for log in logs]


def test_the_job_files_pass_shellcheck():
    assert len(SCRIPTS) == 4
    places = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    tool = shutil.which("shellcheck", path=places)
    command = [tool, "--external-sources", "--norc", *SCRIPTS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout


def test_every_process_has_its_index_its_arguments_and_its_log(workdir):
    code, logs = train(workdir, "echo", nodes=2)
    assert code == 0
    for index, log in enumerate(logs):
        words = [*WORDS, "--distributed=auto"]
        assert [json.loads(line) for line in log] == [
            {"words": words, "process": index, "restarts": 0}
        ]


def test_a_job_that_is_warned_saves_and_goes_on_from_the_queue(workdir):
    code, logs = train(workdir, "stop", nodes=2)
    assert code == 0
    for log in logs:
        assert log[1] == "saved"
        assert [json.loads(log[0])["restarts"], json.loads(log[2])["restarts"]] == [0, 1]
    said = (workdir / "logs" / "job_4711.log").read_text()
    assert "asked the job to stop" in said and "Exit code 75: start 0 has ended" in said


def test_processes_that_do_not_save_in_time_go_on_too(workdir):
    code, (log,) = train(workdir, "stuck", nodes=1)
    assert code == 0 and json.loads(log[1])["restarts"] == 1


def test_a_job_that_its_user_cancels_stays_cancelled(workdir):
    (workdir.parent / "bin" / "state" / "cancelled").touch()
    code, (log,) = train(workdir, "stop", nodes=1)
    assert code == 75 and len(log) == 2


def test_a_job_that_fails_is_not_requeued(workdir):
    code, logs = train(workdir, "fail", nodes=2)
    assert code == 2 and logs[1][1:] == ["the bang"] and len(logs[0]) == 2


def test_an_array_runs_each_trial_that_is_left(workdir):
    commands = job.array(cluster(gpus=1), work(workdir, "echo"), indices=(1, 3), parallel=2)
    assert "--array=1,3%2" in commands[1].arguments
    assert run_all(commands, dry_run=False) == 0
    for index in (1, 3):
        (line,) = (workdir / "logs" / f"trial_{index}.log").read_text().splitlines()
        assert json.loads(line)["words"] == [*WORDS, f"--trial={index}"]
        assert (workdir / "logs" / f"job_4711_{index}.log").is_file()
    assert job.array(cluster(), work(workdir, "echo"), indices=(), parallel=None) == []


def test_a_trial_that_is_warned_stops_and_goes_on_alone(workdir):
    """Its SLURM_JOB_ID may be that of the whole array."""
    commands = job.array(cluster(), work(workdir, "stop"), indices=(1, 3), parallel=1)
    assert run_all(commands, dry_run=False) == 0
    assert (workdir.parent / "bin" / "state" / "codes").read_text() == "0 0"
    for index in (1, 3):
        log = (workdir / "logs" / f"trial_{index}.log").read_text().splitlines()
        assert log[1] == "saved"
        assert [json.loads(log[0])["restarts"], json.loads(log[2])["restarts"]] == [0, 1]


def test_a_process_for_each_gpu_and_only_what_is_asked_for():
    config = slurm_gpu.get_config()
    config.update(dict(nodes=4, partition="fast", options=("--exclusive", "--mem=0")))
    place = pathlib.Path("/runs/one")
    given = job.train(cluster_of(config), work(place, "echo"))[1].arguments
    wanted = {"--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--partition=fast"}
    assert wanted | {"--exclusive", "--mem=0"} <= set(given)
    assert not any(option.startswith("--account") for option in given)
    assert cluster_of(config).devices == 32 and cluster(nodes=3).devices == 3
    plain = job.train(cluster(), work(place, "echo"))[1].arguments
    assert "--ntasks-per-node=1" in plain and not any("gpus" in option for option in plain)


def test_a_mistake_is_refused_by_name(tmp_path):
    for changes, named in (
        (dict(nodes=0), r"cluster\.nodes"),
        (dict(gpus=-1), r"cluster\.gpus"),
        (dict(kind="pbs"), r"cluster\.kind.*slurm"),
    ):
        with pytest.raises(ConfigError, match=named):
            cluster(**changes)
    with pytest.raises(ConfigError, match=r"cluster\.nodes: The cluster has 2 nodes.*sweep"):
        job.array(cluster(nodes=2), work(tmp_path, "echo"), indices=(0,), parallel=1)
    with pytest.raises(ConfigError, match=r"--workdir.*absolute"):
        work(pathlib.Path("here"), "echo")
    with pytest.raises(ConfigError, match=r"--name: The value is 'My_run'"):
        Work(name="My_run", workdir=tmp_path, module="x", arguments=())
    assert default_name(pathlib.Path("/x/My run_2%")) == "my-run-2"


def test_a_machine_without_slurm_is_told_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    command = job.train(cluster(), work(tmp_path, "echo"))[1]
    with pytest.raises(ConfigError, match=r"no program 'sbatch'.*dry_run"):
        command.run()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_of_a_job_train_together(workdir):
    run = Work(
        name="run",
        workdir=workdir,
        module="launch.train",
        arguments=(
            "--config=configs/debug.py",
            f"--workdir={workdir}",
            "--config.stages.stage1.length=4",
            "--cpu_devices=1",
        ),
    )
    assert run_all(job.train(cluster(nodes=2), run), dry_run=False) == 0
    state = workdir.parent / "bin" / "state"
    logs = [(workdir / "logs" / f"process_{index}.log").read_text() for index in range(2)]
    assert (state / "codes").read_text() == "0", logs[0][-3000:]
    text = (workdir / "metrics.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps == list(range(1, 21))
