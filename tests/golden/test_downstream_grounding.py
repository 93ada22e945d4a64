"""Phrase grounding against what MaCo's own code returned, and BioViL's absolute contrast."""

import numpy as np
import pytest

from prior_jax import near_names
from prior_jax.evaluate import metrics, phrase_grounding, similarity_map
from tests.golden.reader import assert_close, load

pytestmark = pytest.mark.golden
VALUE, METRIC = 1e-4, 1e-6


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load(golden_dir, "downstream", "grounding")


def maps(recorded):
    return [name for name in recorded.cases("in/") if name.startswith("map")]


def heat(recorded, name, *, normalise=False):
    patches = recorded[f"in/{name}/patches"]
    found = similarity_map.patch_text_cosine(
        patches.reshape(-1, patches.shape[-1]), recorded[f"in/{name}/text"][0], normalise=normalise
    )
    return found.reshape(patches.shape[:2])


def setting(recorded, name, key):
    return recorded.scalar(f"in/config/{name}/{key}")


def geometry(recorded, name):
    return dict(
        shape=(setting(recorded, name, "height"), setting(recorded, name, "width")),
        resize=setting(recorded, name, "resize_size_0_is_none") or None,
        crop=setting(recorded, name, "crop_size_0_is_none") or None,
    )


def rule(recorded):
    thresholds = tuple(float(round(t, 6)) for t in recorded["in/config/thresholds"])
    return phrase_grounding.GroundingRule(
        thresholds=thresholds, overlap="add", ties="any", unseen="missed", digits=3
    )


def scaled(recorded, name):
    return similarity_map.phrase_map(
        heat(recorded, name),
        sigma=recorded.scalar("in/config/sigma"),
        **geometry(recorded, name),
    )


def values(recorded, name):
    return phrase_grounding.phrase_values(
        scaled(recorded, name), recorded[f"in/{name}/mask"], rule=rule(recorded)
    )


def test_the_filter_is_the_recorded_one(recorded):
    assert recorded.scalar("in/config/gaussian_mode") == "reflect"
    assert recorded.scalar("in/config/gaussian_truncate") == 4.0


def test_smoothed_maps_of_the_dot_product_and_of_the_cosine(recorded):
    sigma = recorded.scalar("in/config/sigma")
    for name in maps(recorded):
        smoothed = similarity_map.smooth(heat(recorded, name), sigma=sigma)
        assert_close(smoothed, recorded[f"out/{name}/smoothed"], rtol=VALUE, name=name)
        assert_close(smoothed, recorded[f"out64/{name}/smoothed"], rtol=METRIC, name=name)
        cosine = similarity_map.smooth(heat(recorded, name, normalise=True), sigma=sigma)
        assert_close(cosine, recorded[f"out/{name}/smoothed_of_cosine"], rtol=VALUE, name=name)


def test_maps_of_the_image_and_what_the_crop_removed(recorded):
    sigma = recorded.scalar("in/config/sigma")
    for name in maps(recorded):
        smoothed = similarity_map.smooth(heat(recorded, name), sigma=sigma)
        resized = similarity_map.to_image(smoothed, **geometry(recorded, name))
        for found, key in ((resized, "resized"), (scaled(recorded, name), "heatmap")):
            np.testing.assert_array_equal(np.isnan(found), recorded[f"out/{name}/is_nan"])
            expected = recorded[f"out/{name}/{key}_nan_is_0"]
            assert_close(np.nan_to_num(found), expected, rtol=VALUE, name=f"{name}/{key}")


def test_boxes_are_drawn_as_recorded(recorded):
    for name in maps(recorded):
        mask = recorded[f"in/{name}/mask"]
        drawn = phrase_grounding.boxes_to_mask(
            recorded[f"in/{name}/boxes_xywh"], shape=mask.shape, overlap="add"
        )
        np.testing.assert_array_equal(drawn, mask, err_msg=name)


def test_metrics_of_each_map(recorded):
    thresholds = rule(recorded).thresholds
    for name in maps(recorded):
        found, out = values(recorded, name), recorded.prefix(f"out/{name}/")
        for key in ("iou", "dice", "recall", "precision"):
            each = [found[f"{key}_at_{threshold:g}"] for threshold in thresholds]
            np.testing.assert_allclose(each, out[key], atol=METRIC, err_msg=f"{name}/{key}")
        np.testing.assert_allclose(found["miou"], out["miou"], atol=METRIC)
        np.testing.assert_allclose(found["cnr_signed"], out["cnr_signed"], atol=METRIC)
        np.testing.assert_allclose(found["cnr"], out["cnr_absolute"], atol=METRIC)
        exact = recorded[f"out64/{name}/cnr_signed"]
        np.testing.assert_allclose(found["cnr_signed"], exact, rtol=METRIC, err_msg=name)
        assert found["pointing"] == out["pointing"], name


def test_the_inverted_map_has_the_opposite_contrast(recorded):
    for name in maps(recorded):
        inverted = similarity_map.to_unit_range(-scaled(recorded, name))
        mask, out = recorded[f"in/{name}/mask"], recorded.prefix(f"out/{name}/inverted/")
        signed = phrase_grounding.contrast_to_noise(inverted, mask)
        np.testing.assert_allclose(signed, out["cnr_signed"], atol=METRIC)
        assert phrase_grounding.pointing(inverted, mask, ties="any") == out["pointing"], name


