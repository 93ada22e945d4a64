"""What the caller hands to the report: arrays and texts, already computed. It only draws."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The head of the page.

    Attributes:
      name: of the run.
      settings: the run's config as nested mappings; shown flat.
      versions: package -> version, and what else is needed to repeat the run.
      dataset: split -> {what: count}, e.g. {"train": {"studies": 900, "images": 1100}}.
    """

    name: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    dataset: Mapping[str, Mapping[str, int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionExample:
    """Where sentences or words of a report look in its image.

    Attributes:
      title: e.g. the study's id.
      image: float[H, W], any range; shown between its 0.5th and 99.5th percentile.
      attention: float[T, P], >= 0, of each text to each patch, row-major over `grid`.
      grid: (rows, columns) of patches; their product is P.
      spacing: pixels from one patch's centre to the next, see `ShowsAttention.patch_spacing`.
      texts: T sentences or words.
    """

    title: str
    image: np.ndarray
    attention: np.ndarray
    grid: tuple[int, int]
    spacing: float
    texts: tuple[str, ...]

    def __post_init__(self):
        """Refuses arrays that do not fit together."""
        _check_image("AttentionExample.image", self.image)
        wanted = (len(self.texts), self.grid[0] * self.grid[1])
        if np.shape(self.attention) != wanted:
            raise ValueError(
                f"AttentionExample.attention: got shape {np.shape(self.attention)}, "
                f"expected {wanted} from its texts and grid {self.grid}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievedReport:
    """One result of a search.

    Attributes:
      text: the report.
      score: similarity, as the objective scales it.
      match: "pair" the image's own report (or its very text), "class" another of the same
        class, "none" neither.
    """

    text: str
    score: float
    match: Literal["pair", "class", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalExample:
    """What an image brought out of a gallery of reports.

    Attributes:
      title: e.g. the study's id.
      image: float[H, W], any range.
      report: the image's own report.
      classes: names of the image's positive classes.
      retrieved: results, best first.
    """

    title: str
    image: np.ndarray
    report: str
    classes: tuple[str, ...]
    retrieved: tuple[RetrievedReport, ...]

    def __post_init__(self):
        """Refuses an array that is no image."""
        _check_image("RetrievalExample.image", self.image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionExample:
    """An image, what the decoder was shown of it, and what it drew.

    Attributes:
      title: e.g. the study's id.
      image: float[H, W], any range; its window is used for all three.
      shown: float[H, W], the input with its masked parts blank; None if nothing was masked.
      reconstruction: float[H, W], in the units of `image`.
    """

    title: str
    image: np.ndarray
    shown: np.ndarray | None
    reconstruction: np.ndarray

    def __post_init__(self):
        """Refuses arrays that are no images of one size."""
        for field in ("image", "shown", "reconstruction"):
            array = getattr(self, field)
            if array is None:
                continue
            _check_image(f"ReconstructionExample.{field}", array)
            if np.shape(array) != np.shape(self.image):
                raise ValueError(
                    f"ReconstructionExample.{field}: got shape {np.shape(array)}, expected that "
                    f"of the image, {np.shape(self.image)}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prototype:
    """One entry of the bank, as its nearest sentences show it.

    Attributes:
      index: its row in the bank.
      sentences: the sentences that choose it most strongly, best first.
    """

    index: int
    sentences: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankUsage:
    """How often each prototype is chosen.

    Attributes:
      counts: float[K], >= 0, sentences that chose it.
      prototypes: those to be listed, most used first.
    """

    counts: np.ndarray
    prototypes: tuple[Prototype, ...]

    def __post_init__(self):
        """Refuses counts that are none and prototypes the bank lacks."""
        counts = np.asarray(self.counts)
        if counts.ndim != 1 or not counts.size or not (counts >= 0).all():
            raise ValueError(f"BankUsage.counts: got {counts.shape}, expected [K] numbers >= 0")
        outside = [p.index for p in self.prototypes if not 0 <= p.index < counts.size]
        if outside:
            raise ValueError(
                f"BankUsage.prototypes: got {outside}, expected indices below {counts.size}"
            )


def _check_image(field, image):
    if np.ndim(image) != 2 or not np.size(image):
        raise ValueError(f"{field}: got shape {np.shape(image)}, expected [H, W]")
