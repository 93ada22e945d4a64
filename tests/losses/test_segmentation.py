import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.losses.segmentation import (
    binary_cross_entropy,
    dice_loss,
    dice_losses,
    focal,
    mixed,
    soft_dice,
)

LOSSES = [soft_dice, dice_loss, focal, mixed, binary_cross_entropy]


@pytest.fixture(scope="module")
def masks():
    """(logits, target, weight) of three images, the last one padding."""
    random = np.random.default_rng(0)
    logits = jnp.asarray(random.standard_normal((3, 4, 5)).astype(np.float32))
    target = jnp.asarray((random.random((3, 4, 5)) > 0.5).astype(np.float32))
    return logits, target, jnp.array([1, 1, 0], jnp.float32)


def ones(x):
    return jnp.ones(x.shape[:1], jnp.float32)


def test_a_perfect_mask_has_dice_one_and_loss_zero(masks):
    _, target, _ = masks
    sure = 60 * (2 * target - 1)
    np.testing.assert_allclose(soft_dice(sure, target, weight=ones(target)), 1, rtol=1e-6)
    np.testing.assert_allclose(dice_losses(sure, target), np.zeros(3), atol=1e-6)
    for loss in (dice_loss, focal, mixed, binary_cross_entropy):
        np.testing.assert_allclose(loss(sure, target, weight=ones(target)), 0, atol=1e-6)


def test_dice_of_half_a_mask():
    """Two pixels predicted, four true, two shared: 2 * 2 / 6, and V-Net's squares are the same."""
    target = jnp.ones((1, 4), jnp.float32)
    logits = jnp.array([[60, 60, -60, -60]], jnp.float32)
    dice = soft_dice(logits, target, weight=ones(target), smooth=0)
    np.testing.assert_allclose(dice, 4 / 6, rtol=1e-6)
    for power in (1, 2):
        loss = dice_losses(logits, target, smooth=0, power=power)
        np.testing.assert_allclose(loss, [2 / 6], rtol=1e-6)


def test_two_empty_masks_are_the_same():
    empty = jnp.zeros((1, 9), jnp.float32)
    sure = empty - 60
    np.testing.assert_allclose(soft_dice(sure, empty, weight=ones(empty)), 1, rtol=1e-6)
    np.testing.assert_allclose(dice_losses(sure, empty), [0], atol=1e-6)


def test_the_releases_dice_loss_of_a_perfect_mask_is_a_half():
    target = jnp.ones((1, 1000), jnp.float32)
    loss = dice_losses(target, target, release=True)  # logits of 1 are taken for probabilities
    np.testing.assert_allclose(loss, [0.5], atol=1e-3)


def test_the_power_counts_the_masks_of_unsure_pixels():
    logits, target = jnp.zeros((1, 8), jnp.float32), jnp.ones((1, 8), jnp.float32)
    for power, size in ((1, 8 * 1.5), (2, 8 * 1.25)):
        expected = 1 - (8 + 1) / (size + 1)
        np.testing.assert_allclose(dice_losses(logits, target, power=power), [expected], rtol=1e-6)


def test_dice_is_of_the_batch_and_the_dice_loss_of_each_image(masks):
    logits, target, _ = masks
    whole = soft_dice(logits.reshape(1, -1), target.reshape(1, -1), weight=jnp.ones(1))
    np.testing.assert_allclose(soft_dice(logits, target, weight=ones(target)), whole, rtol=1e-6)
    alone = [dice_losses(logits[i : i + 1], target[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(dice_losses(logits, target), alone, rtol=1e-6)
    loss = dice_loss(logits, target, weight=ones(target))
    np.testing.assert_allclose(loss, np.mean(alone), rtol=1e-6)


def test_focal_without_gamma_is_cross_entropy(masks):
    logits, target, weight = masks
    plain = binary_cross_entropy(logits, target, weight=weight)
    np.testing.assert_allclose(focal(logits, target, weight=weight, gamma=0), plain, rtol=1e-6)
    assert focal(logits, target, weight=weight) < plain


def test_focal_forgives_what_is_nearly_right():
    logits = jnp.log(jnp.array([[3.0]], jnp.float32))  # probability 3/4
    for target, wrong in ((1.0, 0.25), (0.0, 0.75)):
        value = focal(logits, jnp.full((1, 1), target, jnp.float32), weight=jnp.ones(1))
        np.testing.assert_allclose(value, -np.log(1 - wrong) * wrong**2, rtol=1e-6)


def test_mixed_is_the_weighted_sum_of_its_parts(masks):
    logits, target, weight = masks
    expected = 3 * focal(logits, target, weight=weight, gamma=1.5)
    expected -= np.log(soft_dice(logits, target, weight=weight))
    value = mixed(logits, target, weight=weight, alpha=3, gamma=1.5)
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_cross_entropy_of_a_coin_and_its_positive_weight():
    logits = jnp.log(jnp.array([[3.0, 3.0]], jnp.float32))  # probability 3/4
    target = jnp.array([[1, 0]], jnp.float32)
    yes, no = -np.log(0.75), -np.log(0.25)
    value = binary_cross_entropy(logits, target, weight=ones(target))
    np.testing.assert_allclose(value, (yes + no) / 2, rtol=1e-6)
    weighted = jnp.array([5, 7], jnp.float32)
    value = binary_cross_entropy(logits, target, weight=ones(target), positive_weight=weighted)
    np.testing.assert_allclose(value, (5 * yes + no) / 2, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_padded_images_change_neither_value_nor_gradient(masks, loss):
    logits, target, weight = masks
    run = jax.jit(jax.value_and_grad(lambda x, y, w: loss(x, y, weight=w)))
    value, grad = run(logits[:2], target[:2], weight[:2])
    for junk in (0.0, 1e30, np.nan):
        filled = [np.concatenate([x[:2], np.full_like(x[2:], junk)]) for x in (logits, target)]
        padded, padded_grad = run(*filled, weight)
        np.testing.assert_allclose(padded, value, rtol=1e-6)
        np.testing.assert_allclose(padded_grad[:2], grad, rtol=1e-5, atol=1e-8)
        assert not np.any(padded_grad[2])


@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_logits_have_finite_values_and_gradients(loss):
    logits = jnp.array([[-1e4, -200, 0, 200, 1e4]] * 2, jnp.float32)
    target = jnp.array([[0] * 5, [1] * 5], jnp.float32)
    run = jax.jit(jax.value_and_grad(lambda x: loss(x, target, weight=ones(target))))
    value, grad = run(logits)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


def test_bfloat16_logits_are_widened(masks):
    logits, target, weight = masks
    half = logits.astype(jnp.bfloat16)
    for loss in LOSSES:
        value = loss(half, target, weight=weight)
        assert value.dtype == jnp.float32
        exact = loss(half.astype(jnp.float32), target, weight=weight)
        np.testing.assert_allclose(value, exact, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_that_do_not_fit_are_refused_by_name(masks, loss):
    logits, target, weight = masks
    with pytest.raises(ValueError, match=r"target \(3, 4, 4\)"):
        loss(logits, target[:, :, :4], weight=weight)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        loss(logits, target, weight=weight[:2])


def test_a_positive_weight_of_other_classes_is_refused_by_name(masks):
    logits, target, weight = masks
    with pytest.raises(ValueError, match=r"positive_weight \(4,\) must have the shape \(5,\)"):
        binary_cross_entropy(logits, target, weight=weight, positive_weight=jnp.ones(4))
