"""Grounding: whether the attention of a finding's prompt falls on the finding.

The pointing game (Zhang et al., arXiv:1608.00507, sec. 4.1): a map is a hit if its maximum lies in
the finding's mask. It is compared with points that do not depend on the image: the better of the
two lungs' usual centres, the point midway between them, and a random pixel.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prior_jax import near_names
from prior_jax.data.fitting import WHOLE, Window
from prior_jax.errors import DataError
from prior_jax.evaluate import bootstrap, fixed_points, metrics, pictures, undefined
from prior_jax.evaluate.attention_map import spread
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens, Studies
from prior_jax.evaluate.fine_regions import OWN, AttentionConfig, grid_side, mirror, mirror_map
from prior_jax.evaluate.map_scores import attention_ratio, contrast_to_noise, pointing_hit
from prior_jax.evaluate.results import TaskResult
from prior_jax.types import Batch, ReportFeatures

RANKED = ("cnr", "attention_ratio")
"""Metric that ranks the pictures, and metric that ranks those of one value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The sentences whose attention is evaluated.

    Attributes:
      classes: names of the C findings.
      texts: texts of the Q sentences.
      tokens: tokens of the Q sentences.
      owner: finding that each sentence mentions, int32[Q], 0..C-1; each finding has at least one
        sentence.
      rows: rows of each sentence's local features that stand for the finding, Q tuples with at
        least one row each. Their maps are averaged, and then the maps of a finding's sentences.
      record: record that each sentence was written about, int32[Q]; the attention of the sentence
        is evaluated only in this record's image. None if every sentence is evaluated in every
        image. A record without a sentence about a finding does not count for that finding.
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    tokens: ReportTokens
    owner: np.ndarray
    rows: tuple[tuple[int, ...], ...]
    record: np.ndarray | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Located:
    """The locations of the findings in the square input images of the model.

    Attributes:
      masks: masks of the findings: finding -> record of the split -> bool[H, W], not empty; only
        where the finding is present.
      lungs: usual centres of the lungs: "left" and "right" (the patient's) -> (row, column), as
        shares of the image's height and width.
      windows: rows and columns of the model's image that show the stored image, by record, for a
        model whose images are padded to a square: its margins are no part of the image. A record
        that is absent shows the image everywhere.
    """

    masks: Mapping[str, Mapping[int, np.ndarray]]
    lungs: Mapping[str, tuple[float, float]]
    windows: Mapping[int, Window] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MirrorImages:
    """What `AttentionConfig.mirrored` needs beside the images and their sentences.

    Attributes:
      batches: batches of another pass over the split, in the same order; the images as they are.
      asked: the same sentences with left and right exchanged.
    """

    batches: Iterable[Batch]
    asked: Asked


def evaluate_grounding(
    encoder: Encoder,
    batches: Iterable[Batch],
    *,
    asked: Asked,
    located: Located,
    patients: Sequence[str] | np.ndarray,
    block: int,
    resampling: bootstrap.BootstrapConfig,
    attention: AttentionConfig = OWN,
    mirror_images: MirrorImages | None = None,
    radiograph: Callable[[int], pictures.Radiograph] | None = None,
) -> TaskResult:
    """Plays the pointing game on every record that has the finding.

    Args:
      encoder: encoder of the evaluated model, whose objective must show attention.
      batches: batches of one pass over the split.
      asked: prompts to evaluate.
      located: true locations of the findings.
      patients: patient of each record of the split, [records]; the bootstrap resamples patients.
      block: number of images whose attention is computed at once.
      resampling: settings of the bootstrap intervals.
      attention: grid of the regions that the sentences attend to, and whether the mirror images
        count as well.
      mirror_images: images and sentences for the mirror images; None unless `attention`
        asks for them.
      radiograph: function from the index of a record to its stored image; None for no pictures.

    Returns:
      The pictures of the best, the median and the worst findings of a record by `cnr`, and for each
      finding: `pointing_<class>`, the share of records whose maximum lies in the mask;
      `lung_centre_<class>`, the same for the better of the two lungs' usual centres, which is
      chosen in hindsight and therefore favoured; `gain_<class>`, the first minus the second;
      `middle_<class>`, the same for the point midway between the two centres; `random_<class>`, the
      same for a uniformly random pixel; `attention_ratio_<class>`, the attention in the mask
      divided by that of uniform attention; `cnr_<class>`, see `map_scores.contrast_to_noise`.
      `macro_<...>` are the means over findings.

    Raises:
      ConfigError: if the objective shows no attention, or the grid of regions does not fit it.
      DataError: if attention is not finite, or does not lie on a square grid.
    """
    if attention.mirrored != (mirror_images is not None):
        raise ValueError("mirror images are needed with attention.mirrored, and only then")
    studies = encoder.studies(batches, reports=False, attention=attention)
    maps = _maps(encoder, studies, asked, located, block=block)
    spacing = encoder.patch_spacing / attention.shifts
    if mirror_images is not None:
        cells = grid_side(studies.images.local.shape[1])
        turned = (
            dataclasses.replace(batch, image=mirror(batch.image, spacing=spacing, cells=cells))
            for batch in mirror_images.batches
        )
        found = encoder.studies(turned, reports=False, attention=attention)
        other = _maps(encoder, found, mirror_images.asked, located, block=block)
        maps = {place: (one + mirror_map(other[place])) / 2 for place, one in maps.items()}
    tables, sides = _tables(maps, studies.record, asked, located, spacing=spacing)
    shown: Sequence[pictures.PhrasePicture] = ()
    if radiograph is not None:
        shown = _shown(tables, maps, asked, located, studies.record, radiograph, spacing)
    groups = np.asarray(patients)[studies.record]
    counted = _count(tables, asked, sides, groups=groups, resampling=resampling)
    settings = {**counted.settings, "attention": dataclasses.asdict(attention)}
    return dataclasses.replace(counted, shown=shown, settings=settings)


