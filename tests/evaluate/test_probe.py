import dataclasses
import json

import jax
import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import bootstrap, labels, probe
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Pooled
from tests.evaluate.fakes import FEATURES, FakeModel, FakeObjective, make_batches

NAMES = ("Edema", "Pneumothorax", "Fracture")
RESAMPLING = bootstrap.BootstrapConfig(resamples=50, confidence=0.95, seed=0)
CONFIG = probe.ProbeConfig(
    fraction=1.0,
    seed=0,
    penalties=(0.01, 1.0),
    max_iterations=500,
    policy=labels.LabelPolicy(uncertain="ignore", unmentioned="negative"),
)


def split(seed, *, count=120, noise=0.3):
    """Feature k tells finding k, scaled and shifted; the last feature is constant."""
    random = np.random.default_rng(seed)
    truth = random.random((count, len(NAMES))) < 0.4
    features = truth + noise * random.normal(size=truth.shape)
    features = np.concatenate([features * [1, 100, 0.01] + [5, -300, 0], np.ones((count, 1))], 1)
    return Pooled(
        features=features.astype(np.float32),
        labels=truth.astype(np.int8),
        record=np.arange(count, dtype=np.int32),
    )


def run(train=None, validate=None, test=None, *, classes=NAMES, patients=None, **changes):
    train = split(0) if train is None else train
    test = split(2) if test is None else test
    return probe.evaluate_probe(
        train=train,
        validate=split(1) if validate is None else validate,
        test=test,
        train_patients=np.arange(len(train.record)) // 2 if patients is None else patients,
        test_patients=np.arange(len(test.record)) // 2,
        label_names=NAMES,
        classes=classes,
        config=dataclasses.replace(CONFIG, **changes),
        resampling=RESAMPLING,
    )


def relabelled(part, column, values):
    changed = part.labels.copy()
    changed[:, column] = values
    return dataclasses.replace(part, labels=changed)


def test_features_that_tell_the_findings_are_read():
    found = run()
    metric = found.metrics["macro_auroc"]
    assert metric.value > 0.97 and metric.low <= metric.value <= metric.high
    assert {f"auroc_{name.lower()}" for name in NAMES} < set(found.metrics)
    settings = json.loads(json.dumps(found.settings, allow_nan=False))
    assert settings["patients"] == 60 and settings["train_records"] == 120
    assert settings["not_converged"] == 0 and settings["undefined"] == {}


def test_features_that_tell_nothing_give_a_coin_toss():
    parts = [dataclasses.replace(split(s), features=split(s + 10).features) for s in range(3)]
    assert run(*parts).metrics["macro_auroc"].value == pytest.approx(0.5, abs=0.12)


def test_the_scale_of_the_features_changes_nothing():
    parts = [split(seed) for seed in range(3)]
    scale = np.array([1e3, 1e-3, 7, 2], np.float32)
    scaled = [dataclasses.replace(part, features=part.features * scale - 1) for part in parts]
    for name, metric in run(*parts).metrics.items():
        assert run(*scaled).metrics[name].value == pytest.approx(metric.value, abs=1e-3)


def test_the_penalty_is_the_best_of_the_validation_records_and_the_strongest_of_equal_ones():
    # Ten useless features for twelve records: the weak penalty learns the noise.
    random = np.random.default_rng(0)
    parts = []
    for seed, count in ((0, 12), (1, 300), (2, 300)):
        part = split(seed, count=count, noise=0.8)
        noise = random.normal(size=(count, 40)).astype(np.float32)
        parts.append(
            dataclasses.replace(part, features=np.concatenate([part.features, noise], axis=1))
        )
    scores = run(*parts, penalties=(1e-3, 1e3)).settings["validation_macro_auroc"]
    chosen = run(*parts, penalties=(1e3, 1e-3)).settings["chosen_penalty"]
    assert scores["0.001"] != scores["1000"]
    assert chosen == float(max(scores, key=scores.__getitem__))
    assert (
        run(penalties=(0.2, 0.1, 0.3), validate=split(0, noise=0)).settings["chosen_penalty"] == 0.1
    )


def test_uncertain_records_teach_nothing_and_count_nothing():
    train = split(0)
    spoilt = train.labels[:, 0].copy()
    spoilt[:40] = 1 - spoilt[:40]
    wrong = run(relabelled(train, 0, spoilt)).metrics["auroc_edema"]
    spoilt[:40] = labels.UNCERTAIN
    found = run(relabelled(train, 0, spoilt))
    assert found.metrics["auroc_edema"].value > wrong.value
    known = relabelled(split(2), 0, np.r_[[1, 0], [labels.UNCERTAIN] * 118])
    assert run(test=known).settings["positives"]["edema"] == 1


def test_a_class_that_the_training_records_lack_is_null_with_its_reason():
    found = run(relabelled(split(0), 2, 0))
    assert np.isnan(found.metrics["auroc_fracture"].value)
    assert found.settings["undefined"]["auroc_fracture"].endswith("negative for Fracture")
    two = [found.metrics[f"auroc_{name}"].value for name in ("edema", "pneumothorax")]
    assert found.metrics["macro_auroc"].value == pytest.approx(np.mean(two))


def test_a_fraction_takes_whole_patients_and_a_smaller_one_is_part_of_it():
    patients = np.array([f"p{i // 3}" for i in range(300)])
    rows = {f: probe.choose_patients(patients, fraction=f, seed=3) for f in (0.01, 0.1, 1.0)}
    assert [len(rows[f]) for f in rows] == [3, 30, 300]
    assert set(rows[0.01]) < set(rows[0.1])
    chosen = set(patients[rows[0.1]])
    assert all((patient in chosen) == (row in rows[0.1]) for row, patient in enumerate(patients))
    assert set(rows[0.1]) != set(probe.choose_patients(patients, fraction=0.1, seed=4))
    assert run(fraction=0.1).settings["train_patients"] == 6


def test_the_test_records_teach_nothing():
    before = run().settings
    after = run(test=relabelled(split(2), 0, 1 - split(2).labels[:, 0]))
    assert after.settings["validation_macro_auroc"] == before["validation_macro_auroc"]
    assert after.metrics["auroc_edema"].value == pytest.approx(
        1 - run().metrics["auroc_edema"].value
    )


@pytest.mark.parametrize(
    ("field", "bad"),
    [("fraction", 0.0), ("fraction", 1.5), ("penalties", ()), ("penalties", (0.0,)),
     ("penalties", (0.1, float("nan"))), ("penalties", (0.1, float("inf"))), ("max_iterations", 0)],
)  # fmt: skip
def test_settings_that_train_nothing_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        dataclasses.replace(CONFIG, **{field: bad})


def test_a_class_that_is_no_label_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"task\.classes.*Hernia"):
        run(classes=("Hernia",))


def test_stopping_too_early_is_told():
    assert run(max_iterations=1).settings["not_converged"] == 3


def test_the_encoder_gives_one_pooled_vector_a_real_record():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(5, FEATURES)).astype(np.float32)
    batches = make_batches(
        vectors, np.ones((5, FEATURES), np.int32), np.ones((5, 3), np.int8), batch_size=2
    )
    encoder = Encoder(FakeObjective(), FakeModel(3.0), place=jax.device_put)
    found = encoder.pooled(batches)
    assert found.features.shape[0] == 5 and found.record.tolist() == [0, 1, 2, 3, 4]
    assert found.features.dtype == np.float32
    with pytest.raises(DataError, match="batches"):
        encoder.pooled([])
