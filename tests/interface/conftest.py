"""Models of the interface, untrained, and a corpus of drawn images."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from prior_jax.data import tokenizer as tokenizer_lib
from prior_jax.data.image import ImageConfig
from prior_jax.data.sentences import split_sentences
from prior_jax.interface import Model, TextSettings
from prior_jax.nn.region_encoder import RegionEncoderConfig
from prior_jax.objectives.gloria import GloriaObjective
from prior_jax.objectives.gloria_config import RELEASE_WEIGHTS, GloriaConfig
from prior_jax.objectives.prior import PriorObjective
from tests import fixtures
from tests.evaluate.fakes import FakeModel, FakeObjective
from tests.nn.small import filled
from tests.objectives import tiny

IMAGE = ImageConfig(size=tiny.SIDE, channels=1, mean=(0.4,), std=(0.25,))
TEXT = TextSettings(split=split_sentences, mode="paper", max_tokens=64, max_sentences=5)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    path = fixtures.write_vocabulary(tmp_path_factory.mktemp("words") / "vocab.txt")
    return tokenizer_lib.open_tokenizer(
        tokenizer_lib.TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    )


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    found = [folder / f"{number}.jpg" for number in range(4)]
    for number, path in enumerate(found):
        path.write_bytes(fixtures.draw_image(np.random.default_rng(number)))
    return found


def made(objective, tokenizer):
    module = filled(lambda: objective.init(nnx.Rngs(0)))
    return Model(objective, module, tokenizer=tokenizer, image=IMAGE, text=TEXT, block=4)


def small_text(tokenizer):
    return dataclasses.replace(tiny.tiny_config().text, vocab_size=tokenizer.vocab_size)


@pytest.fixture(scope="session")
def prior(tokenizer):
    return made(PriorObjective(tiny.tiny_config(text=small_text(tokenizer))), tokenizer)


@pytest.fixture(scope="session")
def gloria(tokenizer):
    config = GloriaConfig(
        fidelity="paper",
        dtype="float32",
        image=RegionEncoderConfig(
            resnet=tiny.tiny_config().image.resnet, image_size=tiny.SIDE, upsample=None
        ),
        text=small_text(tokenizer),
        last_layers=2,
        layer_pool="sum",
        whole_words=True,
        unit_text=False,
        unit_regions=False,
        attention_scale=4.0,
        word_scale=5.0,
        contrast_scale=10.0,
        caption_chunk=16,
        weights=RELEASE_WEIGHTS,
    )
    vocabulary = tokenizer_lib.vocabulary(tokenizer)
    return made(GloriaObjective(config, vocabulary=vocabulary), tokenizer)


@pytest.fixture(scope="session")
def whole(tokenizer):
    """A model that compares whole images and reports alone; cheap to ask."""
    return Model(FakeObjective(), FakeModel(), tokenizer=tokenizer, image=IMAGE, text=TEXT, block=4)
