"""Runs a task on one model: opens the data and calls `prior_jax.evaluate`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from launch.evaluation import too_few
from launch.evaluation.classify import (
    classifier_of,
    measure_classification,
    rare,
    without_partner,
)
from launch.evaluation.phantom_masks import PhantomMasks
from launch.evaluation.phrases import measure_phrases, phrases_left_out
from launch.evaluation.prompt_tokens import tokens_of
from launch.evaluation.radiographs import radiographs_of
from launch.evaluation.region_masks import LUNGS, region_masks
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.tasks import (
    ClassificationTask,
    GalleryTask,
    GroundingTask,
    PhraseTask,
    ProbeTask,
    RetrievalTask,
    Task,
    ZeroShotTask,
    masks_folder,
)
from prior_jax.data import text
from prior_jax.errors import ConfigError
from prior_jax.evaluate import (
    finding_words,
    gallery,
    grounding,
    probe,
    prompts,
    retrieval,
    zero_shot,
)
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Pooled
from prior_jax.evaluate.labels import select_columns
from prior_jax.evaluate.results import TaskResult
from prior_jax.objectives.base import ComparesParts, ShowsAttention
from prior_jax.objectives.prior import PriorObjective

Masks = Mapping[str, Mapping[int, np.ndarray]]
"""Finding -> record -> mask, bool[size, size]."""


def measure(
    task: Task, encoder: Encoder, *, subject: Subject, opened: Callable[[str], Opened]
) -> TaskResult:
    """Measures one model.

    Args:
      task: task to measure.
      encoder: encoder of the model, trained or not.
      subject: model that is evaluated, with its objective, its preprocessing and its set.
      opened: function from the name of a split to the split; it should cache what it has read.

    Returns:
      The results; `settings["left_out"]` is `left_out`.
    """
    found = _MEASURES[type(task)](task, encoder, subject, opened)
    absent = left_out(task, subject, opened(task.split))
    return dataclasses.replace(found, settings={**found.settings, "left_out": absent})


def _zero_shot(task: ZeroShotTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    asks_places = task.zero_shot.local_weight is not None
    _check_parts(subject, asks_places, field="task.zero_shot.local_weight", without="None")
    data = opened(task.split)
    classes = _classes(task, data, candidates=_askable(data, task.prompts.set))
    table = prompts.prompt_table(
        task.prompts.set, classes=classes, negatives=task.prompts.negatives
    )
    return zero_shot.evaluate_zero_shot(
        encoder,
        subject.batches(data, batch_size=task.batch_size, require_text=False),
        table=table,
        tokens=tokens_of(subject, data, table.texts),
        label_names=data.split.label_names,
        patients=data.patients,
        config=task.zero_shot,
        resampling=task.bootstrap,
    )


def _retrieval(task: RetrievalTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    data = opened(task.split)
    # If there is no class, only retrieval by pair is measured.
    rule = task.rule(classes=_frequent(task, data, data.split.label_names))
    retrieval.check_ranks(len(data.split.with_text), ranks=max(rule.ranks))
    batches = subject.batches(data, batch_size=task.batch_size, require_text=True)
    return retrieval.evaluate_retrieval(
        encoder,
        encoder.studies(batches, reports=True),
        texts=[text.text for text in data.texts],
        label_names=data.split.label_names,
        patients=data.patients,
        config=rule,
        resampling=task.bootstrap,
    )


def _gallery(task: GalleryTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    asks_places = task.gallery.kind == "local"
    _check_parts(subject, asks_places, field="task.gallery.kind", without="both")
    data = opened(task.split)
    batches = subject.batches(data, batch_size=task.batch_size, require_text=True)
    return gallery.evaluate_gallery(
        encoder,
        encoder.studies(batches, reports=True),
        texts=[text.text for text in data.texts],
        label_names=data.split.label_names,
        classes=_frequent(task, data, data.split.label_names),
        patients=data.patients,
        config=task.gallery,
        resampling=task.bootstrap,
    )


def _probe(task: ProbeTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
    probe.check_installed()
    parts: dict[str, tuple[Pooled, np.ndarray]] = {}
    for name in ("train", "validate", task.split):
        data = opened(name)
        features = encoder.pooled(
            subject.batches(data, batch_size=task.batch_size, require_text=False)
        )
        parts[name] = features, data.patients[features.record]
    data = opened(task.split)
    return probe.evaluate_probe(
        train=parts["train"][0],
        validate=parts["validate"][0],
        test=parts[task.split][0],
        train_patients=parts["train"][1],
        test_patients=parts[task.split][1],
        label_names=data.split.label_names,
        classes=_classes(task, data, data.split.label_names),
        config=task.probe,
        resampling=task.bootstrap,
    )


def _grounding(task: GroundingTask, encoder: Encoder, subject: Subject, opened) -> TaskResult:
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
    classes = task.classes or _enough_masks(task, data, masks)[0]
    _check_drawn(classes, masks, split=task.split)
    about = {name: tuple(masks[name]) for name in classes}
    return grounding.evaluate_grounding(
        encoder,
        subject.batches(data, batch_size=task.batch_size, require_text=False),
        asked=asked(task, about, subject=subject, data=data, unit=objective.text_unit),
        located=located,
        patients=data.patients,
        block=task.batch_size,
        resampling=task.bootstrap,
        radiograph=radiographs_of(data),
    )


_MEASURES: Mapping[type[Task], Callable[..., TaskResult]] = {
    ZeroShotTask: _zero_shot,
    RetrievalTask: _retrieval,
    GalleryTask: _gallery,
    ProbeTask: _probe,
    GroundingTask: _grounding,
    ClassificationTask: measure_classification,
    PhraseTask: measure_phrases,
}


def remarks(task: Task, subject: Subject, data: Opened) -> list[str]:
    """Returns sentences on how the task, the model and the labels of the set fit together."""
    if isinstance(task, ClassificationTask):
        said = without_partner(task, subject, data)
    elif isinstance(task, PhraseTask | GroundingTask):
        said = without_places(subject)
    else:
        unasked = without_prompts(task, data)
        said = [f"left out for want of prompts: {', '.join(unasked)}"] if unasked else []
    return [*said, *too_few.sentences(left_out(task, subject, data))]


def left_out(task: Task, subject: Subject, data: Opened) -> dict[str, str]:
    """Returns the reason for each class that the set has too few of, see `min_positives`."""
    if task.classes:
        return {}
    if isinstance(task, ClassificationTask):
        return rare(task, classifier_of(subject, task=task.task), data)
    if isinstance(task, PhraseTask):
        return phrases_left_out(task, data)
    if isinstance(task, GroundingTask):
        return _enough_masks(task, data, _masks(task, subject, data))[1]
    asked = task.prompts.set if isinstance(task, ZeroShotTask) else None
    candidates = data.split.label_names if asked is None else _askable(data, asked)
    return _enough(task, data, candidates)[1]


def without_places(subject: Subject) -> list[str]:
    """Returns a sentence that warns of a model whose patches are no places of the image."""
    objective = subject.objective
    if not isinstance(objective, PriorObjective) or objective.config.choices.spatial_patches:
        return []
    return [
        "the model is PRIOR in the release's fidelity, whose patches are no places of the image "
        "(quirk P1), so that its maps do not show where a finding is"
    ]


def _check_parts(subject: Subject, asked_for: bool, *, field: str, without: str) -> None:
    """Refuses to ask for the local part of a similarity that has no parts.

    Raises:
      ConfigError: naming the setting, and its value for a similarity as a whole.
    """
    if asked_for and not isinstance(subject.objective, ComparesParts):
        raise ConfigError(
            f"The objective {subject.objective_name!r} compares only whole images and reports, so "
            "that its similarity has no local part.",
            f"Set --{field}={without}.",
            where=field,
        )


def _check_drawn(classes: Sequence[str], masks: Mapping[str, Any], *, split: str) -> None:
    """Refuses classes that no mask shows, and an empty list of classes.

    Raises:
      ConfigError: naming the classes, and the classes that masks show.
    """
    absent = [name for name in classes if name not in masks]
    if not absent and classes:
        return
    if absent:
        problem = f"No mask of split {split!r} shows {' or '.join(absent)}."
    else:
        problem = f"No class of split {split!r} has prompts and enough images with a mask."
    remedy = "Prepare the set from a phantom with more studies."
    if masks:
        remedy = f"Set --task.classes to some of {', '.join(masks)}, or lower --task.min_positives."
    raise ConfigError(problem, remedy, where="task.classes")


def _located(
    task: GroundingTask, subject: Subject, data: Opened, opened: Callable[[str], Opened]
) -> grounding.Located:
    """Returns where the findings are: by the set's own regions, or by a phantom's drawings."""
    masks = _masks(task, subject, data)
    if _has_regions(task, data):
        return grounding.Located(masks=masks, lungs=LUNGS)
    source = PhantomMasks(masks_folder(task, subject.drawn), field="task.masks")
    lungs = source.lung_centres(opened("train").image_ids, size=subject.data.image.size)
    return grounding.Located(masks=masks, lungs=lungs)


def _has_regions(task: GroundingTask, data: Opened) -> bool:
    return task.masks is None and bool(data.split.manifest.regions)


def _masks(task: GroundingTask, subject: Subject, data: Opened) -> Masks:
    """Returns the masks of each finding by record, of the set's regions or the phantom's."""
    size = subject.data.image.size
    if _has_regions(task, data):
        return region_masks(data, size=size)
    source = PhantomMasks(masks_folder(task, subject.drawn), field="task.masks")
    masks: dict[str, dict[int, np.ndarray]] = {}
    for record, image_id in enumerate(data.image_ids):
        for label, mask in source.findings(image_id, size=size).items():
            masks.setdefault(label, {})[record] = mask
    return masks


def _enough_masks(
    task: GroundingTask, data: Opened, masks: Masks
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the labels with enough masks, and the reason for each other one that has any."""
    counts = {
        name: {"mask": len(masks[name])}
        for name in _askable(data)
        if name in masks and not _excluded(name, task)
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

    A class that nobody has asked for by name and that no sentence names is left out, and printed.

    Raises:
      ConfigError: if no sentence names any finding, or one of `task.classes`.
    """
    source = _own_sentences if task.text == "report" else _prompts
    named = {
        name: [
            (sentence, record, rows)
            for sentence, record in source(task, name, records, data)
            if (rows := _rows(sentence, prompts.finding_words(name), subject, data, unit))
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
    table = prompts.prompt_table(
        task.prompts.set, classes=(name,), negatives=task.prompts.negatives
    )
    words = prompts.finding_words(name)
    affirming = (text for text, yes in zip(table.texts, table.affirms, strict=True) if yes)
    return [(text, -1) for text in affirming if finding_words.mentions(text, words)]


def _rows(sentence: str, words: Sequence[str], subject: Subject, data: Opened, unit: str):
    """Returns the rows of a sentence's local features, after truncation, that name the finding."""
    if unit == "sentence":
        return (0,)
    tokenizer = data.split.tokenizer
    kept = len(tokenizer.encode(sentence).ids) <= subject.data.max_tokens - text.SPECIALS
    return finding_words.rows_of_words(sentence, words, tokenizer=tokenizer) if kept else ()


def _askable(data: Opened, set_name: str = "ensemble") -> tuple[str, ...]:
    """Returns the labels for which there are prompts."""
    known = {prompts.canonical(name) for name in prompts.known_classes(set_name)}
    return tuple(name for name in data.split.label_names if prompts.canonical(name) in known)


def without_prompts(task: Task, data: Opened) -> tuple[str, ...]:
    """Returns the labels that a task leaves out only because there are no prompts for them."""
    if task.classes or not isinstance(task, ZeroShotTask):
        return ()
    askable = _askable(data, task.prompts.set)
    names = (name for name in data.split.label_names if name not in askable)
    return tuple(name for name in names if not _excluded(name, task))


def _excluded(name: str, task: Task) -> bool:
    return prompts.canonical(name) in {prompts.canonical(other) for other in task.exclude}


def _classes(task: Task, data: Opened, candidates: Sequence[str]) -> tuple[str, ...]:
    """Returns the task's classes, or the candidates with enough positives and negatives.

    Raises:
      ConfigError: if there is no such class.
    """
    found = _frequent(task, data, candidates)
    if found:
        return found
    if candidates:
        problem = (
            f"No class can be scored on split {task.split!r}: none of the labels "
            f"{', '.join(candidates)} has {task.min_positives} positive and "
            f"{task.min_positives} other studies."
        )
        remedy = "Set --task.classes, or lower --task.min_positives."
    elif data.split.label_names:
        asked_of = task.prompts.set if isinstance(task, ZeroShotTask) else "ensemble"
        problem = (
            f"No class can be scored: the labels of the set are "
            f"{', '.join(data.split.label_names)}, but there are prompts only for "
            f"{', '.join(prompts.known_classes(asked_of))}."
        )
        remedy = (
            "Set --task.classes to labels of the set, with --task.prompts.set=release and "
            "--task.prompts.negatives=False."
        )
    else:
        problem = "No class can be scored: the set has no labels."
        remedy = "Prepare the set with labels, or choose a task that needs none."
    raise ConfigError(problem, remedy, where="task.classes")


def _frequent(task: Task, data: Opened, candidates: Sequence[str]) -> tuple[str, ...]:
    """Returns the task's classes, or the candidates with enough positives and negatives, or ().

    Raises:
      ConfigError: if a class is not a label of the data set, or is named twice.
    """
    if task.classes:
        names = data.split.label_names
        select_columns(data.labels, label_names=names, classes=task.classes, field="task.classes")
        return task.classes
    return _enough(task, data, candidates)[0]


def _enough(
    task: Task, data: Opened, candidates: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the labels with enough records, and the reason for each other one."""
    names = [name for name in candidates if not _excluded(name, task)]
    counts = too_few.of_labels(data.labels, data.split.label_names, names)
    return too_few.reasons(counts, least=task.min_positives, split=task.split)
