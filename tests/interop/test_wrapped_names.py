"""Files as wrappers and training programs leave them: names, prefixes and entries."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.sources.imports import from_tensors, open_checkpoint, release_state_dict
from prior_jax.interop.sources.saved_entries import find_entry
from prior_jax.interop.sources.weight_files import read_weights
from prior_jax.interop.sources.wrapped_names import WRAPPERS, unwrapped
from prior_jax.interop.torch.tensors import TorchTensor
from tests.interop import torch_files as files
from tests.interop.checkpoint_shapes import HEADS, bert, filled, gloria, linear, resnet, same

NAMES = ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.bias", "layer1.1.conv1.weight")


def before(tensors, prefix):
    return {prefix + name: array for name, array in tensors.items()}


def within(tensors, parent, wrapper):
    """As if the module of that name had been wrapped."""
    return {name.replace(f"{parent}.", f"{parent}.{wrapper}.", 1): x for name, x in tensors.items()}


def wrapped_blocks(tensors):
    for block in ("layer1.0", "layer2.0", "layer2.1"):
        tensors = within(tensors, block, "_checkpoint_wrapped_module")
    return before(tensors, "module.")


COUNT = np.array(5, np.int64)
WRAPPED = {
    "torch.compile": lambda t: before(t, "_orig_mod."),
    "compiled inside DDP": lambda t: before(t, "module._orig_mod."),
    "DDP inside compiled": lambda t: before(t, "_orig_mod.module."),
    "DDP twice": lambda t: before(t, "module.module."),
    "Fabric around FSDP": lambda t: before(t, "_forward_module._fsdp_wrapped_module."),
    "old FSDP": lambda t: before(t, "_fsdp_wrapped_module._fpw_module."),
    "AveragedModel": lambda t: {"n_averaged": COUNT, **before(t, "module.")},
    "averaged, compiled, in DDP": lambda t: {
        "module.n_averaged": COUNT, **before(t, "module.module._orig_mod."),
    },
    "averaged twice": lambda t: {
        "n_averaged": COUNT, "module.n_averaged": COUNT, **before(t, "module.module."),
    },
    "one layer compiled": lambda t: within(t, "layer1", "_orig_mod"),
    "checkpointed blocks in DDP": wrapped_blocks,
    "FSDP around a stage and all": lambda t: before(
        within(t, "layer2", "_fsdp_wrapped_module"), "_fsdp_wrapped_module."
    ),
    "a convolution in DataParallel": lambda t: within(t, "conv1", "module"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_model_is_imported_as_the_plain_one_and_goes_out_as_it_came(name):
    plain = filled(resnet())
    tensors = WRAPPED[name](plain)
    imported = from_tensors("torchvision", tensors)
    same(imported.weights.arrays, from_tensors("torchvision", plain).weights.arrays)
    same(release_state_dict(imported.weights), tensors)
    assert json.loads(json.dumps(imported.weights.origin))
    assert any("which was taken off" in note for note in imported.weights.origin["notes"])


def test_towers_wrapped_apart_are_read_as_one_model():
    plain = gloria()
    tensors = {
        name.replace("img_encoder.", "img_encoder.module.").replace(
            "text_encoder.model.", "text_encoder._orig_mod.model."
        ): array
        for name, array in plain.items()
    }
    imported = from_tensors("gloria", before(tensors, "module._orig_mod."), unseen=HEADS)
    same(imported.weights.arrays, from_tensors("gloria", plain, unseen=HEADS).weights.arrays)
    same(release_state_dict(imported.weights), before(tensors, "module._orig_mod."))


@given(
    chains=st.dictionaries(
        st.sampled_from(["", "conv1", "layer1", "layer1.0", "layer1.0.bn1", "layer1.1.conv1"]),
        st.lists(st.sampled_from(list(WRAPPERS)), min_size=1, max_size=3),
    )
)
def test_any_nesting_of_wrappers_is_taken_off(chains):
    def wrap(name):
        parts = name.split(".")
        out = [*chains.get("", [])]
        for index, part in enumerate(parts):
            out += [part, *chains.get(".".join(parts[: index + 1]), [])]
        return ".".join(out)

    found = unwrapped([wrap(name) for name in NAMES])
    assert found.names == NAMES
    assert set(found.wrappers) == {part for chain in chains.values() for part in chain}


@given(
    st.lists(
        st.lists(st.sampled_from(["module", "_orig_mod", "a", "b", "n_averaged"]), min_size=1)
        .map(".".join),
        unique=True,
    )
)  # fmt: skip
def test_no_two_names_become_one(names):
    plain = unwrapped(names).names
    assert len(set(plain)) == len(plain) == len(names)


@pytest.mark.parametrize(
    "names",
    [
        ("module.conv1.weight", "bn1.weight"),
        ("modules.conv1.weight", "modules.bn1.weight"),
        ("my_module.conv1.weight", "my_module.bn1.weight"),
        ("_orig_mod_conv1.weight", "_orig_mod_bn1.weight"),
        ("conv1.module",),
        ("module", "module.conv1"),
    ],
)
def test_a_part_that_no_wrapper_left_is_part_of_the_name(names):
    found = unwrapped(names)
    assert (found.names, dict(found.wrappers)) == (names, {})


def moco(seed):
    """A ResNet with the projection of MoCo v2, a classifier of two layers."""
    head = [*linear("fc.0", 8, 8), *linear("fc.2", 3, 8)]
    return {**filled(resnet(), seed=seed), **filled(head, seed=seed)}


def two_models():
    """MoCo v2's names: two encoders and a queue."""
    query, key = moco(0), moco(1)
    tensors = {**before(query, "module.encoder_q."), **before(key, "module.encoder_k.")}
    return query, {**tensors, "module.queue": np.zeros((4, 8), np.float32)}


