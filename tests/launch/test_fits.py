"""Masks and maps of an evaluation go where the model's images go, however these become squares."""

import types

import numpy as np
import pytest

from launch.evaluation import region_masks
from prior_jax.data import fitting, pipeline, regions
from prior_jax.evaluate import grounding, similarity_map
from tests.data import region_sets

FITS = ("stretch", "pad", "pad_evenly")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    # Evaluation shows the first image of a study; here each has one.
    records = [one for one in region_sets.shapes(12, seed=1) if len(one.images) == 1]
    return region_sets.write(tmp_path_factory.mktemp("fits"), [], test=records)


@pytest.fixture(params=FITS)
def opened(prepared, tmp_path, request):
    config = region_sets.config_of(
        prepared,
        regions=region_sets.targets("masks"),
        size=40,
        image_options={"fit": request.param},
    )
    split = pipeline.open_split(config, "test", cache_dir=tmp_path)
    return types.SimpleNamespace(split=split, record=split.record, image=config.image)


def test_masks_of_grounding_are_those_that_a_model_learns(opened):
    found = region_masks.region_masks(opened, image=opened.image)
    seen = 0
    with opened.split.eval_batches(batch_size=3, require_text=False) as batches:
        for _, batch in batches:
            for row, number in enumerate(batch.record.tolist()):
                for index, label in enumerate(("Ball", "Brick")):
                    mask = found.get(label, {}).get(number, np.zeros((40, 40), bool))
                    np.testing.assert_array_equal(mask, batch.masks[row, ..., index])
                    seen += int(mask.any())
    assert seen == len(opened.split)


def test_the_window_of_a_record_holds_its_regions_and_no_margin(opened):
    windows = region_masks.seen_windows(opened, image=opened.image)
    if opened.image.fit == "stretch":
        assert windows == {}
        return
    assert len(windows) == len(opened.split)
    masks = region_masks.region_masks(opened, image=opened.image)
    for by_record in masks.values():
        for number, mask in by_record.items():
            outside = mask.copy()
            outside[windows[number]] = False
            assert not outside.any()
            height, width = region_masks.stored_shape(opened.record(number))
            part = mask[windows[number]]
            assert part.shape[0] / part.shape[1] == pytest.approx(height / width, rel=0.05)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(60, 90), (91, 60), (64, 64)])
def test_the_map_of_a_phrase_is_greatest_where_its_patch_saw_the_image(shape, fit):
    box = np.array([[0.55 * shape[1], 0.3 * shape[0], 0.85 * shape[1], 0.55 * shape[0]]])
    place = fitting.resize_transform(shape, size=64, fit=fit)
    patches = regions.mask_of_box(regions.moved_boxes(box, place)[0], height=64, width=64)
    heat = patches.reshape(8, 8, 8, 8).mean(axis=(1, 3))
    found = similarity_map.phrase_map(
        heat, shape=shape, sigma=0, margins=fitting.margins(shape, fit)
    )
    assert found.shape == shape and found.min() == -1 and found.max() == 1
    truth = regions.mask_of_box(box[0], height=shape[0], width=shape[1])
    assert truth[np.unravel_index(found.argmax(), shape)]
    rows, columns = np.nonzero(found > 0)
    x1, y1, x2, y2 = box[0]
    assert abs(rows.mean() - (y1 + y2) / 2) < 6 and abs(columns.mean() - (x1 + x2) / 2) < 6


def test_a_map_that_is_even_but_for_its_margins_is_even():
    heat = np.zeros((8, 8))
    heat[:2] = 9.0  # rows that show nothing but the margin above a wide image
    found = similarity_map.phrase_map(
        heat, shape=(20, 80), sigma=0, margins=fitting.margins((20, 80), "pad")
    )
    np.testing.assert_array_equal(found, np.zeros((20, 80)))


def test_grounding_looks_at_the_image_and_not_at_its_margins():
    """Attention is strongest in the margin; of what shows the image, in the finding."""
    attention = np.zeros((4, 4))
    attention[0] = 9.0
    attention[2, 1] = 4.0
    mask = np.zeros((16, 16), bool)
    mask[7:11, 3:7] = True
    window = fitting.seen_window((8, 16), size=16, fit="pad")
    assert window == (slice(4, 12), slice(0, 16))
    lungs = {"right": (0.5, 0.25), "left": (0.5, 0.75)}  # of the image: in the window's row 4
    found, side = grounding._compare(
        attention.reshape(1, -1), [mask], [window], lungs=lungs, spacing=4.0
    )
    assert found["pointing"][0] == 1.0 and side == "right"
    assert found["lung_centre"][0] == 1.0
    assert found["random"][0] == mask.sum() / (8 * 16)
    whole, _ = grounding._compare(
        attention.reshape(1, -1), [mask], [fitting.WHOLE], lungs=lungs, spacing=4.0
    )
    assert whole["pointing"][0] == 0.0 and whole["random"][0] == mask.mean()
