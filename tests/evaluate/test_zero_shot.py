import dataclasses
import json

import jax
import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import bootstrap, labels, over_seeds, prompt_scores, prompts, zero_shot
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens
from tests.evaluate.fakes import FEATURES, FakeModel, FakeObjective, make_batches

CLASSES = ("Edema", "Pneumothorax", "Nodule")
RESAMPLING = bootstrap.BootstrapConfig(resamples=100, confidence=0.95, seed=0)
CONFIG = zero_shot.ZeroShotConfig(
    mode="multi_label",
    pool="mean",
    normalise="none",
    policy=labels.LabelPolicy(uncertain="ignore", unmentioned="negative"),
    block=8,
)


def measure(scores, columns, *, classes=CLASSES, groups=None, **changes):
    return zero_shot.measure(
        np.asarray(scores, np.float32),
        np.asarray(columns, np.int8),
        classes=classes,
        groups=np.arange(len(scores)) if groups is None else groups,
        config=dataclasses.replace(CONFIG, **changes),
        resampling=RESAMPLING,
    )


def tokens_for(vectors):
    tokens = np.asarray(vectors, np.int32)
    return ReportTokens(
        tokens=tokens,
        token_mask=np.ones(tokens.shape, bool),
        sentence_index=np.zeros_like(tokens),
        sentence_mask=np.ones((len(tokens), 1), bool),
    )


def run(scale=1.0, noise=0.05, order=slice(None), **changes):
    """40 studies of one class each; a class's prompt points where its images point."""
    random = np.random.default_rng(0)
    classes = np.arange(40) % 3
    vectors = np.eye(FEATURES)[classes] + noise * random.normal(size=(40, FEATURES))
    batches = make_batches(
        vectors, np.ones((40, FEATURES), np.int32), np.eye(3, dtype=np.int8)[classes], batch_size=16
    )
    table = prompts.prompt_table("single", classes=CLASSES, negatives=False)
    return zero_shot.evaluate_zero_shot(
        Encoder(FakeObjective(), FakeModel(scale), place=jax.device_put),
        batches[order],
        table=table,
        tokens=tokens_for(100 * np.eye(FEATURES)[:3]),
        label_names=CLASSES,
        patients=[f"p{i // 2}" for i in range(40)],
        config=dataclasses.replace(CONFIG, **changes),
        resampling=RESAMPLING,
    )


def test_a_model_that_knows_the_classes_is_right_and_the_opposite_one_wrong():
    found = run().metrics
    for name in ("macro_auroc", "accuracy", "macro_f1", "kappa", "macro_average_precision"):
        assert found[name].value == pytest.approx(1.0)
    assert run(scale=-1.0).metrics["macro_auroc"].value == pytest.approx(0.0)


def test_the_order_of_the_batches_changes_nothing():
    forward, backward = run(noise=1.0), run(noise=1.0, order=slice(None, None, -1))
    assert forward.metrics["accuracy"].low < forward.metrics["accuracy"].value < 1
    for name, metric in forward.metrics.items():
        assert metric.to_json() == pytest.approx(backward.metrics[name].to_json())


def test_accuracy_resamples_the_patients_of_the_records_it_counts():
    columns = [[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]]
    scores = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    found = measure(scores, columns, groups=np.array([0, 1, 2, 2])).metrics["accuracy"]
    # Both counted records are of one patient: they are drawn together or not at all.
    assert found.value == 0.5 and np.isnan([found.low, found.high]).all()


def test_the_settings_are_json_and_say_how_it_was_measured():
    settings = json.loads(json.dumps(run().settings, allow_nan=False))
    assert settings["patients"] == 20 and settings["records"] == 40
    assert settings["positives"] == {"edema": 14, "pneumothorax": 13, "nodule": 13}
    assert settings["prompts"]["Edema"] == {"affirm": ["There is pulmonary edema."], "deny": []}
    assert settings["chance"]["accuracy"] == pytest.approx(1 / 3)


def test_a_class_without_positives_is_null_with_a_reason_and_not_in_the_mean():
    columns = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]]
    found = measure([[3, 0, 9], [1, 2, 0], [0, 0, 1], [1, 3, 1]], columns)
    assert np.isnan(found.metrics["auroc_nodule"].value)
    assert found.settings["undefined"]["auroc_nodule"] == "no positive of Nodule is counted"
    assert found.settings["classes_left_out_of_macro"] == 1
    each = [found.metrics[f"auroc_{name}"].value for name in ("edema", "pneumothorax")]
    # Edema: 3 and 0 against 1 and 1. Pneumothorax: 2 and 3 against 0 and 0.
    assert each == [pytest.approx(0.5), pytest.approx(1.0)]
    assert found.metrics["macro_auroc"].value == pytest.approx(0.75)


def test_no_class_at_all_is_null_and_does_not_crash():
    found = measure([[0, 1, 2], [2, 1, 0]], [[0, 0, 0], [-1, -1, -1]])
    assert all(np.isnan(metric.value) for metric in found.metrics.values())
    assert set(found.settings["undefined"]) == set(found.metrics)


