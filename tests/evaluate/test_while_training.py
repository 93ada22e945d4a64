"""The subset, the classes and the numbers of the evaluation while training."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.prior import base
from prior_jax.errors import ConfigError
from prior_jax.evaluate import while_training
from prior_jax.evaluate.features import ReportTokens
from prior_jax.evaluate.prompts import PromptTable
from prior_jax.evaluate.while_training import (
    EvaluateConfig,
    Subset,
    WhileTraining,
    choose_classes,
    draw_patients,
    draw_records,
)
from prior_jax.strict import build
from tests.evaluate.fakes import FEATURES, FakeModel, FakeObjective, make_batches

NAMES = ("Edema", "Consolidation", "Support Devices")


def settings(**changes):
    section = base.evaluate() | dict(ranks=(1, 2), batch_size=8, neighbours=3) | changes
    return build(EvaluateConfig, section, name="config.evaluate")


def studies(count, seed):
    """Vectors near one of two directions by the first label; reports that say so; labels."""
    rng = np.random.default_rng(seed)
    positive = np.arange(count) % 2 == 0
    vectors = np.where(positive[:, None], [1.0, 0.2, 0.0, 0.0], [0.0, 0.2, 1.0, 0.0])
    vectors = vectors + 0.05 * rng.normal(size=(count, FEATURES))
    tokens = np.round(100 * vectors).astype(np.int32).clip(1)
    states = np.stack([positive, ~positive, rng.random(count) < 0.5], axis=1)
    return vectors.astype(np.float32), tokens, states.astype(np.int8)


@pytest.fixture(scope="module")
def subset():
    held, bank = studies(20, 0), studies(40, 1)
    prompt = np.array([[100, 1, 1, 1], [1, 1, 100, 1]], np.int32)
    return Subset(
        classes={"zero_shot": NAMES[:2], "retrieval": NAMES[:2], "knn": NAMES[:2]},
        label_names=NAMES,
        patients={record: f"patient {record // 2}" for record in range(20)},
        texts={record: f"report {record}" for record in range(20)},
        table=PromptTable(
            classes=NAMES[:2],
            texts=("Edema.", "Consolidation."),
            owner=np.array([0, 1], np.int32),
            affirms=np.ones(2, bool),
        ),
        tokens=ReportTokens(
            tokens=prompt,
            token_mask=prompt > 0,
            sentence_index=np.zeros(prompt.shape, np.int32),
            sentence_mask=np.ones((2, 1), bool),
        ),
        batches=lambda: make_batches(*held, batch_size=8),
        bank=lambda: make_batches(*bank, batch_size=8),
    )


def test_separable_findings_are_found_by_every_task(subset):
    config = settings()
    evaluation = WhileTraining(FakeObjective(), subset=subset, config=config, place=jax.device_put)
    found = evaluation(FakeModel(), stage="pretrain")
    assert tuple(found) == evaluation.names
    assert found["evaluate_zero_shot_macro_auroc"] == found["evaluate_knn_macro_auroc"] == 1.0
    assert found["evaluate_retrieval_precision_at_1"] == 1.0
    assert 0 < found["evaluate_retrieval_recall_at_1"] <= found["evaluate_retrieval_recall_at_2"]
    # A model that turns every image around is wrong about all prompts; neighbours do not change.
    turned = evaluation(FakeModel(-1.0), stage="pretrain")
    assert turned["evaluate_zero_shot_macro_auroc"] == 0.0
    assert turned["evaluate_knn_macro_auroc"] == 1.0
    assert evaluation(FakeModel(), stage="pretrain") == found


def test_one_program_serves_every_model_and_only_asked_tasks_run(subset):
    objective = FakeObjective()
    alone = dataclasses.replace(subset, classes={"knn": NAMES[:2]}, table=None, tokens=None)
    evaluation = WhileTraining(objective, subset=alone, config=settings(), place=jax.device_put)
    assert evaluation.names == ("evaluate_knn_macro_auroc",)
    for scale in (1.0, 2.0):
        assert evaluation(FakeModel(scale), stage="pretrain") == {"evaluate_knn_macro_auroc": 1.0}
    assert [kind for kind, _ in objective.traced] == ["image"]


def test_without_labels_there_is_no_precision(subset):
    bare = dataclasses.replace(subset, classes={"retrieval": ()}, table=None, tokens=None)
    evaluation = WhileTraining(
        FakeObjective(), subset=bare, config=settings(), place=jax.device_put
    )
    names = [f"{kind}recall_at_{k}" for kind in ("", "report_to_image_") for k in (1, 2)]
    found = evaluation(FakeModel(), stage="pretrain")
    assert list(found) == [f"evaluate_retrieval_{name}" for name in names]


class Staged(FakeObjective):
    """A fake whose reports are turned around in the first stage."""

    def __init__(self, stage="second"):
        super().__init__()
        self.stage = stage

    def in_stage(self, stage):
        return self if stage == self.stage else Staged(stage)

    def encode_report(self, *arguments):
        found = super().encode_report(*arguments)
        return found.replace(global_=-found.global_) if self.stage == "first" else found


def test_reports_are_encoded_as_the_stage_is_trained(subset):
    prompted = dataclasses.replace(subset, classes={"zero_shot": NAMES[:2]})
    evaluation = WhileTraining(Staged(), subset=prompted, config=settings(), place=jax.device_put)
    found = [
        evaluation(FakeModel(), stage=stage)["evaluate_zero_shot_macro_auroc"]
        for stage in ("first", "first", "second", "first")
    ]
    assert found == [0.0, 0.0, 1.0, 0.0]


def test_whole_patients_are_drawn_and_fewer_are_among_more():
    rng = np.random.default_rng(0)
    patients = {int(r): f"p{rng.integers(40)}" for r in rng.permutation(300)[:120]}
    before: set[int] = set()
    for count in (1, 2, 10, 50, 119, 120, 500):
        drawn = draw_patients(patients, studies=count, seed=3)
        assert min(count, 120) <= len(drawn) and drawn.tolist() == sorted(drawn.tolist())
        found = {patients[record] for record in drawn.tolist()}
        assert {r for r, patient in patients.items() if patient in found} == set(drawn.tolist())
        largest = max(sum(p == one for p in patients.values()) for one in found)
        assert len(drawn) < count + largest
        assert before <= set(drawn.tolist())
        before = set(drawn.tolist())
    again = draw_patients(dict(reversed(patients.items())), studies=50, seed=3)
    assert again.tolist() == draw_patients(patients, studies=50, seed=3).tolist()
    assert again.tolist() != draw_patients(patients, studies=50, seed=4).tolist()
    assert draw_patients({}, studies=3, seed=0).tolist() == []


def test_records_of_the_bank_are_drawn_without_replacement():
    records = np.arange(100, 200)
    drawn = draw_records(records, size=30, seed=0)
    assert len(set(drawn.tolist())) == 30 and set(drawn.tolist()) <= set(records.tolist())
    assert draw_records(records, size=30, seed=0).tolist() == drawn.tolist()
    assert draw_records(records, size=300, seed=0).tolist() == records.tolist()


def test_classes_need_both_states_in_the_subset_and_in_the_bank():
    states = np.array([[1, 1, 1], [1, 0, 0], [1, -2, 1], [0, 1, 0]] * 3, np.int8)
    choose = lambda **given: choose_classes(  # noqa: E731
        states, label_names=NAMES, **(dict(config=settings()) | given)
    )
    assert choose() == ("Edema", "Consolidation")  # Support Devices are excluded
    assert choose(config=settings(min_positives=4)) == ("Consolidation",)
    bank = np.array([[1, 1, 1], [0, 1, 0]], np.int8)
    assert choose(bank=bank) == ("Edema",)
    named = settings(classes=("support_devices", "edema"))
    assert choose(config=named) == ("support_devices", "edema")
    with pytest.raises(ConfigError, match=r"evaluate\.classes: .*of the bank .*Consolidation"):
        choose(bank=bank, config=settings(classes=("Consolidation",)))
    with pytest.raises(ConfigError, match=r"evaluate\.classes: .*Fracture.*Choose"):
        choose(config=settings(classes=("Fracture",)))


def test_uncertain_labels_are_left_out_of_the_area():
    scores = np.array([[0.9], [0.1], [0.5]])
    states = np.array([[1], [0], [-1]], np.int8)
    truth = while_training.labels.apply_policy(states, policy=settings().policy)
    assert while_training.macro_auroc(scores, truth) == 1.0
    assert np.isnan(while_training.macro_auroc(np.full((3, 1), np.nan), truth))


@pytest.mark.parametrize(
    "changes, pattern",
    [
        (dict(tasks=("probe",)), r"config\.evaluate\.tasks.*'probe'"),
        (dict(tasks=("knn", "knn")), r"config\.evaluate\.tasks: .*different"),
        (dict(split="train"), r"config\.evaluate\.split: .*'train'.*'validate', 'test'"),
        (dict(studies=1), r"config\.evaluate\.studies: .*at least 2"),
        (dict(temperature=0.0), r"config\.evaluate\.temperature: .*above 0"),
        (dict(ranks=()), r"config\.evaluate\.ranks"),
        (dict(neighbours=0), r"config\.evaluate\.neighbours: .*at least 1"),
    ],
)
def test_settings_with_which_nothing_can_be_measured_are_refused(changes, pattern):
    with pytest.raises(ConfigError, match=pattern):
        settings(**changes)
