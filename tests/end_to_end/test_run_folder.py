"""What a refused command does to the folder of a finished run: nothing."""

import hashlib
import json
import shutil
import sys

import pytest

from tests.end_to_end import runs
from tests.launch import forks

# Each of another kind; {data} stands for the run's own data, {debug} for its config.
REFUSED = {
    "another objective": ["--config=configs/baselines/phantom.py:clip", "{data}"],
    "GLoRIA": ["--config=configs/gloria/phantom.py", "{data}"],
    "another seed": ["{debug}", "--config.seed=7"],
    "another batch size": ["{debug}", "--config.data.batch_size=24"],
    "other embeddings": ["{debug}", "--config.model.embed_dim=16"],
    "another rate": ["{debug}", "--config.stages.stage1.learning_rate=0.5"],
    "a longer first stage": ["{debug}", "--config.stages.stage1.length=99"],
    "fewer steps than are done": ["{debug}", "--config.stages.stage3.length=1"],
    "other weight decay": ["{debug}", "--config.optimizer.clip_norm=9.0"],
    "another fidelity": ["{debug}", "--config.model.fidelity=release"],
    "other images": ["{debug}", "--config.data.image.size=48"],
    "other buckets": ["{debug}", "--config.data.max_tokens=32"],
    "another phantom": ["{debug}", "--config.prepare.phantom.studies=60"],
    "another vocabulary": ["{debug}", "--config.prepare.vocab_size=150"],
    "an unknown setting": ["{debug}", "--config.data.batchsize=4"],
    "a value of the wrong type": ["{debug}", "--config.data.batch_size=many"],
    "a mesh that is not there": ["{debug}", "--config.mesh.axes.data=3"],
    "a task that is not there": ["{debug}", "--config.after=('configs/eval/none.py',)"],
    "absent data": ["{debug}", "--config.data.path=/nowhere/set"],
    "an odd checkpoint folder": ["{debug}", "--config.checkpoint.directory=/tmp/[x]"],
    "an unknown objective": ["{debug}", "--config.objective=nothing"],
}


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def program(module, workdir, *options, code=0):
    """Runs a program on a folder; returns what it printed."""
    process = runs.Running([sys.executable, "-m", module, f"--workdir={workdir}", *options])
    found, output = runs.finish(process)
    assert found == code, output
    return output


def arguments(options, finished):
    """The command-line arguments of these options."""
    given = []
    for option in options:
        if option == "{debug}":
            given.append("--config=configs/debug.py")
        elif option == "{data}":
            given += list(finished.data)
        else:
            given.append(option)
    return given


def refused(workdir, options, finished):
    """Runs launch.train with these options; returns its one line."""
    output = program("launch.train", workdir, *arguments(options, finished), code=2)
    return output.strip().splitlines()[-1]


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished debug run, so that others keep theirs."""
    return shutil.copytree(finished.workdir, tmp_path / "run")


# Those of each time, and how their lines begin.
NAMED = {
    "another objective": "config.objective",
    "another seed": "config.seed",
    "another vocabulary": "config.prepare.vocab_size: The value is 150, but the tokenizer ",
    "an odd checkpoint folder": "config.checkpoint.directory",
}


@pytest.fixture(scope="module")
def refusals(finished, tmp_path_factory):
    """Kind -> how the program ended, and hashes of its copy of the run before and afterwards."""
    folder = tmp_path_factory.mktemp("refused")
    copies = [shutil.copytree(finished.workdir, folder / str(i)) for i in range(len(NAMED))]
    cases = [
        ("launch.train", [f"--workdir={copy}", *arguments(REFUSED[kind], finished)])
        for kind, copy in zip(NAMED, copies, strict=True)
    ]
    before = [hashes(copy) for copy in copies]
    ended = forks.run_all(cases)
    after = [hashes(copy) for copy in copies]
    return dict(zip(NAMED, zip(ended, before, after, strict=True), strict=True))


@pytest.mark.parametrize("kind", NAMED)
def test_a_refused_command_leaves_a_finished_run_as_it_was(refusals, kind):
    result, before, after = refusals[kind]
    assert result["code"] == 2, result["err"]
    assert after == before
    assert result["err"].strip().splitlines()[-1].startswith(NAMED[kind])


@pytest.mark.slow
def test_refused_commands_leave_what_evaluation_export_and_loading_give(finished, copied):
    def results():
        for path in (copied / "eval").iterdir():
            path.unlink()
        program("launch.evaluate", copied, "--task=configs/eval/retrieval.py")
        found = json.loads((copied / "eval" / "retrieval.json").read_text())
        out = copied.parent / "exported"
        shutil.rmtree(out, ignore_errors=True)
        program("launch.export", copied, f"--out={out}", "--format=image_safetensors,hf_bert")
        return found, {n: h for n, h in hashes(out).items() if n.endswith(".safetensors")}

    first = results()
    before = hashes(copied)
    for kind, options in REFUSED.items():
        line = refused(copied, options, finished)
        print(f"{kind}: {line}")
        assert hashes(copied) == before, kind
    assert results() == first


@pytest.mark.slow
def test_a_set_without_labels_trains_and_gets_its_report(finished, tmp_path):
    """Zero-shot classification is named and skipped; retrieval is counted by pair."""
    from data_prep import mimic_cxr
    from data_prep.kit import cli

    raw = finished.workdir / "data" / "raw"
    mimic_cxr.prepare(
        mimic_cxr.Paths(images_dir=str(raw), reports=str(raw / "reports")),
        mimic_cxr.Settings(short_side=48, labels="none"),
        cli.RunOptions(out=str(tmp_path / "set"), workers=1),
    )
    output = runs.go(
        tmp_path / "run",
        f"--config.data.path={tmp_path / 'set'}",
        f"--cache_dir={finished.workdir / 'cache'}",
        *(f"--config.stages.stage{stage}.length=1" for stage in (1, 2, 3)),
        *(f"--config.stages.stage{stage}.warmup=0" for stage in (1, 2, 3)),
    )
    assert "The task zero_shot was skipped: task.classes" in output
    last = [line for line in output.splitlines() if line.strip()][-2:]
    assert last[0].startswith("report: ")
    assert last[1].startswith("The task zero_shot was skipped: task.classes: No class can")
    found = json.loads((tmp_path / "run" / "eval" / "retrieval.json").read_text())
    assert found["metrics"]["recall_at_10"]["value"] is not None
    assert (tmp_path / "run" / "report" / "index.html").is_file()
