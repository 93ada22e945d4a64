"""The drawn phrases: the outline lies on the finding after every change of the image."""

import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image

from launch.evaluation import phrases as phrases_lib
from prior_jax.data import regions
from prior_jax.evaluate import phrases, pictures, results
from prior_jax.evaluate.bootstrap import Interval
from prior_jax.evaluate.pictures import Choice, PhrasePicture
from prior_jax.report import page, phrase_sheets
from tests.evaluate.test_pictures import shown
from tests.launch.subjects import study
from tests.launch.test_phrases import CONFIG
from tests.report.pages import RUN, Reader

BOX = (60.0, 100.0, 140.0, 220.0)  # x1, y1, x2, y2 of a bright block in an image of 300 x 400


def synthetic():
    """A dark radiograph with one bright block."""
    pixels = np.zeros((300, 400), np.uint8)
    pixels[100:220, 60:140] = 255
    return pixels


def squashed(pixels):
    change = regions.resized(before=pixels.shape, after=(200, 200))
    return np.asarray(Image.fromarray(pixels).resize((200, 200), Image.Resampling.BOX)), change


def cropped(pixels):
    change = regions.placed(top=-50, left=-40, before=pixels.shape, after=(220, 250))
    return pixels[50:270, 40:290], change


def padded(pixels):
    change = regions.placed(top=50, left=0, before=pixels.shape, after=(400, 400))
    return np.pad(pixels, ((50, 50), (0, 0))), change


def enlarged(pixels):
    height, width = pixels.shape
    change = regions.resized(before=(height, width), after=(4 * height, 4 * width))
    return np.kron(pixels, np.ones((4, 4), np.uint8)), change


def chain(*steps):
    def change(pixels):
        place = regions.unchanged(height=pixels.shape[0], width=pixels.shape[1])
        for step in steps:
            pixels, one = step(pixels)
            place = place.then(one)
        return pixels, place

    return change


def edges(lit):
    """First and last row and column of the True pixels."""
    rows, columns = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    return np.array([rows[0], rows[-1], columns[0], columns[-1]])


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    "change",
    [chain(), squashed, cropped, padded, chain(padded, squashed), chain(cropped, enlarged)],
    ids=["as it is", "resize", "crop", "pad", "pad and resize", "crop and enlarge"],
)
def test_the_outline_lies_on_the_finding(change, mask):
    """The block is moved by Pillow and NumPy, its box by the record's regions."""
    pixels, place = change(synthetic())
    height, width = pixels.shape
    box = regions.moved_boxes(np.array([BOX]), place)[0]
    drawn_mask = regions.mask_of_box(box, height=height, width=width)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    record = dataclasses.replace(
        study(0),
        images=(content.getvalue(),),
        image_ids=("i",),
        views=("PA",),
        region_images=(0,),
        region_labels=("A",),
        region_phrases=("p",),
        region_boxes=(regions.NO_BOX if mask else tuple(box.tolist()),),
        region_masks=(regions.encoded_mask(drawn_mask) if mask else b"",),
    )
    one = phrases.Phrase(record=0, text="p", label="A")
    truth = phrases_lib.region_count(record, one, config=CONFIG, overlap="clip")
    found = pictures.picture(
        Choice(kind="best", index=0, rank=1, count=1),
        radiograph=pictures.Radiograph(title="s", pixels=pixels),
        heat=truth.astype(float),
        truth=truth,
        text="p",
        label="A",
        values={"miou": 1.0},
    )
    plain, mapped = phrase_sheets.drawn(found)
    size = plain.shape[1], plain.shape[0]
    seen = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)) > 127
    # The line of 2 pixels has one pixel outside of the block and one inside, and the halo is black.
    outside = edges((plain == 255).all(axis=-1))
    assert np.abs(outside - edges(seen) - np.array([-1, 1, -1, 1])).max() <= 1
    top, below, left, right = outside.tolist()
    middle = (top + below) // 2, (left + right) // 2
    assert (plain[top, left : right + 1] == 255).all()
    assert (plain[below, left : right + 1] == 255).all()
    assert (plain[top : below + 1, left] == 255).all()
    assert (plain[top : below + 1, right] == 255).all()
    assert (plain[top - 1, left : right + 1] == 0).all()
    assert (plain[top + 2, left + 2 : right - 1] == 0).all()
    # The cross is at the middle of the map's plateau, which is the block.
    assert mapped[middle].tolist() == [255, 60, 170]


