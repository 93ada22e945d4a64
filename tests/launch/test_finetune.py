"""The task "finetune": the configs of its trainings, what is learnt, and what is not repeated."""

import dataclasses
import io
import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

import prior_jax
from configs.eval import finetune as config_of_task
from launch import evaluate
from launch.evaluation import finetune, finetune_config, learnt, models, suite_parts
from launch.evaluation.finetune_settings import override, read_file, training_config
from launch.evaluation.tasks import load_task, task_of
from launch.start import initial
from prior_jax.config import read_config
from prior_jax.data.image import with_statistics
from prior_jax.data.manifest import load_manifest
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import classification
from prior_jax.evaluate.results import TaskResult
from prior_jax.interop.initial import EncoderInit
from prior_jax.objectives.classification import ClassificationModel
from prior_jax.sharding.mesh import MeshConfig
from prior_jax.sharding.placement import placement
from prior_jax.train import watched
from prior_jax.train.checkpoint_read import list_steps
from prior_jax.train.state import define_model
from tests.interface.test_classifier import saved
from tests.launch import subjects

CLASSES = ("Effusion", "Cardiomegaly")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    return str(subjects.write_set(folder / "set", train=30, validate=20, test=30))


def task(way="finetune", *, classes=(), **changes):
    config = config_of_task.get_config(way)
    config.batch_size, config.classes = 16, classes
    config.bootstrap.resamples = 20
    config.finetune.max_steps, config.finetune.validations = 4, 2
    config.finetune.update(changes)
    return task_of(config)


def encoder(path, folder, kind="mean"):
    """The subject of a folder of weights of an image encoder."""
    if not folder.exists():
        saved(folder, kind)
    place = placement(MeshConfig(axes={"data": 1}, data_axes=("data",)), devices=jax.devices()[:1])
    return models.of_weights(folder, path=path, place=place, cache_dir=folder.parent / "cache")


@pytest.fixture(scope="module")
def subject(path, tmp_path_factory):
    return encoder(path, tmp_path_factory.mktemp("subject") / "weights")


def config(given, subject, *, start, records=20, validates=True):
    found = finetune_config.config_of(given, subject, start=start, classes=CLASSES)
    return finetune_config.in_steps(found, given, records=records, validates=validates)


def split(labels, names=CLASSES):
    """A split that holds labels alone."""
    inner = types.SimpleNamespace(label_names=names)
    return types.SimpleNamespace(labels=np.asarray(labels, np.int8), split=inner)


def test_the_results_are_named_by_way_and_fraction():
    assert task(fraction=0.01).result == "finetune_1_percent"
    assert task("linear", fraction=0.125).result == "linear_12_5_percent"
    assert task().result == "finetune"
    assert load_task("configs/eval/finetune.py:linear").result == "linear"
    with pytest.raises(ConfigError, match=r"task\.split.*'finetune' learns"):
        task_of({**config_of_task.get_config().to_dict(), "split": "validate"})


@pytest.mark.parametrize("kind", ["mean", "attention", "regions"])
def test_every_array_of_the_encoder_comes_from_the_weights(kind, path, tmp_path):
    subject = encoder(path, tmp_path / "weights", kind)
    read = read_config(config(task(), subject, start=subject.source), workdir=tmp_path)
    assert read.data.image == subject.data.image and read.data.path == path
    defined = define_model(lambda rngs: ClassificationModel(read.model, rngs=rngs))
    shapes = {**defined.params, **defined.rest}
    values = initial.initial_values(
        read.init.given(), shapes, model=read.given["model"], tokenizer=""
    )
    assert {name for name in shapes if name.startswith("image_encoder/")} == set(values)
    assert (read.model.upsample is not None) == (kind == "regions")
    random = read_config(config(task(), subject, start=None), workdir=tmp_path)
    assert not random.init.given() and random.model == read.model