def _check_rows(asked: Asked, reports: ReportFeatures) -> None:
    """Refuses rows that are not among the local features of their sentences."""
    for text, mask, rows in zip(asked.texts, reports.local_mask, asked.rows, strict=True):
        real = np.flatnonzero(mask).tolist()
        if not rows or not set(rows) <= set(real):
            raise DataError(
                f"The rows {rows} are none, or not all among those of the prompt's local features, "
                f"{real}.",
                "Give at least one row of these for every prompt.",
                where=f"rows of {text!r}",
            )


def _maps(
    encoder: Encoder,
    studies: Studies,
    asked: Asked,
    located: Located,
    *,
    block: int,
) -> dict[tuple[int, int], np.ndarray]:
    """Returns the mean map of a finding's sentences, float64[P], by image row and finding."""
    reports = encoder.prompts(asked.tokens, block=block)
    _check_rows(asked, reports)
    place = {int(record): row for row, record in enumerate(studies.record)}
    maps = {}
    for column, label in enumerate(asked.classes):
        present = sorted(place[record] for record in located.masks[label] if record in place)
        images, sentences = _pairs(asked, column, place=place, rows=present)
        if not len(images):
            continue
        each = _attention(encoder, studies.images, reports, images, sentences, asked, block=block)
        for row in np.unique(images).tolist():
            maps[row, column] = each[images == row].mean(axis=0)
    return maps


