"""Runs a suite: task after task on set after set, each part once, whatever stops it between."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging

from launch.evaluation import finetune, labelled_part, models, outputs, suite_table
from launch.evaluation.measured import measure_both, said_of
from launch.evaluation.set_checks import check_task
from launch.evaluation.subject import Opened, Subject
from launch.evaluation.suite_parts import Part, identity, obstacle, parts_of
from launch.evaluation.task_base import Task, TaskData
from launch.evaluation.tasks import ProbeTask, SuiteTask
from launch.evaluation.training_tasks import TrainingTask
from prior_jax.data.manifest import Manifest, load_manifest
from prior_jax.errors import DataError, PriorJaxError
from prior_jax.evaluate import results
from prior_jax.evaluate.results import TaskResult
from prior_jax.interop.weights_folder import load_weights
from prior_jax.processes import distributed, interrupts
from prior_jax.processes.peers import LostProcess
from prior_jax.processes.preemption import Preempted, Stopped

FOLDER = "suite"
"""Folder of the parts' results under the folder of the results: `suite/<set>/eval/<task>.json`."""
_KEYS = {"metrics", "untrained", "settings"}
DONE, LEFT_OUT, FAILED = "done", "left out", "failed"

Open = Callable[[Subject, str], Opened]


class SuiteStopped(Stopped):
    """A suite was interrupted; the same command goes on with the part that was being measured."""

    def __init__(self):
        """Says what is kept."""
        super().__init__("The suite was asked to stop, and keeps the results of finished parts.")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turns an interrupt (Ctrl-C) between the trainings of a suite into `SuiteStopped`.

    With several processes it stays an interrupt, of which the other processes are told.
    """
    try:
        with interrupts.noted():
            yield
    except KeyboardInterrupt:
        if distributed.peers() is not None:
            raise
        raise SuiteStopped from None


def on_first_set(task: Task) -> Task:
    """Returns a suite that names its first set where a task names its only one."""
    if not isinstance(task, SuiteTask) or task.data.path is not None:
        return task
    first = next(iter(task.named_sets().values()), None)
    return dataclasses.replace(task, data=TaskData(path=first))


def sets_of(task: SuiteTask, subject: Subject) -> dict[str, str]:
    """Returns the path of each set by its name; the name of an unnamed one is its folder's."""
    path = task.data.path or subject.data.path
    # Made absolute, for ".." is no name of a folder of results.
    return task.named_sets() or {pathlib.Path(os.path.abspath(path)).name: path}


def check_suite(task: SuiteTask) -> None:
    """Refuses a suite whose parts or whose ImageNet weights cannot be read.

    Raises:
      ConfigError: if a file of the suite holds no task, or is named in vain, or a training's list
        of records cannot be read.
      WeightsError: if the ImageNet weights are absent or damaged.
    """
    for part in parts_of(task, {"any": "."}):
        if isinstance(part.task, TrainingTask):
            labelled_part.check(part.task)
    if task.imagenet is not None:
        load_weights(task.imagenet)  # whole, for each part would fail for an array of them


def run_suite(task: SuiteTask, subject: Subject, *, out: pathlib.Path, opened: Open) -> str:
    """Runs every part that is not yet done, and writes the table.

    Args:
      task: the suite.
      subject: model, on any set.
      out: folder of the results.
      opened: function that opens a split of a subject's set, once.

    Returns:
      Path of the set whose examples the report shows: the first that can be read.

    Raises:
      ConfigError: if a file of the suite holds no task, or the ImageNet weights cannot be read.
      DataError: if no set can be read.
      KeyboardInterrupt: if an interrupt came meanwhile, whatever became of it in a part.
    """
    sets, interrupted = sets_of(task, subject), interrupts.seen()
    manifests, unread = _manifests(sets)
    states: list[dict[str, str]] = [
        _state(name, "", FAILED, reason) for name, reason in unread.items()
    ]
    rows: list[suite_table.Row] = []
    parts = [one for one in parts_of(task, sets) if one.set_name in manifests]
    imagenet = None
    if task.imagenet is not None:
        imagenet = functools.cache(functools.partial(_imagenet, task.imagenet, subject))
    for number, part in enumerate(parts, start=1):
        manifest = manifests[part.set_name]
        state, found = _part(part, subject, imagenet, manifest, out=out, opened=opened)
        if interrupts.seen() > interrupted:  # the part may have failed for it alone
            raise KeyboardInterrupt
        states.append(state)
        rows += found
        reason = f": {state['reason']}" if state["reason"] else ""
        _say(f"[{number}/{len(parts)}] {part.set_name}: {part.name}: {state['state']}{reason}")
    if distributed.is_primary():
        every = [row.cells for row in rows]
        every += suite_table.over_seeds_rows(rows, confidence=task.bootstrap.confidence)
        path = suite_table.write(out, rows=every, parts=states, about=subject.origin)
        _say(f"written to {path}")
    failed = [one for one in states if one["state"] == FAILED]
    for one in failed:
        _say(f"failed: {one['set']}{': ' if one['task'] else ''}{one['task']}: {one['reason']}")
    return sets[next(iter(manifests))]