def test_the_batch_and_the_steps_follow_the_labelled_part(subject, tmp_path):
    given = task(max_steps=50, epochs=10.0, validations=5)
    for records, batch, steps in ((3, 2, 10), (33, 32, 10), (500, 32, 50)):
        found = config(given, subject, start=None, records=records)
        assert found.data.batch_size == batch and found.stages.finetune.length == steps
        assert found.validate_every == steps // 5
    blind = read_config(config(given, subject, start=None, validates=False), workdir=tmp_path)
    assert blind.train.validate_every == 0 and blind.train.checkpoint.keep_best == 0


def test_a_schedule_that_is_laid_out_for_other_steps_keeps_its_proportion(subject):
    for name, steps in (("1", 12), ("1_release", 11)):
        given = task(config=f"configs/finetune/benchx_nih.py:{name}", max_steps=10, epochs=100.0)
        own = training_config(given.finetune, given.OBJECTIVE).stages.finetune
        found = config(given, subject, start=None).stages.finetune
        assert found.length == 10
        assert found.schedule_steps == round(10 * own.schedule_steps / own.length) == steps


@pytest.mark.parametrize(
    "name",
    ["segmentation/gloria.py:siim_100", "segmentation/lovt.py:siim_100", "detection/lovt.py"],
)
def test_no_rate_of_a_paper_waits_for_validations_that_there_are_not(name, subject, tmp_path):
    given = load_task(f"configs/eval/{name}")
    for validates in (True, False):
        found = config(given, subject, start=None, validates=validates)
        found.model.image = training_config(given.finetune, given.OBJECTIVE).model.image
        read = read_config(found, workdir=tmp_path)
        options = read.options(steps_per_epoch=2)
        waits = watched.waits(read.schedule(steps_per_epoch=2), options.early_stopping)
        assert bool(waits) == validates
        watched.check_computed(waits, every=options.every)


def test_overrides_are_last_and_a_wrong_one_is_named(subject):
    given = task(overrides=("stages.finetune.learning_rate=1e-5", "data.batch_size=4"))
    found = config(given, subject, start=None)
    assert found.stages.finetune.learning_rate == 1e-5 and found.data.batch_size == 4
    for wrong in ("model.heads.kind=mlp", "model.head.sort=1", "seed=one", "name.x=1"):
        with pytest.raises(ConfigError, match=r"task\.finetune\.overrides"):
            override(read_file("configs/finetune/any_set.py", where="config"), (wrong,))
    for changes in ({"overrides": ("seed",)}, {"config": "configs/finetune/none.py:linear"}):
        with pytest.raises(ConfigError, match=f"task.finetune.{next(iter(changes))}"):
            task(**changes)
    other = task(config="configs/debug.py")
    with pytest.raises(ConfigError, match=r"task\.finetune\.config.*'classification'"):
        config(other, subject, start=None)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ("data.path=/other", "task.data.path"),
        ("model.classes=('Edema',)", "task.classes"),
        ("data.fraction.share=0.5", "task.finetune.fraction"),
    ],
)
def test_an_override_of_what_is_measured_is_refused(change, flag):
    with pytest.raises(ConfigError, match=rf"not measured\. Set --{flag} instead"):
        task(overrides=(change,))


def test_images_of_another_size_are_measured_as_they_were_learnt(subject):
    own = subject.open("train").split.manifest.image
    image = with_statistics(subject.data.image, mean=own.mean, std=own.std)
    own_data = subject.data
    same = dataclasses.replace(own_data, image=image)
    assert finetune.read_as_trained(own_data, same, told=own) is own_data
    larger = dataclasses.replace(own_data, image=dataclasses.replace(image, size=2 * image.size))
    data = finetune.read_as_trained(own_data, larger, told=own)
    enlarged = dataclasses.replace(subject, data=data)
    opened = enlarged.open("test")
    batch = next(iter(enlarged.batches(opened, batch_size=2, require_text=False)))
    assert batch.image.shape[-3:-1] == (larger.image.size, larger.image.size)


