import copy
import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import pytest

import prior_jax
from prior_jax.data import pipeline, sentences, text
from prior_jax.data.image import AugmentConfig, ImageConfig
from prior_jax.data.tokenizer import TokenizerConfig
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import prompt_scores
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens
from prior_jax.evaluate.prompts import prompt_table
from prior_jax.interface import Model
from prior_jax.objectives.gloria_inference import pair_scores as gloria_scores
from prior_jax.objectives.prior_inference import pair_scores as prior_scores
from tests import fixtures
from tests.interface.conftest import IMAGE, TEXT

REPORTS = ["The heart is normal in size. Lungs are clear.", "Small left effusion seen."]
PROMPTS = {"Effusion": ["Small effusion.", "Large effusion."], "Clear": ["Lungs are clear."]}


def test_importing_the_package_imports_nothing_else():
    code = "import sys, prior_jax; assert not {'jax', 'numpy', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "load" in dir(prior_jax) and prior_jax.Model is Model
    with pytest.raises(AttributeError, match="'prior_jax' has no attribute 'loads'"):
        _ = prior_jax.loads


@pytest.fixture(scope="module")
def evaluated(prior, tokenizer, tmp_path_factory):
    """A split as `launch.evaluate` reads it, and the files of its images."""
    folder = tmp_path_factory.mktemp("both_doors")
    words = TokenizerConfig(
        kind="wordpiece", path=str(fixtures.write_vocabulary(folder / "vocab.txt")), lower_case=True
    )
    config = pipeline.DataConfig(
        path=str(fixtures.write_prepared(folder / "set", studies=2, test=4)),
        image=ImageConfig(size=IMAGE.size, channels=1, mean=None, std=None),
        augment=AugmentConfig(rotation_degrees=0.0, flip_probability=0.0),
        tokenizer=words, caption="report", text_mode="paper", text_sources=("report",),
        shuffle_sentences=False, max_tokens=TEXT.max_tokens, max_sentences=TEXT.max_sentences,
        buckets=(TEXT.max_tokens,), bucket_window=1, batch_size=2, seed=0, workers=0, threads=1,
        prefetch=1,
    )  # fmt: skip
    split = pipeline.open_split(config, "test", cache_dir=folder / "cache")
    paths = [folder / f"{index}.jpg" for index in range(len(split))]
    for index, path in enumerate(paths):
        path.write_bytes(split.record(index).images[0])
    with split.eval_batches(batch_size=4, require_text=False) as batches:
        read = [batch for _, batch in batches]
    return read, paths


def test_zero_shot_scores_are_those_of_the_evaluation(prior, tokenizer, evaluated):
    batches, paths = evaluated
    table = prompt_table("described", classes=["Edema", "Pleural Effusion"], negatives=True)
    encoded = text.encode_prompts(
        table.texts,
        tokenizer=tokenizer,
        max_tokens=TEXT.max_tokens,
        max_sentences=TEXT.max_sentences,
    )
    encoder = Encoder(prior.objective, prior.module, place=jax.device_put)
    reports = encoder.prompts(ReportTokens(**vars(encoded)), block=4)
    images = encoder.studies(batches, reports=False).images
    expected = prompt_scores.class_scores(
        encoder.similarity(images, reports, block=4), table=table, pool="mean", normalise="none"
    )
    found = prior.zero_shot_classification(paths, table)
    assert found.columns.tolist() == ["Edema", "Pleural Effusion"]
    assert found.index.tolist() == list(map(str, paths))
    assert np.ptp(expected, axis=0).min() > 1e-4
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_class_s_score_is_pooled_from_its_sentences(whole, paths):
    images = whole.encode_images(paths)
    each = whole.similarity(
        images, whole.encode_text(["Small effusion.", "Large effusion.", "Lungs are clear."])
    )
    for pool, pooled in (("mean", np.mean), ("max", np.max)):
        found = whole.zero_shot_classification(images, PROMPTS, pool=pool)
        assert found.index.tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(found["Effusion"], pooled(each[:, :2], axis=1), rtol=1e-5)
        np.testing.assert_allclose(found["Clear"], each[:, 2], rtol=1e-5)


def test_scores_are_normalised_over_classes_or_over_images(whole, paths):
    plain, shares, scores = (
        whole.zero_shot_classification(paths, PROMPTS, normalise=name)
        for name in ("none", "softmax", "z-score")
    )
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scores.std(axis=0, ddof=0), 1, rtol=1e-4)
    assert plain.rank().equals(scores.rank())


@pytest.mark.parametrize("option", ["pool", "normalise", "kind"])
def test_unknown_choices_are_refused_by_name(whole, paths, option):
    with pytest.raises(ConfigError, match=f"{option}: The value is 'median'"):
        whole.zero_shot_classification(paths, PROMPTS, **{option: "median"})


def test_a_local_score_is_refused_where_there_is_none(whole, paths):
    np.testing.assert_array_equal(
        whole.similarity(paths, REPORTS), whole.similarity(paths, REPORTS, kind="global")
    )
    with pytest.raises(ConfigError, match=r"kind: .*FakeObjective.*'local'"):
        whole.similarity(paths, REPORTS, kind="local")


