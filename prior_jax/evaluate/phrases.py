"""Measures phrase grounding: the map of each phrase over its image against the phrase's regions."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax import near_names
from prior_jax.data.fitting import Fit, margins
from prior_jax.errors import ConfigError, check_choice, check_field
from prior_jax.evaluate import (
    bootstrap,
    fixed_points,
    metrics,
    phrase_grounding,
    pictures,
    similarity_map,
    undefined,
)
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens, finite, to_host
from prior_jax.evaluate.fine_regions import grid_side
from prior_jax.evaluate.phrase_grounding import MACO, GroundingRule
from prior_jax.evaluate.results import TaskResult
from prior_jax.evaluate.similarity_map import Scale
from prior_jax.objectives.base import EmbedsPatches, Encodes, ShowsAttention
from prior_jax.types import Batch

Heat = Literal["auto", "attention", "cosine"]
Release = Literal["none", "maco"]
Centres = Literal["strides", "tiles"]
REPORTED = ("miou", "cnr", "cnr_signed", "pointing")
RANKED = ("miou", "cnr_signed")
"""Metric that ranks the phrases of the pictures, and metric that ranks those of one value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhraseConfig:
    """The maps of phrases, and how they are compared with regions.

    Attributes:
      prompt: sentence for a region without a phrase; "{}" stands for its label in lower case.
      heat: source of the map: "attention" of the phrase over patches, averaged over its words or
        sentences; "cosine" of every patch with the whole phrase; "auto" for the attention of an
        objective that has one, and the cosine otherwise. PRIOR, LoVT and MGCA have no cosine, as
        their patches are compared with no whole text.
      sigma: standard deviation of the smoothing in patches, 0 for none; BioViL 1.5.
      centres: "strides" lays patch i of a map of stride s on pixel i * s, where it lies with the
        padding of torch; "tiles" lays it in the middle of its tile, as the papers do (quirk C30).
      rule: thresholds and switches of the metrics; of `digits` only the table in the settings
        takes notice.
      scale: "map" scales each map by its own least and greatest value to the range -1 to 1 before
        the thresholds, as MaCo's release does; "none" keeps the values, such as the cosines of
        BioViL's. Contrast and pointing do not depend on it.
      release: "maco" does what MaCo's release does: dot products instead of cosines, boxes that
        add up, and the rest of `phrase_grounding.MACO`, where `rule` is left as it is. Its images
        are squashed without their boxes (quirk C23); ours keep both together.
    """

    prompt: str
    heat: Heat
    sigma: float
    centres: Centres
    rule: GroundingRule
    release: Release
    scale: Scale = "map"

    def __post_init__(self):
        """Refuses unknown choices and values without a meaning, and what a release would not do."""
        known = {"heat": Heat, "centres": Centres, "release": Release, "scale": Scale}
        for field, choices in known.items():
            check_choice(self, field, get_args(choices))
        check_field(self, "sigma", 0 <= self.sigma < math.inf, "finite and at least 0")
        before, _, after = self.prompt.partition("{}")
        one = "{}" in self.prompt and not set("{}") & set(before + after)
        check_field(self, "prompt", one, "a sentence with one {} and no other brace")
        if self.release != "none":
            check_field(
                self,
                "heat",
                self.heat in ("auto", "cosine"),
                "'auto' or 'cosine', as MaCo shows no attention",
            )
            check_field(self, "scale", self.scale == "map", "'map', as MaCo scales its maps")
            alike = self.rule in (GroundingRule(), self.applied)
            check_field(self, "rule", alike, "left out, as the release has a rule of its own")

    @property
    def applied(self) -> GroundingRule:
        """Returns the rule that is followed."""
        return MACO if self.release == "maco" else self.rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phrase:
    """A phrase about an image.

    Attributes:
      record: index of the record in its split.
      text: the phrase.
      label: class that the phrase belongs to.
    """

    record: int
    text: str
    label: str


def heat_of(objective: Encodes, config: PhraseConfig) -> Heat:
    """Returns "attention" or "cosine".

    Raises:
      ConfigError: if the attention is asked for of an objective that has none, or the cosine of one
        whose patches are compared with no report in training.
    """
    shows = isinstance(objective, ShowsAttention)
    heat = "cosine" if config.release == "maco" else config.heat
    if heat == "auto":
        heat = "attention" if shows else "cosine"
    if heat == "attention" and not shows:
        raise ConfigError(
            f"The objective {type(objective).__name__} has no attention of text over the image.",
            "Set --task.phrases.heat=cosine.",
            where="task.phrases.heat",
        )
    if heat == "cosine" and not isinstance(objective, EmbedsPatches):
        raise ConfigError(
            f"The objective {type(objective).__name__} never compares patches with whole reports, "
            "so that their cosine says nothing about the image.",
            "Set --task.phrases.heat=attention"
            + (" and --task.phrases.release=none." if config.release == "maco" else "."),
            where="task.phrases.heat",
        )
    return heat


