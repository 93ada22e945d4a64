import numpy as np
import pytest

from prior_jax.evaluate.segmentation import mask_dice, mean_dice


def test_dice_counts_the_shared_pixels_twice():
    truth = np.array([[[1, 1], [1, 1]], [[1, 0], [0, 0]], [[1, 1], [0, 0]]], float)
    probability = np.array([[[0.9, 0.9], [0, 0]], [[0, 0.6], [0, 0]], [[0.6, 0.6], [0, 0]]])
    np.testing.assert_allclose(mask_dice(probability, truth), [2 * 2 / 6, 0, 1])


def test_without_a_true_mask_only_an_empty_prediction_is_right():
    truth = np.zeros((2, 4))
    probability = np.array([[0.1, 0.5, 0.2, 0.0], [0.1, 0.51, 0.2, 0.0]])
    np.testing.assert_array_equal(mask_dice(probability, truth), [1, 0])
    np.testing.assert_array_equal(mask_dice(probability, truth, threshold=0.6), [1, 1])


def test_an_empty_prediction_misses_a_true_mask():
    np.testing.assert_array_equal(mask_dice(np.zeros((1, 4)), np.eye(1, 4)), [0])


def test_soft_truth_is_cut_at_a_half():
    truth = np.array([[0.75, 0.5, 0.25, 0.0]])
    probability = np.array([[1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(mask_dice(probability, truth), [1])


def test_images_weigh_alike_unless_batches_of_the_release_do():
    values = np.array([1.0, 0.0, 0.5, 0.25, 1.0])
    assert mean_dice(values) == pytest.approx(0.55)
    assert mean_dice(values, release_batch=2) == pytest.approx((0.5 + 0.375 + 1) / 3)
    assert np.isnan(mean_dice(np.array([])))
    assert np.isnan(mean_dice(np.array([]), release_batch=2))


def test_bad_use_is_refused_by_name():
    with pytest.raises(ValueError, match=r"truth \(2, 3\)"):
        mask_dice(np.zeros((2, 4)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="1 probabilities are not numbers"):
        mask_dice(np.array([[np.nan, 0.0]]), np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"probability must lie .* goes from -2.0 to 0.0"):
        mask_dice(np.array([[-2.0, 0.0]]), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="truth must lie from 0 to 1, and goes from 0 to 255"):
        mask_dice(np.zeros((1, 2)), np.array([[0, 255]], np.uint8))
    with pytest.raises(ValueError, match="release_batch 0 must be"):
        mean_dice(np.zeros(3), release_batch=0)
