"""The phrases that the report shows over their images: the best, the median and the worst."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from prior_jax.data import regions
from prior_jax.data.array_file import read_arrays
from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError, first_line

SUFFIX = ".pictures.npz"
"""End of the name of the file beside a task's results."""
EACH = 3
"""Number of phrases of each kind."""
SIDE = 256
"""Longest side of a kept image, in pixels; a smaller image is kept as it is."""

Kind = Literal["best", "median", "worst"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Levels of a kept map; the last number stands for pixels that the model did not see.
_LEVELS = 254
_UNSEEN = 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class Radiograph:
    """An image of a record, for people to look at.

    Attributes:
      title: name of the study.
      pixels: grey image, uint8[H, W].
    """

    title: str
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A phrase that was chosen to be shown.

    Attributes:
      kind: reason for the choice.
      index: index of the phrase.
      rank: rank of the phrase, 1 for the best.
      count: number of phrases that have a rank.
    """

    kind: Kind
    index: int
    rank: int
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhrasePicture:
    """A phrase, its map and its true region over the image.

    Attributes:
      choice: reason why the phrase is shown.
      text: the phrase.
      label: class that the phrase belongs to.
      title: name of the study.
      values: metrics of the phrase by name; the first one ranks the phrases.
      image: grey image, uint8[H, W].
      heat: map of the phrase, float32[H, W], from 0, the least, to 1, the most; NaN where the model
        saw nothing.
      truth: true region, bool[H, W].
    """

    choice: Choice
    text: str
    label: str
    title: str
    values: Mapping[str, float]
    image: np.ndarray
    heat: np.ndarray
    truth: np.ndarray

    def __post_init__(self):
        """Refuses arrays that are not of one size."""
        shape = np.shape(self.image)
        for field in ("heat", "truth"):
            if len(shape) != 2 or np.shape(getattr(self, field)) != shape:
                raise ValueError(
                    f"PhrasePicture.{field} has shape {np.shape(getattr(self, field))}. It must "
                    f"have that of the image, {shape}, which must be [H, W]."
                )


def choose(values: np.ndarray, second: np.ndarray, *, each: int = EACH) -> list[Choice]:
    """Chooses the best, the median and the worst phrases; the same values give the same choice.

    Args:
      values: metric of each phrase, float[N], more is better; NaN leaves the phrase out.
      second: metric that ranks phrases of one value, float[N]; NaN counts as the least. Phrases of
        one value in both stay in their order.
      each: largest number of phrases of each kind; of fewer than three times as many phrases a
        third is taken, and at least one.

    Returns:
      The best ones from the best on, the median ones, and the worst ones from the worst on. No
      phrase is in it twice.
    """
    values, second = np.asarray(values, np.float64), np.asarray(second, np.float64)
    known = np.flatnonzero(~np.isnan(values))
    least = np.nan_to_num(second[known], nan=-np.inf)
    order = known[np.lexsort((known, -least, -values[known]))].tolist()
    count = len(order)
    size = max(1, min(each, count // 3)) if count else 0
    middle = (count - size) // 2
    ranks: dict[Kind, range] = {
        "best": range(size),
        "worst": range(count - 1, count - 1 - size, -1),
        "median": range(middle, middle + size),
    }
    taken: set[int] = set()
    found: dict[Kind, list[Choice]] = {}
    for kind, places in ranks.items():  # one or two phrases have no median
        free = [place for place in places if place not in taken]
        taken |= set(free)
        found[kind] = [
            Choice(kind=kind, index=order[place], rank=place + 1, count=count) for place in free
        ]
    return [choice for kind in KINDS for choice in found[kind]]


def picture(
    choice: Choice,
    *,
    radiograph: Radiograph,
    heat: np.ndarray,
    truth: np.ndarray,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> PhrasePicture:
    """Brings image, map and region to one size.

    Args:
      choice: reason why the phrase is shown.
      radiograph: image as it is stored.
      heat: map of the phrase, float[H', W'], in any range, NaN where the model saw nothing. It
        covers the whole image, as `truth` does, whatever its size is.
      truth: number of true regions at each pixel, int[H'', W''] or bool[H'', W''].
      text: the phrase.
      label: class that the phrase belongs to.
      values: metrics of the phrase; the first one ranks the phrases.
    """
    height, width = radiograph.pixels.shape
    shrink = min(1.0, SIDE / max(height, width))
    after = max(1, round(height * shrink)), max(1, round(width * shrink))
    size = after[1], after[0]
    image = Image.fromarray(radiograph.pixels).resize(size, Image.Resampling.BILINEAR)
    mask = np.asarray(truth) > 0
    change = regions.resized(before=(mask.shape[0], mask.shape[1]), after=after)
    return PhrasePicture(
        choice=choice,
        text=text,
        label=label,
        title=radiograph.title,
        values=values,
        image=np.asarray(image),
        heat=_unit_range(_sampled(heat, after)),
        truth=regions.kept_mask(mask, change),
    )


def _sampled(heat: np.ndarray, after: tuple[int, int]) -> np.ndarray:
    """Returns the value of the map at the centre of each new pixel."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(after, heat.shape, strict=True)
    )
    return np.asarray(heat, np.float64)[rows[:, None], columns]


