"""Measures whether a model's attention lies on the findings that its texts name."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from launch.evaluation import phantom_masks, region_masks, too_few
from launch.evaluation.class_choice import askable, excluded
from launch.evaluation.phantom_masks import PhantomMasks
from launch.evaluation.prompt_tokens import tokens_of
from launch.evaluation.radiographs import radiographs_of
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.tasks import GroundingTask, masks_folder
from prior_jax.data import laterality, text
from prior_jax.errors import ConfigError
from prior_jax.evaluate import finding_words, grounding, prompts
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.results import TaskResult
from prior_jax.objectives.base import ShowsAttention

Masks = Mapping[str, Mapping[int, np.ndarray]]
"""Finding -> record -> mask, bool[size, size]."""


def measure_grounding(
    task: GroundingTask, encoder: Encoder, subject: Subject, opened: Callable[[str], Opened]
) -> TaskResult:
    """Measures grounding on one model; see `task_results.measure`.

    Raises:
      ConfigError: if the texts of the model attend to no places, no sentence names a finding, or no
        class has enough masks.
      DataError: if the phantom lacks an image of the set.
    """
    objective = subject.objective
    if not isinstance(objective, ShowsAttention):
        raise ConfigError(
            f"The task {task.task!r} needs an objective whose texts attend to places of the image; "
            f"the texts of {subject.objective_name!r} do not.",
            "Choose another task, e.g. --task=configs/eval/zero_shot.py.",
            where="task.task",
        )
    data = opened(task.split)
    located = _located(task, subject, data, opened)
    masks = located.masks
    classes = as_spelled(task.classes, masks) or enough_masks(task, data, masks)[0]
    _check_found(classes, masks, task=task, subject=subject, data=data)
    about = {name: tuple(masks[name]) for name in classes}

    def batches():
        return subject.batches(data, batch_size=task.batch_size, require_text=False)

    texts = asked(task, about, subject=subject, data=data, unit=objective.text_unit)
    mirror_images = None
    if task.attention.mirrored:
        exchanged = _exchanged(texts, subject=subject, data=data, unit=objective.text_unit)
        mirror_images = grounding.MirrorImages(batches=batches(), asked=exchanged)
    found = grounding.evaluate_grounding(
        encoder,
        batches(),
        asked=texts,
        located=located,
        patients=data.patients,
        block=task.batch_size,
        resampling=task.bootstrap,
        attention=task.attention,
        mirror_images=mirror_images,
        radiograph=radiographs_of(data),
    )
    asks: dict[str, Any] = {"text": task.text}
    if has_regions(task, subject, data):
        asks["regions_on_later_images"] = sum(data.later_regions)
    if task.text == "prompts":
        asks["prompt_set"] = task.prompts.set
    return dataclasses.replace(found, settings={**found.settings, **asks})


def as_spelled(classes: Sequence[str], masks: Masks) -> tuple[str, ...]:
    """Returns classes as the masks spell them, by the one table of synonyms; others as they are."""
    spelled = {prompts.canonical(name): name for name in masks}
    found = (spelled.get(prompts.canonical(name), name) for name in classes)
    return tuple(dict.fromkeys(found))


def _check_found(
    classes: Sequence[str],
    masks: Mapping[str, Any],
    *,
    task: GroundingTask,
    subject: Subject,
    data: Opened,
) -> None:
    """Refuses classes that no mask shows, and an empty list of classes.

    Raises:
      ConfigError: naming the classes, and the classes that masks show.
    """
    absent = [name for name in classes if name not in masks]
    if not absent and classes:
        return
    if absent:
        problem = f"No mask of split {task.split!r} shows {' or '.join(absent)}"
    else:
        problem = f"No class of split {task.split!r} has prompts and enough images with a mask"
    remedy = "Prepare the set from a phantom with more studies."
    if has_regions(task, subject, data):
        elsewhere = region_masks.left_out(data, split=task.split)
        problem += f"; {elsewhere}" if elsewhere else ""
        first = " on the first image of a study" if elsewhere else ""
        remedy = f"Prepare a set with boxes or masks{first}, or choose another --task.split."
    if masks:
        remedy = f"Set --task.classes to some of {', '.join(masks)}, or lower --task.min_positives."
    raise ConfigError(f"{problem}.", remedy, where="task.classes")


def _located(
    task: GroundingTask, subject: Subject, data: Opened, opened: Callable[[str], Opened]
) -> grounding.Located:
    """Returns where the findings are: by the set's own regions, or by a phantom's drawings."""
    masks = masks_of(task, subject, data)
    windows = region_masks.seen_windows(data, image=subject.data.image)
    if has_regions(task, subject, data):
        return grounding.Located(masks=masks, lungs=region_masks.LUNGS, windows=windows)
    source = PhantomMasks(masks_folder(task, subject.drawn), field="task.masks")
    lungs = source.lung_centres(opened("train").image_ids, size=subject.data.image.size)
    return grounding.Located(masks=masks, lungs=lungs, windows=windows)


def has_regions(task: GroundingTask, subject: Subject, data: Opened) -> bool:
    """Returns whether findings are where the set says; drawings tell of both lungs as well."""
    own = phantom_masks.is_drawn_set(subject.data.path, drawn=subject.drawn)
    return task.masks is None and bool(data.split.manifest.regions) and not own


def masks_of(task: GroundingTask, subject: Subject, data: Opened) -> Masks:
    """Returns the masks of each finding by record, of the set's regions or the phantom's."""
    image = subject.data.image
    if has_regions(task, subject, data):
        return region_masks.region_masks(data, image=image)
    source = PhantomMasks(masks_folder(task, subject.drawn), field="task.masks")
    masks: dict[str, dict[int, np.ndarray]] = {}
    for record, image_id in enumerate(data.image_ids):
        for label, mask in source.findings(image_id, size=image.size, fit=image.fit).items():
            masks.setdefault(label, {})[record] = mask
    return masks


def enough_masks(
    task: GroundingTask, data: Opened, masks: Masks
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the labels with enough masks, and the reason for each other one that has any."""
    counts = {
        name: {"mask": len(masks[name])}
        for name in askable(data)
        if name in masks and not excluded(name, task)
    }
    return too_few.reasons(counts, least=max(task.min_positives, 1), split=task.split)


