"""Pickles that are damaged or endless are refused in one line."""

import numpy as np
import pytest

from prior_jax.interop.torch import pickle_reader as torch_pickle
from tests.interop import torch_files as files


def good_pickle():
    return files.pickled(files.of_arrays({"a": np.arange(4.0)})[0])


def test_a_pickle_cut_anywhere_is_refused(refused):
    whole = good_pickle()
    for length in range(0, len(whole), 3):
        records = files.zip_records(whole[:length], {"0": np.arange(4.0).tobytes()})
        assert "a pickle" in refused(files.as_zip(records))


@pytest.mark.parametrize(
    ("opcodes", "named"),
    {
        "empty_stack": (b"0", "takes what it never stored"),
        "nothing_on_top": (b"q\x00", "takes what it never stored"),
        "nothing_at_the_end": (b"", "takes what it never stored"),
        "underflow": (b"\x86", "takes what it never stored"),
        "no_mark": (b"N0t", "takes what it never stored"),
        "memo": (b"h\x07", "takes what it never stored"),
        "odd_items": (b"}(Nu", "no value"),
        "items_of_a_list": (b"](NNu", "no dictionary"),
        "append_to_a_text": (files.text("a") + b"Na", "no list"),
        "add_to_a_list": (b"](N\x90", "no set"),
        "latin1": (b"U\x01\xff", "'utf-8' codec can't decode"),
        "surrogate": (b"X\x03\x00\x00\x00\xed\xa0\x80", "surrogates not allowed"),
        "long_text": (b"X\xff\xff\xff\xff", "cut short"),
        "longer_text": (b"\x8d" + b"\xff" * 8, "cut short"),
        "long_integer": (b"\x8b\x01\x00\x00\x00\x07", "LONG4"),
        "longer_integer": (b"\x8b\xff\xff\xff\x7f", "cut short"),
        "long_array": (b"\x96" + (2**40).to_bytes(8, "little"), "cut short"),
        "endless_name": (b"c" + b"a" * 2000, "no newline found"),
        "name_with_an_escape": (b"cos\n\\qsystem\n", "invalid escape"),
        "escaped_name": (b"c\\x6fs\nsystem\n", "os.system"),
        "name_of_numbers": (b"K\x01K\x02\x93", "no text"),
        "unknown_opcode": (b"\xfe", "xfe"),
        "buffers": (b"\x97", "NEXT_BUFFER"),
        "protocol_9": (b"\x80\x09", "protocol 9"),
        "keywords": (
            b"ccollections\nOrderedDict\n)" + files.encode({"a": 1}) + b"\x92",
            "keywords",
        ),
    }.values(),
)
def test_a_pickle_that_makes_no_sense_is_refused(refused, opcodes, named):
    assert named in refused(files.torch_zip(b"\x80\x02" + opcodes + b".", {}))


def test_nesting_and_floods_end_in_one_line(refused, monkeypatch):
    deep = b"\x80\x02" + b"(" * 30_000 + b"t" * 30_000 + b"."
    assert "a saved tuple" in refused(files.torch_zip(deep, {}))
    # A tree of shared tuples: to hash it as a key would take 2^60 steps.
    shared = b"\x80\x02}(K\x01" + b"q\x00h\x00\x86" * 60 + b"Nu."
    assert "has no tensors" in refused(files.torch_zip(shared, {}))
    # To hash so deep a tuple as a key would overflow the stack of C.
    deep_key = b"\x80\x02}(K\x01" + b"\x85" * 1_000_000 + b"Nu."
    assert "has no tensors" in refused(files.torch_zip(deep_key, {}))
    # A memo that is an array would take 64 GiB for this index.
    memo = b"\x80\x02Nr\xff\xff\xff\xff."
    assert "a saved NoneType" in refused(files.torch_zip(memo, {}))
    monkeypatch.setattr(torch_pickle, "MAX_STEPS", 1000)
    assert "more than 1000 steps" in refused(files.torch_zip(b"\x80\x02" + b"]" * 2000, {}))
    monkeypatch.setattr(torch_pickle, "MAX_BYTES", 200)
    long = files.pickled("a" * 300)
    assert "a pickle of over 200 bytes" in refused(files.torch_legacy(long, {}))
