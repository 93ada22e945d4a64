"""The tasks of detection on a prepared set: a run's detector, and one that is trained for it."""

import dataclasses
import json
import pathlib
import runpy
from typing import cast

import jax
import numpy as np
import pytest
from flax import nnx

import prior_jax
from configs.eval import detection as config_of_task
from configs.finetune import detection_base, detection_names
from launch import evaluate
from launch.evaluation import detect, models
from launch.evaluation.set_checks import check_set, check_task
from launch.evaluation.task_results import measure, remarks
from launch.evaluation.tasks import load_task, task_of
from launch.export import export
from launch.start.without_data import abstract_batch
from prior_jax.config import read_config
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import ConfigError
from prior_jax.evaluate import box_file
from prior_jax.evaluate.embed import Encoder
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement
from tests import fixtures
from tests.launch import subjects

CLASSES = ("Effusion", "Cardiomegaly")
PROTOCOLS = {
    "lovt": ("rsna_1", "rsna_10_finetune", "rsna_100_release", "object_cxr_100_finetune_release"),
    "mgca": ("rsna_1", "rsna_100_release", "object_cxr_1", "object_cxr_10_release"),
}


def small(config):
    """The config with a narrow encoder on the small images of the tests."""
    config.model.dtype = "float32"
    config.model.image.resnet.update(
        dict(depths=(1, 1, 1), width=4, block="basic", stem_pool=False)
    )
    config.model.head.width = 8
    config.data.image.update(dict(size=32, channels=1))
    config.data.update(dict(batch_size=8, workers=0, threads=2))
    config.data.regions.convert = True  # one of the classes has masks alone
    config.quick_compile = True
    return config


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    return subjects.write_set(folder / "set", train=16, validate=10, test=20)


@pytest.fixture(scope="module")
def subject(path):
    config = small(detection_base.get_config(classes=CLASSES))
    return subjects.on_set(config, path, path.parent)


def task(**changes):
    config = config_of_task.get_config()
    config.batch_size, config.bootstrap.resamples = 8, 20
    config.update(changes)
    return task_of(config)


def splits(given, subject):
    """The subject on what the task reads, and its splits."""
    here = dataclasses.replace(subject, data=given.on(subject.data))
    return here, subjects.splits_of(here)


def result_of(given, subject):
    here, opened = splits(given, subject)
    with jax.set_mesh(subject.place.mesh):
        return measure(given, here.trained, subject=here, opened=opened)


@pytest.fixture(scope="module")
def whole(subject):
    return result_of(task(), subject)


def test_a_detector_is_measured_in_every_counting(whole):
    assert whole.settings["classes"] == list(CLASSES)
    names = {"coco_ap", "coco_ap50", "coco_ap75", "map", "lovt_map", "lovt_pos_map", "mgca_map"}
    assert names <= whole.metrics.keys() and "froc" not in whole.metrics
    assert {"map_effusion", "coco_ap50_cardiomegaly"} <= whole.metrics.keys()
    assert whole.settings["images_with_boxes"] == 20 and whole.settings["boxes"]["Effusion"] == 20
    assert whole.settings["predictions"]["Effusion"] > 0
    assert whole.kept.size == (32, 32)
    for one in whole.kept.images:
        assert one.truth.max() <= 32 and one.boxes.min() >= 0


def test_a_class_is_chosen_left_out_or_refused_by_name(subject, whole):
    one = result_of(task(classes=("effusion",), detector=dict(froc=True, coco="own")), subject)
    assert one.settings["classes"] == ["Effusion"] and "froc" in one.metrics
    np.testing.assert_allclose(one.metrics["map"].value, whole.metrics["map_effusion"].value)
    assert all(not one.classes.any() for one in one.kept.images)
    with pytest.raises(ConfigError, match=r"task\.classes.*not trained to detect Gout"):
        result_of(task(classes=("Gout",)), subject)
    with pytest.raises(ConfigError, match=r"task\.classes.*on 21 images"):
        result_of(task(min_positives=21), subject)
    given = task(exclude=("Cardiomegaly",), min_positives=21)
    here, opened = splits(given, subject)
    assert detect.rare(given, here, opened("test")) == {
        "Effusion": "20 images with a box in test, and 21 are needed"
    }


def test_what_the_model_does_not_detect_is_said(subject, path):
    config = small(detection_base.get_config(classes=("Cardiomegaly",)))
    config.data.regions.test_images = "with_regions"
    one = subjects.on_set(config, path, path.parent)
    here, opened = splits(task(), one)
    said = remarks(task(), here, opened("test"))
    others = sum(len(opened("test").record(index).images) - 1 for index in range(20))
    assert said == [
        "boxes that the model does not detect: Effusion",
        "of a study with several images one alone is measured, one with a finding where there is "
        f"one; {others} other images of the split test are not",
    ]


