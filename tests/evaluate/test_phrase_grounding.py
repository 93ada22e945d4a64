import math

import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import phrase_grounding as pg
from prior_jax.evaluate import similarity_map as sm
from prior_jax.evaluate.phrases import PhraseConfig

RULE = pg.GroundingRule()


def test_the_cosine_ignores_the_length_of_patches_and_the_dot_product_does_not():
    rng = np.random.default_rng(0)
    patches, text = rng.normal(size=(2, 6, 5)), rng.normal(size=(2, 5))
    longer = patches * rng.uniform(1, 9, (2, 6, 1))
    np.testing.assert_allclose(
        sm.patch_text_cosine(longer, text), sm.patch_text_cosine(patches, text)
    )
    dot = sm.patch_text_cosine(patches, text, normalise=False)
    np.testing.assert_allclose(dot[1, 2], patches[1, 2] @ text[1])
    assert np.abs(sm.patch_text_cosine(patches, text)).max() <= 1


def test_patches_without_length_and_images_without_patches():
    assert sm.patch_text_cosine(np.zeros((3, 4)), np.ones(4)).tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="hold no patch"):
        sm.patch_text_cosine(np.zeros((2, 0, 4)), np.ones((2, 4)))
    with pytest.raises(DataError, match="4 features and the text has 3"):
        sm.patch_text_cosine(np.zeros((3, 4)), np.ones(3))


def test_a_map_is_placed_where_its_patches_are():
    heat = np.zeros((4, 4))
    heat[1, 3] = 1
    pixels = sm.phrase_map(heat, shape=(40, 40), sigma=0.0)
    assert np.unravel_index(pixels.argmax(), pixels.shape) in [(14, 35), (15, 35)]
    assert pixels.min() == -1 and pixels.max() == 1


def test_scale_and_offset_of_the_similarity_change_nothing():
    heat = np.random.default_rng(1).normal(size=(7, 7))
    plain = sm.phrase_map(heat, shape=(48, 56), resize=64, crop=56)
    np.testing.assert_allclose(
        sm.phrase_map(300 * heat - 7, shape=(48, 56), resize=64, crop=56), plain, atol=1e-9
    )
    side = 42
    assert (~np.isnan(plain)).sum() == side**2
    mirrored = sm.phrase_map(heat[:, ::-1], shape=(48, 56), resize=64, crop=56)
    np.testing.assert_allclose(mirrored, plain[:, ::-1], atol=1e-9)  # the margins are even here


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_a_constant_similarity_gives_a_map_of_zeros(value):
    pixels = sm.phrase_map(np.full((7, 7), value), shape=(30, 30))
    assert (pixels == 0).all()
    mask = pg.boxes_to_mask([(0, 0, 10, 9)], shape=(30, 30))
    found = pg.phrase_values(pixels, mask, rule=RULE)
    assert found["pointing"] == pytest.approx(0.1) and found["cnr"] == 0 and found["miou"] == 0


def test_a_map_that_is_not_scaled_keeps_its_values_contrast_and_pointing():
    heat = 0.2 + 0.15 * np.random.default_rng(1).random((7, 7))
    shape, mask = (28, 28), pg.boxes_to_mask([(3, 5, 9, 8)], shape=(28, 28))
    plain, scaled = (sm.phrase_map(heat, shape=shape, scale=scale) for scale in ("none", "map"))
    assert 0.2 <= plain.min() <= plain.max() <= 0.35
    found, other = (pg.phrase_values(one, mask, rule=RULE) for one in (plain, scaled))
    assert found["iou_at_0.1"] == pytest.approx(mask.mean()) and other["iou_at_0.1"] < 0.9
    # No pixel is above 0.4 but those that scaling puts there.
    assert np.isnan(found["precision_at_0.4"]) and not np.isnan(other["precision_at_0.4"])
    for name in ("cnr", "cnr_signed", "pointing"):
        assert found[name] == pytest.approx(other[name])
    flat = sm.phrase_map(np.full((7, 7), 0.1), shape=shape, scale="none")
    assert (flat == 0.1).all()
    assert pg.pointing(flat, mask, ties="share") == pytest.approx(mask.mean())


def test_a_map_that_is_not_finite_or_a_crop_beyond_the_image_is_refused():
    with pytest.raises(DataError, match="1 values of the map"):
        sm.phrase_map(np.array([[np.inf, 0.0]]), shape=(4, 4))
    with pytest.raises(DataError, match="A crop of 9 pixels"):
        sm.phrase_map(np.eye(2), shape=(8, 8), crop=9)


def test_a_map_that_is_the_box_is_perfect_and_its_opposite_has_the_same_absolute_contrast():
    mask = pg.boxes_to_mask([(2, 3, 4, 5)], shape=(12, 12))
    assert mask.sum() == 20 and mask[3:8, 2:6].all()
    rng = np.random.default_rng(2)
    pixels = sm.to_unit_range(mask + 0.1 * rng.random(mask.shape))
    found = pg.phrase_values(pixels, mask, rule=RULE)
    assert found["miou"] == found["mdice"] == found["mrecall"] == found["pointing"] == 1
    opposite = pg.phrase_values(-pixels, mask, rule=RULE)
    assert opposite["cnr"] == pytest.approx(found["cnr"]) and opposite["cnr_signed"] < 0
    assert opposite["pointing"] == opposite["miou"] == 0