def test_classes_that_cannot_be_learnt_or_measured_are_named():
    names = ("Edema", "Mass", "Nodule", "Support Devices", "Hernia")
    train = split([[1, 0, 1, 1, 1], [0, -1, 1, 0, -2]], names)  # Mass: none; Nodule: all
    test = split([[1, 1, 1, 1, 0], [-2, 0, 0, 0, -2]], names)
    given = dataclasses.replace(task(), min_positives=1)
    kept, left_out = learnt.learnable(given, train=train, test=test)
    assert kept == ("Edema",) and list(left_out) == ["Mass", "Nodule", "Hernia"]
    assert left_out["Mass"] == "0 positive records in train, and 1 is needed"
    assert left_out["Hernia"] == "0 positive records in test, and 1 is needed"
    few = dataclasses.replace(given, min_positives=2)
    with pytest.raises(ConfigError, match=r"task\.classes.*Edema: 1 positive record in test"):
        learnt.learnable(few, train=train, test=test)
    wrong = dataclasses.replace(given, classes=("Edemas",))
    with pytest.raises(ConfigError, match=r"task\.classes.*Edemas"):
        learnt.learnable(wrong, train=train, test=test)
    assert learnt.validates(given, train, ("Mass", "Hernia"))
    assert not learnt.validates(given, train, ("Mass", "Nodule"))
    assert not learnt.validates(given, None, ("Edema",))


def test_a_label_is_learnt_by_the_name_that_the_set_has_for_it():
    rows = [[1, 1], [0, 0]]
    both = split(rows, ("Pleural Effusion", "Edema"))
    given = dataclasses.replace(task(classes=("Effusion",)), min_positives=1)
    kept, left_out = learnt.learnable(given, train=both, test=both)
    assert kept == ("Pleural Effusion",) and not left_out
    twice = dataclasses.replace(given, classes=("Effusion", "Pleural Effusion"))
    with pytest.raises(ConfigError, match="are the same label"):
        learnt.learnable(twice, train=both, test=both)


def test_a_part_is_another_with_another_file_under_the_same_name(path, subject, tmp_path):
    file = tmp_path / "mine.py"
    text = "from configs.finetune import any_set\nget_config = any_set.get_config\n"
    file.write_text(text)
    part = suite_parts.Part(set_name="a", name="finetune", task=task(config=str(file)))
    before = suite_parts.identity(part, subject, load_manifest(path))
    file.write_text(f"{text}\ndef get_config():\n    return any_set.get_config('linear')\n")
    assert suite_parts.identity(part, subject, load_manifest(path)) != before


def test_the_title_says_both_steps():
    found = [TaskResult(metrics={}, settings={"trained_step": k, "steps": 40}) for k in (16, 36)]

    def title(**changes):
        source = EncoderInit(path="/weights/resnet50", adapt=())
        given = {"source": source, "about": {"run": "small", "step": 24}, **changes}
        return finetune.title(types.SimpleNamespace(**given), found)

    both = "fine-tuning: step 16 of 40; fine-tuning from random weights: step 36 of 40"
    assert title() == f"pre-training: step 24; {both}"
    assert title(about={"weights": "0"}) == f"pre-trained weights: resnet50; {both}"
    assert title(source=None) == "fine-tuning from random weights: step 16 of 40"


def test_a_training_of_other_settings_is_replaced(tmp_path):
    folder = tmp_path / "model"
    finetune._make_way(folder, {"seed": 1})
    (folder / "checkpoints").mkdir()
    finetune._make_way(folder, {"seed": 1})
    assert (folder / "checkpoints").is_dir()
    finetune._make_way(folder, {"seed": 2})
    assert not (folder / "checkpoints").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (folder / "training.json").unlink()  # as when a removal was killed
    (folder / "checkpoints").mkdir()
    finetune._make_way(folder, {"seed": 2})
    assert not (folder / "checkpoints").exists()


