"""What torch itself saves is read back bit for bit; `pytest -m parity`."""

import argparse
import collections
import pathlib

import numpy as np
import pytest

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.weight_files import read_weights

pytestmark = pytest.mark.parity


def bits(tensor):
    """A tensor's numbers as bytes, whatever its dtype and strides."""
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def same(path, tensors):
    found = read_weights(path).tensors
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].shape == tuple(tensor.shape), name
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch."), name
        assert np.ascontiguousarray(found[name]).tobytes() == bits(tensor), name


def tensors():
    import torch

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    kinds = ["float16", "float32", "float64", "bfloat16"]
    kinds += ["int8", "int16", "int32", "int64", "uint8", "bool"]
    return {
        **{kind: (base * 4).abs().to(getattr(torch, kind)) for kind in kinds},
        "transposed": base.t(),
        "part": base[1:5, 2::3],
        "expanded": base[:1].expand(5, 8),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "tied": base,
        "parameter": torch.nn.Parameter(base * 2),
        "shared_bfloat16": base.to(torch.bfloat16)[3:],
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_tensor_is_read(tmp_path, legacy, protocol):
    import torch

    path, saved = tmp_path / "saved.pt", tensors()
    torch.save(
        collections.OrderedDict(saved),
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    same(path, saved)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_training_checkpoint_is_read(tmp_path, legacy):
    import torch

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    saved = {
        "epoch": 1,
        "global_step": np.int64(7),
        "best": np.float32(0.5),
        "history": np.arange(3.0),
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "hyper_parameters": argparse.Namespace(path=pathlib.PurePosixPath("/data"), lr=1e-4),
        "rng": torch.get_rng_state(),
        "numpy_rng": np.random.RandomState(0).get_state(),
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
    }
    path = tmp_path / "last.ckpt"
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    assert read_weights(path).nested == "state_dict"
    same(path, model.state_dict())


def test_a_tensor_with_attributes_and_a_file_without_checksums_are_read(tmp_path):
    import torch

    weight = torch.nn.Parameter(torch.arange(3.0))
    weight.tag = "a"
    tensor = torch.arange(4.0)
    tensor.tag = "b"
    path = tmp_path / "saved.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": weight, "tensor": tensor}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    same(path, {"weight": weight, "tensor": tensor})


def test_a_whole_module_and_a_sparse_tensor_are_refused(tmp_path):
    import torch

    path = tmp_path / "saved.pt"
    for saved, named in (
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"a": torch.eye(3).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "ComplexFloatStorage"),
    ):
        torch.save(saved, path)
        with pytest.raises(WeightsError, match=named):
            read_weights(path)


def test_a_torchscript_archive_is_refused(tmp_path):
    import warnings

    import torch

    path = tmp_path / "saved.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    with pytest.raises(WeightsError, match="TorchScript"):
        read_weights(path)
