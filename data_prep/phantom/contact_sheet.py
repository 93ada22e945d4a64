"""Draws a contact sheet of a phantom's images, with one row for each kind of finding.

python -m data_prep.phantom.contact_sheet --data=DIR --out=sheet.png --tile=192 --columns=8 --masks
"""

import json
import pathlib

import numpy as np
from absl import app, flags
from PIL import Image, ImageDraw

from data_prep import drawn_regions
from data_prep.kit import cli
from data_prep.phantom import cases
from prior_jax.errors import DataError

_FLAGS = flags.FLAGS


def draw_sheet(data: pathlib.Path, *, tile: int, columns: int, masks: bool) -> Image.Image:
    """Draws a sheet with one row for each kind of finding, and a last row for normal chests.

    Args:
      data: directory of a complete phantom.
      tile: pixels of a tile's side.
      columns: number of images in a row.
      masks: whether to tint the finding of each row.

    Returns:
      An RGB image.

    Raises:
      DataError: if `data` holds no phantom.
    """
    index = data / "phantom" / "findings.jsonl"
    if not index.exists():
        raise DataError(
            f"{data} holds no complete phantom: {index} is missing.",
            "Give a folder that data_prep.phantom drew to the end.",
            where="--data",
        )
    rows: dict[str, list[dict]] = {kind: [] for kind in (*cases.KINDS, "No Finding")}
    with index.open() as lines:
        for image in map(json.loads, lines):
            kinds = {finding["label"] for finding in image["findings"]} or {"No Finding"}
            if image["mask"] is not None:
                for kind in kinds:
                    if len(rows[kind]) < columns:
                        rows[kind].append(image)
    sheet = Image.new("RGB", (columns * tile, len(rows) * tile))
    for row, (kind, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            place = (column * tile, row * tile)
            sheet.paste(_tile(data, image, kind, tile=tile, masks=masks), place)
    return sheet


def _tile(data, image, kind, *, tile, masks) -> Image.Image:
    pixels = np.asarray(Image.open(data / image["path"]).convert("RGB")).copy()
    shown = [finding for finding in image["findings"] if finding["label"] == kind]
    if masks and shown:
        regions = drawn_regions.read_regions(data / image["mask"])
        region = np.any([regions[finding["bit"]] for finding in shown], axis=0)
        pixels[region, 0] = np.minimum(pixels[region, 0].astype(int) + 70, 255)
    drawn = Image.fromarray(pixels)
    drawn.thumbnail((tile, tile))
    words = " ".join(f"{f['size']} {f['side']} {f['zone']}" for f in shown)
    ImageDraw.Draw(drawn).text((2, 1), f"{image['view']} {kind} {words}", fill=(255, 255, 0))
    return drawn


def _define_flags() -> None:
    flags.DEFINE_string("data", None, "Directory of a complete phantom.", required=True)
    flags.DEFINE_string("out", None, "Path of the PNG to write.", required=True)
    flags.DEFINE_integer("tile", 192, "Pixels of a tile's side.", lower_bound=16)
    flags.DEFINE_integer("columns", 8, "Number of images in a row.", lower_bound=1)
    flags.DEFINE_bool("masks", False, "Tint the finding of each row.")


def main() -> None:
    """Writes the sheet."""
    sheet = draw_sheet(
        pathlib.Path(_FLAGS.data), tile=_FLAGS.tile, columns=_FLAGS.columns, masks=_FLAGS.masks
    )
    sheet.save(_FLAGS.out)


if __name__ == "__main__":
    _define_flags()
    app.run(lambda argv: cli.guarded(main, argv), flags_parser=cli.parse_flags)
