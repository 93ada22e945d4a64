"""Reading weights: every format, dtype and layout gives the numbers that were written."""

import argparse
import hashlib
import json
import subprocess
import sys
import zlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.weight_files import read_weights
from tests.interop import torch_files as files
from tests.interop.torch_files import Call, Global, Raw

DTYPES = [*files.STORAGES]


def numbers(dtype, shape=(2, 3), seed=0):
    values = np.random.default_rng(seed).integers(-3, 4, size=shape)
    if dtype == "bool":
        return values > 0
    if dtype == "uint8":
        values = np.abs(values)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    return (values / 4 if "float" in dtype else values).astype(kind)


def every_dtype():
    return {dtype: numbers(dtype, seed=index) for index, dtype in enumerate(DTYPES)}


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture
def write(tmp_path):
    def write(raw, name="weights.pt"):
        path = tmp_path / name
        path.write_bytes(raw)
        return path

    return write


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_zip_of_every_dtype_and_byte_order_is_read(write, order):
    arrays = {**every_dtype(), "scalar": np.array(2.5, np.float32), "none": np.zeros((0, 3))}
    value, storages = files.of_arrays(arrays)
    if order == "big":
        sizes = [array.dtype.itemsize for array in arrays.values()]
        for (key, raw), size in zip(storages.items(), sizes, strict=True):
            storages[key] = np.frombuffer(raw, f"u{size}").byteswap().tobytes()
    path = write(files.torch_zip(value, storages, byteorder=order))
    found = read_weights(path)
    same(found.tensors, arrays)
    assert (found.format, found.nested, found.path) == ("torch", None, path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not any(array.flags.writeable for array in found.tensors.values())


def test_a_legacy_file_of_every_dtype_is_read(write):
    arrays = every_dtype()
    value, storages = files.of_arrays(arrays, legacy=True)
    counted = {
        key: (array.size, storages[key])
        for key, array in zip(storages, arrays.values(), strict=True)
    }
    same(read_weights(write(files.torch_legacy(value, counted))).tensors, arrays)


def test_a_safetensors_file_of_every_dtype_is_read(write):
    arrays = {**every_dtype(), "scalar": np.array(2.5, np.float32)}
    raw = safetensors.numpy.save(arrays, metadata={"format": "pt"})
    found = read_weights(write(raw, "model.bin"))
    assert found.format == "safetensors"
    same({name: found.tensors[name] for name in arrays}, arrays)
    assert not any(array.flags.writeable for array in found.tensors.values())


def test_views_share_their_storage_and_keep_offset_and_strides(write):
    base = np.arange(24, dtype=np.float32)
    view = {
        "whole": dict(shape=(4, 6)),
        "tied": dict(shape=(4, 6)),
        "transposed": dict(shape=(6, 4), strides=(1, 6)),
        "rows": dict(shape=(2, 3), strides=(12, 2), offset=5),
        "expanded": dict(shape=(5, 2), strides=(0, 1), offset=3),
        "one_wide": dict(shape=(1, 4), strides=(10**30, 1)),
    }
    tensors = {name: files.tensor("7", count=24, **how) for name, how in view.items()}
    found = read_weights(write(files.torch_zip(tensors, {"7": base.tobytes()}))).tensors
    whole = base.reshape(4, 6)
    expected = {
        "whole": whole,
        "tied": whole,
        "transposed": whole.T,
        "rows": base[[[5, 7, 9], [17, 19, 21]]],
        "expanded": np.tile(base[3:5], (5, 1)),
        "one_wide": base[None, :4],
    }
    same(found, expected)
    assert np.shares_memory(found["whole"], found["tied"])


def test_parameters_and_the_older_and_newer_ways_to_rebuild_are_read(write):
    plain = files.tensor("0", shape=(3,))
    old = Call(Global("torch._utils", "_rebuild_tensor"), plain.arguments[:4])
    sized = Call(Global("torch", "Size"), ((3,),))
    with_state = Call(
        Global("torch._utils", "_rebuild_parameter_with_state"),
        (plain, True, Call(Global("collections", "OrderedDict")), {"tag": 1}),
    )
    typed = Call(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        (plain.function, Global("torch.nn.parameter", "Parameter"), plain.arguments, {"a": 1}),
    )
    of_size = Call(plain.function, (*plain.arguments[:2], sized, *plain.arguments[3:]))
    tensors = {
        "old": old,
        "parameter": files.parameter(plain),
        "state": with_state,
        "typed": typed,
        "sized": of_size,
    }
    array = np.arange(3, dtype=np.float32)
    found = read_weights(write(files.torch_zip(tensors, {"0": array.tobytes()})))
    same(found.tensors, dict.fromkeys(tensors, array))


def lightning_extras():
    """What Lightning and omegaconf leave beside the weights."""
    ordered = Global("collections", "OrderedDict")
    node = Call(
        Global("omegaconf.nodes", "AnyNode"),
        opcode=b"\x81",
        state={"_metadata": Call(Global("omegaconf.base", "Metadata"), opcode=b"\x81"), "_val": 1},
    )
    config = Call(
        Global("omegaconf.dictconfig", "DictConfig"),
        opcode=b"\x81",
        state={
            "_content": {"lr": node, "type": Global("__builtin__", "dict")},
            "cache": Call(Global("collections", "defaultdict"), (Global("__builtin__", "dict"),)),
            "ref": Global("typing", "Any"),
        },
    )
    scalar = Call(
        Global("numpy.core.multiarray", "scalar"),
        (
            Call(Global("numpy", "dtype"), ("f8", 0, 1), state=(3, "<", None, None, None, -1)),
            Call(Global("_codecs", "encode"), ("\x00\x00", "latin1")),
        ),
    )
    return {
        "epoch": 3,
        "hyper_parameters": config,
        "namespace": Call(Global("argparse", "Namespace"), opcode=b"\x81", state={"lr": 0.1}),
        "attributes": Call(
            Global("pytorch_lightning.utilities.parsing", "AttributeDict"),
            opcode=b"\x81",
            items={"batch_size": 2},
        ),
        "callbacks": {
            Global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"): {
                "best_model_score": files.tensor("9", shape=()),
                "dirpath": Call(Global("pathlib", "PosixPath"), ("/", "tmp")),
            }
        },
        "best": scalar,
        "schedulers": [Call(Global("collections", "Counter"), ({5: 1},)), None, 0.5],
        "optimizer_states": [{"state": {0: {"exp_avg": files.tensor("9", shape=())}}}],
        "device": Call(Global("torch", "device"), ("cpu",)),
        "dtype": Global("torch", "bfloat16"),
        "seen": Raw(b"\x8f(" + files.text("a") + b"\x90"),  # a set, as protocol 4 writes it
        "pairs": Call(ordered, ([["a", 1], ["b", 2]],)),
        "betas": {(0.9, 0.99): 1, ((1, 2), 3): 2},
    }


