"""Prepared sets, tokenizers and batches shared by the tests of the input pipeline."""

import pytest

from prior_jax.data import image as image_lib
from prior_jax.data import pipeline
from prior_jax.data import tokenizer as tokenizer_lib
from tests import fixtures
from tests.data import region_sets
from tests.data.batches import take


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prepared")
    return fixtures.write_prepared(directory, studies=26, validate=5, test=0)


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    return fixtures.write_vocabulary(tmp_path_factory.mktemp("vocabulary") / "vocab.txt")


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory):
    return fixtures.train_sentencepiece(tmp_path_factory.mktemp("model") / "reports.model")


@pytest.fixture(scope="session")
def wordpiece(vocabulary):
    return tokenizer_lib.open_tokenizer(
        tokenizer_lib.TokenizerConfig(kind="wordpiece", path=str(vocabulary), lower_case=True)
    )


@pytest.fixture(scope="session")
def sentencepiece(sentencepiece_model):
    return tokenizer_lib.open_tokenizer(
        tokenizer_lib.TokenizerConfig(
            kind="sentencepiece", path=str(sentencepiece_model), lower_case=True
        )
    )


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def make_config(prepared, vocabulary):
    def make(**changes):
        values = dict(
            path=str(prepared),
            image=image_lib.ImageConfig(size=16, channels=1, mean=None, std=None),
            augment=image_lib.AugmentConfig(rotation_degrees=5.0, flip_probability=0.5),
            tokenizer=tokenizer_lib.TokenizerConfig(
                kind="wordpiece", path=str(vocabulary), lower_case=True
            ),
            caption="report",
            text_mode="paper",
            text_sources=("report",),
            shuffle_sentences=True,
            max_tokens=96,
            max_sentences=6,
            buckets=(32, 64, 96),
            bucket_window=3,
            batch_size=4,
            seed=11,
            workers=0,
            threads=2,
            prefetch=2,
        )
        return pipeline.DataConfig(**(values | changes))

    return make


@pytest.fixture(scope="session")
def train(make_config, cache_dir):
    """The training split of the prepared set, six steps an epoch."""
    return pipeline.open_split(make_config(), "train", cache_dir=cache_dir)


@pytest.fixture(scope="session")
def run(train):
    """Fourteen steps: more than two epochs of six."""
    return take(train, 14)


@pytest.fixture(scope="session")
def prepared_regions(tmp_path_factory):
    """A set of `region_sets.studies`, seven of them to validate on."""
    train = region_sets.studies()
    return region_sets.write(tmp_path_factory.mktemp("regions"), train, validate=train[:7])


@pytest.fixture
def open_regions(prepared_regions, tmp_path):
    """Opens a split of that set, or of another."""

    def opened(split="train", path=prepared_regions, **changes):
        return pipeline.open_split(
            region_sets.config_of(path, **changes), split, cache_dir=tmp_path
        )

    return opened
