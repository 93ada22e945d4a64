"""The inputs of the report page: arrays and texts that were already computed."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from prior_jax.report.losses import Losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The contents of the page's header.

    Attributes:
      name: name of the run; of an evaluation alone, of the model and the sets.
      settings: config of the run as nested mappings; shown flattened.
      versions: versions, package -> version, and other facts needed to repeat the run.
      datasets: counts of each data set by its name, split -> {what: count}, e.g.
        {"nih": {"train": {"studies": 900, "images": 1100}}}.
      losses: losses that the run trains.
      lacking: sections of examples that the model cannot have, section -> reason; see
        `sections.lacking`.
    """

    name: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    datasets: Mapping[str, Mapping[str, Mapping[str, int]]]
    losses: Losses = dataclasses.field(default_factory=Losses)
    lacking: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionExample:
    """The attention of a report's sentences or words over its image.

    Attributes:
      title: title of the example, e.g. the id of the study.
      image: image, float[H, W], any range; shown between its 0.5th and 99.5th percentile.
      attention: attention of each text to each patch, float[T, P], >= 0, row-major over `grid`.
      grid: number of patches (rows, columns); their product is P.
      spacing: distance in pixels from one patch centre to the next, see
        `ShowsAttention.patch_spacing`.
      texts: texts of the T sentences or words.
      truth: masks of the findings that the texts name, T x bool[H, W]; None for a text that names
        none, or one whose place is not known; () if that is so of all texts.
    """

    title: str
    image: np.ndarray
    attention: np.ndarray
    grid: tuple[int, int]
    spacing: float
    texts: tuple[str, ...]
    truth: tuple[np.ndarray | None, ...] = ()

    def __post_init__(self):
        """Refuses arrays with inconsistent shapes."""
        _check_image("AttentionExample.image", self.image)
        wanted = (len(self.texts), self.grid[0] * self.grid[1])
        if np.shape(self.attention) != wanted:
            raise ValueError(
                f"AttentionExample.attention has shape {np.shape(self.attention)}. Its texts and "
                f"grid {self.grid} require the shape {wanted}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievedReport:
    """One result of a search.

    Attributes:
      text: text of the report.
      score: similarity, in the scale of the objective.
      match: relation to the query: "pair" for the image's own report (or an identical text),
        "class" for another report of the same class, "none" for neither.
    """

    text: str
    score: float
    match: Literal["pair", "class", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalExample:
    """The reports that an image retrieved from a gallery.

    Attributes:
      title: title of the example, e.g. the id of the study.
      image: image, float[H, W], any range.
      report: report of the image itself.
      classes: names of the image's positive classes.
      retrieved: results, best first.
    """

    title: str
    image: np.ndarray
    report: str
    classes: tuple[str, ...]
    retrieved: tuple[RetrievedReport, ...]

    def __post_init__(self):
        """Refuses an array that is not an image."""
        _check_image("RetrievalExample.image", self.image)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionExample:
    """An image, the part of it that the decoder received, and its reconstruction.

    Attributes:
      title: title of the example, e.g. the id of the study.
      image: image, float[H, W], any range; its grey window is used for all three.
      shown: input with its masked parts blank, float[H, W]; None if nothing was masked.
      reconstruction: reconstruction, float[H, W], in the units of `image`.
    """

    title: str
    image: np.ndarray
    shown: np.ndarray | None
    reconstruction: np.ndarray

    def __post_init__(self):
        """Refuses arrays that are not images of one size."""
        for field in ("image", "shown", "reconstruction"):
            array = getattr(self, field)
            if array is None:
                continue
            _check_image(f"ReconstructionExample.{field}", array)
            if np.shape(array) != np.shape(self.image):
                raise ValueError(
                    f"ReconstructionExample.{field} has shape {np.shape(array)}. It must have that "
                    f"of the image, {np.shape(self.image)}."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prototype:
    """One entry of the bank, represented by its nearest sentences.

    Attributes:
      index: row of the prototype in the bank.
      sentences: sentences that select the prototype most strongly, best first.
    """

    index: int
    sentences: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankUsage:
    """How often each prototype is selected.

    Attributes:
      counts: number of sentences that selected each prototype, float[K], >= 0.
      prototypes: prototypes to list, most used first.
    """

    counts: np.ndarray
    prototypes: tuple[Prototype, ...]

    def __post_init__(self):
        """Refuses invalid counts and prototypes that the bank does not have."""
        counts = np.asarray(self.counts)
        if counts.ndim != 1 or not counts.size or not (counts >= 0).all():
            raise ValueError(
                f"BankUsage.counts has shape {counts.shape}. It must hold numbers >= 0, [K]."
            )
        outside = [p.index for p in self.prototypes if not 0 <= p.index < counts.size]
        if outside:
            raise ValueError(
                f"BankUsage.prototypes has the indices {outside}. They must be 0 to "
                f"{counts.size - 1}."
            )


def _check_image(field, image):
    if np.ndim(image) != 2 or not np.size(image):
        raise ValueError(f"{field} has shape {np.shape(image)}. It must be an image [H, W].")
