"""The check of a compiled step takes segmentations and detectors, and knows their batches."""

import json
import subprocess
import sys

import jax
import pytest

from configs.finetune import debug as small_config
from configs.finetune import detection, segmentation
from launch.start.without_data import BOXES, abstract_batch
from tests.launch import subjects

CLASSES = ("Cardiomegaly", "Effusion")
KINDS = {"segmentation": segmentation, "detection": detection}


@pytest.mark.parametrize("kind", KINDS)
def test_the_abstract_batch_is_of_the_shapes_that_are_read(kind, tmp_path):
    path = subjects.write_set(tmp_path / "set", train=3, validate=2, test=3)
    config, small = KINDS[kind].get_config(), small_config.get_config()
    config.model.image.resnet = small.model.image.resnet
    config.data.image = small.data.image
    if kind == "segmentation":
        config.model.decoder.update(dict(kind="linear", channels=()))
    else:
        config.model.image.resnet.update(dict(depths=(1, 1, 1), width=8))
    config.model.classes = CLASSES
    config.data.regions.convert = True
    config.data.update(dict(workers=0, threads=2, batch_size=3))
    subject = subjects.on_set(config, path, tmp_path / "out")
    opened = subject.open("test")
    (batch, *_) = subject.batches(opened, batch_size=3, require_text=False)
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), batch.replace(labels=None))
    # A study has one region of each class on its image, so that there are two boxes.
    given = abstract_batch(subject.data, length=batch.tokens.shape[1], boxes=2)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), given.replace(labels=None)) == wanted
    assert (given.masks is None) == (kind == "detection")


WIDTHS = {"segmentation": ("--config.model.decoder.channels=(16,8,8,4)",), "detection": ()}


def run(kind, path, *flags):
    command = [
        sys.executable, "-m", "launch.compile_check", f"--config=configs/finetune/{kind}.py",
        "--machine=configs/machines/cpu.py", "--platform=cpu", "--pairs_per_chip=2",
        "--config.model.image.resnet.depths=(1,1,1)", "--config.model.image.resnet.width=8",
        "--config.model.image.resnet.block=basic", "--config.data.image.size=64", f"--json={path}",
    ]  # fmt: skip
    return subprocess.run([*command, *WIDTHS[kind], *flags], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_compiled_and_counted(kind, tmp_path):
    found = {}
    for stage in ("frozen", "finetune"):
        done = run(kind, tmp_path / stage, f"--stage={stage}")
        assert done.returncode == 0, done.stderr
        assert "2 images a chip" in done.stdout
        (found[stage],) = json.loads((tmp_path / stage).read_text())
    frozen, tuned = found["frozen"], found["finetune"]
    assert tuned["fits"] and tuned["tokens"] is None
    images = 2 * 64 * 64 * 3 * 4
    targets = {"segmentation": 2 * 64 * 64, "detection": 2 * BOXES * (4 * 4 + 4 + 1)}
    # Three tokens, a sentence, labels, weight and record.
    rest = 2 * (3 * (4 + 1 + 4) + 1 + 14 + 4 + 4)
    assert tuned["memory_bytes"]["batch"] == images + targets[kind] + rest
    assert frozen["flops"] < tuned["flops"]
    assert frozen["memory_bytes"]["optimizer"] < tuned["memory_bytes"]["optimizer"]
    assert frozen["memory_bytes"]["parameters"] == tuned["memory_bytes"]["parameters"]


@pytest.mark.slow
def test_flags_on_what_is_not_read_are_refused(tmp_path):
    for kind, flag in (("segmentation", "--boxes=3"), ("detection", "--length=64")):
        done = run(kind, tmp_path / "found", flag)
        assert done.returncode == 2 and f"{flag.split('=')[0]}: " in done.stderr + done.stdout
