"""Checkpoints that are damaged or lie about sizes: each is refused in one line."""

import io
import json
import re
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.weight_files import read_weights
from prior_jax.interop.torch import zip_files as torch_zip
from tests.interop import torch_files as files
from tests.interop.torch_files import Call, Global, Persistent, Raw

ORDERED = Global("collections", "OrderedDict")


def one(**how):
    """A zip with one tensor of four floats that says the wrong thing."""
    return files.torch_zip({"w": files.tensor("0", **{"shape": (4,), **how})}, {"0": bytes(16)})


def with_persistent(said):
    broken = Call(
        Global("torch._utils", "_rebuild_tensor_v2"), (Persistent(said), 0, (4,), (1,), False)
    )
    return files.torch_zip({"w": broken}, {"0": bytes(16)})


FLOATS = Global("torch", "FloatStorage")
LIES = {
    "sizes_beyond_the_storage": (lambda: one(shape=(5,), count=4), r"\(5\).* of 4 elements"),
    "offset_beyond_the_storage": (lambda: one(offset=1), "offset"),
    "offset_of_an_empty_tensor": (lambda: one(shape=(0,), offset=9, count=4), "offset"),
    "absurd_size": (lambda: one(shape=(2**60, 2**60), strides=(0, 0), count=4), "over 1e20|1152"),
    "absurd_digits": (lambda: one(shape=(2**2000,), strides=(0,), count=4), "over 1e20"),
    "absurd_expansion": (lambda: one(shape=(2**40,), strides=(0,), count=4), "come to"),
    "absurd_rank": (lambda: one(shape=(1,) * 40, count=4), "sizes"),
    "absurd_empty": (lambda: one(shape=(0, 2**62, 2**62), strides=(0, 0, 0), count=4), "sizes"),
    "absurd_storage": (lambda: one(shape=(2**60,)), "absurd"),
    "storage_larger_than_its_record": (lambda: one(shape=(5,)), "record data/0 of 16 bytes"),
    "storage_smaller_than_its_record": (lambda: one(shape=(3,)), "record data/0 of 16 bytes"),
    "negative_stride": (lambda: one(strides=(-1,)), "negative"),
    "negative_size": (lambda: one(shape=(-4,), strides=(1,), count=4), "negative"),
    "negative_offset": (lambda: one(offset=-1), "negative"),
    "negative_storage": (lambda: one(count=-4), "negative"),
    "size_of_a_fraction": (lambda: one(shape=(4.0,), strides=(1,), count=4), "no whole number"),
    "ranks_that_differ": (lambda: one(strides=(1, 1)), "strides"),
    "tensor_of_no_storage": (
        lambda: files.torch_zip(
            {"w": Call(Global("torch._utils", "_rebuild_tensor_v2"), (1, 0, (4,), (1,)))}, {}
        ),
        "not made of a storage",
    ),
    "parameter_of_no_tensor": (
        lambda: files.torch_zip({"w": files.parameter({"a": 1})}, {}),
        "not made of a tensor",
    ),
    "storage_of_two_kinds": (
        lambda: files.torch_zip(
            {"a": files.tensor("0", shape=(4,)), "b": files.tensor("0", shape=(2,), dtype="int64")},
            {"0": bytes(16)},
        ),
        "two kinds",
    ),
    "persistent_text": (lambda: with_persistent("storage"), "persistent id"),
    "persistent_module": (lambda: with_persistent(("module", FLOATS, "a", "b", 4)), "persistent"),
    "persistent_view": (
        lambda: with_persistent(("storage", FLOATS, "0", "cpu", 4, ("1", 0, 4))),
        "persistent id",
    ),
    "persistent_of_another_class": (
        lambda: with_persistent(("storage", ORDERED, "0", "cpu", 4)),
        "storage of class collections.OrderedDict",
    ),
    "persistent_complex": (
        lambda: with_persistent(("storage", Global("torch", "ComplexFloatStorage"), "0", "cpu", 4)),
        "torch.ComplexFloatStorage",
    ),
    "persistent_key": (
        lambda: with_persistent(("storage", FLOATS, ("0",), "cpu", 4)),
        "no text",
    ),
    "persistent_count": (
        lambda: with_persistent(("storage", FLOATS, "0", "cpu", True)),
        "no whole number",
    ),
    "persistent_path": (
        lambda: with_persistent(("storage", FLOATS, "../../etc/passwd", "cpu", 4)),
        r"without the record data/\.\./\.\./etc/passwd",
    ),
    "persistent_line": (lambda: files.torch_zip(Raw(b"P0\n"), {}), "opcode PERSID"),
    "booleans_of_2": (
        lambda: files.torch_zip(
            {"w": files.tensor("0", shape=(2,), dtype="bool")}, {"0": b"\x01\x02"}
        ),
        "booleans",
    ),
    "nan": (
        lambda: files.torch_zip(*files.of_arrays({"layer.w": np.full(3, np.nan, np.float16)})),
        "NaN or infinite numbers in layer.w",
    ),
    "nan_under_a_name_with_a_line_break": (
        lambda: files.torch_zip(*files.of_arrays({"a\nb": np.full(3, np.nan)})),
        r"numbers in a\\nb\.",
    ),
    "no_tensor": (lambda: files.torch_zip({"epoch": 3}, {}), "has no tensors"),
    "no_dictionary": (lambda: files.torch_zip([1], {}), "a saved list"),
    "lone_tensor": (
        lambda: files.torch_zip(files.tensor("0", shape=(4,)), {"0": bytes(16)}),
        "a saved TorchTensor",
    ),
    "nameless": (
        lambda: files.torch_zip({3: files.tensor("0", shape=(4,))}, {"0": bytes(16)}),
        "keys that are no text",
    ),
    "two_state_dicts": (
        lambda: files.torch_zip(
            {key: {"w": files.tensor("0", shape=(4,))} for key in ("model", "net")},
            {"0": bytes(16)},
        ),
        "under model, net",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_tensor_that_lies_is_refused(refused, name):
    make, named = LIES[name]
    line = refused(make())
    assert re.search(named, line), line


def good_records():
    return files.zip_records(*files.of_arrays({"a": np.arange(4.0), "b": np.ones(3)}))


def good_zip():
    return files.as_zip(good_records())


def renamed(old, new):
    return files.as_zip({new if name == old else name: r for name, r in good_records().items()})


def patched(raw, old, new, *, last=False):
    at = raw.rindex(old) if last else raw.index(old)
    return raw[:at] + new + raw[at + len(old) :]


def duplicated():
    file = io.BytesIO(good_zip())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/data/0", bytes(32))
    return file.getvalue()


def bomb():
    """A record of 64 MiB in 64 KiB."""
    records = good_records() | {"archive/data/0": bytes(2**26)}
    return files.as_zip(records, compression=zipfile.ZIP_DEFLATED)


def directory_entry(raw, name):
    """Where the directory's entry of a record begins."""
    return raw.rindex(name.encode()) - 46


def claimed_size(size):
    """The directory says the first storage is larger than it is, and so does its tensor."""
    value = {"w": files.tensor("0", shape=(size // 8,), dtype="float64")}
    raw = bytearray(files.torch_zip(value, {"0": bytes(32)}))
    struct.pack_into("<II", raw, directory_entry(raw, "archive/data/0") + 20, size, size)
    return bytes(raw)


def two_sizes():
    """The directory gives a stored record another size than its own."""
    raw = bytearray(good_zip())
    struct.pack_into("<I", raw, directory_entry(raw, "archive/data/0") + 20, 31)
    return bytes(raw)


def moved():
    """The directory has the second storage lie where the first one does."""
    raw = bytearray(good_zip())
    first, second = (directory_entry(raw, f"archive/data/{key}") for key in "01")
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    return bytes(raw)


def flipped():
    raw = bytearray(good_zip())
    raw[raw.index(np.arange(4.0).tobytes()) + 9] ^= 1
    return bytes(raw)


ARCHIVES = {
    **{
        f"cut_at_{percent}": (
            lambda percent=percent: good_zip()[: len(good_zip()) * percent // 100],
            "cut short",
        )
        for percent in (5, 30, 60, 90, 99)
    },
    "duplicate_record": (duplicated, "two records of the name 'data/0'"),
    "zip_bomb": (bomb, "compressed"),
    "claimed_size": (lambda: claimed_size(2**30), "says it has 1073741824 bytes"),
    "two_sizes": (two_sizes, "says it has 32 bytes"),
    "overlap": (moved, "of another name in the directory"),
    "flipped_bit": (flipped, "checksum"),
    "encrypted": (lambda: bytes(_encrypted()), "encrypted"),
    "missing_storage": (
        lambda: files.as_zip({k: r for k, r in good_records().items() if "data/0" not in k}),
        "without the record data/0",
    ),
    "no_pickle": (lambda: renamed("archive/data.pkl", "archive/data.pk"), "0 records"),
    "two_pickles": (
        lambda: files.as_zip(good_records() | {"other/data.pkl": b"\x80\x02}."}),
        "2 records",
    ),
    "parent_path": (lambda: renamed("archive/version", "archive/../../version"), "../../version"),
    "absolute_path": (lambda: renamed("archive/version", "/etc/version"), "/etc/version"),
    "backslash": (lambda: renamed("archive/version", "archive\\version"), "version"),
    "outside": (lambda: renamed("archive/version", "evil/version"), "outside the folder"),
    "newline_in_a_name": (lambda: renamed("archive/version", "archive/a\nb"), "record of the name"),
    "torchscript": (
        lambda: files.as_zip(good_records() | {"archive/code/a.py": b"import os"}),
        "TorchScript",
    ),
    "byte_order": (
        lambda: files.as_zip(good_records() | {"archive/byteorder": b"middle"}),
        "byte order",
    ),
    "empty_zip": (lambda: files.as_zip({}), "0 records"),
    "numpy_archive": (lambda: _npz(), "0 records"),
}


def _encrypted():
    raw = bytearray(good_zip())
    raw[directory_entry(raw, "archive/data/0") + 8] |= 1
    return raw


def _npz():
    file = io.BytesIO()
    np.savez(file, a=np.arange(3))
    return file.getvalue()


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_refused(refused, name):
    make, named = ARCHIVES[name]
    assert named in refused(make())


def test_a_directory_too_large_to_read_is_refused(refused, monkeypatch):
    monkeypatch.setattr(torch_zip, "_MAX_DIRECTORY", 200)
    assert "directory is larger than 200 bytes" in refused(good_zip())


def legacy(**change):
    """A legacy file of four floats; what is said of them may be changed."""
    said = {"count": 4, "data": bytes(16), "magic": files.MAGIC, **change}
    value = {"w": files.tensor("k", shape=(4,), legacy=True)}
    return files.torch_legacy(
        value, {said.get("key", "k"): (said["count"], said["data"])}, magic=said["magic"]
    )


@pytest.mark.parametrize(
    ("make", "named"),
    {
        "magic": (lambda: legacy(magic=7), "magic number"),
        "count": (lambda: legacy(count=5), "of 5 elements, not the 4"),
        "negative": (lambda: legacy(count=-1), "of -1 elements"),
        "key": (lambda: legacy(key="other"), "list of storages"),
        "behind": (lambda: legacy(data=bytes(20)), "4 bytes after the last"),
        "cut": (lambda: legacy()[:-1], "not all there"),
        "no_data": (lambda: legacy()[:-20], "not all there"),
        "no_keys": (lambda: legacy()[:-40], "cut short"),
        "one_pickle": (lambda: legacy()[:20], "cut short"),
        "big_endian": (
            lambda: patched(legacy(), files.text("little_endian") + b"\x88", b"X\x01\0\0\0aN"),
            "big-endian",
        ),
    }.values(),
)
def test_a_damaged_legacy_file_is_refused(refused, make, named):
    assert named in refused(make())


def lying(header, data=bytes(16), length=None):
    raw = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(start, stop, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "raw",
    {
        "header_beyond_the_file": lying({"a": entry(0, 16)}, length=2**20),
        "absurd_header": lying({"a": entry(0, 16)}, length=2**62),
        "short_header": lying({"a": entry(0, 16)}, length=20),
        "beyond_the_file": lying({"a": entry(0, 32, shape=(8,))}),
        "shape": lying({"a": entry(0, 16, shape=(5,))}),
        "absurd_shape": lying({"a": entry(0, 16, shape=(2**40, 2**40))}),
        "overlap": lying({"a": entry(0, 16), "b": entry(8, 16, shape=(2,))}),
        "hole": lying({"a": entry(8, 16, shape=(2,))}),
        "negative": lying({"a": entry(-16, 0)}),
        "backwards": lying({"a": entry(16, 0)}),
        "unknown_dtype": lying({"a": entry(0, 16, dtype="F99")}),
        "float8": lying({"a": entry(0, 16, shape=(16,), dtype="F8_E4M3")}),
        "rest": lying({"a": entry(0, 16)}, data=bytes(20)),
        "no_json": lying(b"{nonsense"),
        "deep": lying(b'{"a":' * 100_000),
        "twice": lying(
            b'{"a":' + json.dumps(entry(0, 16)).encode() + b',"a":'
            + json.dumps(entry(0, 16)).encode() + b"}"
        ),
        "no_tensor": lying({}, data=b""),
        "nan": safetensors.numpy.save({"a": np.full(3, np.inf, np.float32)}),
        "cut": safetensors.numpy.save({"a": np.ones(300, np.float32)})[:-1],
    }.values(),
)  # fmt: skip
def test_a_safetensors_file_that_lies_is_refused(refused, raw):
    refused(raw, "model.safetensors")


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"not json",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 3}}',
        b'{"weight_map": {"a": "../model.safetensors"}}',
        b'{"weight_map": {"a": "/etc/passwd"}}',
        b'{"weight_map": {"a": ".."}}',
    ],
)
def test_an_index_that_lies_is_refused(refused, index):
    refused(index, "model.safetensors.index.json")


def test_an_index_of_a_missing_file_names_it(tmp_path):
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "pytorch_model-1-of-1.bin"}}')
    with pytest.raises(WeightsError, match=r"pytorch_model-1-of-1\.bin: .*No such file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_random_damage_is_refused_or_harmless(tmp_path, kind):
    """Whatever bytes are changed, nothing but a `WeightsError` comes of it."""
    make = {
        "zip": good_zip,
        "legacy": legacy,
        "safetensors": lambda: safetensors.numpy.save({"a": np.ones(3, np.float32)}),
    }
    whole, random, path = make[kind](), np.random.default_rng(0), tmp_path / "bad.pt"
    refusals = 0
    for _ in range(120):
        raw = bytearray(whole)
        for at in random.integers(0, len(raw), size=random.integers(1, 4)):
            raw[at] = random.integers(0, 256)
        path.write_bytes(bytes(raw))
        try:
            for array in read_weights(path).tensors.values():
                np.array(array)
        except WeightsError as error:
            assert str(error).startswith(f"{path}: ") and error.remedy.endswith(".")
            refusals += 1
    assert refusals > 30