def test_several_maxima(recorded):
    pixels = recorded["in/tie/heatmap"].astype(np.float64)
    masks = [name for name in recorded.prefix("in/tie/") if name.startswith("mask_")]
    assert masks
    for name in masks:
        mask, case = recorded[f"in/tie/{name}"], name.removeprefix("mask_")
        found = phrase_grounding.pointing(pixels, mask, ties="any")
        assert found == recorded[f"out/tie/pointing_{case}"], case
        signed = phrase_grounding.contrast_to_noise(similarity_map.to_unit_range(pixels), mask)
        np.testing.assert_allclose(
            signed, recorded[f"out/tie/cnr_signed_{case}"], atol=METRIC, err_msg=case
        )


def test_a_flat_map_is_zero_where_the_release_stops(recorded):
    assert recorded.scalar("out/flat/iou_raises") and recorded.scalar("out/flat/cnr_raises")
    pixels = similarity_map.to_unit_range(recorded["in/flat/map"])
    mask = recorded["in/flat/mask"]
    found = phrase_grounding.phrase_values(pixels, mask, rule=rule(recorded))
    assert (pixels == 0).all()
    assert found["cnr"] == 0 and found["miou"] == 0
    # All pixels are the maximum: a hit for the release, the size of the finding by default.
    assert found["pointing"] == recorded.scalar("out/flat/pointing_of_2d_constant_map")
    fair = phrase_grounding.pointing(pixels, mask, ties="share")
    np.testing.assert_allclose(fair, (mask > 0).mean())


def test_boxes_outside_of_the_crop(recorded):
    """The recorded map is one whose crop removed all of this mask."""
    mask = recorded["in/outside/mask"]
    same = [name for name in maps(recorded) if recorded[f"in/{name}/mask"].shape == mask.shape]
    unseen = [name for name in same if not mask[~np.isnan(scaled(recorded, name))].any()]
    assert unseen
    for name in unseen:
        pixels = scaled(recorded, name)
        found = phrase_grounding.phrase_values(pixels, mask, rule=rule(recorded))
        steps = [f"iou_at_{threshold:g}" for threshold in rule(recorded).thresholds]
        np.testing.assert_array_equal(
            np.isnan([found[step] for step in steps]), recorded["out/outside/iou_is_nan"]
        )
        assert np.isnan(found["cnr_signed"]) == recorded.scalar("out/outside/cnr_is_nan")
        assert found["pointing"] == recorded.scalar("out/outside/pointing")
        fair = phrase_grounding.phrase_values(pixels, mask, rule=phrase_grounding.GroundingRule())
        assert all(np.isnan(value) for value in fair.values())


def test_the_margin_of_the_release(recorded):
    """Its defaults: 224 pixels, resized to 512 and cropped to 448."""
    rows, columns = similarity_map.visible((224, 224), resize=512, crop=448)
    side = rows.stop - rows.start
    removed = 224 * 224 - side * (columns.stop - columns.start)
    expected = recorded["out/set_margin/nan_rows_cols_left_top"].tolist()
    assert [columns.start, rows.start, removed] == expected


def test_boxes_in_the_padded_square(recorded):
    given = recorded["in/box_transfer/x_y_w_h_imagewidth_imageheight_scale"].tolist()
    for row, expected in zip(given, recorded["out/box_transfer"].tolist(), strict=True):
        *box, width, height, side = row
        found = phrase_grounding.box_in_padded_square(box, width=width, height=height, side=side)
        assert list(found) == expected


def test_means_over_classes(recorded):
    names = maps(recorded)
    each = [values(recorded, name) for name in names]
    categories = [setting(recorded, name, "category") for name in names]
    columns = {key: np.array([phrase[key] for phrase in each]) for key in each[0]}
    once = np.ones((1, len(names)))
    rows = phrase_grounding.class_rows(columns, categories, weights=once)
    out = recorded.prefix("out/aggregate/")
    for ours, theirs in (
        ("macro_miou", "miou_over_classes"),
        ("macro_cnr", "cnr_absolute_over_classes"),
        ("macro_cnr_signed", "cnr_signed_over_classes"),
        ("macro_pointing", "pointing_over_classes"),
    ):
        np.testing.assert_allclose(rows[ours][0], out[theirs], atol=METRIC, err_msg=ours)
    over_maps = metrics.mean_of_defined(columns["miou"])
    np.testing.assert_allclose(over_maps, out["miou_over_maps"], atol=METRIC)


def test_the_table_of_the_release(recorded):
    names = maps(recorded)
    categories = [setting(recorded, name, "category") for name in names]
    found = phrase_grounding.table(
        [values(recorded, name) for name in names], categories, rule=rule(recorded)
    )
    expected = recorded.prefix("out/table/")
    for key, column in expected.items():
        if key == "threshold":
            np.testing.assert_allclose(column, rule(recorded).thresholds)
            continue
        name, _, part = key.partition("_")
        ours = {"pg": "pointing"}.get(name, name)
        ours += f"_{part if part == 'cat' else near_names.slug(part)}" if part else ""
        np.testing.assert_allclose(found[ours], column, atol=METRIC, err_msg=key)
