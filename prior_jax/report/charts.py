"""Charts as SVG in `data:` URIs, each drawn for a light and for a dark page."""

import base64
import dataclasses
import io
import re
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of one theme. Line and accent are from Okabe and Ito's colour-blind safe set.

    Attributes:
      ink: colour of text and axes.
      faint: colour of the grid and of the raw line under the smoothed one.
      band: background colour of every other stage.
      line: colour of the main line.
      accent: colour of the second line.
    """

    ink: str
    faint: str
    band: str
    line: str
    accent: str


FEW_RECORDS = 10
"""Number of records below which the point of a reliability curve is hollow."""
LIGHT = Theme(ink="#3d4450", faint="#d5d9e0", band="#eef1f6", line="#0072b2", accent="#d55e00")
DARK = Theme(ink="#b9c1cf", faint="#3a4150", band="#222835", line="#56b4e9", accent="#e69f00")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart of the page.

    Attributes:
      title: heading of the chart.
      light: `data:` URI for a light page.
      dark: `data:` URI for a dark page.
      alt: alternative text that describes the chart.
    """

    title: str
    light: str
    dark: str
    alt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A range of steps trained in one stage.

    Attributes:
      name: name of the stage.
      first: first logged step of the stage.
      last: last logged step of the stage.
    """

    name: str
    first: float
    last: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """Values over steps; a step without a value is left out.

    Attributes:
      steps: steps, float[N], increasing, N >= 1.
      values: values, float[N], finite.
    """

    steps: np.ndarray
    values: np.ndarray


def line_chart(
    title: str,
    train: Series,
    *,
    held_out: Series | None,
    stages: Sequence[Stage],
    logarithmic: bool,
    marked: bool = False,
) -> Chart:
    """Draws a line over all steps, with the stages shaded behind it.

    Args:
      title: heading of the chart.
      train: values logged in training; if dense, they are drawn faint, with a smoothed line in full
        colour. Of more than 600 values of a stage the extremes of each part are drawn.
      held_out: values of the validation split, drawn as marked points; None if there are none.
      stages: stages in order; the axis also includes the steps of stages without values of this
        series.
      logarithmic: whether the value axis is logarithmic.
      marked: whether `train` are a few measurements, each of which is a point, joined by thin
        straight lines and never smoothed.

    Returns:
      The chart.
    """

    def draw(axes: Axes, theme: Theme):
        _shade(axes, stages, theme)
        if marked:
            axes.plot(
                train.steps, train.values, "o-", color=theme.accent, markersize=3.5, lw=0.7,
                clip_on=False,  # the last point lies on the edge
            )  # fmt: skip
        else:
            _draw_train(axes, train, stages, theme)
        if held_out is not None:
            axes.plot(
                held_out.steps, held_out.values, "o--", color=theme.accent, markersize=3.5, lw=1.0,
                clip_on=False,
            )  # fmt: skip
        _scale(axes, theme, logarithmic=logarithmic)

    values = train.values
    alt = (
        f"{title} over steps {train.steps[0]:g} to {train.steps[-1]:g}: first {values[0]:.4g}, "
        f"last {values[-1]:.4g}, lowest {values.min():.4g}, highest {values.max():.4g}."
    )
    return _chart(title, alt, draw)


def usage_chart(title: str, counts: np.ndarray) -> Chart:
    """Draws the share of each prototype's choices, most used first, and the even share as a line.

    Args:
      title: heading of the chart.
      counts: number of choices of each prototype, float[K], >= 0.

    Returns:
      The chart.
    """
    share = np.sort(np.asarray(counts, np.float64))[::-1]
    share = 100.0 * share / max(share.sum(), 1e-12)
    even = 100.0 / share.size

    def draw(axes: Axes, theme: Theme):
        rank = np.arange(share.size + 1) + 0.5
        axes.stairs(share, rank, fill=True, color=theme.line, lw=0)
        axes.axhline(even, color=theme.accent, lw=1.2, ls="--")
        axes.set_xlim(0.5, share.size + 0.5)
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("prototypes, most used first", color=theme.ink, fontsize=8)
        axes.set_ylabel("% of sentences", color=theme.ink, fontsize=8)

    alt = (
        f"{title}: the most used prototype has {share[0]:.1f} % of the sentences, "
        f"{int((share > 0).sum())} of {share.size} are used; even use would be {even:.2f} %."
    )
    return _chart(title, alt, draw, width=7.2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityPoints:
    """The points of a reliability curve, one for each bin that has a record.

    Attributes:
      edges: lower and upper edge of each bin, float[N, 2], 0 to 1; N >= 1.
      predicted: mean probability of the records of each bin, float[N].
      observed: share of them that is positive, float[N].
      low: lower end of the interval of that share, float[N]; NaN where there is none.
      high: upper end of that interval, float[N]; NaN where there is none.
      records: number of records of each bin, float[N], > 0.
    """

    edges: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    records: np.ndarray


def reliability_chart(title: str, points: ReliabilityPoints, *, alt: str) -> Chart:
    """Draws the observed share over the predicted probability, and the diagonal it should lie on.

    Args:
      title: heading of the chart.
      points: points of the curve; pale bars show the share of the records in each bin, of which the
        tallest is a fifth of the chart. Points of fewer than `FEW_RECORDS` records are hollow.
      alt: alternative text that describes the chart.

    Returns:
      The chart.
    """

    def draw(axes: Axes, theme: Theme):
        share = 0.2 * points.records / points.records.max()
        left, right = points.edges.T
        axes.bar(left, share, width=right - left, align="edge", color=theme.faint, lw=0)
        axes.plot([0, 1], [0, 1], "--", color=theme.accent, lw=1.0)
        axes.vlines(points.predicted, points.low, points.high, color=theme.line, lw=1.0)
        # A line from point to point would make much of bins with few records.
        for many, filled in ((True, theme.line), (False, "none")):
            rows = (points.records >= FEW_RECORDS) == many
            axes.plot(
                points.predicted[rows], points.observed[rows], "o", markersize=4, mew=1.0,
                markerfacecolor=filled, markeredgecolor=theme.line, clip_on=False,
            )  # fmt: skip
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
        axes.set_xlabel("predicted", color=theme.ink, fontsize=8)
        axes.set_ylabel("observed", color=theme.ink, fontsize=8)

    return _chart(title, alt, draw, width=2.3)


def _shade(axes, stages, theme):
    for number, stage in enumerate(stages):
        if number % 2 == 0:
            axes.axvspan(stage.first, stage.last, color=theme.band, lw=0, zorder=0)
        axes.text(
            (stage.first + stage.last) / 2,
            1.02,
            stage.name,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=7,
            color=theme.ink,
            alpha=0.85,
        )
    if stages:
        axes.set_xlim(stages[0].first, max(stages[-1].last, stages[0].first + 1))


def _scale(axes: Axes, theme: Theme, *, logarithmic: bool):
    """Sets the axis of the values, and that of the steps."""
    if logarithmic:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
        # Placed beside the axis, because the names of the stages are above it.
        axes.yaxis.get_offset_text().set(color=theme.ink, fontsize=7, x=-0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("step", color=theme.ink, fontsize=8)


def _draw_train(axes, train, stages, theme):
    """Draws one stage at a time: no line connects values of different stages."""
    spans = [(stage.first, stage.last) for stage in stages] or [(-np.inf, np.inf)]
    for number, (first, last) in enumerate(spans):
        after = train.steps >= first if number == 0 else train.steps > spans[number - 1][1]
        inside = after & (train.steps <= last)
        steps, values = train.steps[inside], train.values[inside]
        if steps.size > 30:
            smooth = _smooth(values)
            pale, strong = _shown(values), _shown(smooth)
            axes.plot(steps[pale], values[pale], color=theme.line, lw=0.7, alpha=0.3)
            axes.plot(steps[strong], smooth[strong], color=theme.line, lw=1.6)
        else:
            marker = "o" if steps.size == 1 else None
            axes.plot(
                steps, values, color=theme.line, lw=1.6, marker=marker, markersize=3, clip_on=False
            )


def _shown(values, most=600):
    """Returns the places of a line that are drawn, so that the picture of a long run stays small.

    Of a longer line than `most` they are those of the least and the greatest value of each part.
    """
    if values.size <= most:
        return np.arange(values.size)
    parts = np.array_split(np.arange(values.size), most // 2)
    return np.unique([(p[values[p].argmin()], p[values[p].argmax()]) for p in parts])


def _smooth(values):
    """Averages over a centred window of a twentieth of the line."""
    half = max(1, values.size // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(values.size)
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, values.size)
    return (sums[high] - sums[low]) / (high - low)


def _chart(title, alt, draw: Callable[[Axes, Theme], None], *, width=4.4) -> Chart:
    light, dark = (_svg(draw, theme, width) for theme in (LIGHT, DARK))
    return Chart(title=title, light=light, dark=dark, alt=alt)


def _svg(draw, theme, width) -> str:
    # A fixed salt keeps the ids, and therefore the file, the same from run to run.
    with matplotlib.rc_context({"svg.hashsalt": "prior_jax", "svg.fonttype": "path"}):
        figure = Figure(figsize=(width, 2.3), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        axes.grid(axis="y", color=theme.faint, lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(theme.faint)
        axes.tick_params(which="both", colors=theme.ink, labelsize=8, length=0)
        draw(axes, theme)
        file = io.BytesIO()
        canvas.print_svg(file, metadata={"Date": None, "Creator": None})
    # The document type and the metadata only hold URIs that nothing needs.
    text = re.sub(
        r"<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", file.getvalue().decode(), flags=re.S
    )
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode("ascii")
