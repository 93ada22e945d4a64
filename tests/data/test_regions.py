"""Boxes and masks go where the pixels of their image go, whatever is done to it."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.kit import images
from prior_jax.data import decode, fitting, gloria_image, regions
from prior_jax.data import image as image_lib
from prior_jax.errors import DataError


@st.composite
def drawn(draw, least=40, most=150, side=12):
    """A black image with a white rectangle, and the rectangle's box."""
    height, width = draw(st.integers(least, most)), draw(st.integers(least, most))
    x1 = draw(st.integers(0, width - side))
    y1 = draw(st.integers(0, height - side))
    x2, y2 = draw(st.integers(x1 + side, width)), draw(st.integers(y1 + side, height))
    pixels = np.zeros((height, width), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    return pixels, (x1, y1, x2, y2)


def encoded(pixels, kind="PNG", **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def widened(mask, pixels=1):
    """The mask with every pixel that is at most so many pixels from it."""
    padded = np.pad(mask, pixels)
    height, width = mask.shape
    steps = range(2 * pixels + 1)
    return np.logical_or.reduce(
        [padded[y : y + height, x : x + width] for y in steps for x in steps]
    )


def thick(mask, pixels):
    """The mask without the pixels that are at most so many pixels from its edge or the image's."""
    outside = np.pad(~mask, pixels, constant_values=True)
    return ~widened(outside, pixels)[pixels:-pixels, pixels:-pixels]


def agree(shown, transform, pixels, box, *, upright, slack=1):
    """The bright pixels of the changed image are where mask and box went, within a pixel.

    Of a region that is turned a sliver at the edge may be seen and not be in the mask, or not be
    seen and be in it. So may one whose box is narrower than a pixel, as its pixels are grey.
    """
    seen = np.asarray(shown, np.float64) >= 127.5
    assert seen.shape == transform.after and pixels.shape == transform.before
    mask = regions.moved_mask(pixels > 0, transform)
    sure = (seen, mask) if upright else (thick(seen, 1), thick(mask, slack))
    (moved,) = regions.moved_boxes(np.array([box]), transform)
    if np.isnan(moved).any():
        assert sure[0].sum() <= 1 and not mask.any()
        return
    assert (moved[:2] >= 0).all() and (moved[2:] <= transform.after[::-1]).all()
    if not upright or (moved[2:] - moved[:2]).min() >= 1:
        assert not (sure[0] & ~widened(mask, slack)).any()
        assert not (sure[1] & ~widened(seen, slack)).any()
        height, width = seen.shape
        inside = widened(regions.mask_of_box(moved, height=height, width=width), slack)
        assert not (sure[0] & ~inside).any()
    for found in (seen, mask) if upright else ():
        if found.any():
            assert np.abs(np.array(regions.box_of_mask(found)) - moved).max() <= slack


@settings(max_examples=60, deadline=None)
@given(drawn(), st.sampled_from(["PNG", "TIFF"]), st.integers(1, 8), st.integers(32, 160))
def test_preparation_moves_regions_as_it_moves_pixels(case, kind, orientation, short_side):
    pixels, box = case
    exif = Image.Exif()
    exif[0x0112] = orientation
    prepared = images.prepare_image(
        encoded(pixels, kind, exif=exif), short_side=short_side, quality=95
    )
    with Image.open(io.BytesIO(prepared.encoded)) as stored:
        agree(stored, prepared.place, pixels, box, upright=True)


@settings(max_examples=40, deadline=None)
@given(drawn(least=100, most=700, side=90), st.integers(1, 8), st.integers(32, 64))
def test_a_jpeg_that_is_shrunk_while_it_is_decoded_keeps_its_regions(case, orientation, short_side):
    pixels, box = case
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(pixels, "JPEG", quality=100, exif=exif)
    prepared = images.prepare_image(content, short_side=short_side, quality=95)
    with Image.open(io.BytesIO(prepared.encoded)) as stored:
        agree(stored, prepared.place, pixels, box, upright=True)
    shown, place = decode.placed(content, mode="L", name="x", short_side=short_side)
    agree(shown, place, pixels, box, upright=True)


@settings(max_examples=60, deadline=None)
@given(
    drawn(),
    st.integers(32, 160),
    st.floats(0, 180),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_evaluation_and_augmentation_move_regions_as_they_move_pixels(
    case, size, degrees, flip, seed
):
    pixels, box = case
    config = image_lib.AugmentConfig(rotation_degrees=degrees, flip_probability=flip)
    shown, decoding = image_lib.placed_decode(encoded(pixels), channels=1, size=size, name="x")
    square, resize = fitting.placed_resize(shown, size=size)
    agree(square, decoding.then(resize), pixels, box, upright=True)
    # Rotation takes single pixels of the square: an edge is sharp before it is turned.
    sharp = square.point(lambda level: 255 * (level > 127))
    turned, change = image_lib.placed_augment(sharp, config=config, rng=np.random.default_rng(seed))
    whole = decoding.then(resize).then(change)
    agree(turned, whole, pixels, box, upright=False, slack=2)
    # The augmented pixels are those of the mask, moved in the same way.
    moved = regions.moved_mask(np.asarray(sharp) > 0, change)
    seen = np.asarray(turned) > 0
    assert not (thick(seen, 1) & ~widened(moved)).any()
    assert not (thick(moved, 1) & ~widened(seen)).any()


@settings(max_examples=60, deadline=None)
@given(drawn(), st.integers(40, 160), st.floats(0.5, 1))
def test_gloria_s_fitting_and_cropping_move_regions_as_they_move_pixels(case, size, share):
    pixels, box = case
    agree(
        gloria_image.fit(pixels, size=size),
        gloria_image.fit_transform(pixels.shape, size=size),
        pixels,
        box,
        upright=True,
    )
    crop = max(int(size * share), 1)
    shown = gloria_image.encoder_input(pixels, size=size, crop=crop)[..., 0]
    place = gloria_image.encoder_input_transform(pixels.shape, size=size, crop=crop)
    agree((shown + 1) * 127.5, place, pixels, box, upright=True)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 8), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_turns_move_single_pixels_as_pillow_does(orientation, height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    turn = decode._TURNS.get(orientation)
    expected = mask if turn is None else np.asarray(Image.fromarray(mask).transpose(turn))
    transform = regions.turned(orientation, before=(height, width))
    np.testing.assert_array_equal(regions.moved_mask(mask, transform), expected)


def test_known_boxes():
    boxes = np.array([[2, 3, 6, 9], [-5, -5, 4, 4], [30, 30, 40, 40], [math.nan] * 4])
    same = regions.moved_boxes(boxes, regions.unchanged(height=20, width=10))
    np.testing.assert_array_equal(same[:2], [[2, 3, 6, 9], [0, 0, 4, 4]])
    assert np.isnan(same[2:]).all() and same.dtype == np.float32
    flip = regions.moved_boxes(boxes[:1], regions.flipped(height=20, width=10))
    np.testing.assert_array_equal(flip, [[4, 3, 8, 9]])
    half = regions.resized(before=(20, 10), after=(10, 20))
    np.testing.assert_array_equal(regions.moved_boxes(boxes[:1], half), [[4, 1.5, 12, 4.5]])
    quarter = regions.rotated(90, height=20, width=20)
    np.testing.assert_allclose(
        regions.moved_boxes(np.array([[2, 3, 6, 9]]), quarter), [[3, 14, 9, 18]], atol=1e-5
    )
    assert regions.moved_boxes(np.zeros((0, 4)), half).shape == (0, 4)


def test_changes_are_put_together_in_order_and_only_where_sizes_fit():
    first = regions.resized(before=(10, 10), after=(20, 40))
    second = regions.placed(top=1, left=-2, before=(20, 40), after=(30, 30))
    box = np.array([[1, 1, 5, 5]])
    two = regions.moved_boxes(regions.moved_boxes(box, first), second)
    np.testing.assert_allclose(regions.moved_boxes(box, first.then(second)), two)
    with pytest.raises(DataError, match=r"\(20, 40\)"):
        first.then(first)
    with pytest.raises(DataError, match="mask"):
        regions.moved_mask(np.zeros((3, 3), bool), first)


def test_a_small_mask_does_not_vanish_where_it_is_kept():
    mask = np.zeros((64, 64), bool)
    mask[1, 1] = True
    smaller = regions.resized(before=(64, 64), after=(8, 8))
    assert not regions.moved_mask(mask, smaller).any()
    np.testing.assert_array_equal(np.argwhere(regions.kept_mask(mask, smaller)), [[0, 0]])
    assert not regions.kept_mask(np.zeros((64, 64), bool), smaller).any()


@pytest.mark.parametrize("levels", [np.bool_, np.uint8])
def test_masks_survive_their_png(levels):
    mask = np.random.default_rng(0).random((7, 13)) < 0.5
    content = encoded((mask * 255).astype(np.uint8)) if levels is np.uint8 else None
    found = regions.decoded_mask(content or regions.encoded_mask(mask))
    np.testing.assert_array_equal(found, mask)
    assert found.dtype == bool


@pytest.mark.parametrize("content", [b"", b"PNG", encoded(np.zeros((4, 4, 3), np.uint8))])
def test_what_is_no_mask_is_refused_by_name(content):
    with pytest.raises(DataError, match="region 3"):
        regions.decoded_mask(content, name="region 3")
    assert regions.box_of_mask(np.zeros((3, 3), bool)) == regions.NO_BOX


def test_a_box_of_less_than_a_pixel_has_the_pixel_of_its_centre():
    def pixels(*box):
        return np.argwhere(regions.mask_of_box(np.array(box), height=8, width=9)).tolist()

    assert pixels(2.6, 3.6, 2.9, 3.9) == [[3, 2]]
    assert pixels(8.6, 7.6, 9.0, 8.0) == [[7, 8]]
    assert pixels(2.0, 3.0, 4.0, 4.0) == [[3, 2], [3, 3]]
    # A box outside of the image, one without an area and none at all have no pixel.
    assert pixels(9.1, 3.0, 9.4, 4.0) == pixels(2.0, 3.0, 2.0, 4.0) == pixels(*regions.NO_BOX) == []
