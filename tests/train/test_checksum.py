"""Checksums of arrays and of global batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from prior_jax.train.checksum import as_text, batch_sums, checksums, survey
from tests.train import toy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "int8", "bool"])
def test_a_checksum_sees_every_element_and_its_place(dtype):
    rng = np.random.default_rng(0)
    array = jnp.asarray(rng.integers(0, 2, (6, 5)), dtype)
    found = checksums({"a": array})["a"]
    assert len(found) == 16
    assert checksums({"a": array})["a"] == found
    for i in range(6):
        flipped = jnp.asarray(1 - int(array[i, i % 5]), dtype)
        changed = array.at[i, i % 5].set(flipped)
        assert checksums({"a": changed})["a"] != found
    rolled = jnp.roll(array, 1, axis=0)
    assert not np.array_equal(rolled, array)
    assert checksums({"a": rolled})["a"] != found
    assert checksums({"a": array.T})["a"] != found


def test_the_sums_of_a_batch_see_every_field_and_the_order_of_rows():
    batch = jax.tree.map(jnp.asarray, toy.ToyData().batch(0))
    swapped = jax.tree.map(lambda x: x[::-1], batch)
    batches = [batch, swapped]
    for name in ("image", "tokens", "labels", "weight", "record"):
        batches.append(batch.replace(**{name: getattr(batch, name) + 1}))
    for name in ("token_mask", "sentence_mask"):
        batches.append(batch.replace(**{name: ~getattr(batch, name)}))
    sums = jax.jit(batch_sums)
    assert len({as_text(sums(one)) for one in batches}) == len(batches)
    assert as_text(sums(toy.ToyData().batch(0))) == as_text(sums(batch))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_survey_names_the_arrays_that_are_not_finite(dtype, bad):
    sound = jnp.zeros((3, 4), dtype)
    arrays = {"b": sound.at[2, 1].set(bad), "a": sound, "n": jnp.arange(3), "t": jnp.ones(2, bool)}
    found = survey(arrays)
    assert found.not_finite == ("b",)
    assert found.checksums == checksums(arrays) and found.checksums.keys() == arrays.keys()


def test_a_checksum_tells_zero_from_minus_zero():
    zero, minus = jnp.zeros(3), -jnp.zeros(3)
    assert checksums({"a": zero}) != checksums({"a": minus})


@pytest.mark.multidevice
def test_a_checksum_does_not_depend_on_the_sharding():
    mesh = toy.mesh_of(8)
    array = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    found = set()
    for spec in (PartitionSpec(), PartitionSpec("data"), PartitionSpec(None, "data")):
        found.add(checksums({"a": jax.device_put(array, NamedSharding(mesh, spec))})["a"])
    found.add(checksums({"a": jnp.asarray(array)})["a"])
    assert len(found) == 1
