"""Meshes and placement rules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from prior_jax.errors import ConfigError
from prior_jax.sharding.mesh import (
    MeshConfig,
    batch_sharding,
    check_batch_size,
    make_mesh,
    process_part,
)
from prior_jax.sharding.rules import REPLICATED, Rule, optimizer_shardings, shardings_for, spec_for
from prior_jax.types import BatchPart

pytestmark = pytest.mark.multidevice


@pytest.mark.parametrize(
    "axes, shape",
    [
        ({"data": -1}, {"data": 8}),
        ({"data": 8}, {"data": 8}),
        ({"data": -1, "model": 2}, {"data": 4, "model": 2}),
        ({"data": 2, "model": -1}, {"data": 2, "model": 4}),
        ({"data": 8, "model": -1}, {"data": 8, "model": 1}),
    ],
)
def test_axes_take_all_devices(axes, shape):
    mesh = make_mesh(axes)
    assert dict(mesh.shape) == shape
    assert set(mesh.devices.flat) == set(jax.devices())
    assert all(kind == AxisType.Auto for kind in mesh.axis_types)


def test_one_device_makes_a_mesh():
    assert make_mesh(dict(data=-1), devices=jax.devices()[:1]).size == 1


@pytest.mark.parametrize("axes", [{"data": 3}, {"data": 4}, {"data": 16}, {"data": -1, "b": 3}])
def test_sizes_that_do_not_fit_the_devices_are_refused(axes):
    with pytest.raises(ConfigError, match=r"config\.mesh\.axes.*8 devices"):
        make_mesh(axes)


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"axes": {}}, "axes"),
        ({"axes": {"data": 0}}, "axes.data"),
        ({"axes": {"data": -1, "model": -1}}, "axes"),
        ({"data_axes": ("rows",)}, "data_axes"),
        ({"data_axes": ("data", "data")}, "data_axes"),
    ],
)
def test_contradictions_are_refused_by_name(changes, field):
    with pytest.raises(ConfigError) as error:
        MeshConfig(**({"axes": {"data": -1}, "data_axes": ("data",)} | changes))
    assert error.value.where == field


def test_batches_are_split_over_the_data_axes_and_bad_sizes_refused():
    mesh = make_mesh(dict(data=4, model=2))
    rows = jax.device_put(jnp.zeros((16, 3)), batch_sharding(mesh, ("data", "model")))
    assert rows.addressable_shards[0].data.shape == (2, 3)
    half = jax.device_put(jnp.zeros((16, 3)), batch_sharding(mesh, ("data",)))
    assert half.addressable_shards[0].data.shape == (4, 3)
    assert process_part(mesh, ("data",)) == BatchPart(blocks=(0, 1, 2, 3), count=4)
    np.testing.assert_array_equal(process_part(mesh, ("data",)).rows(8), np.arange(8))
    check_batch_size(8, mesh=mesh, data_axes=("data",))
    with pytest.raises(ConfigError, match=r"config\.data\.batch_size: .* is 6\. .*multiple of 4"):
        check_batch_size(6, mesh=mesh, data_axes=("data",))


def test_the_first_matching_rule_wins():
    mesh = make_mesh(dict(data=4, model=2))
    rules = (
        Rule("bank/.*", ("data",)),
        Rule(".*/kernel", (None, "model")),
        Rule("bank/kernel", ("model",)),
        Rule(".*", ()),
    )
    shapes = {
        "bank/kernel": jax.ShapeDtypeStruct((8, 6), jnp.float32),
        "encoder/kernel": jax.ShapeDtypeStruct((3, 4), jnp.float32),
        "scale": jax.ShapeDtypeStruct((), jnp.float32),
    }
    found = {n: s.spec for n, s in shardings_for(shapes, rules=rules, mesh=mesh).items()}
    assert found == {
        "bank/kernel": PartitionSpec("data"),
        "encoder/kernel": PartitionSpec(None, "model"),
        "scale": PartitionSpec(),
    }


def test_a_pattern_has_to_match_the_whole_path():
    mesh = make_mesh(dict(data=8))
    with pytest.raises(ConfigError, match=r"No rule matches the array text/bank \(4,\)"):
        spec_for("text/bank", (4,), rules=(Rule("bank", ()),), mesh=mesh)


@pytest.mark.parametrize(
    "spec, shape, message",
    [
        (("data",), (10, 3), r"bank \(10, 3\) has .* 10, .* axis 'data' of size 4"),
        ((("data", "model"),), (12, 3), r"of 12, .* axis \('data', 'model'\) of size 8"),
        ((None, None, "data"), (8, 8), "3 axes .* at most 2"),
        (("rows",), (8,), r"axis 'rows'.*axes \('data', 'model'\)"),
    ],
)
def test_specs_that_do_not_fit_are_refused_by_name(spec, shape, message):
    mesh = make_mesh(dict(data=4, model=2))
    with pytest.raises(ConfigError, match=message):
        spec_for("bank", shape, rules=(Rule("bank", spec),), mesh=mesh)


def test_broken_patterns_are_refused():
    with pytest.raises(ConfigError, match="regular expression"):
        Rule("bank(", ())


def test_optimizer_state_follows_its_parameter():
    mesh = make_mesh(dict(data=8))
    parameters = {"bank": jnp.zeros((16, 2)), "bias": jnp.zeros(3)}
    places = shardings_for(parameters, rules=(Rule("bank", ("data",)), *REPLICATED), mesh=mesh)
    shapes = {name: value.shape for name, value in parameters.items()}
    state = optax.adam(1e-3).init({"bank": parameters["bank"]})
    found = optimizer_shardings(state, shapes=shapes, parameters=places, mesh=mesh)
    adam = found[0]
    assert adam.mu["bank"].spec == adam.nu["bank"].spec == PartitionSpec("data")
    assert adam.count.spec == PartitionSpec()
    odd = {"mu": {"bank": np.zeros((16,))}}
    with pytest.raises(ConfigError, match=r"state of shape \(16,\) for the parameter bank"):
        optimizer_shardings(odd, shapes=shapes, parameters=places, mesh=mesh)


def test_a_bank_of_65536_rows_lies_in_eighths_and_its_gradient_too():
    mesh = make_mesh(dict(data=8))
    rules = (Rule("bank", ("data",)), *REPLICATED)
    place = shardings_for({"bank": np.zeros((65536, 4))}, rules=rules, mesh=mesh)["bank"]
    rng = np.random.default_rng(0)
    table = rng.normal(size=(65536, 4)).astype(np.float32)
    queries = rng.normal(size=(8, 4)).astype(np.float32)

    def loss(bank, queries):
        return jnp.sum(jnp.square(jax.nn.softmax(queries @ bank.T) @ bank))

    bank = jax.device_put(table, place)
    rows = jax.device_put(queries, batch_sharding(mesh, ("data",)))
    gradient = jax.jit(jax.grad(loss), out_shardings=place)(bank, rows)
    assert {s.data.shape for s in gradient.addressable_shards} == {(8192, 4)}
    np.testing.assert_allclose(gradient, jax.grad(loss)(table, queries), rtol=1e-4, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Chip:
    """As much of a TPU as laying out a mesh looks at."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "unknown"
    process_index: int = 0
    core_on_chip: int = 0


