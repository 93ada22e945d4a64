"""The files of configs/eval, and the classes and rows that a task asks for."""

import dataclasses
import pathlib
import types

import numpy as np
import pytest

from configs.eval import grounding, probe, retrieval, zero_shot
from launch.evaluation import class_choice, grounded
from launch.evaluation import task_results as measure
from launch.evaluation.finetune_settings import read_file
from launch.evaluation.task_base import USUALLY_EXCLUDED
from launch.evaluation.tasks import TASKS, load_task, task_of
from launch.evaluation.training_tasks import TrainingTask
from prior_jax.errors import ConfigError
from prior_jax.evaluate.fine_regions import FINE
from prior_jax.evaluate.places import without_places
from prior_jax.objectives.prior import PriorObjective
from prior_jax.report import tables
from prior_jax.report.gather import StudyText
from tests.objectives.test_sentence_region import CONTRAST, WEIGHTS
from tests.objectives.tiny import tiny_config

FILES = sorted(pathlib.Path("configs/eval").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_a_task_of_its_name(path):
    task = load_task(str(path))
    assert task.task == task.result == path.stem and type(task) is TASKS[path.stem]


@pytest.mark.parametrize(
    ("make", "key"),
    [(probe, "stray"), (probe, "probe.stray"), (grounding, "stray"), (grounding, "prompts.stray")],
)
def test_a_key_that_nobody_reads_is_refused_by_name(make, key):
    config = make.get_config()
    with config.unlocked():
        config.update_from_flattened_dict({key: 1})
    with pytest.raises(ConfigError, match=rf"task\.{key}"):
        task_of(config)


def test_a_training_that_does_not_say_how_its_model_is_measured_cannot_be_built():
    whole = load_task("configs/eval/finetune.py")
    fields = [field.name for field in dataclasses.fields(TrainingTask)]
    with pytest.raises(TypeError, match=r"abstract.*measured"):
        TrainingTask(**{name: getattr(whole, name) for name in fields})


def test_each_fraction_has_a_file_of_its_own():
    config = probe.get_config()
    names = []
    for config.probe.fraction in (1.0, 0.1, 0.01, 0.005):
        names.append(task_of(config).result)
    assert names == ["probe", "probe_10_percent", "probe_1_percent", "probe_0_5_percent"]


def test_finer_regions_have_a_file_of_their_own():
    assert load_task("configs/eval/grounding.py").result == "grounding"
    config = grounding.get_config("fine")
    assert task_of(config).result == "grounding_fine" and task_of(config).attention == FINE
    config.split = "validate"
    assert task_of(config).result == "grounding_validate_fine"
    with pytest.raises(ConfigError, match="attention"):
        load_task("configs/eval/grounding.py:finer")


def test_grounding_asked_otherwise_has_a_file_of_its_own():
    config, names = grounding.get_config("fine"), []
    config.text = "prompts"
    for config.prompts.set in ("ensemble", "described", "my/own set.txt"):
        names.append(task_of(config).result)
    config.text, config.prompts.set, config.attention.smoothing = "report", "ensemble", 0.0
    for config.attention.shifts in (1, 2):
        names.append(task_of(config).result)
    assert names == [
        *("grounding_prompts_fine", "grounding_prompts_described_fine"),
        "grounding_prompts_own_set_txt_fine",
        *("grounding_mirrored", "grounding_shifts_2_mirrored"),
    ]


def test_each_split_has_a_file_of_its_own():
    config = retrieval.get_config()
    names = []
    for config.split in ("test", "validate", "train"):
        names.append(task_of(config).result)
    assert names == ["retrieval", "retrieval_validate", "retrieval_train"]


def test_a_probe_measured_where_it_learns_is_refused():
    config = probe.get_config()
    config.split = "validate"
    with pytest.raises(ConfigError, match=r"task\.split.*test"):
        task_of(config)


READ_ELSEWHERE = [  # the settings, and what the error names
    ("zero_shot.py", {"classes": ("Edema",), "exclude": ("Edema",)}, "task.exclude"),
    ("probe.py", {"classes": ("Edema",), "exclude": ("Fracture",)}, "task.exclude"),
    ("grounding.py", {"prompts.set": "described"}, "task.prompts"),
    ("grounding.py", {"prompts.negatives": True}, "task.prompts"),
    ("grounding.py", {"text": "prompts", "prompts.negatives": True}, "task.prompts.negatives"),
    ("phrase_grounding/maco.py", {"phrases.heat": "attention"}, "task.phrases.heat"),
    ("phrase_grounding/maco.py", {"phrases.rule.ties": "any"}, "task.phrases.rule"),
    ("phrase_grounding/maco.py", {"phrases.scale": "none"}, "task.phrases.scale"),
    ("segmentation/lovt.py", {"finetune.epochs": 5.0}, "task.finetune.epochs"),
    ("suite.py", {"sets": ("nih=/nih",), "data.path": "/rsna"}, "task.data.path"),
]


@pytest.mark.parametrize(("file", "given", "where"), READ_ELSEWHERE)
def test_a_setting_that_others_leave_unread_is_refused_by_name(file, given, where):
    config = read_file(f"configs/eval/{file}", where="")
    assert task_of(config)
    config.update_from_flattened_dict(given)
    with pytest.raises(ConfigError, match=rf"^{where}: "):
        task_of(config)


def test_classes_may_be_named_where_others_are_excluded_as_usual():
    for make in (zero_shot, probe, retrieval):
        config = make.get_config()
        config.classes = ("Lung Opacity",)
        assert task_of(config).exclude == USUALLY_EXCLUDED


def opened(label_names, labels):
    split = types.SimpleNamespace(label_names=label_names)
    return measure.Opened(split=split, texts=(), image_ids=(), labels=np.asarray(labels, np.int8))


def test_patches_that_are_no_places_are_named_unless_regions_take_their_place():
    of_regions = dict(sentence_region=CONTRAST, weights=WEIGHTS)
    said = [
        without_places(PriorObjective(config))
        for config in (
            tiny_config(fidelity="release"),
            tiny_config(fidelity="release", **of_regions),
            tiny_config(**of_regions),
        )
    ]
    assert [bool(one) for one in said] == [True, False, False]


def test_labels_without_prompts_are_named():
    config = zero_shot.get_config()
    data = opened(("Edema", "Gout", "Scoliosis", "Support Devices"), np.ones((4, 4)))
    assert class_choice.without_prompts(task_of(config), data) == ("Gout", "Scoliosis")
    config.exclude = ("gout",)
    assert class_choice.without_prompts(task_of(config), data) == ("Scoliosis",)
    config.exclude = ()
    assert class_choice.without_prompts(task_of(retrieval.get_config()), data) == ()
    config.classes = ("Edema",)
    assert class_choice.without_prompts(task_of(config), data) == ()


@pytest.mark.parametrize("make", [zero_shot, probe, retrieval])
def test_a_misspelt_exclusion_is_named(make):
    config = make.get_config()
    config.min_positives = 1
    data = opened(("Edema", "Gout"), np.array([[1, 1], [0, 0]]))
    config.exclude = ("Fracture", "oedema", "gout")  # Fracture is a finding that the set lacks
    (said,) = measure.remarks(task_of(config), None, data)
    assert said.startswith("task.exclude names oedema, which is no label of the set")
    config.exclude, config.classes = make.get_config().exclude, ("Edema",)
    assert measure.remarks(task_of(config), None, data) == []


@pytest.mark.parametrize("make", [zero_shot, probe, retrieval])
def test_classes_with_too_few_records_are_named_with_their_number(make):
    config = make.get_config()
    states = np.array([[1, 1, 1], [1, 0, 1], [1, -1, 1], [0, -2, 1], [0, 0, 1], [0, 0, 0]])
    data = opened(("Edema", "Cardiomegaly", "Atelectasis"), states)
    said = measure.remarks(task_of(config), None, data)
    assert said == [
        "Cardiomegaly is left out: 1 positive record in test, and 3 are needed",
        "Atelectasis is left out: 1 other record in test, and 3 are needed",
    ]
    reasons = measure.left_out(task_of(config), None, data)
    assert reasons["Cardiomegaly"] == "1 positive record in test, and 3 are needed"
    (note,) = tables.notes_of({"left_out": reasons})
    assert note.startswith("Left out for too few records: Cardiomegaly (1 positive record in test")
    config.exclude = ("cardiomegaly",)
    assert list(measure.left_out(task_of(config), None, data)) == ["Atelectasis"]
    config.exclude, config.classes = make.get_config().exclude, ("Cardiomegaly",)
    assert measure.left_out(task_of(config), None, data) == {}


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (("Gout", "Scoliosis"), (), r"are Gout, Scoliosis, .*only for .*Atelectasis"),
        ((), (), "the set has no labels"),
        (("Gout",), ("Gout",), r"sentences for the class 'Gout'\. Choose among Atelectasis"),
        (
            ("Gout",),
            ("Edema",),
            r"no labels for the classes \['Edema'\]\. Choose different labels .*Gout",
        ),
    ],
)
def test_a_class_that_nobody_can_be_asked_for_is_refused_by_name(labels, classes, message):
    config = zero_shot.get_config()
    config.classes = classes
    data = opened(labels, np.ones((4, len(labels))))
    with pytest.raises(ConfigError, match=rf"task\.classes: .*{message}"):
        measure.measure(task_of(config), None, subject=None, opened=lambda _: data)


