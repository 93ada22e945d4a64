"""The task "phrase_grounding" on the regions of a prepared set, and its maps."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.baselines import phantom as baselines
from configs.eval import grounding, phrase_grounding
from launch.evaluation import grounded
from launch.evaluation import phrases as phrases_lib
from launch.evaluation.task_results import measure, remarks
from launch.evaluation.tasks import load_task, task_of
from prior_jax.errors import ConfigError
from prior_jax.evaluate import phrases
from prior_jax.evaluate.bootstrap import BootstrapConfig
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens
from prior_jax.evaluate.phrase_grounding import GroundingRule
from prior_jax.objectives.two_tower import TwoTowerObjective
from prior_jax.strict import build
from tests import fixtures
from tests.evaluate.fakes import FEATURES, FakeModel, FakeObjective, make_batches
from tests.launch import subjects

CONFIG = phrases.PhraseConfig(
    prompt="Findings suggesting {}.",
    heat="auto",
    sigma=0.0,
    centres="tiles",
    rule=GroundingRule(),
    release="none",
)
LUNGS = {"right": (0.5, 0.25), "left": (0.5, 0.75)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return fixtures.train_sentencepiece(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phrases") / "set"
    return subjects.write_set(folder, train=2, validate=2, test=20)


@pytest.fixture(scope="module")
def prior(path, tokenizer, tmp_path_factory):
    return subjects.reader(path, tmp_path_factory.mktemp("prior"), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def clip(path, tokenizer, tmp_path_factory):
    config = baselines.get_config("clip")
    config.model.image.resnet.update(dict(depths=(1, 1), width=8))
    config.data.image.size = 32
    config.model.text.update(dict(hidden_size=32, layers=1, intermediate_size=64))
    config.model.text.scan_layers = False
    return subjects.on_set(config, path, tmp_path_factory.mktemp("clip"), tokenizer=tokenizer)


def task(**changes):
    config = phrase_grounding.get_config()
    config.batch_size = 16
    config.bootstrap.resamples = 20
    config.update(changes)
    return task_of(config)


def measured(subject, given):
    with jax.set_mesh(subject.place.mesh):
        opened = subjects.splits_of(subject)
        return measure(given, subject.trained, subject=subject, opened=opened)


def test_phrases_are_those_of_the_records_or_prompts(prior):
    data = subjects.splits_of(prior)("test")
    found = phrases_lib.phrases_of(task(), data)
    texts = {(one.label, one.text) for one in found}
    assert texts == {
        ("Effusion", "Small left effusion."),
        ("Effusion", "The heart is large."),
        ("Effusion", "Findings suggesting effusion."),
        ("Cardiomegaly", "Findings suggesting cardiomegaly."),
    }
    assert len(found) == 40
    few = phrases_lib.phrases_of(task(classes=("Pleural Effusion",)), data)
    assert {one.label for one in few} == {"Effusion"}
    with pytest.raises(ConfigError, match=r"21 phrases.*Cardiomegaly, Effusion. Lower --task.min"):
        phrases_lib.phrases_of(task(min_positives=21), data)
    with pytest.raises(
        ConfigError, match=r"No region of split 'test' is of Efusion\. Set .*Effusion"
    ):
        phrases_lib.phrases_of(task(classes=("Cardiomegaly", "Efusion")), data)
    assert remarks(task(exclude=("effusion",)), prior, data) == []
    assert remarks(task(min_positives=21), prior, data) == [
        f"{name} is left out: 20 phrases with a region in test, and 21 are needed"
        for name in ("Cardiomegaly", "Effusion")
    ]


def on_later_images(index):
    """A study whose regions lie on its first and its second image, or on the second alone."""
    one = subjects.study(index)
    return dataclasses.replace(
        one,
        images=one.images[:1] * 2,
        image_ids=("first", "second"),
        views=("PA", "AP"),
        region_images=(0, 1) if index < 3 else (1, 1),
    )


@pytest.mark.parametrize("make", [phrase_grounding, grounding])
def test_regions_on_later_images_are_counted_and_named(make, prior, tmp_path):
    splits = {"train": range(2, 3), "validate": range(3, 5), "test": range(3)}
    records = {name: [on_later_images(i) for i in numbers] for name, numbers in splits.items()}
    folder = fixtures.write_splits(tmp_path / "set", records)
    subject = subjects.on_other_set(prior, folder)
    config = make.get_config()
    config.batch_size, config.min_positives, config.bootstrap.resamples = 4, 1, 5
    if make is grounding:
        config.text = "prompts"
    given, opened = task_of(config), subjects.splits_of(subject)
    lie = "regions of split {!r} lie on other images than the first of a study, which alone is"
    assert remarks(given, subject, opened("test"))[0].startswith("3 " + lie.format("test"))
    assert measured(subject, given).settings["regions_on_later_images"] == 3
    config.split = "validate"
    with pytest.raises(ConfigError, match="4 " + lie.format("validate")) as caught:
        measured(subject, task_of(config))
    assert "Prepare a set with boxes or masks on the first image of a study" in str(caught.value)


def test_classes_of_the_grounding_are_matched_by_synonyms():
    masks = {"Effusion": {0: np.ones((2, 2), bool)}, "Edema": {}}
    asked = ("pleural_effusion", "EDEMA", "Effusion", "Gout")
    assert grounded.as_spelled(asked, masks) == ("Effusion", "Edema", "Gout")
    assert grounded.as_spelled((), masks) == ()


def test_regions_of_one_phrase_are_one_mask():
    record = subjects.study(1)
    twice = dataclasses.replace(
        record,
        region_images=(0, 0, 1) if len(record.images) > 1 else (0, 0, 0),
        region_labels=("A", "A", "B"),
        region_phrases=("p", "p", "p"),
        region_boxes=((0.0, 0.0, 4.0, 4.0), (2.0, 2.0, 6.0, 6.0), (9.0, 9.0, 10.0, 10.0)),
        region_masks=(b"", b"", b""),
    )
    one = phrases.Phrase(record=0, text="p", label="A")
    counts = phrases_lib.region_count(twice, one, config=CONFIG, overlap="add")
    clipped = phrases_lib.region_count(twice, one, config=CONFIG, overlap="clip")
    assert counts.max() == 2 and counts.sum() == 32 and counts[3, 3] == 2
    assert clipped.max() == 1 and clipped.sum() == 28 and clipped.shape == (48, 48)


def test_a_model_is_measured_through_its_attention(prior):
    found = measured(prior, task())
    assert found.settings["heat"] == "attention" and found.settings["phrases"] == 40
    for name in ("miou", "cnr", "cnr_signed", "pointing", "random", "lung_centre", "middle"):
        assert not np.isnan(found.metrics[f"macro_{name}"].value), name
    assert found.metrics["macro_cnr"].value >= abs(found.metrics["macro_cnr_signed"].value)
    assert found.settings["chance"]["pointing_effusion"] == pytest.approx(150 / 48**2)
    kinds = [one.choice.kind for one in found.shown]
    assert kinds == ["best"] * 3 + ["median"] * 3 + ["worst"] * 3
    for one in found.shown:
        assert one.truth.sum() in (150, 20 * 4, *(20 * (4 + extra) for extra in range(9)))
        assert one.image.shape == (48, 48) and one.choice.count == 40


@pytest.mark.parametrize("name", ["biovil", "maco"])
def test_a_protocol_is_a_file_of_its_own_name(clip, name):
    given = load_task(f"configs/eval/phrase_grounding/{name}.py")
    assert given.result == f"phrase_grounding_{name}"
    given = dataclasses.replace(
        given, batch_size=16, bootstrap=BootstrapConfig(resamples=5, confidence=0.9, seed=0)
    )
    found = measured(clip, given)
    assert found.settings["heat"] == "cosine"
    assert (found.settings["rule"]["digits"] == 3) == (name == "maco")
    assert found.settings["scale"] == {"biovil": "none", "maco": "map"}[name]
    assert found.settings["rule"]["overlap"] == {"biovil": "clip", "maco": "add"}[name]
    assert len(found.settings["table"]["iou"]) == 6


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        (dict(heat="cosine"), "heat=attention."),
        (dict(release="maco"), "heat=attention and --task.phrases.release=none."),
    ],
)
def test_the_cosine_of_patches_that_no_report_is_compared_with_is_refused(prior, changes, remedy):
    with pytest.raises(ConfigError, match=r"task\.phrases\.heat: .*never compares") as error:
        measured(prior, task(phrases=changes))
    assert error.value.remedy == f"Set --task.phrases.{remedy}"


def test_an_objective_without_local_features_embeds_its_patches(clip):
    assert isinstance(clip.objective, TwoTowerObjective)
    found = measured(clip, task())
    assert found.settings["heat"] == "cosine" and found.settings["patches"] == [4, 4]
    with pytest.raises(ConfigError, match=r"task\.phrases\.heat.*cosine"):
        measured(clip, task(phrases=dict(heat="attention")))


def fake(vectors, tokens, **changes):
    """Maps of 2x2 patches whose features are given, of the model that changes nothing."""
    objective = FakeObjective()
    encoder = Encoder(objective, FakeModel(), place=jax.device_put)  # type: ignore[arg-type]
    count = len(vectors)
    labels = np.zeros((count, 1))
    batches = make_batches(np.zeros((count, FEATURES)), tokens, labels, batch_size=4)
    for number, batch in enumerate(batches):
        rows = np.minimum(np.arange(4 * number, 4 * number + 4), count - 1)
        batches[number] = dataclasses.replace(batch, image=vectors[rows].astype(np.float32))
    padded = np.zeros((count, 8), np.int32)
    padded[:, :FEATURES] = tokens
    mask = np.zeros((4, 4), np.int64)
    mask[:2, :2] = 1
    return phrases.evaluate_phrases(
        encoder,
        objective,  # type: ignore[arg-type]
        lambda: batches,
        phrases=[phrases.Phrase(record=i, text=f"{i}", label="AB"[i % 2]) for i in range(count)],
        tokens=ReportTokens(
            tokens=padded,
            token_mask=padded > 0,
            sentence_index=np.zeros((count, 8), np.int32),
            sentence_mask=np.ones((count, 1), bool),
        ),
        truth=lambda index: mask,
        size=4,
        lungs=LUNGS,
        patients=np.arange(count),
        config=dataclasses.replace(CONFIG, **changes),
        block=4,
        resampling=BootstrapConfig(resamples=5, confidence=0.9, seed=0),
    )


def test_the_patch_that_matches_the_phrase_is_found_and_length_counts_for_maco_alone():
    tokens = np.tile([100, 0, 0, 0], (6, 1))
    patches = np.zeros((6, 2, 2, FEATURES))
    patches[..., 1] = 1.0
    patches[:, 0, 0] = (1.0, 0.0, 0.0, 0.0)  # in the mask: the same direction as the phrase
    patches[:, 1, 1] = (9.0, 30.0, 0.0, 0.0)  # outside: long, and in another direction
    found = fake(patches, tokens)
    assert found.metrics["macro_pointing"].value == 1
    assert found.metrics["macro_cnr_signed"].value > 1
    released = fake(patches, tokens, release="maco")
    assert released.metrics["macro_pointing"].value == 0
    assert found.metrics["pointing_a"].value == 1 and found.settings["positives"] == {
        "a": 3,
        "b": 3,
    }


def test_patches_lie_where_strides_put_them():
    tokens = np.tile([100, 0, 0, 0], (2, 1))
    patches = np.zeros((2, 2, 2, FEATURES))
    patches[..., 1] = 1.0
    patches[:, 0, 0] = (1.0, 0.0, 0.0, 0.0)
    tiles = fake(patches, tokens).settings["mean_over_phrases"]["miou"]
    strides = fake(patches, tokens, centres="strides").settings["mean_over_phrases"]["miou"]
    assert tiles != strides


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("heat", "x"), ("sigma", -1.0), ("prompt", "no place"), ("release", "x")),
        *(("centres", "x"), ("scale", "x")),
    ],
)
def test_wrong_settings_are_refused_by_name(field, value):
    section = {**dataclasses.asdict(CONFIG), field: value}
    with pytest.raises(ConfigError, match=rf"task\.phrases\.{field}"):
        build(phrases.PhraseConfig, section, name="task.phrases")


def test_a_batch_is_not_filled_up_far_beyond_its_split(prior):
    opened = prior.open("test")
    for batch_size, sizes in ((1000, [32]), (8, [8, 8, 8])):
        batches = list(prior.batches(opened, batch_size=batch_size, require_text=False))
        assert [len(batch.record) for batch in batches] == sizes
        assert sum(int((np.asarray(batch.weight) > 0).sum()) for batch in batches) == 20