@pytest.fixture(scope="module")
def linear(subject, tmp_path_factory):
    """A task of trainings, its folder of results, the results, and the log-odds behind them."""
    out = tmp_path_factory.mktemp("linear") / "out"
    # By the loss, which rises in these few steps, the best of both checkpoints is not the newest.
    best = ("checkpoint.best_metric=validation_total_loss", "checkpoint.best_is=lowest")
    given = task("linear", classes=CLASSES, fraction=0.5, overrides=best)
    measured, score = [], classification.score

    def kept(*args):
        measured.append(score(*args))
        return measured[-1]

    with pytest.MonkeyPatch.context() as patch, jax.set_mesh(subject.place.mesh):
        patch.setattr(classification, "score", kept)
        evaluate.evaluate(subject, [given], out=out)
    content = json.loads((out / "eval" / "linear_50_percent.json").read_text())
    return given, out, content, measured


def images(subject, split):
    """The images of a split as a user has them, uint8[H, W]."""
    opened = subject.open(split)
    files = [opened.record(index).images[0] for index in range(len(opened.split))]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


@pytest.mark.slow
def test_the_classifier_that_python_opens_is_the_one_that_was_measured(subject, linear):
    _, out, content, measured = linear
    folder = out / "finetune" / "linear_50_percent" / "model"
    step, steps = content["settings"]["trained_step"], list_steps(folder / "checkpoints")
    assert step < steps[-1]  # otherwise the newest would pass as well
    test = images(subject, "test")
    found = prior_jax.load_classifier(folder)
    assert found.classes == CLASSES
    assert measured[0].record.tolist() == list(range(len(test)))
    wanted = 1 / (1 + np.exp(-measured[0].odds))
    np.testing.assert_allclose(found.predict(test), wanted, atol=1e-5)
    named = prior_jax.load_classifier(folder, step=step)
    np.testing.assert_array_equal(named.predict(test), found.predict(test))
    newest = prior_jax.load_classifier(folder, step=steps[-1])
    assert np.abs(newest.predict(test) - wanted).max() > 1e-4
    begun = initial.find(EncoderInit(path=str(folder), adapt=()))
    assert begun.document.origin["step"] == step


@pytest.mark.slow
def test_a_folder_of_results_is_answered_with_the_model_in_it(linear):
    _, out, _, _ = linear
    for classes in (None, 3):
        with pytest.raises(DataError, match=r"not the folder of a model.*50_percent/model\."):
            prior_jax.load_classifier(out, classes)


@pytest.mark.slow
def test_the_training_from_weights_lies_beside_one_from_random_weights(subject, linear, tmp_path):
    given, out, content, _ = linear
    assert content["metrics"].keys() == content["untrained"].keys() >= {"macro_auroc"}
    assert content["settings"]["train_patients"] == 15
    assert content["settings"]["classes"] == list(CLASSES)
    trainings = out / "finetune" / "linear_50_percent"
    kept = {name: json.loads((trainings / name / "config.json").read_text()) for name in
            ("model", "random")}  # fmt: skip
    assert kept["model"]["init"]["image"]["path"] == subject.source.path
    assert kept["random"].pop("init") != kept["model"].pop("init")
    assert kept["random"] == kept["model"]
    lines = [(trainings / name / "metrics.jsonl").read_bytes() for name in kept]
    with jax.set_mesh(subject.place.mesh):
        evaluate.evaluate(subject, [given], out=out)  # what is done is not trained again
    assert json.loads((out / "eval" / "linear_50_percent.json").read_text()) == content
    assert lines == [(trainings / name / "metrics.jsonl").read_bytes() for name in kept]
    untrained = dataclasses.replace(subject, source=None)
    with jax.set_mesh(subject.place.mesh):
        evaluate.evaluate(untrained, [given], out=tmp_path / "random")
    alone = json.loads((tmp_path / "random" / "eval" / "linear_50_percent.json").read_text())
    assert alone["metrics"] == alone["untrained"] == content["untrained"]
