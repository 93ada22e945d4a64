"""Studies whose regions are known: bright shapes on black images, and boxes of three labels."""

import io

import numpy as np
from PIL import Image

from prior_jax.data import image, no_text, pipeline, region_targets, regions, schema
from prior_jax.data.tokenizer import TokenizerConfig
from tests import fixtures

PLAIN = image.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0)
TURNED = image.AugmentConfig(rotation_degrees=20.0, flip_probability=0.5)
BLACK = np.zeros((40, 60), np.uint8)
LEFT, RIGHT = (4.0, 8.0, 20.0, 32.0), (40.0, 8.0, 56.0, 32.0)  # boxes on such an image


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def shape_mask(rng, height, width, *, round_):
    """A rectangle of whole pixels, or an ellipse, at least 16 pixels long; and its box."""
    tall, wide = (int(rng.integers(16, max(side * 2 // 3, 17))) for side in (height, width))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    mask = np.zeros((height, width), bool)
    if not round_:
        mask[top : top + tall, left : left + wide] = True
        return mask, (float(left), float(top), float(left + wide), float(top + tall))
    y, x = np.mgrid[:height, :width] + 0.5
    y, x = (y - top - tall / 2) / (tall / 2), (x - left - wide / 2) / (wide / 2)
    mask = x**2 + y**2 <= 1
    return mask, regions.box_of_mask(mask)


def record(number, *, images, found, labels=(-2, -2, -2)):
    """A study of some images; `found` has (image, label, box or None, mask or None) of a region."""
    return schema.Record(
        study_id=f"s{number:05d}",
        subject_id=f"p{number:05d}",
        images=tuple(map(png, images)),
        image_ids=tuple(f"s{number:05d}_{i}" for i in range(len(images))),
        views=("PA",) * len(images),
        impression="",
        findings="",
        sentences=(),
        sentence_sections=(),
        labels=labels,
        text_source=schema.TEXT_NONE,
        region_images=tuple(one[0] for one in found),
        region_labels=tuple(one[1] for one in found),
        region_phrases=("",) * len(found),
        region_boxes=tuple(regions.NO_BOX if one[2] is None else one[2] for one in found),
        region_masks=tuple(
            b"" if one[3] is None else regions.encoded_mask(one[3]) for one in found
        ),
    )


def shapes(count, *, seed=0):
    """Studies of one or two images, one of which shows a rectangle (box) or an ellipse (mask)."""
    found = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        height, width = (int(side) for side in rng.integers(50, 141, 2))
        round_ = bool(number % 2)
        mask, box = shape_mask(rng, height, width, round_=round_)
        shown = np.where(mask, 220, 0).astype(np.uint8)
        images, place = [shown], 0
        if number % 3 == 0:  # the first image of the study shows nothing
            images, place = [np.zeros((64, 48), np.uint8), shown], 1
        region = (place, "Ball", None, mask) if round_ else (place, "Brick", box, None)
        found.append(record(number, images=images, found=[region]))
    return found


def mask_of(box):
    """The mask of a box on an image like `BLACK`."""
    return regions.mask_of_box(np.asarray(box), height=40, width=60)


def studies():
    """Twelve studies: 0 to 2 with boxes, 3 to 4 with masks, 5 with both kinds on two images."""
    found = [record(n, images=[BLACK], found=[(0, "A", LEFT, None)]) for n in range(2)]
    found.append(record(2, images=[BLACK], found=[(0, "A", LEFT, None), (0, "B", RIGHT, None)]))
    found += [record(n, images=[BLACK], found=[(0, "B", None, mask_of(RIGHT))]) for n in (3, 4)]
    several = [(1, "A", LEFT, None), (1, "A", RIGHT, None), (1, "C", LEFT, None)]
    found.append(record(5, images=[BLACK, BLACK + 50, BLACK + 99], found=several))
    return found + [record(n, images=[BLACK, BLACK], found=[]) for n in range(6, 12)]


def config_of(path, *, regions=None, size=48, augment=PLAIN, image_options=None, **changes):
    """The configuration of a pipeline that reads no reports."""
    values = dict(
        path=str(path),
        image=image.ImageConfig(
            size=size, channels=1, mean=(0.0,), std=(1.0,), **(image_options or {})
        ),
        augment=augment,
        batch_size=4,
        seed=3,
        workers=0,
        threads=2,
        prefetch=2,
        regions=regions,
    )
    section = {**no_text.SECTION, "tokenizer": TokenizerConfig(**no_text.SECTION["tokenizer"])}
    return pipeline.DataConfig(**(section | values | changes))


def targets(kind, classes=("Ball", "Brick"), **changes):
    values = dict(
        kind=kind, classes=classes, any_of=(), convert=True, train_images="all", test_images="all"
    )
    return region_targets.RegionConfig(**(values | changes))


def write(directory, train, **splits):
    splits = {"train": train, "validate": [], "test": []} | splits
    return fixtures.write_splits(directory, splits)