class Words:
    """A tokenizer that knows words only."""

    cls_id, sep_id, pad_id = 1, 2, 0

    def encode(self, text):
        starts = [0, *(i + 1 for i, letter in enumerate(text) if letter == " ")]
        ends = [*(start - 1 for start in starts[1:]), len(text)]
        spans = np.array(list(zip(starts, ends, strict=True)), np.int32)
        return types.SimpleNamespace(ids=np.full(len(starts), 5, np.int32), spans=spans)

    def encode_ids(self, texts):
        return [self.encode(text).ids for text in texts]

    def starts_word(self, token_id):
        return True


class LongRight(Words):
    """A tokenizer that takes two pieces for "right"."""

    def encode(self, text):
        found = super().encode(text)
        if "right" in text:
            found.ids, found.spans = np.append(found.ids, 5), np.append(found.spans, [[0, 0]], 0)
        return found


REPORTS = (
    ("Small left effusion.", "The heart is large."),
    ("There is a nodule.", "Another nodule or mass."),
    ("No finding is named.",),
)


def asked(
    unit, *, text="prompts", about=None, classes=(), attention="own", long_right=False,
    max_tokens=32, **prompts,
):  # fmt: skip
    config = grounding.get_config(attention)
    config.text = text
    config.classes = classes
    config.prompts.update(prompts)
    split = types.SimpleNamespace(tokenizer=LongRight() if long_right else Words())
    texts = [StudyText(study_id="s", subject_id="p", sentences=report) for report in REPORTS]
    opened = measure.Opened(split=split, texts=texts, image_ids=(), labels=np.zeros((0, 2)))
    data = types.SimpleNamespace(max_tokens=max_tokens, max_sentences=4)
    subject = types.SimpleNamespace(data=data)
    about = about or {"Pleural Effusion": (0, 2), "Lung Lesion": (1,)}
    return grounded.asked(task_of(config), about, subject=subject, data=opened, unit=unit)


