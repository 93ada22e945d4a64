"""Opens the evaluation of a run while it trains: draws its subset, chooses classes and prompts."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from launch.start.run import Run
from prior_jax.data import no_text, pipeline, text
from prior_jax.errors import ConfigError
from prior_jax.evaluate import prompts
from prior_jax.evaluate.features import ReportTokens
from prior_jax.evaluate.while_training import (
    OF_TEXT,
    TASKS,
    EvaluateConfig,
    Subset,
    WhileTraining,
    choose_classes,
    draw_patients,
    draw_records,
)
from prior_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class _Study:
    """What is kept of a record of the subset.

    Attributes:
      patient: id of the patient.
      text: report in one line, "" where there is none.
      labels: label states.
    """

    patient: str
    text: str
    labels: Sequence[int]


def open_evaluation(run: Run) -> WhileTraining:
    """Prepares the evaluations of a run; its models are not touched.

    Args:
      run: run whose config has the section `config.evaluate`.

    Returns:
      Function of a model, with the names of its numbers.

    Raises:
      ConfigError: if a task that the config names cannot be measured, or if none can.
      DataError: if the data cannot be used.
    """
    config = run.config.evaluate
    assert config is not None  # `RunConfig` refuses evaluations without it
    held = run.split(config.split)
    records = _drawn(held, config)
    bank = draw_records(run.data.trained, size=config.bank, seed=config.seed)
    classes = _classes(run, config, studies=list(records.values()), bank=bank)
    table = _prompt_table(config, classes)
    tokens = None if table is None else _tokens(run, table.texts)
    numbers = np.array(list(records), np.int64)

    def pass_over(split: pipeline.Split, of: np.ndarray) -> Iterator[Batch]:
        return run.eval_batches(split, batch_size=config.batch_size, require_text=False, records=of)

    logging.info(
        "evaluating %s on %d studies of %s%s",
        ", ".join(classes),
        len(records),
        config.split,
        f", with neighbours among {len(bank)} of train" if "knn" in classes else "",
    )
    return WhileTraining(
        run.objective,
        subset=Subset(
            classes=classes,
            label_names=held.label_names,
            patients={number: study.patient for number, study in records.items()},
            texts={number: study.text for number, study in records.items()},
            table=table,
            tokens=tokens,
            batches=lambda: pass_over(held, numbers),
            bank=lambda: pass_over(run.data, bank),
        ),
        config=config,
        place=run.place.put,
    )


def _drawn(held: pipeline.Split, config: EvaluateConfig) -> dict[int, _Study]:
    """Returns the studies of the subset by record number; with reports if the split has any."""
    reads = no_text.reads_reports(held.tokenizer) and any(config.wants(task) for task in OF_TEXT)
    candidates = held.with_text if reads and len(held.with_text) else np.arange(len(held))
    found = {}
    for number in candidates.tolist():
        record = held.record(number)
        text_of = " ".join(record.sentences)
        found[number] = _Study(record.subject_id, text_of, tuple(record.labels))
    patients = {number: study.patient for number, study in found.items()}
    drawn = draw_patients(patients, studies=config.studies, seed=config.seed)
    return {number: found[number] for number in drawn.tolist()}


def _classes(
    run: Run, config: EvaluateConfig, *, studies: Sequence[_Study], bank: np.ndarray
) -> Mapping[str, tuple[str, ...]]:
    """Returns the classes of each task that is measured.

    Raises:
      ConfigError: if a named task cannot be measured, or if none can.
    """
    names = run.data.label_names
    states = _states([study.labels for study in studies], names)
    found: dict[str, tuple[str, ...]] = {}
    lacking: dict[str, str] = {}
    for task in (task for task in TASKS if config.wants(task)):
        if task in OF_TEXT and not no_text.reads_reports(run.data.tokenizer):
            lacking[task] = "the objective has no text encoder"
            continue
        of_bank = None
        if task == "knn":
            of_bank = _states([run.data.record(n).labels for n in bank.tolist()], names)
        chosen = choose_classes(states, label_names=names, config=config, bank=of_bank)
        if task == "zero_shot":
            chosen = _with_prompts(chosen, config)
        reason = _lacks(task, chosen, studies, config=config)
        if reason:
            lacking[task] = reason
        else:
            found[task] = chosen
    refused = [task for task in config.tasks if task in lacking] or ([] if found else [*lacking])
    if refused:
        raise ConfigError(
            f"{'; '.join(f'{task} cannot be measured: {lacking[task]}' for task in refused)}.",
            "Name other tasks, raise config.evaluate.studies, or set --config.evaluate_every=0.",
            where="config.evaluate.tasks",
        )
    for task, reason in lacking.items():
        logging.info("%s is not measured while training: %s", task, reason)
    return found


def _prompt_table(
    config: EvaluateConfig, classes: Mapping[str, Sequence[str]]
) -> prompts.PromptTable | None:
    """Returns the prompts of the classes of zero_shot; None if it is not measured."""
    if "zero_shot" not in classes:
        return None
    return prompts.prompt_table(
        config.prompts, classes=classes["zero_shot"], negatives=config.negatives
    )


def _with_prompts(classes: Sequence[str], config: EvaluateConfig) -> tuple[str, ...]:
    """Returns the classes that there are prompts for, and logs the others.

    Raises:
      ConfigError: if the config names the task and a class without prompts.
    """
    known = {prompts.canonical(name) for name in prompts.known_classes(config.prompts)}
    absent = [name for name in classes if prompts.canonical(name) not in known]
    if absent and config.classes and "zero_shot" in config.tasks:
        raise ConfigError(
            f"There are no prompts for {', '.join(absent)}, which zero_shot needs.",
            "Leave these classes out, or name a file with config.evaluate.prompts.",
            where="config.evaluate.classes",
        )
    if absent:
        logging.info("zero_shot leaves out %s for want of prompts", ", ".join(absent))
    return tuple(name for name in classes if name not in absent)


def _lacks(
    task: str, classes: Sequence[str], studies: Sequence[_Study], *, config: EvaluateConfig
) -> str:
    """Returns why a task cannot be measured on the subset; "" if it can."""
    if task == "retrieval":
        if not all(study.text for study in studies) or not studies:
            return f"the split {config.split!r} has no reports"
        if len(studies) < max(config.ranks):
            return f"the {len(studies)} studies are fewer than the rank {max(config.ranks)}"
        return ""
    if classes:
        return ""
    asked = " and prompts" if task == "zero_shot" else ""
    return (
        f"none of the labels of the set has {config.min_positives} positive and as many other "
        f"studies{asked} in the subset of {len(studies)} studies"
    )


def _states(found: Sequence[Sequence[int]], names: Sequence[str]) -> np.ndarray:
    return np.array(found, np.int8).reshape(-1, len(names))


def _tokens(run: Run, texts: Sequence[str]) -> ReportTokens:
    """Returns the tokens of the prompts, cut to the lengths that the model reads."""
    data = run.config.data
    tokens = text.encode_prompts(
        texts,
        tokenizer=run.data.tokenizer,
        max_tokens=data.max_tokens,
        max_sentences=data.max_sentences,
    )
    return ReportTokens(**dataclasses.asdict(tokens))