def _manifests(sets: dict[str, str]) -> tuple[dict[str, Manifest], dict[str, str]]:
    """Returns the manifests of the sets that can be read, and the reasons for the others."""
    found, unread = {}, {}
    for name, path in sets.items():
        try:
            found[name] = load_manifest(path)
        except DataError as error:
            unread[name] = str(error)
    if not found:
        raise DataError(
            f"No set of the suite can be read: {'; '.join(unread.values())}",
            "Give prepared sets with --task.sets.",
            where="task.sets",
        )
    return found, unread


def _part(
    part: Part,
    subject: Subject,
    imagenet: Callable[[str], Subject] | None,
    manifest: Manifest,
    *,
    out: pathlib.Path,
    opened: Open,
) -> tuple[dict[str, str], list[suite_table.Row]]:
    """Runs one part, or reads its results; returns its state and its rows."""
    reason = obstacle(part, subject, manifest)
    if reason is not None:
        return _state(part.set_name, part.name, LEFT_OUT, reason), []
    folder, beside = out / FOLDER / part.set_name, None
    try:
        found = _measured(part, subject, manifest, folder=folder, opened=opened, random=True)
        if imagenet is not None and isinstance(part.task, ProbeTask | TrainingTask):
            other, below = imagenet(str(part.task.data.path)), folder / "imagenet"
            beside = _measured(part, other, manifest, folder=below, opened=opened, random=False)
    except (Preempted, LostProcess):
        raise
    except Exception as error:  # one part must not cost the others
        expected = isinstance(error, PriorJaxError)
        logging.error(
            "The part %s of the set %s failed.", part.name, part.set_name, exc_info=not expected
        )
        words = str(error) if expected else f"{type(error).__name__}: {error}"
        return _state(part.set_name, part.name, FAILED, words), []
    rows = suite_table.rows_of(part, found, beside)
    return _state(part.set_name, part.name, DONE, ""), rows


def _imagenet(folder: str, subject: Subject, path: str) -> Subject:
    """Opens the weights of an image encoder on a set."""
    return models.of_weights(
        pathlib.Path(folder),
        path=path,
        place=subject.place,
        cache_dir=subject.cache_dir,
    )


def _measured(
    part: Part,
    subject: Subject,
    manifest: Manifest,
    *,
    folder: pathlib.Path,
    opened: Open,
    random: bool,
) -> suite_table.Measured:
    """Returns the results of a part, which are written if they are not yet there.

    Args:
      part: the part.
      subject: model, on any set.
      manifest: manifest of the part's set.
      folder: folder of the results.
      opened: function that opens a split of a subject's set, once.
      random: whether the model at random weights is measured beside it.
    """
    wanted = identity(part, subject, manifest)
    kept = _read(folder, part.name)
    if kept is not None and kept.content["settings"].get("part") == wanted:
        return kept
    check_task(part.task, drawn=subject.drawn)
    here = dataclasses.replace(subject, data=part.task.on(subject.data))

    def split(name: str) -> Opened:
        return opened(here, name)

    said = said_of(part.task, here, split)
    for one in said:
        _say(f"{part.set_name}: {part.name}: {one}")
    trainings = folder / finetune.FOLDER / part.name
    found = measure_both(part.task, here, split, folder=trainings, beside=random)
    where = outputs.described(here, split(part.task.split), split=part.task.split)
    settings = {**outputs.with_remarks(where, said), "part": wanted}
    if distributed.is_primary():
        results.write_results(
            folder, task=part.name, trained=found[0], untrained=found[-1], settings=settings
        )
    return suite_table.Measured(
        content=_content(found[0], found[-1], settings),
        trained=_draws(found[0]),
        untrained=_draws(found[-1]),
    )


def _content(trained: TaskResult, untrained: TaskResult, settings: dict) -> dict[str, Any]:
    """Returns what `results.write_results` writes and a later call reads."""
    return {
        "metrics": {name: value.to_json() for name, value in trained.metrics.items()},
        "untrained": {name: value.to_json() for name, value in untrained.metrics.items()},
        "settings": {**trained.settings, **settings},
    }


def _draws(result: TaskResult) -> dict[str, np.ndarray]:
    return {name: one.draws for name, one in result.metrics.items() if one.draws is not None}


def _read(folder: pathlib.Path, name: str) -> suite_table.Measured | None:
    """Returns the results of a part; None if a file of them is absent or not whole."""
    try:
        content = json.loads((folder / "eval" / f"{name}.json").read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not _KEYS <= content.keys():
            return None
        draws = [
            results.read_draws(folder, task=name, untrained=untrained) if content[side] else {}
            for side, untrained in (("metrics", False), ("untrained", True))
        ]
    except (OSError, ValueError, DataError):
        return None
    return suite_table.Measured(content=content, trained=draws[0], untrained=draws[1])


def _state(set_name: str, task: str, state: str, reason: str) -> dict[str, str]:
    return {"set": set_name, "task": task, "state": state, "reason": reason}


def _say(text: str) -> None:
    if distributed.is_primary():
        print(text, flush=True)
