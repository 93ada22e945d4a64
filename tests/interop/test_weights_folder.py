"""A folder of weights gives back what was put in, bit for bit, or says what is wrong with it."""

import gc
import json
import os
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from prior_jax.errors import WeightsError
from prior_jax.interop.weights_folder import (
    Weights,
    is_weights_folder,
    load_weights,
    read_document,
    save_weights,
    tokenizer_file,
)


def weights_of(seed=0, **changes):
    rng = np.random.default_rng(seed)
    values = dict(
        part="image",
        objective=None,
        model={"resnet": {"depths": [1, 1], "width": 4}},
        data={"image": {"size": 32, "channels": 1, "mean": [0.5], "std": None}},
        origin={"source": "torchvision", "file": "resnet.pt"},
        arrays={
            "resnet/stem_conv/kernel": rng.normal(size=(7, 7, 1, 4)).astype(np.float32),
            "resnet/stem_norm/mean": np.array([0.0, -0.0, np.inf, 1e-42], np.float32),
            "scale": np.asarray(rng.normal(), np.float32),
            "half": rng.normal(size=(3,)).astype(ml_dtypes.bfloat16),
        },
        kept={"fc.weight": rng.normal(size=(2, 3)), "bn1.num_batches_tracked": np.asarray(2**40)},
    )
    return Weights(**{**values, **changes})


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n")
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory, vocabulary):
    path = tmp_path_factory.mktemp("saved") / "weights"
    save_weights(path, weights_of(), vocabulary)
    return path


@pytest.fixture
def folder(tmp_path, saved):
    return shutil.copytree(saved, tmp_path / "weights")


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def test_what_is_saved_comes_back_bit_for_bit(folder, vocabulary):
    found, expected = load_weights(folder), weights_of()
    assert_same(found.arrays, expected.arrays)
    assert_same(found.kept, expected.kept)
    for name in ("part", "objective", "model", "data", "origin"):
        assert getattr(found, name) == getattr(expected, name)
    path = tokenizer_file(folder)
    assert path is not None and path.parent.parent == folder
    assert path.read_bytes() == vocabulary.read_bytes()
    assert is_weights_folder(folder) and not is_weights_folder(folder / "arrays")


def test_orbax_alone_reads_the_arrays(folder):
    tree = ocp.load(folder / "arrays")
    kernel = weights_of().arrays["resnet/stem_conv/kernel"]
    np.testing.assert_array_equal(tree["resnet"]["stem_conv"]["kernel"], kernel)
    assert set(tree) == {"resnet", "scale", "half"}


def test_nothing_is_kept_where_nothing_is_left_over(tmp_path):
    save_weights(tmp_path / "w", weights_of(kept={}))
    assert sorted(os.listdir(tmp_path / "w")) == ["arrays", "weights.json"]
    assert load_weights(tmp_path / "w").kept == {}
    assert tokenizer_file(tmp_path / "w") is None


def test_only_equal_weights_have_one_fingerprint(tmp_path, folder):
    for name, weights in {
        "same": weights_of(kept={}, origin={}),
        "changed": weights_of(seed=1),
    }.items():
        save_weights(tmp_path / name, weights)
    first, same, changed = (
        read_document(tmp_path / name).fingerprint for name in ("weights", "same", "changed")
    )
    assert first == same != changed


def test_a_folder_in_use_is_left_alone(folder, tmp_path):
    with pytest.raises(WeightsError, match="already something at this path"):
        save_weights(folder, weights_of(seed=1))
    assert_same(load_weights(folder).arrays, weights_of().arrays)
    (tmp_path / "empty").mkdir()
    save_weights(tmp_path / "empty", weights_of())


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(pathlib.Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(OSError))
    with pytest.raises(WeightsError, match="a folder that can be written to"):
        save_weights(tmp_path / "deep" / "w", weights_of())
    assert os.listdir(tmp_path / "deep") == []


def edit(folder, change):
    path = folder / "weights.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def flip(folder, name):
    """Flips a bit in the middle of every file that holds data."""
    for path in (folder / name).rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.json").unlink(), r"weights\.json: .*\(FileNotFoundError"),
        (lambda f: (f / "weights.json").write_text("{"), r"weights\.json: .*\(JSONDecode"),
        (lambda f: (f / "weights.json").write_text("[]"), r"have format None"),
        (lambda f: edit(f, lambda c: c.update(format=2)), r"have format 2, .* only format 1"),
        (lambda f: edit(f, lambda c: c.pop("origin")), r"origin"),
        (
            lambda f: edit(f, lambda c: c.update(part="sound")),
            r"weights\.part: The value is 'sound'",
        ),
        (lambda f: edit(f, lambda c: c["arrays"].pop("scale")), r"\(extra: scale\)"),
        (
            lambda f: edit(f, lambda c: c["arrays"].update(gone=[[1], "float32", ""])),
            r"\(missing: gone\)",
        ),
        (
            lambda f: edit(f, lambda c: c["arrays"]["scale"].__setitem__(2, "0" * 64)),
            r"\(changed: scale\)",
        ),
    ],
)
def test_damage_is_refused_by_name(folder, damage, message):
    damage(folder)
    with pytest.raises(WeightsError, match=message) as found:
        load_weights(folder)
    assert "\n" not in str(found.value)


# Where data cannot be read the library abandons its other reads: coroutines that nobody awaits.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize("name", ["arrays", "kept"])
def test_a_flipped_bit_is_refused_by_name(folder, name):
    flip(folder, name)
    with pytest.raises(WeightsError, match=f"weights/{name}: ") as found:
        load_weights(folder)
    assert "\n" not in str(found.value)
    gc.collect()


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_text("[PAD]\n")])
def test_a_damaged_tokenizer_is_refused_by_name(folder, damage):
    damage(folder / "tokenizer" / "vocab.txt")
    with pytest.raises(WeightsError, match=r"vocab\.txt: .*(sha256|cannot be read)"):
        tokenizer_file(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"part": "sound"}, "weights.part"),
        ({"objective": "prior"}, "weights.objective"),
        ({"part": "model"}, "weights.objective"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(WeightsError, match=message):
        weights_of(**changes)


@pytest.mark.parametrize(
    "arrays", [{}, {"a": np.zeros(1), "a/b": np.zeros(1)}, {"a/b/c": np.zeros(1), "a": np.ones(1)}]
)
def test_names_that_do_not_nest_are_refused(tmp_path, arrays):
    with pytest.raises(WeightsError, match=r"weights\.arrays"):
        save_weights(tmp_path / "w", weights_of(arrays=arrays))
    assert not (tmp_path / "w").exists()
