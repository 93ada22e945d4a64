"""Towers as ONNX in onnxruntime, against the objectives themselves."""

import dataclasses
import functools
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.export.towers import towers
from prior_jax.interop.onnx.graph import export_towers
from prior_jax.nn.bert import BertConfig
from prior_jax.nn.region_encoder import RegionEncoderConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.objectives.gloria import GloriaObjective
from prior_jax.objectives.prior import PriorObjective
from prior_jax.objectives.prior_config import BankConfig
from prior_jax.vocabulary import Vocabulary
from tests.interop import tiny_towers
from tests.objectives import test_gloria as gloria
from tests.objectives import tiny

pytestmark = pytest.mark.parity

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "weights.md"
BATCHES = (1, 2, 7)
TOLERANCE = 1e-4

WORDS = 28996
BERT_BASE = BertConfig(
    vocab_size=WORDS,
    hidden_size=768,
    layers=12,
    heads=12,
    intermediate_size=3072,
    dropout=0.1,
    scan_layers=True,
    remat="layer",
    max_positions=512,
    token_types=2,
    pad_token=0,
)
RESNET_50 = ResNetConfig(
    depths=(3, 4, 6, 3), width=64, in_channels=1, block="bottleneck", stem_pool=True, remat="block"
)
VOCABULARY = Vocabulary(
    size=WORDS,
    pad=0,
    cls=101,
    sep=102,
    starts_word=np.arange(WORDS) % 3 != 0,
    bracketed=np.arange(WORDS) < 104,
)


def prior(fidelity):
    config = tiny.tiny_config(
        fidelity=fidelity,
        image=ImageEncoderConfig(resnet=RESNET_50, pool="attention", pool_heads=8, image_size=224),
        text=BERT_BASE,
        embed_dim=768,
        sentence_heads=8,
        bank=BankConfig(
            num_prototypes=512, temperature=0.9, schedule="fixed", start_step=10, steps=20
        ),
    )
    return PriorObjective(config), {"image_shape": (224, 224, 1), "max_tokens": 256}


def gloria_release():
    image = RegionEncoderConfig(
        resnet=dataclasses.replace(RESNET_50, in_channels=3), image_size=224, upsample=299
    )
    config = gloria.config_of(fidelity="release", image=image, text=BERT_BASE, last_layers=4)
    objective = GloriaObjective(config, vocabulary=VOCABULARY)
    return objective, {"image_shape": (224, 224, 3), "max_tokens": 97}


@functools.cache
def full_size(name):
    """An objective, a fresh model of it, and the sizes of its inputs."""
    kind, _, fidelity = name.partition("-")
    objective, sizes = prior(fidelity) if kind == "prior" else gloria_release()
    graph, state = jax.jit(lambda: nnx.split(objective.init(nnx.Rngs(0))))()

    def calm(path, leaf):
        # Running statistics of no data leave each block's sum twice as large as its input.
        last = [part.key for part in path[-2:]] == ["norm3", "scale"]
        return 0.2 * leaf if last else leaf

    state = jax.tree_util.tree_map_with_path(calm, nnx.as_pure(state))
    return objective, nnx.merge(graph, state), {**sizes, "max_sentences": 16}


def reports(rows, *, tokens, sentences):
    """Reports of 1 to `sentences` sentences of up to 12 tokens, [CLS] before and [SEP] behind."""
    random = np.random.default_rng(0)
    ids = np.zeros((rows, tokens), np.int32)
    index = np.full((rows, tokens), -1, np.int32)
    count = random.integers(1, sentences + 1, rows)
    for row in range(rows):
        owners = np.repeat(np.arange(count[row]), random.integers(1, 13, count[row]))[: tokens - 2]
        index[row, 1 : len(owners) + 1] = owners
        words = random.integers(104, WORDS, len(owners))
        ids[row, : len(owners) + 2] = [VOCABULARY.cls, *words, VOCABULARY.sep]
    mask = np.arange(sentences) < count[:, None]
    return {
        "tokens": ids, "token_mask": ids > 0, "sentence_index": index, "sentence_mask": mask
    }  # fmt: skip


def full_size_inputs(sizes):
    rows = max(BATCHES)
    image = np.random.default_rng(1).standard_normal((rows, *sizes["image_shape"]))
    text = reports(rows, tokens=sizes["max_tokens"], sentences=sizes["max_sentences"])
    return {"image": {"image": image.astype(np.float32)}, "text": text}


def assert_agrees(model, inputs, expected):
    """In onnxruntime at every batch, within 1e-4 of each output's largest value."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    for rows in BATCHES:
        leading = {name: value[:rows] for name, value in inputs.items()}
        found = dict(zip(expected, session.run(list(expected), leading), strict=True))
        # Noise follows a report's place in the batch, not the batch's size.
        answers = {name: value[:rows] for name, value in expected.items()}
        tiny_towers.assert_near(found, answers, TOLERANCE)


@pytest.mark.parametrize("name", tiny_towers.NAMES)
def test_every_objective_agrees(name):
    objective, model = tiny_towers.made(name)
    expected = tiny_towers.expected(objective, model, max(BATCHES))
    inputs = tiny_towers.inputs(max(BATCHES))
    for tower, graph in export_towers(objective, model, **tiny_towers.SIZES).items():
        assert_agrees(graph, inputs[tower], expected[tower])


def test_bfloat16_is_computed_in_float32():
    graphs = export_towers(*tiny_towers.made("clip", dtype="bfloat16"), **tiny_towers.SIZES)
    exact = tiny_towers.expected(*tiny_towers.made("clip"), max(BATCHES))
    for tower, inputs in tiny_towers.inputs(max(BATCHES)).items():
        assert_agrees(graphs[tower], inputs, exact[tower])


def test_layers_and_blocks_may_be_unrolled_and_recomputed():
    shared = tiny_towers.made("clip")[0].config
    text = dataclasses.replace(shared.text, remat="layer", scan_layers=False, layers=2)
    resnet = dataclasses.replace(shared.image.resnet, remat="block")
    image = dataclasses.replace(shared.image, resnet=resnet)
    objective, model = tiny_towers.made("clip", text=text, image=image)
    expected = tiny_towers.expected(objective, model, max(BATCHES))
    inputs = tiny_towers.inputs(max(BATCHES))
    for tower, graph in export_towers(objective, model, **tiny_towers.SIZES).items():
        assert_agrees(graph, inputs[tower], expected[tower])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prior-paper", "prior-release", "gloria-release"])
def test_full_size_agrees(name):
    objective, model, sizes = full_size(name)
    found = towers(objective, model, **sizes)
    inputs = full_size_inputs(sizes)
    for tower, graph in export_towers(objective, model, **sizes).items():
        function = jax.jit(found[tower].function)
        expected = jax.tree.map(np.asarray, function(*inputs[tower].values()))
        assert 0.01 < np.abs(expected["global_"]).max() < 100
        assert_agrees(graph, inputs[tower], expected)


def test_the_example_of_the_docs_runs(tmp_path):
    objective, model = tiny_towers.made("prior-paper")
    for tower, graph in export_towers(objective, model, **tiny_towers.SIZES).items():
        (tmp_path / f"{tower}.onnx").write_bytes(graph.SerializeToString())
    code = DOCS.read_text().split("**ONNX**")[1].split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 15
    command = [sys.executable, "-I", "-W", "error", "-c", code]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
