import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens
from tests.evaluate.fakes import FEATURES, FakeModel, FakeObjective, make_batches

COUNT = 11


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(COUNT, FEATURES)).astype(np.float32)
    tokens = random.integers(1, 100, (COUNT, FEATURES)).astype(np.int32)
    return vectors, tokens, np.zeros((COUNT, 2), np.int8)


def encoder(scale=1.0):
    return Encoder(FakeObjective(), FakeModel(scale), place=jax.device_put)


def test_filling_rows_are_dropped_and_the_order_is_kept(data):
    batches = make_batches(*data, batch_size=4)
    studies = encoder().studies(batches, reports=True)
    np.testing.assert_array_equal(studies.record, np.arange(COUNT))
    np.testing.assert_allclose(studies.images.global_, data[0], rtol=1e-6)
    np.testing.assert_allclose(studies.reports.global_, data[1] / 100, rtol=1e-6)


def test_the_batch_size_does_not_matter(data):
    small, large = (
        encoder().studies(make_batches(*data, batch_size=size), reports=True) for size in (2, 16)
    )
    jax.tree.map(np.testing.assert_array_equal, small.images, large.images)
    jax.tree.map(np.testing.assert_array_equal, small.reports, large.reports)


def test_batches_of_several_lengths_are_padded_to_the_most_sentences(data):
    batches = make_batches(*data, batch_size=4, lengths=(8, 16), sentences=(2, 5))
    studies = encoder().studies(batches, reports=True)
    assert studies.reports.local.shape == (COUNT, 5, FEATURES)
    np.testing.assert_array_equal(
        studies.reports.local_mask.sum(axis=1), [2] * 4 + [5] * 4 + [2] * 3
    )
    assert not studies.reports.local[~studies.reports.local_mask].any()


@pytest.mark.parametrize("block", [1, 3, 11, 64])
def test_the_similarity_does_not_depend_on_the_block(data, block):
    under_test = encoder(2.0)
    studies = under_test.studies(make_batches(*data, batch_size=4), reports=True)
    found = under_test.similarity(studies.images, studies.reports, block=block)
    np.testing.assert_allclose(found, 2 * data[0] @ (data[1] / 100).T, rtol=1e-5, atol=1e-6)
    again = under_test.similarity(studies.images, studies.reports, block=block, columns=4)
    np.testing.assert_allclose(again, found, rtol=1e-5, atol=1e-6)


def test_other_weights_use_the_compiled_functions_again(data):
    objective = FakeObjective()
    first = Encoder(objective, FakeModel(1.0), place=jax.device_put)
    batches = make_batches(*data, batch_size=4)
    trained = first.studies(batches, reports=True)
    traced = len(objective.traced)
    untrained = first.with_model(FakeModel(3.0)).studies(batches, reports=True)
    assert len(objective.traced) == traced
    np.testing.assert_allclose(untrained.images.global_, 3 * trained.images.global_, rtol=1e-6)
    np.testing.assert_array_equal(first.studies(batches, reports=False).images.global_, data[0])


def test_a_sharded_batch_gives_the_same_features(data):
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    batches = make_batches(*data, batch_size=4)
    sharded = [jax.device_put(batch, rows) for batch in batches]
    under_test = Encoder(
        FakeObjective(), FakeModel(), place=lambda tree: jax.device_put(tree, rows)
    )
    studies = under_test.studies(sharded, reports=True)
    np.testing.assert_allclose(studies.images.global_, data[0], rtol=1e-6)
    found = under_test.similarity(studies.images, studies.reports, block=4)
    np.testing.assert_allclose(found, data[0] @ (data[1] / 100).T, rtol=1e-5, atol=1e-6)


def test_prompts_keep_their_order(data):
    tokens = ReportTokens(
        tokens=data[1],
        token_mask=data[1] > 0,
        sentence_index=np.zeros_like(data[1]),
        sentence_mask=np.ones((COUNT, 1), bool),
    )
    np.testing.assert_allclose(encoder().prompts(tokens, block=4).global_, data[1] / 100, rtol=1e-6)


def test_images_are_encoded_in_blocks_of_any_size(data):
    image = data[0].reshape(COUNT, 1, 1, FEATURES)
    for block in (4, 16):
        np.testing.assert_array_equal(encoder().images(image, block=block).global_, data[0])


class OfParts(FakeObjective):
    """Compares wholes as the fake does, and parts by their sum."""

    def similarity_parts(self, model, images, reports):
        parts = images.local.sum(axis=(1, 2))[:, None] + reports.local.sum(axis=(1, 2))[None, :]
        return FakeObjective.similarity(self, model, images, reports), parts

    def similarity(self, model, images, reports):
        whole, parts = self.similarity_parts(model, images, reports)
        return whole + parts


def test_a_similarity_of_two_parts_is_given_by_the_part(data):
    under_test = Encoder(OfParts(), FakeModel(), place=jax.device_put)
    studies = under_test.studies(make_batches(*data, batch_size=4), reports=True)
    both, whole, local = (
        under_test.similarity(studies.images, studies.reports, block=4, kind=kind)
        for kind in ("both", "global", "local")
    )
    np.testing.assert_allclose(whole, data[0] @ (data[1] / 100).T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both, whole + local, rtol=1e-5, atol=1e-6)
    assert np.abs(local).max() > 0


def test_a_similarity_of_wholes_has_no_local_part(data):
    under_test = encoder()
    studies = under_test.studies(make_batches(*data, batch_size=4), reports=True)
    both, whole = (
        under_test.similarity(studies.images, studies.reports, block=4, kind=kind)
        for kind in ("both", "global")
    )
    np.testing.assert_array_equal(both, whole)
    for kind in ("local", "words"):
        with pytest.raises(ConfigError, match=f"kind: .*'{kind}'"):
            under_test.similarity(studies.images, studies.reports, block=4, kind=kind)


def test_features_that_are_not_finite_name_their_records(data):
    data[0][5, 1] = np.nan
    with pytest.raises(DataError, match=r"records \[4, 5, 6, 7\]"):
        encoder().studies(make_batches(*data, batch_size=4), reports=False)


def test_no_record_is_refused():
    with pytest.raises(DataError, match="no record"):
        encoder().studies([], reports=True)


def test_another_structure_is_refused():
    class Other(FakeModel):
        def __init__(self):
            super().__init__()
            self.more = FakeModel()

    with pytest.raises(ValueError, match="structure"):
        encoder().with_model(Other())
