import pickle

import jax
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import WeightsError
from prior_jax.interop.torch.module_tables import bert_table, image_encoder_table, resnet_table
from prior_jax.interop.torch.names import Entry, Table, linear_table, to_nnx, to_torch
from tests.nn import small
from tests.torch_models import dump_torch, load_torch


@pytest.fixture(scope="module")
def pair():
    model = small.bert()
    return model, bert_table(model.config)


def test_there_and_back_is_the_identity(pair):
    model, table = pair
    state_dict = dump_torch(model, table)
    other = small.bert()
    zeros = jax.tree.map(np.zeros_like, nnx.as_pure(nnx.state(other, nnx.Param)))
    nnx.update(other, zeros)
    load_torch(other, state_dict, table)
    again = dump_torch(other, table)
    assert state_dict.keys() == again.keys()
    assert all(np.array_equal(state_dict[name], again[name]) for name in again)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(other))


def test_layers_and_layouts_land_in_their_places(pair):
    model, table = pair
    state_dict = dump_torch(model, table)
    kernel = np.asarray(model.layers.feed_forward.inner.kernel[...])
    weight = state_dict["encoder.layer.1.intermediate.dense.weight"]
    np.testing.assert_array_equal(weight, kernel[1].T)
    encoder = small.image_encoder()
    weight = dump_torch(encoder, image_encoder_table(encoder.config))
    kernel = np.asarray(encoder.resnet.stem_conv.kernel[...])
    assert weight["encoder.conv1.weight"].shape == (4, 1, 7, 7)
    np.testing.assert_array_equal(weight["encoder.conv1.weight"][3, 0, 2, 5], kernel[2, 5, 0, 3])


def test_every_missing_extra_and_misshaped_name_is_listed(pair):
    model, table = pair
    state_dict = dump_torch(model, table)
    before = {name: array.copy() for name, array in state_dict.items()}
    del state_dict["encoder.layer.1.attention.self.key.bias"], state_dict["pooler.dense.bias"]
    state_dict["classifier.weight"] = np.zeros(3)
    state_dict["embeddings.LayerNorm.bias"] = np.zeros(15)
    with pytest.raises(WeightsError) as caught:
        load_torch(model, state_dict, table)
    message = str(caught.value)
    for name in (
        "encoder.layer.1.attention.self.key.bias",
        "pooler.dense.bias",
        "classifier.weight",
        "embeddings.LayerNorm.bias: (15,), the model needs (16,)",
    ):
        assert name in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message
    after = dump_torch(model, table)
    assert all(np.array_equal(before[name], after[name]) for name in after)


def test_another_number_of_layers_is_refused(pair):
    model, table = pair
    state_dict = dump_torch(model, table)
    deeper = bert_table(small.bert_config(layers=3))
    with pytest.raises(WeightsError, match=r"encoder\.layer\.2\."):
        load_torch(model, state_dict, deeper)
    extra = {name.replace("layer.1.", "layer.2."): state_dict[name] for name in state_dict}
    with pytest.raises(WeightsError, match=r"extra: encoder\.layer\.2\."):
        load_torch(model, {**state_dict, **extra}, table)


def test_harmless_buffers_are_ignored_and_only_they():
    encoder = small.image_encoder()
    table = image_encoder_table(encoder.config).under("image_encoder.", ("image",))
    tree = {"image": nnx.as_pure(nnx.state(encoder))}
    state_dict = to_torch(tree, table)
    harmless = {"image_encoder.encoder.bn1.num_batches_tracked": np.int64(3)}
    harmless["image_encoder.encoder.fc.weight"] = np.zeros((10, 4), np.float32)
    jax.tree.map(
        np.testing.assert_array_equal, to_nnx({**state_dict, **harmless}, table, tree), tree
    )
    with pytest.raises(WeightsError, match="bn9"):
        to_nnx({**state_dict, "encoder.bn9.num_batches_tracked": 0}, table, tree)
    with pytest.raises(WeightsError, match=r"extra: a\\nb\)"):
        to_nnx({**state_dict, "a\nb": 0}, table, tree)


def test_gradients_have_no_statistics_and_convert_partially():
    encoder = small.image_encoder()
    table = image_encoder_table(encoder.config)
    params = nnx.as_pure(nnx.state(encoder, nnx.Param))
    named = to_torch(params, table, partial=True)
    assert "encoder.bn1.weight" in named
    assert not [name for name in named if "running" in name]
    with pytest.raises(WeightsError, match="running_mean"):
        to_torch(params, table)
    with pytest.raises(WeightsError, match=r"pool\.value\.kernel"):
        resnet = resnet_table(encoder.config.resnet).under("encoder.", ("resnet",))
        to_torch(params, resnet, partial=True)


def test_a_leaf_without_an_entry_is_an_error():
    tree = {"a": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}, "b": np.zeros(1)}
    state_dict = {"a.weight": np.zeros((3, 2)), "a.bias": np.zeros(3)}
    with pytest.raises(WeightsError, match=r"b \(in the model\)"):
        to_nnx(state_dict, linear_table("a", ("a",)), tree)


def test_one_torch_name_has_one_place():
    entry = Entry(torch="a.weight", path=("a",))
    with pytest.raises(ValueError, match=r"listed twice: \['a\.weight'\]"):
        Table(entries=(entry, entry))


def test_half_precision_weights_take_the_models_dtype(pair):
    model, table = pair
    state_dict = {k: v.astype(np.float16) for k, v in dump_torch(model, table).items()}
    filled = to_nnx(state_dict, table, nnx.as_pure(nnx.state(model)))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(filled))
