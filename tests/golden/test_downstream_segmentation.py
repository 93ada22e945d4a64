"""LoVT's U-Net, losses and metrics, MGCA's loss and mmsegmentation's metrics, as recorded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.evaluate import segmentation as metrics
from prior_jax.interop.torch.finetuned_tables import learned_decoder_table
from prior_jax.interop.torch.names import Entry, Table, to_torch
from prior_jax.losses import segmentation as losses
from prior_jax.nn.resnet import ResNetConfig
from prior_jax.nn.unet import LinearDecoder, UNetDecoder, UNetDecoderConfig
from tests.golden import reader
from tests.golden.kinks import check_up_to_rounding
from tests.golden.test_prior_encoders import nchw, nhwc
from tests.torch_models import load_torch

pytestmark = pytest.mark.golden

VALUE_RTOL = 1e-4
GRADIENT_RTOL = 1e-3
TOLERANCE = 1e-6
HEAD = "segmentation_head.classifier"


class Maps:
    """What the decoder asks of the ResNet whose maps it is given."""

    def __init__(self, maps, image):
        self.stage_features = tuple(one.shape[3] for one in maps[1:])
        self.width = maps[0].shape[3]
        self.features, self.in_channels = self.stage_features[-1], image.shape[3]
        self.stem_pool, self.stride = True, image.shape[1] // maps[-1].shape[1]


assert {"features", "stage_features", "stride"} <= set(dir(ResNetConfig))


def lovt_decoder(golden):
    """The decoder with the recorded parameters, and its table."""
    params = {
        name.removeprefix("resunet."): value
        for name, value in golden.prefix("param/").items()
        if not name.endswith("num_batches_tracked")
    }
    params[f"{HEAD}.weight"] = params[f"{HEAD}.weight"].reshape(1, -1, 1, 1)
    image = nhwc(golden["in/x"])
    maps = tuple(nhwc(golden[f"in/conv{i}"]) for i in range(1, 6))
    config = UNetDecoderConfig(
        channels=tuple(golden.scalar(f"in/config/width_up{i}") for i in range(1, 6)),
        form="transposed",
        bridge=golden.scalar("in/config/width_bridge"),
    )
    model = nnx.eval_shape(
        lambda: UNetDecoder(
            config, resnet=Maps(maps, image), classes=1, dtype=jnp.float32, rngs=nnx.Rngs(0)
        )
    )
    output = (
        Entry(torch=f"{HEAD}.weight", path=("output", "kernel"), layout="conv"),
        Entry(torch=f"{HEAD}.bias", path=("output", "bias")),
    )
    table = learned_decoder_table(config) + Table(entries=output)
    load_torch(model, params, table)
    return model, table, image, maps


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_lovt_unet(golden_dir, mode):
    golden = reader.load(golden_dir, "downstream", "lovt_unet")
    model, table, image, maps = lovt_decoder(golden)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    target = jnp.asarray(golden["in/mask"], jnp.float32)[..., None]

    def run(params, image, maps):
        module = nnx.merge(graphdef, params, rest, copy=True)
        logits, _ = module(image, maps, train=mode == "train")
        loss = losses.dice_of_batch(logits, target, weight=jnp.ones(len(target)))
        return loss, (logits, nnx.state(module, nnx.BatchStat))

    compiled = jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True))

    def check(result):
        (loss, (logits, statistics)), (grads, by_image, by_map) = result
        out = golden.prefix(f"out/{mode}/")
        reader.assert_close(loss, out["loss"], rtol=VALUE_RTOL)
        reader.assert_close(nchw(logits), out["logits"], rtol=VALUE_RTOL)
        reader.assert_close(jax.nn.sigmoid(logits[..., 0]), out["prob"], rtol=VALUE_RTOL)
        recorded = golden.prefix(f"grad/{mode}/")
        given = {"x": by_image, **{f"conv{i + 1}": one for i, one in enumerate(by_map)}}
        for name, value in given.items():
            if f"in/{name}" in recorded:
                reader.assert_close(
                    nchw(value), recorded[f"in/{name}"], rtol=GRADIENT_RTOL, name=name
                )
        names = to_torch(nnx.as_pure(grads), table, partial=True)
        for name, value in recorded.prefix("param/").items():
            if mode == "train" and name.endswith("conv.bias"):
                continue  # the batch normalisation behind it makes the true gradient 0
            found = names[name.removeprefix("resunet.")]
            reader.assert_close(found.reshape(value.shape), value, rtol=GRADIENT_RTOL, name=name)
        if mode == "train" and any(name.startswith("state_after/") for name in golden):
            after = to_torch(nnx.as_pure(statistics), table, partial=True)
            for name, value in golden.prefix("state_after/").items():
                short = name.split("resunet.")[-1]
                if not name.endswith("num_batches_tracked"):
                    reader.assert_close(after[short], value, rtol=VALUE_RTOL, name=name)

    check_up_to_rounding(lambda image, *maps: compiled(params, image, maps), check, [image, *maps])


def fitted_weights(logits, target, bias_gradient):
    """The weights of positives that give the recorded gradient of the bias, float32[K].

    The recorded `in/pos_weights` are not those of the recorded loss: with them neither value nor
    gradient fits in any layout, while these fit all other numbers of the case.
    """
    chance, target = np.asarray(jax.nn.sigmoid(logits), np.float64), np.asarray(target, np.float64)
    share = 1 / logits.size
    negatives = (chance * (1 - target)).sum(axis=(0, 1, 2)) * share
    positives = ((1 - chance) * target).sum(axis=(0, 1, 2)) * share
    weights = np.ones(len(positives))
    np.divide(negatives - bias_gradient, positives, out=weights, where=positives > 0)
    return jnp.asarray(weights, jnp.float32)


@pytest.mark.parametrize("case", ["bce8_posweight", "bcedice8", "dice1", "dice8", "focal8"])
def test_lovt_linear(golden_dir, case):
    golden = reader.load(golden_dir, "downstream", "lovt_unet").prefix("linear/")
    masks = golden["in/mask1"][:, None] if case.endswith("1") else golden["in/masks8"]
    target = jnp.asarray(nhwc(masks.astype(np.float32)))
    weight = jnp.ones(len(masks))
    cross_entropy = losses.binary_cross_entropy
    positive = jnp.ones(target.shape[-1])
    loss_of = {
        "bce8_posweight": lambda x, t: cross_entropy(x, t, weight=weight, positive_weight=positive),
        "bcedice8": lambda x, t: (
            cross_entropy(x, t, weight=weight) + losses.dice_of_batch(x, t, weight=weight)
        ),
        "dice1": lambda x, t: losses.dice_of_batch(x, t, weight=weight),
        "dice8": lambda x, t: losses.dice_of_batch(x, t, weight=weight),
        "focal8": lambda x, t: losses.focal(x, t, weight=weight),
    }[case]
    params = golden.prefix(f"{case}/param/")
    kernel = params[f"{HEAD}.weight"][:, :, 0].T[None, None]
    model = nnx.eval_shape(
        lambda: LinearDecoder(
            features=kernel.shape[2], classes=kernel.shape[3], dtype=jnp.float32, rngs=nnx.Rngs(0)
        )
    )
    model.output.kernel.set_value(jnp.asarray(kernel))
    model.output.bias.set_value(jnp.asarray(params[f"{HEAD}.bias"]))
    graphdef, state = nnx.split(model)

    def run(state, feature):
        logits = nnx.merge(graphdef, state, copy=True)(feature, size=target.shape[1:3])
        return loss_of(logits, target), logits

    feature = nhwc(golden["in/feature"])
    if case == "bce8_posweight":
        logits = nnx.merge(graphdef, state, copy=True)(feature, size=target.shape[1:3])
        positive = fitted_weights(logits, target, golden[f"{case}/grad/param/{HEAD}.bias"])
    step = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    (loss, logits), (grads, by_feature) = step(state, feature)
    reader.assert_close(loss, golden[f"{case}/out/loss"], rtol=VALUE_RTOL)
    recorded = golden.prefix(f"{case}/grad/")
    reader.assert_close(nchw(by_feature), recorded["in/feature"], rtol=GRADIENT_RTOL)
    output = nnx.as_pure(grads)["output"]
    found = np.asarray(output["kernel"])[0, 0].T[:, :, None]
    reader.assert_close(found, recorded[f"param/{HEAD}.weight"], rtol=GRADIENT_RTOL)
    reader.assert_close(output["bias"], recorded[f"param/{HEAD}.bias"], rtol=GRADIENT_RTOL)
    probability = np.asarray(nchw(jax.nn.sigmoid(logits)))
    for name, stride in (("prob", 1), ("prob_stride2", 2)):
        if f"{case}/out/{name}" in golden:
            expected = golden[f"{case}/out/{name}"]
            reader.assert_close(probability[:, :, ::stride, ::stride], expected, rtol=VALUE_RTOL)


CASES = ("", "_empty_batch", "_full_batch", "_one_image", "_multi")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("release", ["lovt", "mgca"])
def test_losses_of_batches(golden_dir, release, case):
    golden = reader.load(golden_dir, "downstream", "dice_loss")
    if f"out/{release}{case}/loss" not in golden:
        assert (release, case) == ("mgca", "_multi")
        return
    suffix = "_multi" if case == "_multi" else ""
    logits, target = golden[f"in/logits{suffix}"], golden[f"in/target{suffix}"].astype(np.float32)
    if case == "_one_image":
        logits, target = logits[:1], target[:1]
    if case in ("_empty_batch", "_full_batch"):
        target = np.full_like(target, case == "_full_batch")
    weight = jnp.ones(len(logits))

    def loss_of(logits):
        if release == "lovt":
            return losses.dice_of_batch(logits, jnp.asarray(target), weight=weight)
        return losses.mixed(
            logits,
            jnp.asarray(target),
            weight=weight,
            alpha=golden.scalar("in/config/mixed_alpha"),
            gamma=golden.scalar("in/config/mixed_gamma"),
        )

    loss, grads = jax.jit(jax.value_and_grad(loss_of))(jnp.asarray(logits))
    name = f"{release}{case}"
    reader.assert_close(loss, golden[f"out/{name}/loss"], rtol=VALUE_RTOL)
    reader.assert_close(grads, golden[f"grad/{name}/logits"], rtol=GRADIENT_RTOL)


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return reader.load_json(golden_dir, "downstream", "segmentation_metrics")


SUBSETS = ("all", "both_empty", "no_hit", "no_truth", "positives")


def counts_of(recorded, subset, *, inclusive=False):
    rows = recorded.get(f"in/subset/{subset}", None)
    if rows is None:
        nested = recorded.get("in/subset", {})
        rows = nested.get(subset, range(len(recorded["in/kind"])))
    probability = np.asarray(recorded["in/prob_times_256"], float)[list(rows)] / 256
    truth = np.asarray(recorded["in/mask"])[list(rows)]
    threshold = recorded["in/config/threshold"]
    return metrics.mask_counts(probability, truth, threshold=threshold, inclusive=inclusive)


def found_at(recorded, *names):
    """A recorded entry: the file joins some of its names by "/"."""
    place, rest = recorded, list(names)
    while rest:
        for length in range(len(rest), 0, -1):
            key = "/".join(rest[:length])
            if key in place:
                place, rest = place[key], rest[length:]
                break
        else:
            raise KeyError("/".join(names))
    return place


@pytest.mark.parametrize("subset", SUBSETS)
def test_pixel_scores_equal_lovt_s(recorded, subset):
    counts = counts_of(recorded, subset, inclusive=True)
    scores = metrics.pixel_scores(counts, weights=np.ones((1, len(counts.both))))
    released = {"dice": "dice", "precision": "precision", "recall": "recall"}
    for ours, theirs in released.items():
        expected = found_at(recorded, "out", "lovt", subset, "test", theirs)
        found = np.nan_to_num(scores[ours][0])  # the release has 0 where nothing can be divided
        assert abs(found - expected) <= TOLERANCE, ours
    old = found_at(recorded, "out", "lovt", subset, "test", "IoU_torchmetrics_0.4.1")
    assert abs(np.nan_to_num(scores["iou"][0]) - old) <= TOLERANCE
    # Of newer versions the background's row is 0, and what is called IoU is the recall.
    new = found_at(recorded, "out", "lovt", subset, "test", "IoU")
    assert abs(np.nan_to_num(scores["recall"][0]) - new) <= TOLERANCE


@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("release", ["gloria", "mgca"])
def test_dice_over_images_equals_gloria_s_and_mgca_s(recorded, release, subset):
    counts = counts_of(recorded, subset)
    expected = found_at(recorded, "out", release, subset, "mean_of_images")
    found = metrics.image_dice(counts, weights=np.ones((1, len(counts.both))))
    assert abs(found[0] - expected) <= TOLERANCE


@pytest.mark.parametrize("subset", SUBSETS)
def test_means_with_background_equal_mmsegmentation_s(recorded, subset):
    counts = counts_of(recorded, subset)
    found = metrics.with_background(counts, weights=np.ones((1, len(counts.both))))
    for ours, theirs in (("mdice", "Dice"), ("miou", "IoU")):
        expected = found_at(recorded, "out", "mmseg", subset, "mean", theirs)
        assert abs(found[ours][0] - expected) <= TOLERANCE, ours
