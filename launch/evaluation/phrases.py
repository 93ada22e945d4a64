"""Runs the task "phrase_grounding": the phrases of a set's regions over its images."""

import collections
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from launch.evaluation import region_masks, too_few
from launch.evaluation.class_choice import excluded
from launch.evaluation.prompt_tokens import tokens_of
from launch.evaluation.radiographs import radiographs_of
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.tasks import PhraseTask
from prior_jax.data import regions
from prior_jax.data.schema import Record
from prior_jax.errors import ConfigError
from prior_jax.evaluate import phrases, prompts
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.phrase_grounding import Overlap
from prior_jax.evaluate.results import TaskResult


def measure_phrases(
    task: PhraseTask, encoder: Encoder, subject: Subject, opened: Callable[[str], Opened]
) -> TaskResult:
    """Measures one model; see `phrases.evaluate_phrases`.

    Raises:
      ConfigError: if the split has no region of enough phrases, or the objective shows no places.
    """
    data = opened(task.split)
    found = phrases_of(task, data)
    overlap = task.phrases.applied.overlap

    def truth(index: int) -> np.ndarray:
        one = found[index]
        return region_count(data.record(one.record), one, config=task.phrases, overlap=overlap)

    def batches():
        return subject.batches(data, batch_size=task.batch_size, require_text=False)

    measured = phrases.evaluate_phrases(
        encoder,
        subject.objective,
        batches,
        phrases=found,
        tokens=tokens_of(subject, data, [one.text for one in found]),
        truth=truth,
        size=subject.data.image.size,
        fit=subject.data.image.fit,
        lungs=region_masks.LUNGS,
        patients=data.patients,
        config=task.phrases,
        block=task.batch_size,
        resampling=task.bootstrap,
        radiograph=radiographs_of(data),
    )
    counted = {"regions_on_later_images": sum(data.later_regions)}
    return dataclasses.replace(measured, settings={**measured.settings, **counted})


def phrases_of(task: PhraseTask, data: Opened) -> tuple[phrases.Phrase, ...]:
    """Returns the phrases of the classes that have enough of them.

    Regions of one label and one phrase on the first image of a record are one phrase.

    Raises:
      ConfigError: if no class has enough phrases, or one of `task.classes` has none.
    """
    every = _every(task, data)
    counts = collections.Counter(prompts.canonical(one.label) for one in every)
    classes = _wanted(task, counts)
    absent = [name for name in task.classes if prompts.canonical(name) not in counts]
    if absent and every:
        labels = sorted({one.label for one in every})
        raise ConfigError(
            f"No region of split {task.split!r} is of {' or '.join(absent)}.",
            f"Set --task.classes to some of {', '.join(labels)}.",
            where="task.classes",
        )
    found = tuple(one for one in every if prompts.canonical(one.label) in classes)
    if not found:
        problem = f"No class of split {task.split!r} has {task.min_positives} phrases with a region"
        labels = sorted({one.label for one in every})
        if labels:
            problem += f"; the regions are of {', '.join(labels)}"
        elsewhere = region_masks.left_out(data, split=task.split)
        if elsewhere:
            problem += f"; {elsewhere}"
        first = " on the first image of a study" if elsewhere else ""
        prepare = f"Prepare a set with boxes or masks{first}"
        remedy = "Lower --task.min_positives" if labels else prepare
        raise ConfigError(
            f"{problem}.", f"{remedy}, or choose another --task.split.", where="task.classes"
        )
    return found


def phrases_left_out(task: PhraseTask, data: Opened) -> dict[str, str]:
    """Returns the reason for each class that has too few phrases."""
    if task.classes:
        return {}
    every = [one for one in _every(task, data) if not excluded(one.label, task)]
    counts = collections.Counter(prompts.canonical(one.label) for one in every)
    labels = sorted({one.label for one in every})
    counted = {label: {"phrase": counts[prompts.canonical(label)]} for label in labels}
    return too_few.reasons(counted, least=max(task.min_positives, 1), split=task.split)[1]


def _wanted(task: PhraseTask, counts: Mapping[str, int]) -> set[str]:
    excluded = {prompts.canonical(name) for name in task.exclude}
    if task.classes:
        return {prompts.canonical(name) for name in task.classes}
    least = max(task.min_positives, 1)
    return {name for name, count in counts.items() if count >= least} - excluded


def _every(task: PhraseTask, data: Opened) -> list[phrases.Phrase]:
    found: dict[tuple[int, str, str], phrases.Phrase] = {}
    for index in range(len(data.split)):
        record = data.record(index)
        for place, image in enumerate(record.region_images):
            if image:
                continue
            one = _phrase(index, record, place, config=task.phrases)
            found.setdefault((index, one.label, one.text), one)
    return [one for one in found.values() if _on_image(data.record(one.record), one, task.phrases)]


def _phrase(
    index: int, record: Record, place: int, *, config: phrases.PhraseConfig
) -> phrases.Phrase:
    label = record.region_labels[place]
    text = record.region_phrases[place] or config.prompt.format(label.replace("_", " ").lower())
    return phrases.Phrase(record=index, text=text, label=label)


def _on_image(record: Record, one: phrases.Phrase, config: phrases.PhraseConfig) -> bool:
    """Returns whether a region of the phrase has a pixel."""
    return bool(region_count(record, one, config=config, overlap="clip").any())


def region_count(
    record: Record, one: phrases.Phrase, *, config: phrases.PhraseConfig, overlap: Overlap
) -> np.ndarray:
    """Counts the regions of a phrase at each pixel of the stored image.

    Args:
      record: record of the phrase.
      one: the phrase.
      config: settings, which name regions without a phrase.
      overlap: value of pixels in several regions, see `phrase_grounding.GroundingRule`.

    Returns:
      int64[H, W]; at most 1 with "clip".
    """
    with Image.open(io.BytesIO(record.images[0])) as image:
        width, height = image.size
    found = np.zeros((height, width), np.int64)
    for place, image_index in enumerate(record.region_images):
        if image_index or _phrase(one.record, record, place, config=config) != one:
            continue
        found += _mask(record, place, height=height, width=width)
    return np.minimum(found, 1) if overlap == "clip" else found


def _mask(record: Record, place: int, *, height: int, width: int) -> np.ndarray:
    content = record.region_masks[place]
    if content:
        return regions.decoded_mask(content, name=f"mask of {record.study_id}")
    box: Sequence[float] = record.region_boxes[place]
    return regions.mask_of_box(np.asarray(box), height=height, width=width)