def _unit_range(heat: np.ndarray) -> np.ndarray:
    """Scales a map to 0 to 1; a constant one becomes 0."""
    seen = heat[~np.isnan(heat)]
    low, spread = (seen.min(), np.ptp(seen)) if seen.size else (0.0, 0.0)
    # Rounding in the interpolation does not count as a difference.
    even = spread <= 1e-6 * np.abs(seen).max(initial=0.0)
    scaled = np.where(np.isnan(heat), np.nan, 0.0) if even else (heat - low) / spread
    return scaled.astype(np.float32)


def save(path: pathlib.Path, shown: Sequence[PhrasePicture]) -> None:
    """Writes pictures to a file, atomically; no picture removes an older file.

    A map is kept in 255 levels, which the eye does not tell apart.
    """
    if not shown:
        path.unlink(missing_ok=True)
        return
    arrays: dict[str, Any] = {}
    for index, one in enumerate(shown):
        levels = np.rint(np.nan_to_num(one.heat) * _LEVELS)
        arrays[f"image_{index}"] = one.image
        arrays[f"heat_{index}"] = np.where(np.isnan(one.heat), _UNSEEN, levels).astype(np.uint8)
        arrays[f"truth_{index}"] = one.truth
    words = [
        {
            **dataclasses.asdict(one.choice),
            "text": one.text,
            "label": one.label,
            "title": one.title,
            "values": {k: None if np.isnan(v) else float(v) for k, v in one.values.items()},
        }
        for one in shown
    ]
    content = io.BytesIO()
    np.savez_compressed(content, words=np.array(json.dumps(words)), **arrays)
    write_atomically(path, content.getvalue())


def load(path: pathlib.Path) -> list[PhrasePicture]:
    """Reads the pictures that `save` wrote; none if there is no file.

    Raises:
      DataError: if the file is damaged; the error names it.
    """
    if not path.is_file():
        return []
    try:
        arrays = read_arrays(path)
        words = json.loads(str(arrays["words"]))
        return [_read(one, arrays, index) for index, one in enumerate(words)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"The pictures of the task cannot be read ({first_line(error)}).",
            "Delete the file, and run launch.evaluate again for this task.",
            where=str(path),
        ) from error


def _read(words: Mapping[str, Any], arrays: Mapping[str, np.ndarray], index: int) -> PhrasePicture:
    levels = arrays[f"heat_{index}"]
    heat = np.where(levels == _UNSEEN, np.nan, levels / _LEVELS).astype(np.float32)
    return PhrasePicture(
        choice=Choice(**{name: words[name] for name in ("kind", "index", "rank", "count")}),
        values={k: float("nan") if v is None else v for k, v in words["values"].items()},
        **{name: words[name] for name in ("text", "label", "title")},
        image=arrays[f"image_{index}"],
        heat=heat,
        truth=arrays[f"truth_{index}"],
    )
