"""A trained run from Python: the numbers of its evaluation, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import prior_jax
from launch.evaluation.tasks import load_task
from prior_jax.config import read_kept_config
from prior_jax.data import pipeline
from prior_jax.errors import CheckpointError, DataError
from prior_jax.evaluate import labels, prompts, zero_shot


@pytest.fixture(scope="module")
def model(finished):
    return prior_jax.load(finished.workdir)


def test_both_doors_lead_to_one_zero_shot(finished, model, tmp_path):
    written = json.loads((finished.workdir / "eval" / "zero_shot.json").read_text())
    data = read_kept_config(finished.workdir).data
    split = pipeline.open_split(data, "test", cache_dir=finished.workdir / "cache")
    records = [split.record(index) for index in range(len(split))]
    paths = [tmp_path / f"{index}.jpg" for index in range(len(records))]
    for path, record in zip(paths, records, strict=True):
        path.write_bytes(record.images[0])
    task = load_task("configs/eval/zero_shot.py")
    classes = written["settings"]["classes"]
    table = prompts.prompt_table(
        task.prompts.set, classes=classes, negatives=task.prompts.negatives
    )
    scores = model.zero_shot_classification(paths, table, pool=task.zero_shot.pool)
    found = zero_shot.measure(
        scores.to_numpy(),
        labels.select_columns(
            np.array([record.labels for record in records], np.int8),
            label_names=split.label_names,
            classes=classes,
            field="classes",
        ),
        classes=classes,
        groups=np.arange(len(records)),
        config=task.zero_shot,
        resampling=dataclasses.replace(task.bootstrap, resamples=2),
    )
    for name, metric in found.metrics.items():
        assert metric.value == pytest.approx(written["metrics"][name]["value"], abs=2e-3), name


def test_a_step_can_be_chosen(finished, model):
    steps = sorted(int(path.name) for path in (finished.workdir / "checkpoints").iterdir())
    earlier = prior_jax.load(finished.workdir, step=steps[0])
    assert earlier.fingerprint != model.fingerprint
    with pytest.raises(CheckpointError, match="no checkpoint at step 7"):
        prior_jax.load(finished.workdir, step=7)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"config\.json cannot be read \(No such file"):
        prior_jax.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: .*is not JSON"):
        prior_jax.load(tmp_path)


def test_another_tokenizer_is_refused(finished, tmp_path):
    for name in ("config.json", "tokenizer/tokenizer.model"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(finished.workdir / name, tmp_path / name)
    for name in ("checkpoints", "data"):
        (tmp_path / name).symlink_to(finished.workdir / name)
    config = json.loads((tmp_path / "config.json").read_text())
    config["data"]["tokenizer"]["lower_case"] ^= True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: The tokenizer has the sha256"):
        prior_jax.load(tmp_path)