def evaluate_phrases(
    encoder: Encoder,
    objective: Encodes,
    batches: Callable[[], Iterable[Batch]],
    *,
    phrases: Sequence[Phrase],
    tokens: ReportTokens,
    truth: Callable[[int], np.ndarray],
    size: int,
    fit: Fit = "stretch",
    lungs: Mapping[str, tuple[float, float]],
    patients: np.ndarray,
    config: PhraseConfig,
    block: int,
    resampling: bootstrap.BootstrapConfig,
    radiograph: Callable[[int], pictures.Radiograph] | None = None,
) -> TaskResult:
    """Compares the map of every phrase with its regions.

    Args:
      encoder: encoder of the model.
      objective: objective of the model.
      batches: function that starts one pass over the split.
      phrases: N phrases.
      tokens: tokens of the N phrases.
      truth: function from the index of a phrase to the number of its regions at each pixel of the
        stored image, int[H, W]. Called for one phrase after the other, so that one mask is in
        memory.
      size: side of the model's image in pixels.
      fit: how the model's image becomes a square; of margins the map shows nothing.
      lungs: usual centres of the lungs, see `grounding.Located`.
      patients: patient of each record of the split; the bootstrap resamples patients.
      config: settings of the maps and their comparison.
      block: number of images whose maps are computed at once.
      resampling: settings of the bootstrap intervals.
      radiograph: function from the index of a record to its stored image; None for no pictures.

    Returns:
      The pictures of the best, the median and the worst phrases by mIoU, phrases of one mIoU by
      their signed contrast; `macro_<metric>` and `<metric>_<class>` for `miou`, `cnr`,
      `cnr_signed` and `pointing`, and the points that do not depend on the image as in
      `grounding.evaluate_grounding`: `lung_centre`, `gain`, `middle`, `random`.

    Raises:
      ConfigError: for the reasons that `heat_of` lists.
      DataError: if a map is not finite, or not square.
    """
    how = heat_of(objective, config)
    reports = encoder.prompts(tokens, block=block)
    if how == "attention":
        heats = _attention(encoder, batches(), phrases, reports, block=block)
    else:
        normalise = config.release != "maco"
        heats = _cosine(encoder, objective, batches(), phrases, reports, normalise=normalise)
    maps = _Maps(heats=heats, side=grid_side(heats.shape[1]), size=size, fit=fit, config=config)
    rows, points = [], []
    for index in range(len(phrases)):
        mask = truth(index)
        rows.append(
            phrase_grounding.phrase_values(maps.over(index, mask), mask, rule=config.applied)
        )
        points.append(_points(mask, lungs))
    found = _result(
        rows,
        _baselines(points, phrases),
        phrases,
        groups=np.asarray(patients)[[phrase.record for phrase in phrases]],
        config=config,
        maps={"heat": how, "patches": [maps.side, maps.side]},
        resampling=resampling,
    )
    shown = () if radiograph is None else _shown(phrases, rows, truth, maps, radiograph)
    return dataclasses.replace(found, shown=shown)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Maps:
    """The maps of N phrases in the model's image.

    Attributes:
      heats: values of the patches, float64[N, P], in rows of `side`.
      side: number of patches along a side of the image.
      size: side of the image in pixels.
      fit: how the image becomes a square.
      config: smoothing, and the places of the patches.
    """

    heats: np.ndarray
    side: int
    size: int
    fit: Fit
    config: PhraseConfig

    def over(self, index: int, mask: np.ndarray) -> np.ndarray:
        """Lays the map of a phrase over its stored image, float[H, W], which `mask` covers."""
        shape = (mask.shape[0], mask.shape[1])
        shift = 0.5 - 0.5 / (self.size / self.side) if self.config.centres == "strides" else 0.0
        return similarity_map.phrase_map(
            self.heats[index].reshape(self.side, self.side),
            shape=shape,
            sigma=self.config.sigma,
            scale=self.config.scale,
            shift=shift,
            margins=margins(shape, self.fit),
        )


def _shown(phrases, rows, truth, maps: _Maps, radiograph) -> tuple[pictures.PhrasePicture, ...]:
    """Returns the pictures of the best, the median and the worst phrases."""
    found = []
    for choice in pictures.choose(*(np.array([row[n] for row in rows]) for n in RANKED)):
        one, mask = phrases[choice.index], truth(choice.index)
        found.append(
            pictures.picture(
                choice,
                radiograph=radiograph(one.record),
                heat=maps.over(choice.index, mask),
                truth=mask,
                text=one.text,
                label=one.label,
                values={name: rows[choice.index][name] for name in (*RANKED, "pointing")},
            )
        )
    return tuple(found)


