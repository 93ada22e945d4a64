"""A real BERT, imported, against what torch and transformers compute with it."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from prior_jax.data.tokenizer import TokenizerConfig, open_tokenizer
from prior_jax.interop.weights_folder import load_weights, tokenizer_file
from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.strict import build
from tests.interop.record_minilm import FEATURES, RECORD, SENTENCES, folder

pytestmark = pytest.mark.parity
ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def record():
    with np.load(RECORD) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The folder that the program writes."""
    out = tmp_path_factory.mktemp("minilm") / "weights"
    flags = ("--source=hf_bert", f"--checkpoint={folder()}", f"--out={out}")
    command = [sys.executable, "-m", "launch.import_weights", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "104 keys: 103 imported, 1 kept" in done.stdout
    return out


def test_the_record_is_of_these_weights(imported, record):
    assert load_weights(imported).origin["sha256"] == str(record["sha256"])


def test_sentences_become_the_same_tokens(imported, record):
    weights, file = load_weights(imported), tokenizer_file(imported)
    tokenizer = open_tokenizer(
        build(TokenizerConfig, {**weights.data["tokenizer"], "path": str(file)}, name="tokenizer")
    )
    for row, ids in enumerate(tokenizer.encode_ids(SENTENCES)):
        wanted = record["tokens"][row][record["mask"][row]]
        np.testing.assert_array_equal([tokenizer.cls_id, *ids, tokenizer.sep_id], wanted)


def test_hidden_states_are_those_of_transformers(imported, record):
    weights = load_weights(imported)
    config = build(BertConfig, {**weights.model, "pad_token": 0}, name="config.model.text")
    graph, state = nnx.split(
        nnx.eval_shape(lambda: Bert(config, dtype="float32", rngs=nnx.Rngs(0)))
    )
    arrays = traverse_util.unflatten_dict(dict(weights.arrays), sep="/")
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, arrays))
    model = nnx.merge(graph, state)

    @nnx.jit
    def run(model, tokens, mask):
        return model(tokens, mask, train=False, hidden_states=True)

    found = run(model, jnp.asarray(record["tokens"]), jnp.asarray(record["mask"]))
    real = record["mask"][None, ..., None]
    hidden = np.asarray(found.hidden_states)[..., FEATURES]
    assert hidden.shape == record["hidden"].shape
    assert np.abs(np.where(real, hidden - record["hidden"], 0.0)).max() < 1e-5
    pooled = np.asarray(found.pooled)[..., FEATURES]
    assert np.abs(pooled - record["pooled"]).max() < 1e-5
