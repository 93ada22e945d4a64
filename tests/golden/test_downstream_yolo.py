"""YOLOv3's head, targets and loss against numbers recorded from LoVT's and MGCA's code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.torch.finetuned_tables import yolo_table
from prior_jax.interop.torch.names import to_torch
from prior_jax.losses import yolo
from prior_jax.nn.yolo_head import YoloConfig, YoloHead, decode
from tests.golden import detection, reader
from tests.golden.kinks import check_up_to_rounding
from tests.golden.test_prior_encoders import nhwc
from tests.torch_models import load_torch

pytestmark = pytest.mark.golden

VALUE_RTOL = 1e-4
GRADIENT_RTOL = 1e-3
SCALES = range(3)
NAMES = {"x": "x", "y": "y", "w": "width", "h": "height", "conf": "object", "cls": "class"}


@pytest.fixture(scope="module")
def heads(golden_dir):
    return reader.load(golden_dir, "downstream", "yolo_head")


@pytest.fixture(scope="module")
def losses(golden_dir):
    return reader.load(golden_dir, "downstream", "yolo_targets_loss")


def anchors_of(array):
    return tuple(tuple(map(tuple, scale)) for scale in np.asarray(array, float).tolist())


def head(golden, *, classes):
    params = detection.head_params(golden, classes=classes)
    maps = [golden[f"in/conv{i}"] for i in (3, 4, 5)]
    config = YoloConfig(
        anchors=anchors_of(golden["in/config/anchors"]),
        anchor_size=int(golden["in/config/image_size"][0]),
        width=int(golden["in/config/widths"][0, 0]),
    )
    model = nnx.eval_shape(
        lambda: YoloHead(
            config,
            features=tuple(one.shape[1] for one in maps),
            classes=classes,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
    )
    load_torch(model, params, yolo_table())
    return model, [nhwc(one) for one in maps], config


@pytest.mark.golden_full
def test_formula_parameters_are_the_recorded_ones(heads):
    params = detection.head_params(heads, classes=heads.scalar("in/config/one/num_classes"))
    for name, first in heads.prefix("param_check/").items():
        np.testing.assert_array_equal(params[name].reshape(-1)[: len(first)], first, err_msg=name)


@pytest.mark.golden_full
@pytest.mark.parametrize(("case", "mode"), [("one", "eval"), ("one", "train"), ("multi", "eval")])
def test_head(heads, case, mode):
    classes = heads.scalar(f"in/config/{case}/num_classes")
    model, maps, config = head(heads, classes=classes)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    cotangents = [
        detection.raw_of(heads[f"in/{case}/cotangent{i}"], per_cell=config.per_cell) for i in SCALES
    ]

    def run(params, maps):
        module = nnx.merge(graphdef, params, rest, copy=True)
        raw = module(tuple(maps), train=mode == "train")
        total = sum(jnp.sum(one * other) for one, other in zip(raw, cotangents, strict=True))
        return total, (raw, nnx.state(module, nnx.BatchStat))

    compiled = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))

    def check(result):
        (_, (raw, statistics)), (grads, by_map) = result
        for i in SCALES:
            expected = heads[f"out/{case}/{mode}/raw{i}"]
            found = detection.released_raw(raw[i])
            reader.assert_close(found, expected, rtol=VALUE_RTOL, name=f"raw{i}")
            gradient = np.asarray(by_map[i]).transpose(0, 3, 1, 2)
            name = f"conv{3 + i}"
            recorded = heads[f"grad/{case}/{mode}/in/{name}"]
            reader.assert_close(gradient, recorded, rtol=GRADIENT_RTOL, name=name)
        names = to_torch(nnx.as_pure(grads), yolo_table(), partial=True)
        if f"gradnorm/{case}/{mode}/param/embedding0.0.conv.weight" in heads:
            for name, norm in heads.prefix(f"gradnorm/{case}/{mode}/param/").items():
                found = np.linalg.norm(names[name].astype(np.float64))
                reader.assert_close(found, norm, rtol=GRADIENT_RTOL, name=name)
        if mode == "train":
            whole = heads.prefix(f"grad/{case}/train/param/")
            reader.assert_trees_close(names, whole, rtol=GRADIENT_RTOL)
            after = to_torch(nnx.as_pure(statistics), yolo_table(), partial=True)
            for name, value in heads.prefix(f"state_after/{case}/").items():
                if not name.endswith("num_batches_tracked"):
                    reader.assert_close(after[name], value, rtol=VALUE_RTOL, name=name)

    check_up_to_rounding(lambda *maps: compiled(params, maps), check, maps)


@pytest.mark.golden_full
@pytest.mark.parametrize("case", ["one", "multi", "mgca"])
def test_decoded_boxes(heads, case):
    source = "one" if case == "mgca" else case
    anchors = heads["in/config/mgca_anchors" if case == "mgca" else "in/config/anchors"]
    raw = [
        detection.raw_of(heads[f"out/{source}/eval/raw{i}"], per_cell=anchors.shape[1])
        for i in SCALES
    ]
    size = tuple(int(side) for side in heads["in/config/image_size"])
    found = decode(tuple(map(jnp.asarray, raw)), anchors=anchors_of(anchors), image_size=size)
    expected = [heads[f"out/{case}/eval/decoded{i}"] for i in SCALES]
    reader.assert_close(found, np.concatenate(expected, axis=1), rtol=VALUE_RTOL)


def loss_config(golden, *, release, single_class):
    return yolo.YoloLossConfig(
        matching="release" if release else "shape",
        cross_entropy="release" if release else "logits",
        ignore_above=golden.scalar("in/config/ignore_threshold"),
        position=golden.scalar("in/config/lambda_xy"),
        negative=golden.scalar("in/config/noobj_weight"),
        single_class=single_class,
    )


def loss_inputs(golden, case):
    """Raw numbers of each scale, boxes, mask and classes."""
    per_cell = golden["in/config/anchors"].shape[1]
    source = case if f"in/{case}/raw0" in golden else "main"
    raw = [detection.raw_of(golden[f"in/{source}/raw{i}"], per_cell=per_cell) for i in SCALES]
    if case == "no_boxes":
        batch = golden["grad/no_boxes/lovt/raw0"].shape[0]
        empty = np.zeros((batch, 1), bool)
        corners = np.zeros((batch, 1, 4), np.float32)
        return [one[:batch] for one in raw], corners, empty, np.zeros((batch, 1), np.int32)
    boxes, real, classes = detection.padded_boxes(golden, "main")
    if case != "multi":
        classes = np.zeros_like(classes)
    return raw, boxes, real, classes


@pytest.mark.parametrize("release", ["lovt", "mgca"])
@pytest.mark.parametrize("case", ["main", "multi", "no_boxes", "saturated"])
def test_loss(losses, case, release):
    raw, boxes, real, classes = loss_inputs(losses, case)
    config = loss_config(losses, release=True, single_class=release == "mgca")
    size = tuple(int(side) for side in losses["in/config/image_size"])

    def run(raw):
        terms = yolo.total_terms(
            raw,
            jnp.asarray(boxes),
            jnp.asarray(real),
            jnp.asarray(classes),
            weight=jnp.ones(len(boxes)),
            anchors=anchors_of(losses["in/config/anchors"]),
            image_size=size,
            config=config,
        )
        return sum(terms.values()), terms

    given = tuple(jnp.asarray(one) for one in raw)
    (loss, terms), grads = jax.jit(jax.value_and_grad(run, has_aux=True))(given)
    out = f"out/{case}/{release}/"
    assert abs(float(loss) - losses.scalar(f"{out}loss")) <= VALUE_RTOL * float(loss)
    for theirs, ours in NAMES.items():
        factor = config.position if theirs in "xywh" else 1.0
        expected = factor * losses.scalar(out + theirs)
        assert abs(float(terms[ours]) - expected) <= VALUE_RTOL * max(expected, 1e-3), ours
    compared = 0
    for i in SCALES:
        name = f"grad/{case}/{release}/raw{i}"
        if name in losses:
            found = detection.released_raw(grads[i])
            reader.assert_close(found, losses[name], rtol=GRADIENT_RTOL, name=name)
            compared += 1
    assert compared or case == "multi"


@pytest.mark.parametrize("case", ["main", "multi"])
def test_targets(losses, case):
    raw, boxes, real, classes = loss_inputs(losses, case)
    config = loss_config(losses, release=True, single_class=False)
    size = tuple(int(side) for side in losses["in/config/image_size"])
    for i in SCALES:
        found = yolo.targets(
            jnp.asarray(boxes),
            jnp.asarray(real),
            jnp.asarray(classes),
            anchors=jnp.asarray(losses["in/config/anchors"][i]),
            grid=raw[i].shape[1:3],
            image_size=size,
            num_classes=raw[i].shape[-1] - 5,
            config=config,
        )
        out = losses.prefix(f"out/{case}/lovt/scale{i}/")

        def released(array):
            return np.moveaxis(np.asarray(array), 3, 1)

        np.testing.assert_array_equal(released(found.positive), out["mask"])
        np.testing.assert_array_equal(released(found.positive), out["tconf"])
        np.testing.assert_array_equal(released(found.negative), out["noobj_mask"])
        for index, name in enumerate(("tx", "ty", "tw", "th")):
            numbers = released(found.numbers[..., index])
            np.testing.assert_allclose(numbers, out[name], rtol=1e-5, atol=2e-6)
        if "tcls" in out:
            np.testing.assert_array_equal(released(found.classes), out["tcls"])