def two_slices(side, **kind):
    """The chips of two slices of side x side chips, in turn."""
    return [
        Chip(id=i, slice_index=i % 2, coords=(i // 2 % side, i // 2 // side, 0), **kind)
        for i in range(2 * side * side)
    ]


def test_only_the_axis_dcn_crosses_slices():
    chips = two_slices(2)
    mesh = make_mesh(dict(data=-1, dcn=2), devices=chips)
    assert dict(mesh.shape) == {"data": 4, "dcn": 2}
    for index in range(2):
        assert {chip.slice_index for chip in mesh.devices[:, index]} == {index}
    with pytest.raises(ConfigError, match=r"config\.mesh\.axes.*2 slices.*'dcn' the size 2"):
        make_mesh(dict(data=-1), devices=chips)
    with pytest.raises(ConfigError, match="'dcn' the size 2"):
        make_mesh(dict(data=-1, dcn=4), devices=chips)
    with pytest.raises(ConfigError, match="'dcn' the size 2"):
        make_mesh(dict(data=-1, dcn=4), devices=two_slices(2, platform="gpu"))


def test_gpu_hosts_need_no_axis_of_their_own():
    """JAX counts each host as a slice, and refuses a mesh of several by itself."""
    hosts = two_slices(2, platform="gpu")
    mesh = make_mesh(dict(data=-1), devices=hosts[::-1])
    assert dict(mesh.shape) == {"data": 8} and list(mesh.devices) == hosts
    assert all(kind == AxisType.Auto for kind in mesh.axis_types)
    assert make_mesh(dict(data=2, model=-1), devices=hosts).devices.shape == (2, 4)
    across = make_mesh(dict(dcn=2, data=-1), devices=hosts)
    assert [{chip.slice_index for chip in row} for row in across.devices] == [{0}, {1}]


@pytest.mark.parametrize("kind", ["TPU v5 lite", "TPU v5e"])
def test_an_axis_may_take_parts_of_a_slice_s_sides_as_on_one_slice(kind):
    """16 is the product of no sides of 8 x 8."""
    chips = two_slices(8, device_kind=kind)
    mesh = make_mesh(dict(dcn=2, data=-1, fsdp=16), devices=chips)
    assert mesh.devices.shape == (2, 4, 16) and set(mesh.devices.flat) == set(chips)
    assert [{chip.slice_index for chip in part.flat} for part in mesh.devices] == [{0}, {1}]