def _attention(encoder, batches, phrases, reports, *, block) -> np.ndarray:
    """Returns the mean attention of each phrase's words or sentences, float64[N, P]."""
    studies = encoder.studies(batches, reports=False)
    place = {int(record): row for row, record in enumerate(studies.record)}
    rows = np.asarray([place[phrase.record] for phrase in phrases])
    found = []
    for start in range(0, len(rows), block):
        part = np.arange(start, min(start + block, len(rows)))
        images = jax.tree.map(lambda x, part=part: x[rows[part]], studies.images)
        texts = jax.tree.map(lambda x, part=part: x[part], reports)
        attention = encoder.attention(images, texts, block=block).astype(np.float64)
        real = texts.local_mask[:, :, None]
        counts = np.maximum(real.sum(axis=1), 1)
        found.append((attention * real).sum(axis=1) / counts)
    return np.concatenate(found)


def _cosine(encoder, objective, batches, phrases, reports, *, normalise) -> np.ndarray:
    """Returns the similarity of each phrase with the patches of its image, float64[N, P]."""
    embed = cast(EmbedsPatches, objective).embed_patches
    compiled = encoder.compiled(lambda model, image: embed(model, image).astype(jnp.float32))
    wanted: dict[int, list[int]] = {}
    for index, phrase in enumerate(phrases):
        wanted.setdefault(phrase.record, []).append(index)
    found: dict[int, np.ndarray] = {}
    for batch in batches:
        patches, record = to_host((compiled(batch.image), batch.record))
        for row, one in zip(record.tolist(), patches, strict=True):
            for index in wanted.get(row, ()):
                finite(one, f"record {row}")
                found[index] = similarity_map.patch_text_cosine(
                    one, reports.global_[index], normalise=normalise
                )
    return np.stack([found[index] for index in range(len(phrases))])


def _points(mask: np.ndarray, lungs: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Returns whether points that do not depend on the image lie in a mask."""
    places = fixed_points.points_of(lungs)
    found = {name: fixed_points.at(mask, point) for name, point in places.items()}
    return {"random": float((mask > 0).mean()), **found}


def _baselines(points: Sequence[Mapping[str, float]], phrases) -> dict[str, np.ndarray]:
    """Returns each baseline's value of each phrase; a class has the better lung of the two."""
    labels = np.asarray([phrase.label for phrase in phrases], dtype=object).astype(str)
    columns = {name: np.array([point[name] for point in points]) for name in points[0]}
    lung = np.zeros(len(points))
    for label in np.unique(labels):
        rows = labels == label
        hits = {name: column[rows] for name, column in columns.items()}
        lung[rows] = hits[fixed_points.better_side(hits)]
    return {"lung_centre": lung, "middle": columns["middle"], "random": columns["random"]}


def _result(rows, baselines, phrases, *, groups, config, maps, resampling) -> TaskResult:
    labels = [phrase.label for phrase in phrases]
    values = {name: np.array([row[name] for row in rows]) for name in REPORTED}
    values |= baselines
    values["gain"] = values["pointing"] - values["lung_centre"]

    def statistics(weights):
        return phrase_grounding.class_rows(values, labels, weights=weights)

    found = bootstrap.intervals(statistics, groups=groups, config=resampling)
    classes = sorted(set(labels))
    table = phrase_grounding.table(rows, labels, rule=config.applied)
    return TaskResult(
        metrics=found,
        settings={
            **dataclasses.asdict(config),
            "rule": dataclasses.asdict(config.applied),
            **maps,
            "classes": classes,
            "phrases": len(rows),
            "different_phrases": len({phrase.text for phrase in phrases}),
            "records": len({phrase.record for phrase in phrases}),
            "patients": len(np.unique(groups)),
            "positives": {near_names.slug(name): labels.count(name) for name in classes},
            "mean_over_phrases": {
                name: _json(float(metrics.mean_of_defined(column)))
                for name, column in values.items()
            },
            "table": {
                name: [_json(float(value)) for value in column] for name, column in table.items()
            },
            "chance": fixed_points.chance_of(found),
            "undefined": dict.fromkeys(
                undefined.without_value(found), "the model saw no region of the class"
            ),
            "bootstrap": dataclasses.asdict(resampling),
        },
    )


def _json(value: float) -> float | None:
    return None if np.isnan(value) else value
