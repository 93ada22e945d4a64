"""Names and shapes of the released checkpoint: every tensor finds its place."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.sources.gloria_names import CHECKPOINT_PREFIX, gloria_table
from prior_jax.interop.torch.names import to_nnx, to_torch
from prior_jax.objectives.gloria import GloriaObjective
from tests.golden.gloria_model import config_of, vocabulary_of
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden

HEADS, SIDE = 12, 224  # of Bio_ClinicalBERT and of the release's crops; no name tells


def test_every_name_of_the_release_maps_onto_the_model_and_back(golden_dir):
    record = load_json(golden_dir, "gloria", "state_dict_keys_gloria_resnet50")
    assert len(record["keys"]) == record["n"]
    assert all(name.startswith(CHECKPOINT_PREFIX) for name in record["keys"])
    shapes = {n[len(CHECKPOINT_PREFIX) :]: shape for n, (shape, _) in record["keys"].items()}
    # Broadcast views of one number stand for the weights: shapes without their memory.
    state_dict = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes.items()}
    config = config_of(state_dict, heads=HEADS, image_size=SIDE)
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, dropout=0.1))
    vocabulary = vocabulary_of(["[PAD]", "[CLS]", "[SEP]"])
    objective = GloriaObjective(config, vocabulary=vocabulary)
    model = nnx.eval_shape(lambda: objective.init(nnx.Rngs(0)))
    abstract = nnx.as_pure(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    table = gloria_table(config)
    filled = to_nnx(state_dict, table, abstract)
    assert jax.tree.map(np.shape, filled) == jax.tree.map(lambda leaf: leaf.shape, abstract)
    back = to_torch(filled, table)
    kept = {name: shape for name, shape in shapes.items() if not table.ignores(name)}
    assert {name: list(array.shape) for name, array in back.items()} == kept
    ignored = set(shapes) - set(kept)
    assert all(name.endswith(("num_batches_tracked", "position_ids")) for name in ignored)
    sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    assert sum(sizes) == record["n_params"]
    assert config.image.grid == (19, 19)