def test_the_outline_of_a_region_at_the_edge_is_drawn_inside_the_image():
    truth = np.zeros((256, 256), bool)
    truth[:, :80] = True
    plain, _ = phrase_sheets.drawn(shown((256, 256), truth=truth))
    line = (plain == 255).all(axis=-1)
    assert line[:, 0].all() and line[0, :80].all() and line[-1, :80].all() and line[100, 79]


def test_what_the_model_did_not_see_is_dark_and_said():
    heat = np.random.default_rng(0).random((256, 256))
    heat[:, 200:] = math.nan
    one = shown((256, 256), heat=heat)
    one = dataclasses.replace(one, image=np.tile(np.arange(256, dtype=np.uint8)[:, None], 256))
    plain, mapped = phrase_sheets.drawn(one)
    for picture in (plain, mapped):
        assert picture[200, 230].max() < 0.5 * plain[200, 100].max()
    assert "did not see" in phrase_sheets.gallery([one]).lead
    assert "did not see" not in phrase_sheets.gallery([shown()]).lead


def test_words_say_where_the_map_and_the_region_are():
    heat = np.zeros((100, 100))
    heat[30, 70] = 1.0
    truth = np.zeros((100, 100), bool)
    truth[20:40, 60:80] = True
    sheet = phrase_sheets.sheet_of(shown((100, 100), heat=heat, truth=truth))
    assert "from 60 % to 80 % of the width and from 20 % to 40 % of the height" in sheet.plain_alt
    assert "at 70 % of the width and 30 % of the height, inside" in sheet.mapped_alt
    assert sheet.values == "mIoU 0.5, signed CNR –" and sheet.heading == "Best, rank 1 of 1"
    for value, said in ((1.0, "1"), (0.0291, "0.0291 (share of the greatest pixels)")):
        pointed = dataclasses.replace(
            shown((100, 100), heat=heat, truth=truth), values={"pointing": value}
        )
        assert phrase_sheets.sheet_of(pointed).values == f"pointing {said}"
    flat = phrase_sheets.sheet_of(shown((100, 100), heat=np.ones((100, 100)), truth=truth))
    assert "the same everywhere" in flat.mapped_alt


def test_the_page_is_redrawn_from_what_the_run_keeps(tmp_path):
    evil = "<script>alert(1)</script>"
    one = dataclasses.replace(shown(), text=evil)
    choices = [
        Choice(kind=kind, index=i, rank=i + 1, count=9) for i, kind in enumerate(pictures.KINDS * 3)
    ]
    kept: list[PhrasePicture] = [dataclasses.replace(one, choice=choice) for choice in choices]
    value = {"macro_miou": Interval(value=0.5, low=0.4, high=0.6)}
    found = results.TaskResult(metrics=value, settings={}, shown=kept)
    results.write_results(
        tmp_path, task="phrase_grounding", trained=found, untrained=found, settings={}
    )
    first = page.write_report(tmp_path, run=RUN).read_text()
    reader = Reader(first)
    assert "script" not in reader.tags and reader.text.count(f"“{evil}”") == 9
    assert sum(a.startswith("data:image/jpeg") for a in reader.addresses) == 18
    assert reader.unnamed == [] and "by mIoU, of 9 phrases" in reader.text
    assert page.write_report(tmp_path, run=RUN).read_text() == first
    few = phrase_sheets.gallery(
        pictures.load(tmp_path / "eval/phrase_grounding.pictures.npz"), each=1
    )
    assert [[one.heading.split(",")[0] for one in row] for row in few.rows] == [
        ["Best", "Median", "Worst"]
    ]