def asked(
    task: GroundingTask,
    about: Mapping[str, Sequence[int]],
    *,
    subject: Subject,
    data: Opened,
    unit: str,
) -> grounding.Asked:
    """Finds the sentences that name a finding by a word, and the local features of that word.

    Args:
      task: task, which tells whether sentences come from the reports or the prompts.
      about: finding -> the records that have the finding.
      subject: model, whose limits on tokens and sentences apply.
      data: split whose reports are read with the split's tokenizer.
      unit: unit of the objective's local features, "word" or "sentence".

    A sentence whose word does not fit into the model's tokens is left out; with the mirror image,
    so is one that no longer fits with left and right exchanged. A class that nobody has asked for
    by name and that no sentence names is left out, and printed.

    Raises:
      ConfigError: if no sentence names any finding, or one of `task.classes`.
    """
    source = _own_sentences if task.text == "report" else _prompts

    def rows_of(sentence: str, name: str) -> tuple[int, ...]:
        words = prompts.finding_words(name)
        exchanged = laterality.exchange_sides(sentence)
        if task.attention.mirrored and not _rows(exchanged, words, subject, data, unit):
            return ()
        return _rows(sentence, words, subject, data, unit)

    named = {
        name: [
            (sentence, record, rows)
            for sentence, record in source(task, name, records, data)
            if (rows := rows_of(sentence, name))
        ]
        for name, records in about.items()
    }
    unnamed = [name for name, found in named.items() if not found]
    if unnamed and (task.classes or len(unnamed) == len(named)):
        raise _unnamed(task, unnamed)
    if unnamed:
        logging.warning("left out, as no sentence names them by a word: %s", ", ".join(unnamed))
    classes = tuple(name for name in named if name not in unnamed)
    found = [(index, *one) for index, name in enumerate(classes) for one in named[name]]
    owner, texts, record, rows = zip(*found, strict=True)
    return grounding.Asked(
        classes=classes,
        texts=texts,
        tokens=tokens_of(subject, data, texts),
        owner=np.asarray(owner, np.int32),
        rows=rows,
        record=np.asarray(record, np.int32) if task.text == "report" else None,
    )


def _exchanged(
    found: grounding.Asked, *, subject: Subject, data: Opened, unit: str
) -> grounding.Asked:
    """Returns the same sentences with left and right exchanged."""
    texts = tuple(laterality.exchange_sides(sentence) for sentence in found.texts)
    rows = tuple(
        _rows(sentence, prompts.finding_words(found.classes[owner]), subject, data, unit)
        for sentence, owner in zip(texts, found.owner.tolist(), strict=True)
    )
    return dataclasses.replace(
        found, texts=texts, tokens=tokens_of(subject, data, texts), rows=rows
    )


def _unnamed(task: GroundingTask, names: Sequence[str]) -> ConfigError:
    """Returns the error of findings that no sentence names."""
    found = ", ".join(names)
    if task.text == "report":
        return ConfigError(
            f"No sentence of a report names the finding by a word: {found}.",
            "Set --task.text=prompts, or leave the class out with --task.exclude.",
            where="task.text",
        )
    return ConfigError(
        f"No prompt of the set {task.prompts.set!r} names the finding by a word: {found}.",
        "Choose another --task.prompts.set, or leave the class out with --task.exclude.",
        where="task.prompts.set",
    )


def _own_sentences(task, name, records, data: Opened) -> list[tuple[str, int]]:
    """Returns the sentences of the records that name the finding."""
    words = prompts.finding_words(name)
    return [
        (sentence, record)
        for record in records
        for sentence in data.texts[record].sentences
        if finding_words.mentions(sentence, words)
    ]


def _prompts(task: GroundingTask, name, records, data) -> list[tuple[str, int]]:
    """Returns the affirming prompts that name the finding; they belong to no record."""
    table = prompts.prompt_table(task.prompts.set, classes=(name,), negatives=False)
    words = prompts.finding_words(name)
    return [(text, -1) for text in table.texts if finding_words.mentions(text, words)]


def _rows(
    sentence: str, words: Sequence[str], subject: Subject, data: Opened, unit: str
) -> tuple[int, ...]:
    """Returns the rows of a sentence's local features, after truncation, that name the finding."""
    if unit == "sentence":
        return (0,)
    tokenizer = data.split.tokenizer
    kept = len(tokenizer.encode(sentence).ids) <= subject.data.max_tokens - text.SPECIALS
    return finding_words.rows_of_words(sentence, words, tokenizer=tokenizer) if kept else ()