def test_grounding_asks_the_prompts_that_name_the_finding_and_its_words():
    found = asked("word")
    effusions = [t for t, o in zip(found.texts, found.owner, strict=True) if o == 0]
    assert len(effusions) > 2 and all("effusion" in text.lower() for text in effusions)
    words = dict(zip(found.texts, found.rows, strict=True))
    # [CLS] is word 0.
    assert words["There is a pleural effusion."] == (5,)
    assert words["There is a pulmonary nodule or mass."] == (5, 7)
    assert not any(text.startswith("No") for text in found.texts)
    assert found.tokens.tokens.shape[0] == len(found.texts)
    assert found.record is None
    assert set(asked("sentence").rows) == {(0,)}


def test_grounding_asks_each_study_s_own_sentences_that_name_the_finding():
    found = asked("word", text="report")
    assert found.texts == (REPORTS[0][0], *REPORTS[1])
    assert found.owner.tolist() == [0, 1, 1] and found.record.tolist() == [0, 1, 1]
    assert found.rows == ((3,), (4,), (2, 4))
    assert asked("sentence", text="report").rows == ((0,), (0,), (0,))


def test_a_sentence_that_is_too_long_for_the_mirror_image_is_left_out():
    """The word of three stays within five tokens, its "right" would take another."""
    own = dict(text="report", long_right=True, max_tokens=5, about={"Pleural Effusion": (0,)})
    assert asked("word", **own).texts == (REPORTS[0][0],)
    with pytest.raises(ConfigError, match="No sentence of a report names the finding"):
        asked("word", attention="fine", **own)
    both = asked("word", attention="fine", **(own | {"max_tokens": 6}))
    assert both.texts == (REPORTS[0][0],)


UNNAMED = {"Pleural Effusion": (2,), "Lung Lesion": (1,)}


@pytest.mark.parametrize(
    ("asking", "field", "kept"),
    [
        ({"text": "report", "about": UNNAMED}, "task.text", ("Lung Lesion",)),
        ({"set": "single"}, "task.prompts.set", ("Pleural Effusion",)),
    ],
)
def test_findings_that_no_sentence_names_are_left_out_or_refused_by_name(asking, field, kept):
    found = asked("word", **asking)
    assert found.classes == kept and set(found.owner) == {0}
    (other,) = set(UNNAMED) - set(kept)
    with pytest.raises(ConfigError, match=f"{field}.*{other}"):
        asked("word", classes=tuple(UNNAMED), **asking)
    alone = {**asking, "about": {other: UNNAMED[other]}}
    with pytest.raises(ConfigError, match=f"{field}.*{other}"):
        asked("word", **alone)


def test_fewer_positives_than_none_are_refused():
    config = probe.get_config()
    config.min_positives = -1
    with pytest.raises(ConfigError, match=r"task\.min_positives: .*at least 0"):
        task_of(config)
