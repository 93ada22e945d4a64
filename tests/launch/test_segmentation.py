"""The tasks of segmentation: configs of papers, a model that is measured, one that is trained."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import prior_jax
from configs.eval import segmentation as config_of_task
from configs.finetune import (
    benchx_segmentation,
    gloria_segmentation,
    lovt_segmentation,
    mgca_segmentation,
    segmentation_names,
    segmentation_tasks,
)
from configs.finetune import debug as small_config
from configs.finetune import segmentation as config_of_run
from launch import evaluate
from launch.evaluation import segment
from launch.evaluation.finetune_settings import training_config
from launch.evaluation.suite_parts import Part, obstacle
from launch.evaluation.tasks import load_task, task_of
from launch.export import export
from prior_jax.config import read_config
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import ConfigError
from prior_jax.evaluate import mask_file, segmentation
from tests.launch import subjects
from tests.launch.test_finetune import encoder

CLASSES = ("Cardiomegaly", "Effusion")
PAPERS = {
    "gloria": gloria_segmentation.TRAININGS,
    "lovt": lovt_segmentation.TRAININGS,
    "mgca": mgca_segmentation.TRAININGS,
    "benchx": benchx_segmentation.TRAININGS,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    return str(subjects.write_set(folder / "set", train=12, validate=6, test=10))


@pytest.fixture(scope="module")
def subject(path, tmp_path_factory):
    """A segmentation model with random weights and a linear decoder."""
    config, small = config_of_run.get_config(), small_config.get_config()
    config.model.dtype = "float32"
    config.model.image.resnet = small.model.image.resnet
    config.model.decoder.update(dict(kind="linear", channels=()))
    config.model.classes = CLASSES
    config.data.image = small.data.image
    config.data.regions.convert = True
    config.data.update(dict(workers=0, threads=2))
    return subjects.on_set(config, path, tmp_path_factory.mktemp("subject"))


def task(**changes):
    config = config_of_task.get_config()
    config.batch_size, config.bootstrap.resamples = 4, 20
    config.update(changes)
    return task_of(config)


@pytest.fixture(scope="module")
def measured(subject):
    data = dataclasses.replace(subject, data=task().on(subject.data))
    with jax.set_mesh(subject.place.mesh):
        opened = subjects.splits_of(data)
        return segment.measure_segmentation(task(), subject.trained, data, opened), opened


def test_a_model_is_measured_by_its_masks(measured, subject):
    found, opened = measured
    probability, truth = [], []
    for batch in subject.batches(opened("test"), batch_size=10, require_text=False):
        model = jax.jit(lambda image: subject.trained.compiled(subject.objective.segment)(image))
        probability.append(jax.nn.sigmoid(model(batch.image))[:10])
        truth.append(batch.masks[:10])
    probability, truth = np.concatenate(probability), np.concatenate(truth)
    values = {name: metric.value for name, metric in found.metrics.items()}
    for index, name in enumerate(("cardiomegaly", "effusion")):
        counts = segmentation.mask_counts(probability[..., index], truth[..., index])
        one = np.ones((1, len(truth)))
        wanted = {
            "pixel_dice": segmentation.pixel_scores(counts, weights=one)["dice"],
            "mean_dice": segmentation.image_dice(counts, weights=one),
            **segmentation.with_background(counts, weights=one),
        }
        for metric, value in wanted.items():
            np.testing.assert_allclose(values[f"{metric}_{name}"], value[0], rtol=1e-6)
    both = [values[f"pixel_dice_{name}"] for name in ("cardiomegaly", "effusion")]
    np.testing.assert_allclose(values["pixel_dice"], np.mean(both))
    settings = found.settings
    assert settings["records"] == settings["images_with_lesion"] == 10
    assert settings["rule"] == "a pixel is inside where its probability is above 0.5"


def test_the_masks_of_some_images_are_kept_with_the_counts_of_all(measured, tmp_path):
    kept = measured[0].kept
    assert [one.choice.kind for one in kept.shown] == [
        kind for kind in ("best", "median", "worst") for _ in range(3)
    ]
    mask_file.save(tmp_path / "one.masks.npz", kept)
    read = mask_file.load(tmp_path / "one.masks.npz")
    np.testing.assert_array_equal(read.dice, kept.dice)
    assert read.ids == kept.ids and read.size == kept.size == kept.shown[0].image.shape
    for one, other in zip(read.shown, kept.shown, strict=True):
        assert one.choice == other.choice and one.image.std() > 1
        np.testing.assert_array_equal(one.predicted, other.predicted)
        np.testing.assert_array_equal(one.truth, other.truth)
        index = one.choice.index
        np.testing.assert_array_equal(one.truth.sum(axis=(0, 1)), kept.truth[index])
        np.testing.assert_array_equal(one.predicted.sum(axis=(0, 1)), kept.predicted[index])


def test_classes_and_models_that_do_not_fit_are_refused(subject, path):
    data = dataclasses.replace(subject, data=task().on(subject.data))
    opened = subjects.splits_of(data)("test")
    objective = segment.segmenter_of(data, task="segmentation")
    assert segment.chosen(task(classes=("Effusion",)), objective, data, opened) == ("Effusion",)
    for changes, message in (
        ({"classes": ("Edema",)}, "not trained to segment Edema"),
        ({"min_positives": 99}, "on 99 images"),
    ):
        with pytest.raises(ConfigError, match=message):
            segment.chosen(task(**changes), objective, data, opened)
    few = segment.rare(task(min_positives=99), data, opened)
    assert few["Effusion"] == "10 images with a mask in test, and 99 are needed"
    other = dataclasses.replace(subject, objective=object(), objective_name="gloria")
    with pytest.raises(ConfigError, match=r"task\.task.*segmentation model"):
        segment.segmenter_of(other, task="segmentation")
    part = Part(set_name="a", name="segmentation", task=task())
    assert obstacle(part, other, load_manifest(path)) == "the model is no segmentation model"
    assert obstacle(part, subject, load_manifest(path)) is None


@pytest.mark.parametrize("paper", PAPERS)
def test_the_configs_of_a_paper_are_whole_and_named_after_it(paper, tmp_path):
    for setting, ways in PAPERS[paper].items():
        for way in ways:
            name = f"{setting}_{way}"
            one = load_task(f"configs/eval/segmentation/{paper}.py:{name}")
            config = training_config(one.finetune, one.OBJECTIVE)
            config.data.path = "set"
            read = read_config(config, workdir=tmp_path)
            assert read.model.classes == one.classes == read.data.regions.classes
            assert paper in one.result and one.result.startswith("segmentation")
            assert one.measured.segmenter == one.segmenter
    with pytest.raises(ConfigError, match="name"):
        segmentation_names.read("siim_7", known=PAPERS[paper])


@pytest.mark.parametrize("setting", mgca_segmentation.TRAININGS)
def test_mgcas_ten_percent_of_siim_have_a_seed_of_their_own(setting):
    given = load_task(f"configs/eval/segmentation/mgca.py:{setting}")
    config = mgca_segmentation.get_config(setting)
    seeds = {given.finetune.seed, config.seed}
    if given.finetune.fraction < 1:
        seeds.add(config.data.fraction.seed)
    assert seeds == {0 if setting == "siim_10" else 42}


def test_what_is_wrong_with_a_release_is_repeated_where_its_name_asks_for_it():
    plain, release = (mgca_segmentation.get_config(f"siim_1{end}") for end in ("", "_release"))
    assert release.model.drifting_statistics and not plain.model.drifting_statistics
    assert release.data.fraction.draws == 2 and plain.data.fraction.draws == 1
    assert lovt_segmentation.get_config("siim_10_finetune_release").stages.finetune.schedule == (
        "constant"
    )
    assert load_task("configs/eval/segmentation/gloria.py:siim_1_release").segmenter == (
        dataclasses.replace(task().segmenter, release_batch=8)
    )


@pytest.mark.slow
def test_it_is_trained_from_weights_beside_random_ones_and_measured(path, tmp_path):
    subject = encoder(path, tmp_path / "weights")
    config = segmentation_tasks.any_set("finetune")
    config.batch_size, config.bootstrap.resamples = 4, 20
    config.finetune.update(dict(max_steps=2, validations=1, fraction=0.5))
    config.finetune.overrides = ("model.decoder.channels=(8,4)",)
    given = task_of(config)
    with jax.set_mesh(subject.place.mesh):
        evaluate.evaluate(subject, [given], out=tmp_path / "out")
    content = json.loads((tmp_path / "out/eval/segmentation_any_set_50_percent.json").read_text())
    settings = content["settings"]
    assert settings["classes"] == sorted(CLASSES) and settings["train_patients"] == 6
    assert settings["train_positives"] == {"cardiomegaly": 6, "effusion": 6}
    assert content["metrics"].keys() == content["untrained"].keys() >= {"pixel_dice", "mean_dice"}
    kept = mask_file.load(tmp_path / "out/eval/segmentation_any_set_50_percent.masks.npz")
    dice = content["metrics"]["mean_dice"]["value"]
    np.testing.assert_allclose(kept.dice.mean(), dice, rtol=1e-6)
    trainings = tmp_path / "out/finetune/segmentation_any_set_50_percent"
    last = json.loads((trainings / "model/metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2 and "validation_dice" in last
    # The folder opens as the model that was measured, and leaves as such.
    segmenter = prior_jax.load_segmenter(trainings / "model")
    for one in kept.shown:
        np.testing.assert_array_equal(segmenter.predict(one.image)[0], one.predicted)
    export(trainings / "model", tmp_path / "exported", formats=("nnx",))
    card = (tmp_path / "exported" / "README.md").read_text()
    assert f"| segmentation_any_set_50_percent | mean_dice | {dice:.3f} [" in card
    assert "which is not this checkpoint" not in card
    again = prior_jax.load_segmenter(tmp_path / "exported")
    np.testing.assert_array_equal(
        again.predict(kept.shown[0].image)[0], segmenter.predict(kept.shown[0].image)[0]
    )
