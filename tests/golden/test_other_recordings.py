"""Files of the same form with other cases, sizes and settings: the tests read what they say."""

import numpy as np
import pytest

from tests.golden import reader, test_gloria_image, test_gloria_segmentation, test_prior_adamw

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("alpha", [3.0, 0.5])
def test_the_weight_of_the_mixed_loss_is_read(golden_dir, alpha):
    """alpha * focal - log(dice), put together from what was recorded of both."""
    golden = dict(reader.load(golden_dir, "gloria", "segmentation_losses"))
    golden["in/alpha"] = np.array(alpha, np.float32)
    for kind in ("hard", "soft"):
        dice, focal = (golden[f"out/{kind}/{name}"] for name in ("dice_loss_fn", "FocalLoss"))
        golden[f"out/{kind}/MixedLoss"] = alpha * focal - np.log(dice)
        dice_grad, focal_grad = (
            golden[f"grad/{kind}/{name}"] for name in ("dice_loss_fn", "FocalLoss")
        )
        golden[f"grad/{kind}/MixedLoss"] = alpha * focal_grad - dice_grad / dice
        target = "target" if kind == "hard" else "soft_target"
        altered = reader.Golden(golden, "altered")
        test_gloria_segmentation.test_losses(altered, kind, target)
        golden[f"out/{kind}/MixedLoss"] = golden[f"out/{kind}/MixedLoss"] * 1.01
        with pytest.raises(AssertionError, match="MixedLoss"):
            test_gloria_segmentation.test_losses(reader.Golden(golden, "wrong"), kind, target)


@pytest.mark.parametrize(("power", "smooth", "gamma"), [(1, 2.0, 1.5), (2, 1.0, 2.0)])
def test_arguments_of_losses_are_read_from_their_names(power, smooth, gamma):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 4)).astype(np.float32)
    target = (rng.random((3, 5, 4)) < 0.4).astype(np.float32)
    golden = reader.Golden({"in/alpha": np.array(1.0)}, "made")
    weight = np.ones(3, np.float32)
    share = 1 / (1 + np.exp(-logits.astype(np.float64)))
    right = np.where(target > 0, share, 1 - share)
    name = f"FocalLoss_gamma{gamma:g}"
    found = test_gloria_segmentation.loss_named(name, golden)(logits, target, weight=weight)
    expected = np.mean(-((1 - right) ** gamma) * np.log(right))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    name = f"DiceLoss_p{power}_smooth{smooth:g}"
    found = test_gloria_segmentation.loss_named(name, golden)(logits, target, weight=weight)
    direct = test_gloria_segmentation.release_dice(logits, target, power=power, smooth=smooth)
    np.testing.assert_allclose(found, np.mean(direct), rtol=1e-6)


def enlarging(size):
    """float64[299, size]: linear interpolation, corners on corners."""
    places = np.linspace(0, size - 1, test_gloria_image.UPSAMPLE)
    return np.stack([np.interp(places, np.arange(size), row) for row in np.eye(size)], axis=1)


def test_other_sizes_and_steps_of_resized_images_are_read():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 3, 6, 9)).astype(np.float32)
    rows, columns = enlarging(6), enlarging(9)
    whole = np.einsum("hi,bcij,wj->bchw", rows, image, columns)
    places = np.arange(test_gloria_image.UPSAMPLE)
    cotangent = np.sin(0.2 * places)[:, None] * np.cos(0.05 * places)[None, :]
    gradient = np.broadcast_to(rows.T @ cotangent @ columns, image.shape)
    golden = {
        "in/first": image,
        "in/second_of_some_size": image[:1],
        "out/first": whole,
        "out/second_every3rd_row_11th_col": whole[:1, :, ::3, ::11],
        "grad/first_cot_is_sin(0.2i)cos(.05j)": gradient,
    }
    made = reader.Golden(golden, "made")
    test_gloria_image.test_upsampling(made)
    test_gloria_image.test_gradients_of_upsampling(made)
    golden["out/first"] = whole + 0.01
    with pytest.raises(AssertionError, match="first"):
        test_gloria_image.test_upsampling(reader.Golden(golden, "wrong"))


def test_another_number_of_updates_is_read(golden_dir):
    golden = dict(reader.load(golden_dir, "prior", "adamw"))
    case = min(name.split("/")[1] for name in golden)
    last = max(name for name in golden if name.startswith(f"in/{case}/g"))
    steps = int(last.rsplit("g", 1)[1])
    del golden[last], golden[f"out/{case}/p{steps + 1}"]
    golden[f"out/{case}/unused{steps}"] = golden.pop(f"out/{case}/unused{steps + 1}")
    test_prior_adamw.check(reader.Golden(golden, "shorter"), case)