@pytest.mark.parametrize("nested", ["state_dict", "model", "net", "model_state_dict", None])
def test_the_state_dict_is_found_and_the_rest_is_dropped(write, nested):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    value, storages = files.of_arrays({"module.a": array})
    extras = {**lightning_extras(), "num_batches": 4}
    saved = {**extras, nested: value} if nested else {**extras, **value.items}
    found = read_weights(write(files.torch_zip(saved, storages), "last.ckpt"))
    assert found.nested == nested
    same(found.tensors, {"module.a": array})


def test_a_namespace_is_not_made_for_real(write, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a class of the file was called")

    monkeypatch.setattr(argparse.Namespace, "__init__", refuse)
    value, storages = files.of_arrays({"a": np.zeros(2, np.float32)})
    saved = {**lightning_extras(), "state_dict": value}
    assert list(read_weights(write(files.torch_zip(saved, storages))).tensors) == ["a"]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_later_protocols_are_read(write, protocol):
    """Framed, memoised and with names from the stack, as `pickle_protocol=4` writes them."""
    call = files.tensor("0", shape=(2, 1, 3))
    storage = call.arguments[0].said
    kind = files.text("torch") + b"\x94" + files.text("FloatStorage") + b"\x94\x93\x94"
    said = (storage[0], Raw(kind), *storage[2:])
    function = files.text("torch._utils") + files.text("_rebuild_tensor_v2") + b"\x93"
    shape, strides = Raw(b"K\x02K\x01K\x03\x87"), Raw(b"K\x03K\x03K\x01\x87")
    arguments = (files.Persistent(said), 0, shape, strides, *call.arguments[4:])
    body = b"}(" + b"\x8c\x01w" + files.encode(Call(Raw(function), arguments)) + b"u."
    raw = bytes([0x80, protocol, 0x95]) + len(body).to_bytes(8, "little") + body
    array = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    same(read_weights(write(files.torch_zip(raw, {"0": array.tobytes()}))).tensors, {"w": array})


def test_many_memo_entries_and_deep_nesting_are_no_trouble(write):
    deep = Raw(b"]" * 30_000 + b"a" * 29_999)
    many = Raw(b"](" + b"".join(b"K\x01r" + i.to_bytes(4, "little") for i in range(20_000)) + b"e")
    saved = {"w": files.tensor("0", shape=(1,)), "deep": deep, "many": many}
    found = read_weights(write(files.torch_zip(saved, {"0": np.float32(3).tobytes()})))
    assert found.tensors["w"] == 3


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_directory_is_read_whole_or_in_shards(tmp_path, kind):
    arrays = {"a": numbers("float32"), "b": numbers("bfloat16"), "c": numbers("int64")}
    shards = [{"a": arrays["a"]}, {"b": arrays["b"], "c": arrays["c"]}]
    stem, ending = ("model", kind) if kind == "safetensors" else ("pytorch_model", kind)

    def raw(part):
        return safetensors.numpy.save(part) if kind == "safetensors" else zipped(part)

    def zipped(part):
        return files.torch_zip(*files.of_arrays(part))

    names = [f"{stem}-{index}-of-2.{ending}" for index in (1, 2)]
    for name, part in zip(names, shards, strict=True):
        (tmp_path / name).write_bytes(raw(part))
    places = {tensor: names[index] for index, part in enumerate(shards) for tensor in part}
    index = tmp_path / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    found = read_weights(tmp_path)
    same(found.tensors, arrays)
    assert (found.path, read_weights(index).sha256) == (index, found.sha256)
    lines = "".join(
        f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )
    assert found.sha256 == hashlib.sha256(lines.encode()).hexdigest()

    index.write_text(json.dumps({"weight_map": places | {"c": names[0]}}))
    with pytest.raises(WeightsError, match=r"does not fit .*1-of-2.* has c\."):
        read_weights(tmp_path)

    (tmp_path / f"{stem}.{ending}").write_bytes(raw(arrays))
    if kind == "bin":  # transformers' order: a whole file before its shards
        same(read_weights(tmp_path).tensors, arrays)
        (tmp_path / "model.safetensors").write_bytes(safetensors.numpy.save(shards[0]))
        same(read_weights(tmp_path).tensors, shards[0])


def test_numbers_that_are_not_finite_can_be_looked_at_but_not_imported(write):
    arrays = {
        "fine": numbers("float32"),
        "first": np.array([1, np.nan], np.float32),
        "second": np.array([[np.inf]], ml_dtypes.bfloat16),
    }
    path = write(files.torch_zip(*files.of_arrays(arrays)))
    with pytest.raises(WeightsError, match="NaN or infinite numbers in first, second"):
        read_weights(path)
    same(read_weights(path, check_finite=False).tensors, arrays)
    # Only what the tensor shows of its storage counts.
    view = {"w": files.tensor("0", shape=(1,), count=2)}
    read_weights(write(files.torch_zip(view, {"0": arrays["first"].tobytes()})))


def test_uncomputed_checksums_are_accepted(write):
    """torch writes zeros with `set_crc32_options(False)`."""
    array = numbers("float32")
    raw = files.torch_zip(*files.of_arrays({"a": array}))
    crc = zlib.crc32(array.tobytes()).to_bytes(4, "little")
    assert raw.count(crc) == 2
    same(read_weights(write(raw.replace(crc, b"\0\0\0\0"))).tensors, {"a": array})


def test_reading_takes_little_more_memory_than_the_file(tmp_path):
    """Anonymous memory only: pages of the mapped file are the system's to drop."""
    size = 48 * 2**20
    value, storages = files.of_arrays({"w": np.ones(size // 4, np.float32)})
    path = tmp_path / "large.pt"
    path.write_bytes(files.torch_zip(value, storages))
    code = f"""
import sys, tracemalloc
from prior_jax.interop.sources.weight_files import read_weights
tracemalloc.start()
found = read_weights({str(path)!r})
assert tracemalloc.get_traced_memory()[1] < {size // 4}, tracemalloc.get_traced_memory()
assert "torch" not in sys.modules and "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