def test_overlapping_boxes_are_one_region_unless_the_release_is_asked_for():
    boxes = [(0, 0, 4, 4), (2, 0, 4, 4)]
    once = pg.boxes_to_mask(boxes, shape=(8, 8))
    added = pg.boxes_to_mask(boxes, shape=(8, 8), overlap="add")
    assert once.max() == 1 and added.max() == 2 and (once == (added > 0)).all()
    pixels = sm.to_unit_range(once + 0.01 * np.random.default_rng(3).random((8, 8)))
    fair = pg.phrase_values(pixels, once, rule=RULE)
    assert pg.phrase_values(pixels, added, rule=RULE) == fair
    release = pg.phrase_values(pixels, added, rule=pg.MACO)
    assert release["miou"] == fair["miou"] == 1
    assert release["mdice"] == pytest.approx(2 * 24 / (32 + 24)) and fair["mdice"] == 1
    assert release["mrecall"] < 1


def test_boxes_beyond_the_edge_are_cut_off():
    mask = pg.boxes_to_mask(
        [(-3, -3, 5, 4), (7, 7, 5, 5), (20, 1, 3, 3), (-9, 0, 2, 2)], shape=(8, 8)
    )
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1], [7, 7]]


def test_a_tie_scores_the_share_inside():
    pixels = np.array([[1.0, 1.0, -1.0, 1.0]])
    mask = np.array([[1, 0, 0, 0]])
    assert pg.pointing(pixels, mask, ties="share") == pytest.approx(1 / 3)
    assert pg.pointing(pixels, mask, ties="any") == 1


def test_unseen_boxes_are_left_out_of_class_means():
    values = {"miou": np.array([0.2, np.nan, 0.6]), "pointing": np.array([1.0, np.nan, 0.0])}
    rows = pg.class_rows(
        values, ["Edema", "Edema", "Lung Opacity"], weights=np.array([[1, 1, 1], [0, 2, 1]])
    )
    np.testing.assert_allclose(rows["miou_edema"], [0.2, np.nan])
    np.testing.assert_allclose(rows["macro_miou"], [0.4, 0.6])
    np.testing.assert_allclose(rows["pointing_lung_opacity"], [0, 0])


def test_a_mean_over_phrases_lacks_a_value_only_as_released():
    pixels, mask = np.full((4, 4), np.nan), np.ones((4, 4), int)
    pixels[:, :2] = np.arange(8).reshape(4, 2) / 3.5 - 1
    hidden = np.zeros((4, 4), int)
    hidden[:, 3] = 1
    for rule, finite in ((RULE, True), (pg.MACO, False)):
        each = [pg.phrase_values(pixels, m, rule=rule) for m in (mask, hidden)]
        found = pg.table(each, ["A", "A"], rule=rule)
        assert np.isfinite(found["iou"]).all() == finite
        assert np.isfinite(found["iou_cat"]).all()


def test_tables_are_rounded_only_where_asked():
    pixels = sm.to_unit_range(np.random.default_rng(4).normal(size=(9, 9)))
    mask = pg.boxes_to_mask([(1, 1, 3, 3)], shape=(9, 9))
    for digits in (None, 3):
        rule = pg.GroundingRule(digits=digits)
        found = pg.table([pg.phrase_values(pixels, mask, rule=rule)], ["A"], rule=rule)
        exact = found["cnr"].round(3) == found["cnr"]
        assert exact.all() == (digits == 3)
        assert len(found["iou"]) == len(rule.thresholds) + 1


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("overlap", "max"),
        ("ties", "one"),
        ("unseen", "0"),
        ("thresholds", ()),
        ("thresholds", (1.0,)),
    ],
)
def test_bad_rules_are_refused_by_name(field, bad):
    with pytest.raises(ConfigError, match=f"^{field}: The value is"):
        pg.GroundingRule(**{field: bad})


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        *(("prompt", f"Findings {one}.") for one in ("", "{x} {}", "{} {", "{{}}", "{0}", "{} {}")),
        *(("sigma", one) for one in (-1.0, math.inf, math.nan)),
    ],
)
def test_prompts_with_other_braces_and_widths_without_a_meaning_are_refused(field, bad):
    good = {"prompt": "Findings suggesting {}.", "sigma": 1.5}
    rest = {"heat": "auto", "centres": "tiles", "rule": RULE, "release": "none"}
    assert PhraseConfig(**good, **rest).prompt.format("edema") == "Findings suggesting edema."
    with pytest.raises(ConfigError, match=f"^{field}: The value is"):
        PhraseConfig(**{**good, field: bad}, **rest)


def test_a_mask_of_another_size_or_without_a_box_is_refused():
    with pytest.raises(DataError, match="size of the original image"):
        pg.phrase_values(np.zeros((4, 4)), np.ones((4, 5)), rule=RULE)
    with pytest.raises(DataError, match="no box inside"):
        pg.phrase_values(np.zeros((4, 4)), np.zeros((4, 4)), rule=RULE)