def test_prefixes_are_listed_and_one_of_them_is_read():
    query, tensors = two_models()
    with pytest.raises(WeightsError) as caught:
        from_tensors("torchvision", tensors)
    for prefix in ("module.encoder_q.", "module.encoder_k."):
        assert f"{prefix!r} ({len(query)} names)" in str(caught.value)
    assert "--prefix=module.encoder_" in str(caught.value)
    for prefix in ("module.encoder_q.", "module.encoder_q"):
        imported = from_tensors("torchvision", tensors, prefix=prefix)
        plain = from_tensors("torchvision", query)
        same(imported.weights.arrays, plain.weights.arrays)
        assert sum(row.count for row in imported.rows) == len(tensors)
        assert sum(row.count for row in imported.rows if row.fate == "left") == len(query) + 1
        same(release_state_dict(imported.weights), before(query, "module.encoder_q."))


def test_no_other_prefix_is_proposed_once_one_was_given():
    _, tensors = two_models()
    del tensors["module.encoder_q.bn1.bias"]
    with pytest.raises(WeightsError, match=r"missing: bn1\.bias") as caught:
        from_tensors("torchvision", tensors, prefix="module.encoder_q.")
    assert "--prefix" not in str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["", ".", "encoder_q.", "module.encoder_", "backbone.", "odule."]
)
def test_a_prefix_that_does_not_occur_is_refused_with_those_that_do(prefix):
    _, tensors = two_models()
    with pytest.raises(ConfigError, match=r"--prefix: No name .*'module\.encoder_k\.' \(\d+ n"):
        from_tensors("torchvision", tensors, prefix=prefix)


@pytest.mark.parametrize(
    ("source", "prefix", "shapes"),
    [
        ("torchvision", "model.", resnet),
        ("torchvision", "net.", resnet),
        ("torchvision", "ema_model.", resnet),
        ("torchvision", "student.backbone.", resnet),
        ("torchvision", "0.", resnet),
        ("prior", "model.", lambda: [(f"encoder.{n}", s) for n, s in resnet()]),
        ("mgca", "lit.", lambda: [(f"img_encoder_q.model.{n}", s) for n, s in resnet()]),
        ("convirt", "m.", lambda: [(f"linguistic.encoder.{n}", s) for n, s in bert()]),
    ],
)
def test_a_larger_models_prefix_is_named_in_the_refusal_and_read_when_given(source, prefix, shapes):
    options = {"unseen": HEADS, "part": "text"} if source == "convirt" else {}
    tensors = filled(shapes(), prefix)
    tensors |= filled(linear("head", 3, 4))
    with pytest.raises(WeightsError, match=rf"--prefix={prefix}"):
        from_tensors(source, tensors, **options)
    imported = from_tensors(source, tensors, prefix=prefix, **options)
    same(release_state_dict(imported.weights), filled(shapes(), prefix))


@pytest.fixture
def write(tmp_path):
    def write(raw, name):
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return write


def saved(write, contents, name="x.ckpt"):
    """A file of torch: nested dictionaries of arrays and plain values."""
    storages = {}

    def convert(value):
        if isinstance(value, dict):
            return {key: convert(entry) for key, entry in value.items()}
        if isinstance(value, np.ndarray):
            storages[str(len(storages))] = value.tobytes()
            key = str(len(storages) - 1)
            return files.tensor(key, shape=value.shape, dtype=value.dtype.name)
        return value

    return write(files.torch_zip(convert(contents), storages), name)


A, B = {"a": np.ones(2, np.float32)}, {"b": np.zeros(3, np.float32), "c": np.zeros(1, np.float32)}


@pytest.mark.parametrize(
    ("contents", "taken", "left"),
    [
        ({"state_dict": A, "state_dict_ema": B, "epoch": 1}, "state_dict", {"state_dict_ema": 2}),
        ({"model": A, "model_ema": {"module": B}}, "model", {"model_ema": 2}),
        ({"module": A, "ds_config": {"x": 1}}, "module", {}),
        ({"state_dict": {"model": A}, "optimizer": {"state": {0: B}}},
         "state_dict/model", {"optimizer": 2}),
        ({"model": {"module": A, "head": B}}, "model/module", {"model/head": 2}),
        ({**A, "ema": B}, None, {"ema": 2}),
        ({"net": A, "callbacks": {"x": {1: B}, "y": B}}, "net", {"callbacks": 4}),
    ],
)  # fmt: skip
def test_one_entry_is_read_and_the_others_are_counted(write, contents, taken, left):
    found = read_weights(saved(write, contents))
    assert (list(found.tensors), found.nested, found.left) == (["a"], taken, left)


