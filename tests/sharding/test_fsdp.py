"""Fully sharded parameters: what is split, and that a step does not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from prior_jax.errors import ConfigError
from prior_jax.sharding import fsdp
from prior_jax.sharding.mesh import make_mesh
from prior_jax.sharding.rules import Rule, gathered_names, shardings_for, spec_for
from prior_jax.train.program import Program
from tests.train import toy

pytestmark = pytest.mark.multidevice


@pytest.fixture(scope="module")
def mesh():
    return make_mesh({"data": 2, "fsdp": 4})


def test_a_leading_ellipsis_counts_from_the_end(mesh):
    rules = (Rule("x", (..., "fsdp", None)),)
    assert spec_for("x", (8, 3), rules=rules, mesh=mesh) == PartitionSpec("fsdp", None)
    found = spec_for("x", (3, 3, 8, 5), rules=rules, mesh=mesh)
    assert found == PartitionSpec(None, None, "fsdp", None)
    with pytest.raises(ConfigError, match=r"2 axes .* at most 1"):
        spec_for("x", (8,), rules=rules, mesh=mesh)


def test_large_kernels_are_split_over_their_inputs_and_the_rest_is_whole(mesh):
    shapes = {
        "layers/inner/kernel": (12, 768, 3072),
        "conv/kernel": (3, 3, 256, 256),
        "text/word_embedding": (28_996, 768),
        "stem/kernel": (7, 7, 3, 64),
        "position_embedding": (512, 768),
        "layers/inner/bias": (12, 3072),
        "scale": (),
    }
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    rules = fsdp.fsdp_rules("fsdp")
    found = {n: s.spec for n, s in shardings_for(arrays, rules=rules, mesh=mesh).items()}
    split = {
        "layers/inner/kernel": PartitionSpec(None, "fsdp", None),
        "conv/kernel": PartitionSpec(None, None, "fsdp", None),
        "text/word_embedding": PartitionSpec(None, "fsdp"),
    }
    assert found == {name: split.get(name, PartitionSpec()) for name in shapes}
    assert gathered_names(arrays, rules=rules) == set(split)


def test_an_axis_that_does_not_divide_is_refused_by_name(mesh):
    rules = fsdp.fsdp_rules(("data", "fsdp"))
    with pytest.raises(
        ConfigError, match=r"odd/kernel \(1020, 512\) has .* of 1020, which the axis"
    ):
        spec_for("odd/kernel", (1020, 512), rules=rules, mesh=mesh)


def one_step(mesh, rules, data_axes):
    program = Program(
        objective=toy.ToyObjective(),
        stages=(toy.stage("second", 6),),
        optimizer=toy.OPTIMIZER,
        mesh=mesh,
        rules=rules,
        data_axes=data_axes,
    )
    (stage,) = program.schedule.stages
    state = program.initial(seed=0, values=None)
    batch = jax.device_put(toy.ToyData().batch(0), program.batch_sharding)
    return program.step(stage)(state, batch, program.scalar(np.float32(1)))


def test_a_step_with_parts_is_a_step_with_whole_parameters(mesh):
    whole, expected = one_step(toy.mesh_of(), toy.RULES[1:], ("data",))
    split = (Rule("head/kernel|words/.*", ("fsdp",), gathered=True), *toy.RULES)
    found, metrics = one_step(mesh, split, ("data", "fsdp"))
    np.testing.assert_allclose(metrics.total, expected.total, rtol=1e-5)
    np.testing.assert_allclose(metrics.gradient_norm, expected.gradient_norm, rtol=1e-5)
    for name, value in whole.params.items():
        np.testing.assert_allclose(found.params[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    adam = found.optimizer[0]
    for part in (found.params, adam.mu, adam.nu):
        assert {x.data.shape for x in part["head/kernel"].addressable_shards} == {(2, 8)}
        assert {x.data.shape for x in part["head/bias"].addressable_shards} == {(8,)}
