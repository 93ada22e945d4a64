"""Converts examples to the values of the page's template: image URIs and pieces of text."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from prior_jax.evaluate.attention_map import spread
from prior_jax.report import charts, images, outlines
from prior_jax.report.examples import (
    AttentionExample,
    BankUsage,
    ReconstructionExample,
    RetrievalExample,
)

# Words too common to be meaningful when two reports share them.
_COMMON = frozenset(
    "a an and are as at by for from has have in is it no not of on or seen that the there this to "
    "was were which with without".split()
)
_MATCHES = {"pair": "same report", "class": "same class", "none": "no match"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its caption.

    Attributes:
      uri: `data:` URI of the picture.
      alt: alternative text that describes the picture.
      caption: sentence or name under the picture.
      note: number or range under the caption, or "".
    """

    uri: str
    alt: str
    caption: str
    note: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Pictures of one study.

    Attributes:
      title: title of the study.
      pictures: pictures from left to right.
    """

    title: str
    pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A retrieved report.

    Attributes:
      pieces: pieces of the report's text, cut where a word is shared with the true report: (text,
        shared).
      score: similarity, as text.
      match: relation to the query: "pair", "class" or "none".
      label: the relation in words.
    """

    pieces: Sequence[tuple[str, bool]]
    score: str
    match: str
    label: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalSheet:
    """An image and the reports that it retrieved.

    Attributes:
      picture: the query image.
      title: title of the study.
      report: report of the image itself.
      classes: classes of the image in one line.
      found: results, best first.
    """

    picture: Picture
    title: str
    report: str
    classes: str
    found: Sequence[Found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankSheet:
    """The use of the bank.

    Attributes:
      chart: chart of the shares.
      summary: summary in one sentence.
      rows: rows of the table: (prototype, share as text, its sentences).
    """

    chart: charts.Chart
    summary: str
    rows: Sequence[tuple[int, str, Sequence[str]]]


def attention_row(example: AttentionExample) -> PictureRow:
    """Draws the image, and then the image with the attention of each text over it.

    A finding that the text names is outlined where it is known to be.
    """
    picture = images.grey(example.image, limits=images.window(example.image))
    pictures = [
        Picture(
            uri=images.data_uri(picture),
            alt=f"Radiograph of {example.title}",
            caption="The image",
            note="",
        )
    ]
    truths = example.truth or (None,) * len(example.texts)
    for text, weights, truth in zip(example.texts, example.attention, truths, strict=True):
        heat = np.asarray(weights, np.float64).reshape(example.grid)
        drawn = spread(np.nan_to_num(heat, nan=0.0), shape=picture.shape, spacing=example.spacing)
        top = np.unravel_index(np.argmax(np.nan_to_num(heat, nan=-np.inf)), heat.shape)
        mapped = images.overlay(picture, drawn)
        pictures.append(
            Picture(
                uri=images.data_uri(mapped if truth is None else outlines.outlined(mapped, truth)),
                alt=(
                    f"Attention of “{text}” over {example.title}: strongest in "
                    f"row {top[0] + 1} of {heat.shape[0]}, column {top[1] + 1} of {heat.shape[1]}"
                    f"{'' if truth is None else '; the finding is outlined'}"
                ),
                caption=text,
                note=f"weights {heat.min():.3g} to {heat.max():.3g}",
            )
        )
    return PictureRow(title=example.title, pictures=pictures)


def reconstruction_row(example: ReconstructionExample) -> PictureRow:
    """Draws the input, its unmasked part and the reconstruction, in one grey window."""
    limits = images.window(example.image)
    error = np.abs(np.asarray(example.reconstruction, np.float64) - example.image).mean()
    panels = [("Input", example.image, ""), ("Shown to the model", example.shown, "")]
    panels.append(("Reconstruction", example.reconstruction, f"mean absolute error {error:.3g}"))
    return PictureRow(
        title=example.title,
        pictures=[
            Picture(
                uri=images.data_uri(images.grey(array, limits=limits)),
                alt=f"{name} of {example.title}",
                caption=name,
                note=note,
            )
            for name, array, note in panels
            if array is not None
        ],
    )


def retrieval_sheet(example: RetrievalExample) -> RetrievalSheet:
    """Arranges the image, its own report, and the retrieved ones with shared words marked."""
    picture = images.grey(example.image, limits=images.window(example.image))
    classes = ", ".join(example.classes)
    return RetrievalSheet(
        picture=Picture(
            uri=images.data_uri(picture),
            alt=f"Radiograph of {example.title}",
            caption="",
            note="",
        ),
        title=example.title,
        report=example.report,
        classes=classes,
        found=[
            Found(
                pieces=shared_words(found.text, example.report),
                score=f"{found.score:.3f}",
                match=found.match,
                label=_MATCHES[found.match],
            )
            for found in example.retrieved
        ],
    )


def shared_words(text: str, other: str) -> list[tuple[str, bool]]:
    """Cuts a text into pieces and marks words that the other text contains too.

    Args:
      text: text to cut.
      other: text whose words are searched for; case does not matter, common words never count.

    Returns:
      The pairs (piece, shared); the concatenated pieces are the text. Neighbouring shared words are
      one piece, with the blanks between them.
    """
    known = {word.lower() for word in re.findall(r"\w+", other)} - _COMMON
    pieces: list[tuple[str, bool]] = []
    for piece in re.findall(r"\w+|\W+", text):
        blank = piece.isspace() and bool(pieces) and pieces[-1][1]
        shared = blank or piece.lower() in known
        if pieces and pieces[-1][1] == shared:
            pieces[-1] = (pieces[-1][0] + piece, shared)
        else:
            pieces.append((piece, shared))
    return [part for piece in pieces for part in _blank_behind(piece)]


def _blank_behind(piece):
    """Moves a trailing blank out of a marked piece."""
    text, shared = piece
    bare = text.rstrip()
    return [piece] if not shared or bare == text else [(bare, True), (text[len(bare) :], False)]


def bank_sheet(usage: BankUsage) -> BankSheet:
    """Arranges the histogram of use, and the listed prototypes with their nearest sentences."""
    counts = np.asarray(usage.counts, np.float64)
    share = counts / max(counts.sum(), 1e-12)
    used = share[share > 0]
    perplexity = float(np.exp(-(used * np.log(used)).sum())) if used.size else 0.0
    return BankSheet(
        chart=charts.usage_chart("Use of the prototypes", counts),
        summary=(
            f"{used.size} of {counts.size} prototypes are used by {counts.sum():.0f} sentences; "
            f"the perplexity of the choice is {perplexity:.1f} "
            f"(1 means one prototype for all; {counts.size}, the broken line, even use)."
        ),
        rows=[(p.index, f"{100 * share[p.index]:.1f} %", p.sentences) for p in usage.prototypes],
    )
