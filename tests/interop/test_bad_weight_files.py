"""Checkpoints that would run code, and files of something else: one line each, nothing runs."""

import io
import os
import socket
import tarfile

import numpy as np
import pytest

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.weight_files import read_weights
from tests.interop import torch_files as files
from tests.interop.torch_files import Call, Global, Raw

ORDERED = Global("collections", "OrderedDict")


def opcodes_for_stack_global(module, name):
    return Raw(files.text(module) + files.text(name) + b"\x93")


def payload(function, *arguments):
    return Call(function, tuple(arguments))


# name -> (the value that stands beside good weights, what the line must name).
TOUCH = "touch SENTINEL"
EVAL = "open('SENTINEL', 'w')"
PAYLOADS = {
    "os.system": (payload(Global("os", "system"), TOUCH), "os.system"),
    "posix.system": (payload(Global("posix", "system"), TOUCH), "posix.system"),
    "nt.system": (payload(Global("nt", "system"), TOUCH), "nt.system"),
    "stack_global": (
        payload(opcodes_for_stack_global("posix", "system"), TOUCH),
        "posix.system",
    ),
    "dotted_stack_global": (
        payload(opcodes_for_stack_global("collections", "abc.sys.modules"), TOUCH),
        "collections.abc.sys.modules",
    ),
    "line_breaks": (
        payload(opcodes_for_stack_global("os\n\x1b[2J", "system"), TOUCH),
        r"os\n\x1b[2J.system",
    ),
    "eval": (payload(Global("builtins", "eval"), EVAL), "builtins.eval"),
    "exec_of_python_2": (payload(Global("__builtin__", "exec"), EVAL), "builtins.exec"),
    "import": (payload(Global("builtins", "__import__"), "os"), "builtins.__import__"),
    "getattr_chain": (
        payload(payload(Global("builtins", "getattr"), Global("os", "path"), "os"), TOUCH),
        "builtins.getattr",
    ),
    "getattr_of_a_known_class": (
        payload(Global("builtins", "getattr"), ORDERED, "__class__"),
        "builtins.getattr",
    ),
    "torch.hub.load": (payload(Global("torch.hub", "load"), "evil/repo"), "torch.hub.load"),
    "torch.load": (payload(Global("torch", "load"), "other.pt"), "torch.load"),
    "runpy": (payload(Global("runpy", "run_path"), "evil.py"), "runpy.run_path"),
    "nested_pickle": (
        payload(Global("pickle", "loads"), Raw(b"C\x08cos\nsys\n")),
        "pickle.loads",
    ),
    "nested_pickle_in_c": (payload(Global("_pickle", "loads"), "x"), "_pickle.loads"),
    "partial": (
        payload(Global("functools", "partial"), Global("os", "system"), TOUCH),
        "functools.partial",
    ),
    "attrgetter": (
        payload(payload(Global("operator", "attrgetter"), "system"), Global("os", "path")),
        "operator.attrgetter",
    ),
    "numpy.load": (payload(Global("numpy", "load"), "evil.npy"), "numpy.load"),
    "runstring": (
        payload(Global("numpy.testing._private.utils", "runstring"), EVAL, {}),
        "numpy.testing._private.utils.runstring",
    ),
    "newobj": (
        Call(Global("subprocess", "Popen"), (["touch", "SENTINEL"],), opcode=b"\x81"),
        "subprocess.Popen",
    ),
    "newobj_ex": (
        Raw(b"csubprocess\nPopen\n" + files.encode((["touch"],)) + files.encode({}) + b"\x92"),
        "subprocess.Popen",
    ),
    "inst": (
        Raw(b"(" + files.text(TOUCH) + b"ios\nsystem\n"),
        "os.system",
    ),
    "inst_of_a_known_class": (Raw(b"(icollections\nOrderedDict\n"), "opcode INST"),
    "obj": (Raw(b"(cos\nsystem\n" + files.text(TOUCH) + b"o"), "os.system"),
    "obj_of_a_known_class": (Raw(b"(ccollections\nOrderedDict\no"), "opcode OBJ"),
    "ext1": (Raw(b"\x82\x01"), "opcode EXT1"),
    "ext4": (Raw(b"\x84\x01\x00\x00\x00"), "opcode EXT4"),
    "protocol_0": (Raw(b"S'text'\n"), "opcode STRING"),
    "setstate_of_a_class": (
        Raw(
            files.encode(Global("argparse", "Namespace"))
            + files.encode({"__setstate__": Global("argparse", "Namespace")})
            + b"b"
        ),
        "sets attributes",
    ),
    "setstate_to_a_function": (
        Call(
            Global("argparse", "Namespace"),
            opcode=b"\x81",
            state={"__setstate__": Global("os", "system")},
        ),
        "os.system",
    ),
    "attributes_of_a_list": (Raw(files.encode([1]) + files.encode({"a": 1}) + b"b"), "attributes"),
    "calls_an_object": (
        payload(payload(Global("argparse", "Namespace")), TOUCH),
        "not a known name",
    ),
    "calls_a_text": (payload("os.system", TOUCH), "not a known name"),
    "calls_without_arguments": (Raw(b"ccollections\nOrderedDict\n]R"), "something else than arg"),
    "rebuild_from_type_of_another_function": (
        payload(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            Global("torch", "device"),
            Global("torch", "Tensor"),
            (),
            {},
        ),
        "rebuilt in an unknown way",
    ),
    "whole_module": (
        Call(Global("torch.nn.modules.linear", "Linear"), opcode=b"\x81"),
        "torch.nn.modules.linear.Linear",
    ),
    "lambda_of_lightning": (
        payload(Global("pytorch_lightning.utilities.cloud_io", "load"), "http://evil"),
        "pytorch_lightning.utilities.cloud_io.load",
    ),
}