def test_the_task_may_read_other_labels_than_the_training(path):
    config = small(detection_base.get_config(classes=("Finding",)))
    config.data.regions.any_of = ("Cardiomegaly",)
    one = subjects.on_set(config, path, path.parent)
    alone = detect.images_with(splits(task(), one)[1]("test"), one.data.regions)
    given = task(regions=dict(any_of=CLASSES, test_images="all"))
    here, opened = splits(given, one)
    assert here.data.regions.any_of == CLASSES and here.data.regions.convert
    assert alone == {"Finding": 20} == detect.images_with(opened("test"), here.data.regions)
    with pytest.raises(ConfigError, match=r"any_of.*'Mass'"):
        splits(task(regions=dict(any_of=("Mass",))), one)[1]("test")


def test_what_was_measured_is_counted_on_the_console_and_in_the_results(path, tmp_path, capsys):
    studies = [subjects.study(index, boxes=index % 2 == 0) for index in range(8)]
    mixed = fixtures.write_splits(
        tmp_path / "mixed", {"train": studies, "validate": studies, "test": studies}
    )
    one = subjects.on_set(small(detection_base.get_config(classes=CLASSES)), mixed, tmp_path)
    given = task(regions=dict(test_images="with_regions"))
    with jax.set_mesh(one.place.mesh):
        evaluate.Evaluation(one, out=tmp_path).measure(given)
    printed = capsys.readouterr().out
    assert "detection on 4 records of test" in printed
    settings = json.loads((tmp_path / "eval/detection.json").read_text())["settings"]
    assert settings["records"] == 4
    measured, every = (sum(len(one.images) - 1 for one in part) for part in (studies[::2], studies))
    assert settings["images_left_out"] == measured < every
    assert f"{every} other images of the split test are not" in settings["remarks"][0]


def test_the_model_before_its_first_step_is_left_out_on_request(subject, tmp_path):
    one = dataclasses.replace(subject, untrained=cast(Encoder, None))  # whose use would fail
    files = tmp_path / "eval/detection.json", tmp_path / "eval/detection.untrained.draws.npz"
    files[1].parent.mkdir()
    files[1].write_bytes(b"of an earlier evaluation")
    with jax.set_mesh(one.place.mesh):
        evaluate.Evaluation(one, out=tmp_path, untrained=False).measure(task())
    found = json.loads(files[0].read_text())
    assert found["metrics"] and found["untrained"] == {}
    assert not files[1].exists()


def test_other_tasks_read_no_boxes(subject):
    assert load_task("configs/eval/probe.py").on(subject.data).regions is None


def test_another_model_and_a_set_without_boxes_are_refused(subject, path, tmp_path):
    classifier = subjects.classifier(path, tmp_path, classes=CLASSES)
    with pytest.raises(ConfigError, match=r"'classification'.*detection\.py"):
        measure(task(), classifier.trained, subject=classifier, opened=subject.open)
    bare = subjects.write_set(tmp_path / "bare", boxes=False)
    for given in (task(), load_task("configs/eval/detection/any_set.py")):
        with pytest.raises(ConfigError, match=r"task\.data\.path.*no boxes"):
            check_set(given, load_manifest(bare))


def test_the_library_of_coco_is_asked_for_before_anything_is_computed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    given = task(detector=dict(froc=False, coco="faster_coco_eval"))
    with pytest.raises(ConfigError, match=r"task\.detector\.coco: .*\[coco\]"):
        check_task(given)


@pytest.mark.parametrize("paper", PROTOCOLS)
def test_a_protocol_has_a_config_and_results_for_each_setting(paper):
    names = set()
    for name in PROTOCOLS[paper]:
        given = load_task(f"configs/eval/detection/{paper}.py:{name}")
        config = runpy.run_path(f"configs/finetune/{paper}_detection.py")["get_config"](name)
        read = read_config(config, workdir=pathlib.Path("run"))
        assert given.finetune.config.endswith(f"{paper}_detection.py:{name}")
        share = 1.0 if read.data.fraction is None else read.data.fraction.share
        assert given.finetune.fraction == share
        assert given.detector.froc == name.startswith("object")
        released = name.endswith("release")
        assert (read.model.loss.matching == "release") == released
        assert read.model.post.extra_pixel == released
        assert read.train.early_stopping.metric == read.train.checkpoint.best_metric
        names.add(given.result)
    assert len(names) == len(PROTOCOLS[paper])
    with pytest.raises(ConfigError, match="nih_1"):
        runpy.run_path(f"configs/eval/detection/{paper}.py")["get_config"]("nih_1")