def test_kinds_are_the_parts_of_the_objective_s_score(prior, gloria, paths):
    for model, join in ((prior, lambda g, lo: g + 0.5 * lo), (gloria, lambda g, lo: (g + lo) / 2)):
        images, reports = model.encode_images(paths), model.encode_text(REPORTS)
        both, whole, local = (
            model.similarity(images, reports, kind=kind) for kind in ("both", "global", "local")
        )
        assert both.shape == (4, 2) and both.dtype == np.float32
        np.testing.assert_allclose(both, join(whole, local), rtol=1e-4, atol=1e-5)
        if model is prior:
            parts = functools.partial(prior_scores, prior.module)
        else:
            parts = functools.partial(gloria_scores, config=gloria.objective.config)
        expected = jax.jit(parts)(images, reports)
        np.testing.assert_allclose(local, expected.local, rtol=1e-4, atol=1e-5)


def test_every_form_of_images_and_texts_gives_one_score(whole, paths):
    expected = whole.similarity(paths, REPORTS)
    images, tokens = whole.process_images(paths), whole.process_text(REPORTS)
    for form in (images, whole.encode_images(images)):
        for words in (tokens, whole.encode_text(tokens)):
            np.testing.assert_array_equal(whole.similarity(form, words), expected)


def test_the_block_changes_nothing(whole, tokenizer, paths):
    small = Model(
        whole.objective, whole.module, tokenizer=tokenizer, image=IMAGE, text=TEXT, block=3
    )
    expected = whole.similarity(paths, REPORTS)
    np.testing.assert_allclose(small.similarity(paths, REPORTS), expected, rtol=1e-6)
    with pytest.raises(ConfigError, match="block: The value is 0"):
        Model(whole.objective, whole.module, tokenizer=tokenizer, image=IMAGE, text=TEXT, block=0)


def test_sentences_look_at_regions(prior, paths):
    found = prior.attention(paths[0], REPORTS[0])
    assert found.unit == "sentence"
    assert found.texts == ("The heart is normal in size.", "Lungs are clear.")
    assert found.weights.shape[0] == 2 and found.weights.shape[1] == found.weights.shape[2]


def test_words_look_at_regions(gloria, paths):
    found = gloria.attention(paths[0], REPORTS[1])
    assert found.unit == "word" and found.texts == ("small", "left", "effusion", "seen", ".")
    np.testing.assert_allclose(found.weights.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_attention_is_of_one_image_and_one_report(prior, whole, paths):
    with pytest.raises(DataError, match=r"4 and 1.*one of each"):
        prior.attention(paths, REPORTS[0])
    with pytest.raises(ConfigError, match="no attention of text over the image"):
        whole.attention(paths[0], REPORTS[0])


def test_the_fingerprint_is_that_of_the_weights(whole, tokenizer):
    def made(scale, config=IMAGE):
        module = type(whole.module)(scale)
        return Model(whole.objective, module, tokenizer=tokenizer, image=config, text=TEXT)

    assert made(1.0).fingerprint == whole.fingerprint
    other = ImageConfig(size=IMAGE.size, channels=1, mean=(0.5,), std=(0.25,))
    assert len({m.fingerprint for m in (whole, made(2.0), made(1.0, other))}) == 3


def changed_model(model, *, split=TEXT.split, **changes):
    """A model with the same arrays, another splitter and other settings of its objective."""
    objective = copy.copy(model.objective)
    objective.config = dataclasses.replace(objective.config, **changes)
    words = dataclasses.replace(TEXT, split=split)
    return Model(objective, model.module, tokenizer=model.tokenizer, image=IMAGE, text=words)


def test_the_fingerprint_follows_settings_that_no_array_shows(gloria):
    text = gloria.objective.config.text
    models = [
        changed_model(gloria, layer_pool="mean"),
        changed_model(gloria, last_layers=1),
        changed_model(gloria, fidelity="release"),
        changed_model(gloria, dtype="bfloat16"),
        changed_model(gloria, text=dataclasses.replace(text, heads=2 * text.heads)),
        changed_model(gloria, split=sentences.SPLITTERS["gloria_paper"]),
        changed_model(gloria, split=sentences.SPLITTERS["gloria_release"]),
        changed_model(gloria, split=str.splitlines),
    ]
    assert changed_model(gloria).fingerprint == gloria.fingerprint
    assert len({model.fingerprint for model in (gloria, *models)}) == 1 + len(models)


def test_the_length_of_the_stages_does_not_change_the_fingerprint(prior):
    """Exported weights do not have it, and their model computes the embeddings of the run."""
    bank = dataclasses.replace(prior.objective.config.bank, start_step=7, steps=9)
    assert changed_model(prior, bank=bank).fingerprint == prior.fingerprint
    hotter = dataclasses.replace(bank, temperature=2 * bank.temperature)
    assert changed_model(prior, bank=hotter).fingerprint != prior.fingerprint
