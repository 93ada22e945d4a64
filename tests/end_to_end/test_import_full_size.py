"""The released PRIOR at its real size, as random numbers: time, memory, and every key."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from prior_jax.errors import WeightsError
from prior_jax.interop.sources.imports import from_tensors, release_state_dict
from prior_jax.interop.weights_folder import load_weights
from tests.end_to_end import measured
from tests.golden.reader import load_json
from tests.interop import torch_files

pytestmark = pytest.mark.slow
SECONDS, TIMES_ITS_SIZE = 60, 3


@pytest.fixture(scope="module")
def shapes(golden_dir):
    return load_json(golden_dir, "prior", "real_state_dict_shapes")["state_dict"]


@pytest.fixture(scope="module")
def tensors(shapes):
    random = np.random.default_rng(0)

    def made(shape, dtype):
        if dtype == "torch.int64":
            return random.integers(0, 1000, shape)
        return random.random(shape, np.float32)

    return {name: np.asarray(made(*kind)) for name, kind in shapes.items()}


def launched(*flags):
    """Exit code, output, seconds and the most memory, in bytes, of a run of the program."""
    return measured.launched("launch.import_weights", *flags)


def write_safetensors(tensors, path):
    save_file(tensors, path)


def write_torch(tensors, path):
    path.write_bytes(torch_files.torch_zip(*torch_files.of_arrays(tensors)))


def write_lightning(tensors, path):
    state, storages = torch_files.of_arrays(tensors)
    saved = {"epoch": 3, "state_dict": state, "hyper_parameters": {"lr": 1e-5}}
    path.write_bytes(torch_files.torch_zip(saved, storages))


WRITERS = [(write_safetensors, "safetensors"), (write_torch, "pt"), (write_lightning, "ckpt")]


@pytest.mark.parametrize(("write", "ending"), WRITERS)
def test_every_key_comes_in_and_goes_out_bit_for_bit(tmp_path, tensors, write, ending):
    file, out = tmp_path / f"prior.{ending}", tmp_path / "weights"
    write(tensors, file)
    size = file.stat().st_size
    code, output, seconds, memory = launched(
        "--source=prior", f"--checkpoint={file}", f"--out={out}"
    )
    print(output, f"{seconds:.1f} s, {memory / size:.2f} times its {size / 1e9:.2f} GB")
    assert code == 0, output
    assert f"{len(tensors)} keys: " in output
    assert "left" not in output.split("keys: ")[1].splitlines()[0]
    assert seconds < SECONDS
    assert memory < TIMES_ITS_SIZE * size
    back = release_state_dict(load_weights(out))
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype, name
        assert np.array_equal(back[name], array), name


def test_missing_extra_and_misshaped_are_three_named_errors(tmp_path, tensors):
    file, out = tmp_path / "prior.safetensors", tmp_path / "weights"
    wrong = dict(tensors)
    del wrong["local_cross_attention.value2.bias"]
    wrong["local_cross_attention.value3.bias"] = np.zeros(768, np.float32)
    wrong["image_decoder.output_head.0.weight"] = np.zeros((1, 48, 5, 5), np.float32)
    save_file(wrong, file)
    code, output, _, _ = launched("--source=prior", f"--checkpoint={file}", f"--out={out}")
    assert code == 2
    lines = output.splitlines()
    assert "missing: local_cross_attention.value2.bias" in lines
    assert "extra: local_cross_attention.value3.bias" in lines
    assert any(line.startswith("misshaped: image_decoder.output_head.0.weight: ") for line in lines)
    assert "1 missing, 1 extra, 1 misshaped" in lines[-1]
    assert not out.exists()
    assert list(tmp_path.iterdir()) == [file]


def test_flags_that_cannot_be_are_one_line(tmp_path):
    file, out = tmp_path / "vocab.txt", tmp_path / "weights"
    file.write_text("no weights\n")
    for flag, words in (
        (f"--out={tmp_path}", "--out: received"),
        (f"--out={out}", "accepted: a safetensors file"),
        ("--source=clip", "--source=clip"),
        ("--surce=prior", "surce"),
    ):
        flags = ("--source=prior", f"--checkpoint={file}", f"--out={out}", flag)
        code, output, _, _ = launched(*flags)
        assert code == 2, flag
        assert words in output.splitlines()[-1], output
        assert "Traceback" not in output
    assert not out.exists()


def test_every_key_of_gloria_has_its_place(golden_dir):
    record = load_json(golden_dir, "gloria", "state_dict_keys_gloria_resnet50")
    state_dict = {
        name: np.broadcast_to(np.float32(0.5), shape) for name, (shape, _) in record["keys"].items()
    }
    imported = from_tensors("gloria", state_dict)
    assert sum(row.count for row in imported.rows) == record["n"]
    assert imported.weights.arrays.keys() & {"image_encoder/local_embedder/kernel"}
    back = release_state_dict(imported.weights)
    assert {name: array.shape for name, array in back.items()} == {
        name: array.shape for name, array in state_dict.items()
    }
    sizes = [
        array.size
        for path, array in imported.weights.arrays.items()
        if path.split("/")[-1] not in ("mean", "var")
    ]
    assert sum(sizes) == record["n_params"]


def test_any_one_key_that_is_missing_or_misshaped_is_named(shapes):
    """A sample of all keys; views of one number stand for the weights."""
    floats = {name: shape for name, (shape, kind) in shapes.items() if kind == "torch.float32"}
    whole = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in floats.items()}
    kept = ("global_text_projection", "sentence_decoder.embeddings.word_embeddings")
    for name in [*floats][::60]:
        if name.startswith(kept):
            continue
        without = {other: array for other, array in whole.items() if other != name}
        with pytest.raises(WeightsError) as caught:
            from_tensors("prior", without)
        assert caught.value.problems == {"missing": [name]}
        wider = np.broadcast_to(np.float32(0.5), (*floats[name][:-1], 1 + sum(floats[name][-1:])))
        with pytest.raises(WeightsError) as caught:
            from_tensors("prior", {**whole, name: wider})
        assert [line.split(":")[0] for line in caught.value.problems["misshaped"]] == [name]
        assert list(caught.value.problems) == ["misshaped"]