def test_lovt_fine_tunes_after_a_hundred_frozen_steps():
    make = runpy.run_path("configs/finetune/lovt_detection.py")["get_config"]
    config, released = make("rsna_1_finetune"), make("rsna_1_finetune_release")
    assert config.stages.frozen.length == 100
    assert config.stages.frozen.length + config.stages.finetune.length == 500 * (160 // 8)
    assert config.stages.finetune.schedule == "plateau"
    assert released.stages.finetune.schedule == "constant"
    assert (config.data.image.fit, released.data.image.fit) == ("pad", "pad_evenly")
    assert make("object_cxr_100").data.image.equalize and not config.data.image.equalize


def test_names_say_set_share_way_and_fidelity():
    known = ("rsna_1", "object_cxr_100")
    found = detection_names.read("object_cxr_100_release", known=known, ways=("frozen",))
    assert (found.set, found.share, found.way, found.release) == ("object_cxr", 1.0, "frozen", True)
    with pytest.raises(ConfigError, match="name"):
        detection_names.read("rsna_1_finetune", known=known, ways=("frozen",))


def test_the_compile_check_sees_boxes(subject):
    """The shapes of the batch from which a step's memory is told are those of detection."""
    config = small(detection_base.get_config(classes=CLASSES))
    config.data.path = "set"
    data = read_config(config, workdir=pathlib.Path("run")).data
    batch = abstract_batch(data, length=3)
    assert batch.boxes.corners.shape == (8, 20, 4) and batch.masks is None
    objective = subject.objective
    model = nnx.eval_shape(lambda: objective.init(nnx.Rngs(0)))
    graph, state = nnx.split(model)

    def terms(state, batch):
        model = nnx.merge(graph, state, copy=True)
        return objective.loss_terms(model, batch, stage="frozen", step=None, key=None).terms

    assert set(jax.eval_shape(terms, state, batch)) == set(objective.weights("frozen"))


@pytest.mark.slow
def test_a_detector_is_trained_beside_one_from_random_weights(path, tmp_path):
    """From an encoder of the right depth, on boxes and masks, measured and kept."""
    config = small(detection_base.get_config(classes=CLASSES))
    place = placement(MeshConfig(axes={"data": 1}, data_axes=("data",)), devices=jax.devices()[:1])
    with config.unlocked():
        config.data.path = str(path)
        config.mesh.axes = {"data": 1}
    read = read_config(config, workdir=tmp_path)
    start = models.of_config(
        read, reads_text=False, place=place, out=tmp_path, cache=tmp_path / "cache"
    )
    given = load_task("configs/eval/detection/any_set.py:frozen")
    given = dataclasses.replace(
        given,
        batch_size=8,
        bootstrap=dataclasses.replace(given.bootstrap, resamples=10),
        finetune=dataclasses.replace(
            given.finetune, fraction=0.5, max_steps=4, validations=2,
            overrides=("model.head.width=8",),
        ),
    )  # fmt: skip
    with jax.set_mesh(place.mesh):
        evaluate.evaluate(start, [given], out=tmp_path / "out")
    name = "detection_any_set_frozen_50_percent"
    content = json.loads((tmp_path / "out" / "eval" / f"{name}.json").read_text())
    assert content["metrics"].keys() >= {"coco_ap50", "map"}
    assert content["settings"]["classes"] == sorted(CLASSES)
    assert content["settings"]["train_positives"] == {"cardiomegaly": 8, "effusion": 8}
    kept = box_file.load(tmp_path / "out" / "eval" / f"{name}.boxes.npz")
    assert len(kept.images) == 20 and kept.size == (32, 32)
    lines = (tmp_path / "out/finetune" / name / "random/metrics.jsonl").read_text().splitlines()
    assert "validation_map" in json.loads(lines[-1])
    # The folder opens as the model that was measured, and leaves as such.
    model = tmp_path / "out" / "finetune" / name / "random"
    image = np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
    (found,) = prior_jax.load_detector(model).predict(image)
    assert export(model, tmp_path / "exported", formats=("nnx",)) == ("nnx",)
    (again,) = prior_jax.load_detector(tmp_path / "exported").predict(image)
    np.testing.assert_array_equal(found.corners, again.corners)
    assert len(found.corners) and (found.corners <= [70, 50, 70, 50]).all()
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "checkpoint of step 2." in card and "None were measured." in card