def with_sentinel(raw, sentinel):
    """The sentinel's path into texts of 4-byte length, as `files.text` writes them."""
    for said in (TOUCH, EVAL):
        raw = raw.replace(files.text(said), files.text(said.replace("SENTINEL", str(sentinel))))
    return raw


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_is_refused_by_name(refused, name, legacy):
    value, named = PAYLOADS[name]
    saved = {"w": files.tensor("0", shape=(1,), legacy=legacy), "more": value}
    raw = with_sentinel(files.pickled(saved), refused.sentinel)
    data = np.float32(1).tobytes()
    if legacy:
        raw = files.torch_legacy(raw, {"0": (1, data)})
    else:
        raw = files.torch_zip(raw, {"0": data})
    assert named in refused(raw)


def test_a_bare_pickle_is_refused_before_it_runs(refused):
    bare = with_sentinel(files.pickled(PAYLOADS["posix.system"][0]), refused.sentinel)
    assert "posix.system" in refused(bare)
    assert "magic number" in refused(files.pickled({"w": 1.0}))
    assert "text file" in refused(b"cposix\nsystem\n(S'touch sentinel'\ntR.")


def _tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (_tar(), "a tar file"),
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "text file that begins '<!DOCTYPE"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(64), "compressed"),
        (b"\x00\x01\x02\x03" + bytes(64), "bytes 00 01 02 03"),
        (b"PK", "damaged or cut short"),
        (b"\x80", "cut short"),
        (b"\xff", "bytes ff"),
    ],
)
def test_a_file_of_something_else_is_named(refused, raw, named):
    assert named in refused(raw)


def test_what_is_no_file_is_refused(tmp_path, monkeypatch):
    def line(path):
        with pytest.raises(WeightsError) as caught:
            read_weights(path)
        assert str(caught.value).startswith(f"{path}: ")
        return str(caught.value)

    assert "No such file" in line(tmp_path / "absent.pt")
    assert "a directory without weights" in line(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    assert "a pipe" in line(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    assert "symbolic links" in line(tmp_path / "loop.pt")
    server = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    server.bind("socket.pt")
    server.close()
    assert "socket" in line(tmp_path / "socket.pt")


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "secret.pt"
    path.write_bytes(files.torch_zip(*files.of_arrays({"a": np.ones(3)})))

    def denied(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("prior_jax.interop.mapped_file.open", denied, raising=False)
    with pytest.raises(WeightsError, match=r"secret\.pt: .*\(Permission denied\)"):
        read_weights(path)