@pytest.mark.parametrize(
    ("contents", "wanted", "names"),
    [
        ({"student": A, "teacher": B}, "teacher", ["b", "c"]),
        ({"state_dict": A, "state_dict_ema": B}, "state_dict_ema", ["b", "c"]),
        ({"model": A, "model_ema": {"module": B}}, "model_ema/module", ["b", "c"]),
        ({"state_dict": A, "model": B}, "model", ["b", "c"]),
        ({"model": None, "ema": A}, "ema", ["a"]),
        ({"params": B, "params_ema": A}, "params_ema", ["a"]),
        ({"a/b": {"c": B}, "a": {"b/c": A}}, "a/b/c", ["b", "c"]),
    ],
)
def test_an_entry_may_be_named(write, contents, wanted, names):
    found = read_weights(saved(write, contents), entry=wanted)
    assert (list(found.tensors), found.nested) == (names, wanted)


@pytest.mark.parametrize("wanted", ["model", "net", "outer/module"])
def test_an_object_under_several_keys_is_read_by_each(wanted):
    tensors = {"a": TorchTensor(storage=None, offset=0, shape=(0,), strides=(1,))}
    value = {"model": tensors, "net": tensors, "outer": {"module": tensors}}
    with pytest.raises(WeightsError, match="--entry=model, or another of these keys"):
        find_entry(value, field="file", wanted=None)
    found = find_entry(value, field="file", wanted=wanted)
    assert found.tensors == tensors and found.key == wanted
    value["net"] = value  # an object may hold itself
    with pytest.raises(ConfigError, match=r"--entry: .* under 'net/net/nothing'"):
        find_entry(value, field="file", wanted="net/net/nothing")


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        ({"student": A, "teacher": B}, r"'student' \(1 t.*'teacher' \(2 t.*--entry="),
        ({"state_dict": A, "model": B}, "state dicts, under state_dict, model.*--entry=state_dict"),
        ({"ema": {"module": A}, "epoch": 3}, r"'ema/module' \(1 tensor\).*--entry=ema/module"),
        ({"optimizer": {0: B}}, r"'optimizer' \(2 tensors\)"),
        ({"epoch": 3}, "The file has no tensors"),
    ],
)  # fmt: skip
def test_several_or_none_are_refused_with_the_keys_that_hold_tensors(write, contents, match):
    path = saved(write, contents)
    with pytest.raises(WeightsError, match=match):
        read_weights(path)
    with pytest.raises(ConfigError, match=r"--entry: .* under 'nothing'"):
        read_weights(path, entry="nothing")


def test_what_was_left_out_is_noted(write):
    path = saved(write, {"state_dict": filled(resnet()), "state_dict_ema": filled(resnet())})
    (note,) = open_checkpoint("torchvision", path).weights.origin["notes"]
    assert f"'state_dict_ema' ({len(filled(resnet()))} tensors)" in note
    with pytest.raises(ConfigError, match="--entry"):
        open_checkpoint("torchvision", path, entry="optimizer")


def torch_module(tensors):
    """A module of torch with these parameters and buffers, which is never run."""
    import torch

    root = torch.nn.Module()
    for name, array in tensors.items():
        *parents, last = name.split(".")
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        tensor = torch.tensor(array)
        if last.startswith(("running", "num_batches")):
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, torch.nn.Parameter(tensor))
    return root


def torch_wrappers():
    import torch
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    def checkpointed(model):
        model.layer2[0] = checkpoint_wrapper(model.layer2[0])
        return model

    def one_stage(model):
        model.layer1 = torch.compile(model.layer1)
        return model

    parallel, average = torch.nn.DataParallel, torch.optim.swa_utils.AveragedModel
    return {
        "compile": torch.compile,
        "parallel": parallel,
        "average": average,
        "average of parallel": lambda m: average(parallel(m)),
        "parallel compiled": lambda m: torch.compile(parallel(m)),
        "stage compiled, parallel": lambda m: parallel(one_stage(m)),
        "checkpointed": checkpointed,
        "checkpointed, average": lambda m: average(checkpointed(m)),
    }


@pytest.mark.parity
def test_torchs_own_wrappers(tmp_path):
    torch = pytest.importorskip("torch")
    plain = filled(resnet())
    expected = from_tensors("torchvision", plain).weights.arrays
    for name, wrap in torch_wrappers().items():
        model = torch_module(plain)
        for stage in ("layer1", "layer2"):
            blocks = torch.nn.ModuleList(getattr(model, stage).children())
            setattr(model, stage, blocks)
        saved = wrap(model).state_dict()
        # Activation checkpointing takes its own prefix off as it saves.
        assert (set(saved) == set(plain)) == (name == "checkpointed"), name
        torch.save({"state_dict": saved}, tmp_path / "model.pt")
        found = open_checkpoint("torchvision", tmp_path / "model.pt").weights
        same(found.arrays, expected)
        assert set(release_state_dict(found)) == set(saved), name