def _tables(
    maps, record: np.ndarray, asked: Asked, located: Located, *, spacing: float
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Compares every map with its mask.

    Returns:
      Each metric's value for each record and finding, float64[N, C], NaN where there is no map;
      and the side of each finding's better lung centre.
    """
    tables = {name: np.full((len(record), len(asked.classes)), np.nan) for name in _COLUMNS}
    sides: dict[str, str] = {}
    for column, label in enumerate(asked.classes):
        seen = [row for row, of in maps if of == column]
        if not seen:
            continue
        records = record[seen].tolist()
        found, sides[label] = _compare(
            np.stack([maps[row, column] for row in seen]),
            [located.masks[label][one] for one in records],
            [located.windows.get(one, WHOLE) for one in records],
            lungs=located.lungs,
            spacing=spacing,
        )
        for name, values in found.items():
            tables[name][seen, column] = values
    return tables, sides


def _shown(tables, maps, asked: Asked, located: Located, record, radiograph, spacing):
    """Returns the pictures of the best, the median and the worst findings of a record."""
    pairs, found = list(maps), []
    ranked = (np.array([tables[name][pair] for pair in pairs]) for name in RANKED)
    for choice in pictures.choose(*ranked):
        row, column = pairs[choice.index]
        label, one = asked.classes[column], int(record[row])
        mask = located.masks[label][one]
        heat = spread(_square(maps[row, column]), shape=mask.shape, spacing=spacing)
        window = located.windows.get(one, WHOLE)
        found.append(
            pictures.picture(
                choice,
                radiograph=radiograph(one),
                heat=heat[window],
                truth=mask[window],
                text=_said(asked, column, one),
                label=label,
                values={name: float(tables[name][row, column]) for name in (*RANKED, "pointing")},
            )
        )
    return tuple(found)


def _said(asked: Asked, column: int, record: int) -> str:
    """Returns the sentences about a finding in a record, or how many prompts ask for it."""
    about = np.flatnonzero(asked.owner == column).tolist()
    if asked.record is not None:
        own = (asked.texts[q] for q in about if asked.record[q] == record)
        return " ".join(dict.fromkeys(own))
    several = f"{len(about)} prompts for {asked.classes[column]}"
    return asked.texts[about[0]] if len(about) == 1 else several


_COLUMNS = ("pointing", "gain", "lung_centre", "middle", "random", "attention_ratio", "cnr")


def _pairs(
    asked: Asked, column: int, *, place: Mapping[int, int], rows: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which image rows are paired with which of a finding's sentences: int[K] twice."""
    about = np.flatnonzero(asked.owner == column)
    if asked.record is None:
        return np.repeat(np.asarray(rows, np.int64), len(about)), np.tile(about, len(rows))
    written = {int(q): place.get(int(asked.record[q])) for q in about}
    kept = [(row, q) for q, row in written.items() if row is not None and row in set(rows)]
    images, sentences = np.asarray(sorted(kept), np.int64).reshape(-1, 2).T
    return images, sentences


def _attention(encoder, images, reports, rows, sentences, asked: Asked, *, block) -> np.ndarray:
    """Computes each sentence's map in the image that it is paired with: float64[K, P]."""
    paired = jax.tree.map(lambda x: x[rows], images), jax.tree.map(lambda x: x[sentences], reports)
    attention = encoder.attention(*paired, block=block)
    return np.stack(
        [
            one[list(asked.rows[q])].astype(np.float64).mean(axis=0)
            for one, q in zip(attention, sentences, strict=True)
        ]
    )


def _compare(
    attention: np.ndarray,
    masks: Sequence[np.ndarray],
    windows: Sequence[Window],
    *,
    lungs: Mapping[str, tuple[float, float]],
    spacing: float,
) -> tuple[dict[str, np.ndarray], str]:
    """Returns each metric's value in each image, and the side of the better lung centre."""
    found: dict[str, Any] = {name: np.full(len(masks), np.nan) for name in _COLUMNS}
    parts = [mask[window] for mask, window in zip(masks, windows, strict=True)]
    hits = {
        name: np.array([fixed_points.at(part, point) for part in parts])
        for name, point in fixed_points.points_of(lungs).items()
    }
    side = fixed_points.better_side(hits)
    for index, mask in enumerate(masks):
        whole = spread(_square(attention[index]), shape=mask.shape, spacing=spacing)
        pixels, mask = whole[windows[index]], parts[index]
        found["pointing"][index] = pointing_hit(pixels, mask)
        found["attention_ratio"][index] = attention_ratio(pixels, mask)
        found["cnr"][index] = contrast_to_noise(pixels, mask)
        found["random"][index] = mask.mean()
    found["lung_centre"], found["middle"] = hits[side], hits["middle"]
    found["gain"] = found["pointing"] - found["lung_centre"]
    return found, side


def _square(attention: np.ndarray) -> np.ndarray:
    """Reshapes row-major float[P] to float[h, h]."""
    side = grid_side(len(attention))
    return attention.reshape(side, side)


def _sentences(asked: Asked) -> dict[str, Any]:
    """Lists the prompts of each finding; for sentences from reports, returns only their number."""
    about = {
        label: [t for t, o in zip(asked.texts, asked.owner, strict=True) if o == index]
        for index, label in enumerate(asked.classes)
    }
    if asked.record is None:
        return about
    return {label: f"{len(texts)} of the studies' own" for label, texts in about.items()}


def _count(tables, asked: Asked, sides, *, groups, resampling) -> TaskResult:
    near_names.check_classes(asked.classes, where="task.classes")
    names = [near_names.slug(label) for label in asked.classes]
    # Patients without any of the findings contribute nothing and are not drawn.
    counted = ~np.isnan(tables["pointing"]).all(axis=1)
    if not counted.any():
        raise DataError(
            f"No record of the split has a mask of one of the findings {', '.join(asked.classes)}.",
            "Choose a split or findings with such records.",
        )
    groups = groups[counted]
    tables = {name: table[counted] for name, table in tables.items()}

    def statistics(weights):
        found = {}
        for column, table in tables.items():
            each = {
                f"{column}_{name}": metrics.weighted_mean(table[:, index], weights=weights)
                for index, name in enumerate(names)
            }
            stacked = np.stack(list(each.values()), axis=-1)
            found |= {f"macro_{column}": metrics.mean_of_defined(stacked), **each}
        return found

    found = bootstrap.intervals(statistics, groups=groups, config=resampling)
    present = (~np.isnan(tables["pointing"])).sum(axis=0).tolist()
    return TaskResult(
        metrics=found,
        settings={
            "classes": list(asked.classes),
            "records": len(groups),
            "patients": len(np.unique(groups)),
            "positives": dict(zip(names, present, strict=True)),
            "sentences": _sentences(asked),
            "chance": fixed_points.chance_of(found),
            "better_lung": {near_names.slug(label): side for label, side in sides.items()},
            "undefined": dict.fromkeys(
                undefined.without_value(found),
                "no record has the finding, or its attention is 0 everywhere",
            ),
            "bootstrap": dataclasses.asdict(resampling),
        },
    )