def test_uncertain_labels_count_as_the_policy_says():
    scores = [[0.9, 0, 0], [0.1, 0, 0], [0.5, 0, 0], [0.3, 0, 0]]
    columns = [[-1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]]
    values = {
        choice: measure(
            scores, columns, policy=labels.LabelPolicy(uncertain=choice, unmentioned="negative")
        )
        .metrics["auroc_edema"]
        .value
        for choice in ("ignore", "negative", "positive")
    }
    assert values == {
        "ignore": pytest.approx(0.0),
        "negative": pytest.approx(0.0),
        "positive": pytest.approx(1 / 3),
    }


def test_accuracy_counts_only_records_with_one_positive_class():
    columns = [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [0, -1, 1]]
    scores = [[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    found = measure(scores, columns)
    assert found.settings["records_with_one_positive_class"] == 2
    assert found.metrics["accuracy"].value == pytest.approx(0.5)


def test_multi_class_mode_leaves_the_other_records_out_of_the_auroc_too():
    columns = [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    scores = [[1, 0, 0], [0, 1, 0], [-5, -5, 0], [0, 0, 1]]
    assert measure(scores, columns).metrics["auroc_edema"].value == pytest.approx(0.5)
    found = measure(scores, columns, mode="multi_class")
    assert found.metrics["auroc_edema"].value == pytest.approx(1.0)
    assert found.settings["counted"]["edema"] == 3


def test_unmentioned_findings_are_negatives_of_a_single_class_record():
    ignoring = labels.LabelPolicy(uncertain="ignore", unmentioned="ignore")
    columns = [[1, -2, -2], [-2, 1, -2], [-2, -2, 1]]
    found = measure(np.eye(3), columns, mode="multi_class", policy=ignoring)
    assert found.metrics["macro_auroc"].value == pytest.approx(1.0)


def test_denials_are_subtracted_and_phrasings_pooled():
    table = prompts.PromptTable(
        classes=("A", "B"),
        texts=("a", "b1", "not a", "b2"),
        owner=np.array([0, 1, 0, 1]),
        affirms=np.array([True, True, False, True]),
    )
    similarity = np.array([[5.0, 1.0, 2.0, 4.0]])
    mean, best = (
        prompt_scores.class_scores(similarity, table=table, pool=p, normalise="none")
        for p in ("mean", "max")
    )
    np.testing.assert_allclose(mean, [[3.0, 2.5]])
    np.testing.assert_allclose(best, [[3.0, 4.0]])


def test_the_share_of_the_affirmation_keeps_the_order_of_large_differences():
    table = prompts.PromptTable(
        classes=("A",),
        texts=("A", "No A"),
        owner=np.zeros(2, np.int32),
        affirms=np.array([True, False]),
    )
    difference = np.linspace(-24, 24, 97, dtype=np.float32)
    similarity = np.stack([difference, np.zeros_like(difference)], axis=1)
    found = prompt_scores.class_scores(
        similarity, table=table, pool="mean", normalise="none", denial="softmax"
    )
    assert (np.diff(found[:, 0]) > 0).all() and found[48, 0] == 0.5
    np.testing.assert_allclose(found[:, 0] + found[::-1, 0], 1.0)


def test_softmax_keeps_the_answer_and_sums_to_one():
    table = prompts.PromptTable(
        classes=("A", "B"), texts=("a", "b"), owner=np.arange(2), affirms=np.ones(2, bool)
    )
    found = prompt_scores.class_scores(
        np.array([[500.0, 501.0]]), table=table, pool="mean", normalise="softmax"
    )
    np.testing.assert_allclose(found, [[1 / (1 + np.e), np.e / (1 + np.e)]], rtol=1e-5)


def test_z_scores_compare_the_records_of_a_class_and_leave_a_single_one_alone():
    table = prompts.PromptTable(
        classes=("A", "B"), texts=("a", "b"), owner=np.arange(2), affirms=np.ones(2, bool)
    )

    def scores(similarity):
        return prompt_scores.class_scores(
            np.array(similarity), table=table, pool="mean", normalise="z-score"
        )

    root = np.sqrt(1.5)
    found = scores([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])
    np.testing.assert_allclose(found, [[-root, 0], [0, 0], [root, 0]], rtol=1e-6)
    np.testing.assert_allclose(scores([[1.0, 0.1]]), [[1.0, 0.1]], rtol=1e-6)


def answers_of(vectors, columns, **changes):
    """Measures images whose similarity to the three prompts is given."""
    vectors = np.pad(np.asarray(vectors, np.float32), ((0, 0), (0, FEATURES - 3)))
    tokens = np.ones((len(vectors), FEATURES), np.int32)
    return zero_shot.evaluate_zero_shot(
        Encoder(FakeObjective(), FakeModel(), place=jax.device_put),
        make_batches(vectors, tokens, np.asarray(columns, np.int8), batch_size=8),
        table=prompts.prompt_table("single", classes=CLASSES, negatives=False),
        tokens=tokens_for(100 * np.eye(FEATURES)[:3]),
        label_names=CLASSES,
        patients=np.arange(len(vectors)),
        config=dataclasses.replace(CONFIG, **changes),
        resampling=RESAMPLING,
    )


@pytest.mark.parametrize("mode", ["multi_class", "multi_label"])
def test_z_scores_are_over_the_records_that_the_mode_counts(mode):
    random = np.random.default_rng(4)
    columns = np.eye(3)[np.arange(60) % 3]
    vectors = columns + random.normal(size=(60, 3))
    healthy, sick = np.zeros((20, 3)), np.ones((20, 3))
    every = {"mode": mode, "normalise": "z-score"}
    alone = answers_of(vectors, columns, **every)
    crowded = answers_of(
        np.concatenate([vectors, random.normal(size=(40, 3)) * [1, 9, 1] + [9, 0, -9]]),
        np.concatenate([columns, healthy, sick]),
        **every,
    )
    assert 0 < alone.metrics["accuracy"].value < 1
    same = crowded.metrics["accuracy"].value == alone.metrics["accuracy"].value
    assert same == (mode == "multi_class")
    if mode == "multi_class":
        assert {name: one.value for name, one in crowded.metrics.items()} == pytest.approx(
            {name: one.value for name, one in alone.metrics.items()}
        )


def test_z_scores_of_no_counted_record_leave_the_metrics_undefined():
    found = answers_of(np.eye(3), np.ones((3, 3)), mode="multi_class", normalise="z-score")
    assert np.isnan(found.metrics["accuracy"].value)


@pytest.mark.parametrize("normalise", ["none", "z-score"])
def test_each_draw_is_standardised_by_itself(normalise):
    random = np.random.default_rng(8)
    truth = np.repeat(np.arange(3), [90, 30, 12])
    scores = np.eye(3)[truth] + random.normal(size=(132, 3)) * [1, 2, 3]
    asked = zero_shot.DrawConfig(each=10, seeds=(1, 2, 3))
    found = measure(scores, np.eye(3)[truth], normalise=normalise, draws=asked)
    each = []
    for seed in asked.seeds:
        rows = over_seeds.draw_per_class(truth, each=10, seed=seed)
        drawn = scores[rows]
        if normalise == "z-score":
            drawn = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0)
        each.append(np.mean(drawn.argmax(axis=1) == truth[rows]))
    assert found.settings["over_draws"]["accuracy"]["mean"] == pytest.approx(np.mean(each))


def test_draws_of_two_standardised_parts_are_refused():
    asked = zero_shot.DrawConfig(each=10, seeds=(1,))
    both = dataclasses.replace(CONFIG, draws=asked, local_weight=0.5)
    with pytest.raises(ConfigError, match=r"^draws: The value is .* normalise is 'z-score'"):
        dataclasses.replace(both, normalise="z-score")


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_local_weight_without_a_meaning_is_refused(bad):
    with pytest.raises(ConfigError, match=r"^local_weight: The value is "):
        dataclasses.replace(CONFIG, local_weight=bad)


def test_a_similarity_that_is_not_finite_is_refused():
    table = prompts.prompt_table("release", classes=("Edema",), negatives=False)
    with pytest.raises(DataError, match="similarities"):
        prompt_scores.class_scores(np.array([[np.nan]]), table=table, pool="mean", normalise="none")


def test_prompts_without_tokens_are_refused():
    table = prompts.prompt_table("single", classes=CLASSES, negatives=True)
    with pytest.raises(DataError, match="6 tokenised prompts"):
        zero_shot.evaluate_zero_shot(
            Encoder(FakeObjective(), FakeModel(), place=jax.device_put),
            [],
            table=table,
            tokens=tokens_for(np.ones((3, FEATURES))),
            label_names=CLASSES,
            patients=[],
            config=CONFIG,
            resampling=RESAMPLING,
        )


@pytest.mark.parametrize(
    ("field", "bad"), [("mode", "x"), ("pool", "sum"), ("normalise", "z"), ("block", 0)]
)
def test_bad_settings_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        dataclasses.replace(CONFIG, **{field: bad})


def test_a_single_class_has_a_ranking_but_is_no_answer():
    random = np.random.default_rng(3)
    columns = random.integers(0, 2, (30, 1)).astype(np.int8)
    found = measure(random.random((30, 1)), columns, classes=CLASSES[:1])
    assert 0 < found.metrics["auroc_edema"].value < 1
    for name in ("accuracy", "macro_f1", "kappa", "macro_precision", "macro_recall"):
        assert np.isnan(found.metrics[name].value)
        assert found.settings["undefined"][name] == "a single class is always the answer"
    assert set(found.settings["chance"]) == {"macro_auroc", "auroc_edema"}
