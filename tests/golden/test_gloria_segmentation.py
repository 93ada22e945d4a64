"""Segmentation losses and dice against numbers recorded from GLoRIA's release, in float32."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.evaluate.segmentation import mask_dice, mean_dice
from prior_jax.losses.segmentation import (
    binary_cross_entropy,
    dice_losses,
    focal,
    mixed,
    soft_dice,
)
from tests.golden import reader

pytestmark = pytest.mark.golden

VALUE_RTOL = 1e-4
GRADIENT_RTOL = 1e-3


@pytest.fixture(scope="module")
def golden(golden_dir):
    return reader.load(golden_dir, "gloria", "segmentation_losses")


def release_dice(logits, target, **arguments):
    return dice_losses(logits, target, release=True, **arguments)


# What each recorded class computes; those of a batch are handed the weight of every image.
LOSSES = {
    "dice_loss_fn": soft_dice,
    "DiceLoss_mean": lambda x, t, weight: jnp.mean(release_dice(x, t)),
    "DiceLoss_sum": lambda x, t, weight: jnp.sum(release_dice(x, t)),
    "DiceLoss_none": lambda x, t, weight: release_dice(x, t),
    "FocalLoss": focal,
    "BCE": binary_cross_entropy,
}
# The same with arguments, which stand in the names.
NUMBER = r"(\d*\.?\d+)"
WITH_ARGUMENTS = {
    rf"DiceLoss_p{NUMBER}_smooth{NUMBER}": lambda power, smooth: (
        lambda x, t, weight: jnp.mean(release_dice(x, t, power=power, smooth=smooth))
    ),
    rf"FocalLoss_gamma{NUMBER}": lambda gamma: (
        lambda x, t, weight: focal(x, t, weight=weight, gamma=gamma)
    ),
    rf"build_loss_MixedLoss_alpha{NUMBER}": lambda alpha: mixed_of(alpha),
}


def mixed_of(alpha):
    return lambda x, t, weight: mixed(x, t, weight=weight, alpha=alpha)


def loss_named(name, golden):
    """The loss of a recorded name; MixedLoss alone was made with a recorded number."""
    if name == "MixedLoss":
        return mixed_of(golden.scalar("in/alpha"))
    for pattern, create in WITH_ARGUMENTS.items():
        if found := re.fullmatch(pattern, name):
            return create(*(float(number) for number in found.groups()))
    return LOSSES[name]


def check(golden, losses, logits, target):
    """Compares the values, and the gradients where recorded, of losses by recorded name."""
    logits, target = jnp.asarray(logits), jnp.asarray(target)
    weight = jnp.ones(logits.shape[:1], jnp.float32)

    def run(logits):
        values = {name: loss(logits, target, weight=weight) for name, loss in losses.items()}
        recorded = {name: value for name, value in values.items() if f"grad/{name}" in golden}
        return recorded, values

    values, grads = jax.jit(lambda x: (run(x)[1], jax.jacrev(lambda y: run(y)[0])(x)))(logits)
    for name in losses:
        reader.assert_close(values[name], golden[f"out/{name}"], rtol=VALUE_RTOL, name=name)
    for name, grad in grads.items():
        reader.assert_close(grad, golden[f"grad/{name}"], rtol=GRADIENT_RTOL, name=name)


@pytest.mark.parametrize(("kind", "target"), [("hard", "target"), ("soft", "soft_target")])
def test_losses(golden, kind, target):
    names = golden.prefix(f"out/{kind}/")
    losses = {f"{kind}/{name}": loss_named(name, golden) for name in names}
    check(golden, losses, golden["in/logit"], golden[f"in/{target}"])


def test_weighted_cross_entropy(golden):
    inputs = golden.prefix("in/bce_pw/")
    positive_weight = jnp.asarray(inputs["pos_weight"])

    def loss(logits):
        weight = jnp.ones(logits.shape[:1], jnp.float32)
        target = jnp.asarray(inputs["target"])
        return binary_cross_entropy(logits, target, weight=weight, positive_weight=positive_weight)

    value, grad = jax.jit(jax.value_and_grad(loss))(jnp.asarray(inputs["logit"]))
    reader.assert_close(value, golden["out/bce_pw/loss"], rtol=VALUE_RTOL)
    reader.assert_close(grad, golden["grad/bce_pw/logit"], rtol=GRADIENT_RTOL)


def test_extreme_logits(golden):
    inputs = golden.prefix("in/extreme/")
    losses = {f"extreme/{n}": loss_named(n, golden) for n in golden.prefix("out/extreme/")}
    check(golden, losses, inputs["logit"], inputs["target"])


def test_dice_of_masks(golden):
    for case in golden.cases("in/get_dice/"):
        inputs = golden.prefix(f"in/get_dice/{case}/")
        threshold = float(case.split("threshold_")[1]) if "threshold_" in case else 0.5
        values = mask_dice(inputs["prob"], inputs["truth"], threshold=threshold)
        # Each case is one batch: the mean over its images is the release's.
        for mean in (mean_dice(values), mean_dice(values, release_batch=len(values))):
            expected = golden[f"out/get_dice/{case}"]
            reader.assert_close(np.float64(mean), expected, rtol=VALUE_RTOL, name=case)
