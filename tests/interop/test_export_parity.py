"""Exported files in the hands of torch and transformers, at full size."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx, traverse_util

from prior_jax.data.tokenizer import TokenizerConfig, open_tokenizer
from prior_jax.interop.export.image_files import image_files
from prior_jax.interop.export.text_files import text_files
from prior_jax.interop.huggingface.tokenizer_files import ODD_TEXTS
from prior_jax.interop.weights_folder import Weights
from prior_jax.nn.bert import Bert
from prior_jax.nn.region_encoder import RegionEncoder, RegionEncoderConfig
from prior_jax.nn.resnet import ResNet
from tests import fixtures
from tests.interop import exports, torch_resnet
from tests.interop.calm import calmed
from tests.nn import small

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4


@pytest.fixture(scope="module", autouse=True)
def libraries():
    torch_resnet.import_torchvision()


def write(folder, exported):
    for name, content in exported.files.items():
        (folder / name).write_bytes(content)
    return folder


def run(create, weights, prefix, *inputs, **options):
    """What our module gives with the arrays of the weights below a prefix."""
    arrays = {name.removeprefix(prefix): x for name, x in weights.arrays.items()}
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    graph, state = nnx.split(nnx.eval_shape(create))
    nnx.replace_by_pure_dict(state, jax.tree.map(jax.numpy.asarray, tree))
    return jax.jit(lambda *x: nnx.merge(graph, state)(*x, **options))(*inputs)


@pytest.fixture(scope="module")
def full_resnet(tmp_path_factory):
    """ResNet-50 with weights of the usual size, so that its numbers stay moderate."""
    weights = exports.image_weights(depths=(3, 4, 6, 3), width=64)
    arrays = dict(weights.arrays)
    for name, x in arrays.items():
        if "kernel" in name:
            arrays[name] = x * np.float32(4.5 / np.sqrt(np.prod(x.shape[:-1])))
        elif name.endswith("norm3/scale"):
            arrays[name] = x * np.float32(0.2)
    weights = dataclasses.replace(weights, arrays=arrays)
    exported = image_files(weights)
    return weights, exported, write(tmp_path_factory.mktemp("resnet"), exported)


def test_a_resnet50_computes_the_same_in_torch(full_resnet):
    import torch
    from safetensors.torch import load_file

    weights, _, folder = full_resnet
    image = np.random.default_rng(1).normal(size=(2, 96, 96, 1)).astype(np.float32)
    config = small.resnet_config(depths=(3, 4, 6, 3), width=64)
    last, _ = run(
        lambda: ResNet(config, dtype="float32", rngs=nnx.Rngs(0)),
        weights, "resnet/", jax.numpy.asarray(image), train=False,
    )  # fmt: skip
    ours = np.asarray(last.mean(axis=(1, 2)))
    models = [torch_resnet.resnet50(in_channels=1), *torch_resnet.from_libraries(in_channels=1)]
    for model in models:
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        with torch.no_grad():
            theirs = model.eval()(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
        assert 0.1 < np.abs(theirs).mean() < 10
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


def test_the_resnets_example_runs(full_resnet, monkeypatch):
    _, exported, folder = full_resnet
    monkeypatch.chdir(folder)
    found = {}
    exec(exported.example, found)
    assert tuple(found["features"].shape) == (1, 2048)


def test_the_example_of_an_enlarging_encoder_gives_its_features(tmp_path, monkeypatch):
    import torch

    resnet = small.resnet_config(depths=(2, 2, 2, 2), width=64, in_channels=3, block="basic")
    config = RegionEncoderConfig(resnet=resnet, image_size=64, upsample=83)
    module = small.filled(lambda: RegionEncoder(config, 8, dtype="float32", rngs=nnx.Rngs(0)))
    arrays = exports.arrays_of(module)
    statistics = {"size": 64, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    weights = calmed(
        Weights(
            part="model",
            objective="gloria",
            model={"image": {"resnet": {"stem_pool": True}, "upsample": 83}},
            data={"image": statistics},
            origin={"source": "tests"},
            arrays={f"image_encoder/{name}": array for name, array in arrays.items()},
        )
    )
    exported = image_files(weights)
    monkeypatch.chdir(write(tmp_path, exported))
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.from_numpy(image).reshape(shape))
    with torch.no_grad():
        exec(exported.example, found := {})
    ours = run(
        lambda: RegionEncoder(config, 8, dtype="float32", rngs=nnx.Rngs(0)),
        weights, "image_encoder/", jax.numpy.asarray((image.transpose(0, 2, 3, 1) - 0.5) / 0.5),
        train=False,
    )  # fmt: skip
    theirs = found["features"].numpy()
    assert 0.1 < np.abs(theirs).mean() < 10
    np.testing.assert_allclose(ours.pooled, theirs, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    words = fixtures.write_vocabulary(folder / "vocab.txt")
    pieces = fixtures.train_sentencepiece(folder / "tokenizer.model")
    configs = (
        TokenizerConfig(kind="wordpiece", path=str(words), lower_case=True),
        TokenizerConfig(kind="wordpiece", path=str(words), lower_case=False),
        TokenizerConfig(kind="sentencepiece", path=str(pieces), lower_case=False),
    )
    return [(open_tokenizer(config), config) for config in configs]


def test_a_bert_base_computes_the_same_in_transformers(tmp_path):
    import torch
    import transformers

    sizes = {"hidden_size": 768, "layers": 12, "heads": 12, "intermediate_size": 3072}
    config = small.bert_config(**sizes, vocab_size=1000, max_positions=512)
    weights = exports.text_weights(**sizes, vocab_size=1000, max_positions=512)
    arrays = {
        name: x * np.float32(0.1) if "kernel" in name else x for name, x in weights.arrays.items()
    }
    weights = dataclasses.replace(weights, arrays=arrays)
    folder = write(tmp_path, text_files(weights, None, None))
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 1000, (2, 40)).astype(np.int32)
    mask = np.arange(40)[None] < np.array([[40], [17]])
    ours = run(
        lambda: Bert(config, dtype="float32", rngs=nnx.Rngs(0)),
        weights, "", jax.numpy.asarray(tokens), jax.numpy.asarray(mask), train=False,
    )  # fmt: skip
    model, loading = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.no_grad():
        theirs = model.eval()(
            input_ids=torch.from_numpy(tokens).long(), attention_mask=torch.from_numpy(mask).long()
        )
    real = mask[..., None]
    np.testing.assert_allclose(
        np.asarray(ours.last_hidden_state) * real,
        theirs.last_hidden_state.numpy() * real,
        atol=TOLERANCE,
    )
    np.testing.assert_allclose(
        np.asarray(ours.pooled), theirs.pooler_output.numpy(), atol=TOLERANCE
    )


def test_transformers_give_our_ids(tmp_path, tokenizers):
    import transformers

    sentences = [s for i in range(30) for s in fixtures.draw_record(i).sentences]
    texts = [*ODD_TEXTS, *sentences]
    for number, (tokenizer, config) in enumerate(tokenizers):
        folder = tmp_path / str(number)
        folder.mkdir()
        weights = exports.text_weights(vocab_size=tokenizer.vocab_size, max_positions=512)
        write(folder, text_files(weights, tokenizer, config))
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert theirs.model_max_length == 512
        for text, ids in zip(texts, tokenizer.encode_ids(texts), strict=True):
            wanted = [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id]
            assert theirs(text)["input_ids"] == wanted, text
        padded = theirs(["heart", "the heart is normal"], padding=True)
        assert padded["input_ids"][0][-1] == tokenizer.pad_id


def test_berts_example_runs(tmp_path, tokenizers, monkeypatch):
    tokenizer, config = tokenizers[0]
    weights = exports.text_weights(vocab_size=tokenizer.vocab_size, max_positions=64)
    exported = text_files(weights, tokenizer, config)
    monkeypatch.chdir(write(tmp_path, exported))
    found = {}
    exec(exported.example, found)
    assert found["hidden"].shape[-1] == 16


def test_bert_without_pooler_or_tokenizer_loads(tmp_path, monkeypatch):
    weights = exports.text_weights()
    arrays = {name: x for name, x in weights.arrays.items() if not name.startswith("pooler/")}
    exported = text_files(dataclasses.replace(weights, arrays=arrays), None, None)
    monkeypatch.chdir(write(tmp_path, exported))
    found = {}
    exec(exported.example, found)
    assert found["model"].pooler is None


@pytest.mark.parametrize(
    ("lower_case", "algorithm"), [(True, "unigram"), (True, "bpe"), (False, "unigram")]
)
def test_every_character_is_read_alike(tmp_path, lower_case, algorithm):
    from data_prep import train_tokenizer
    from prior_jax.interop.huggingface.tokenizer_files import check_same_ids, tokenizer_files

    prepared = fixtures.write_prepared(tmp_path / "set", studies=100)
    path = train_tokenizer.train(
        train_tokenizer.Settings(
            path=str(prepared), vocab_size=200, algorithm=algorithm, lower_case=lower_case
        )
    )
    config = TokenizerConfig(kind="sentencepiece", path=str(path), lower_case=lower_case)
    tokenizer = open_tokenizer(config)
    content = tokenizer_files(tokenizer, config, max_length=64)["tokenizer.json"].decode()
    codes = [c for c in range(0x30000) if not 0xD800 <= c < 0xE000 and c != 0x344]
    check_same_ids(tokenizer, content, [f"the{chr(code)}heart" for code in codes])
