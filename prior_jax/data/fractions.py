"""The part of a training split that a run may learn from: 1 %, 10 %, by each paper's own rule.

"1 %" means another thing in each code base: other counts, other generators, lists that were
shipped. A rule here names one of them, and `docs/fidelity.md` tells them apart.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from absl import logging

from prior_jax.data import stratified
from prior_jax.data.reader import RecordReader
from prior_jax.data.schema import LABEL_POSITIVE, write_atomically
from prior_jax.errors import ConfigError, DataError

Rule = Literal["first_rounded", "sample", "choice", "list", "patients", "stratified"]
_OF_PATIENTS = ("patients", "stratified")
_FORMAT = 2
_SHOWN = 5
_BEHIND_IDS = re.compile(r"[\s,;]+")
_LABEL = re.compile(r"[-+]?\d+(?:\.\d*)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FractionConfig:
    """The part of the training split that is trained on; the section `config.data.fraction`.

    Attributes:
      share: share of the records that is kept, above 0 and at most 1; 1 keeps all of them. The
        rule "list" ignores it.
      rule: rule that chooses the records. "first_rounded" takes the first round(share x n) records
        (LoVT, release, src/data/datasets). "sample" takes round(share x n) at random, as a pandas
        data frame's `sample` does (GLoRIA, without a seed: quirk G43; MGCA, with seed 42). "choice"
        takes int(share x n) at random (MGCA's segmentation and detection). "list" takes the ids in
        the file `ids` (BenchX, MRM, MaCo). "patients" takes round(share x patients), at least one,
        at random with all of their records; "stratified" takes as many patients, among whom each
        finding has the share that it has among all (`stratified.choose`). Both are ours.
      seed: seed of the random rules; the others ignore it. GLoRIA's release draws from a generator
        without a seed.
      draws: number of times that the records are drawn from one generator; the last draw counts.
        MGCA's release makes its training set twice, and trains on the second (quirk M15).
      ids: path of a text file with an id in each line: of a study or of an image, with or without
        the suffix of its file and folders in front; numbers behind it, as MRM's lists have them,
        are labels. For "list" these are the records to train on. For the other rules they are the
        paper's training table, in its order, and the rule chooses lines of it. With None it chooses
        among the records of the split, in the prepared set's order: that of the numbers of patients
        and studies in a set of MIMIC-CXR, and in all others that of digests of the patients' ids,
        which is no order of the table or of the ids.
      absent: what to do with chosen ids that the split does not have: "refuse", or "leave_out",
        which repeats a fraction that is drawn before rows are filtered (GLoRIA's CheXpert, quirk
        G43).
    """

    share: float
    rule: Rule
    seed: int = 0
    draws: int = 1
    ids: str | None = None
    absent: Literal["refuse", "leave_out"] = "refuse"

    def __post_init__(self):
        """Refuses values for which there is no such part."""
        if not 0 < self.share <= 1:
            raise ConfigError.of_value("share", self.share, "above 0 and at most 1")
        if self.rule not in get_args(Rule):
            raise ConfigError.of_value("rule", self.rule, f"one of {get_args(Rule)}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError.of_value("seed", self.seed, "an integer from 0 to 2**32 - 1")
        if self.draws < 1:
            raise ConfigError.of_value("draws", self.draws, "a positive integer")
        if self.rule == "list" and self.ids is None:
            raise ConfigError(
                "The rule 'list' needs a list, and none is given.",
                "Give the path of a text file with an id in each line.",
                where="ids",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """The ids of one record.

    Attributes:
      study: id of the study.
      subject: id of the patient.
      images: ids of the images.
      findings: positive labels of the study, and the labels of its boxes and masks.
    """

    study: str
    subject: str
    images: tuple[str, ...]
    findings: tuple[str, ...] = ()


def rows(config: FractionConfig, count: int) -> np.ndarray:
    """Returns the rows that a rule chooses from a table.

    Args:
      config: settings; the rule is none of those that need ids: "list", "patients", "stratified".
      count: number n of rows of the table.

    Returns:
      Positions, int64[k], each below n and none twice, in the order of the draw.
    """
    if config.share == 1:
        return np.arange(count)
    if config.rule == "first_rounded":
        return np.arange(kept(config, count))
    state = np.random.RandomState(config.seed)
    chosen = np.arange(0)
    for _ in range(config.draws):
        # `DataFrame.sample` draws its rows with this very call.
        chosen = state.choice(count, size=kept(config, count), replace=False)
    return chosen.astype(np.int64)


def kept(config: FractionConfig, count: int) -> int:
    """Returns the number of rows that a rule keeps of `count`.

    Python's `round` is half to even, as in the papers' code.
    """
    wanted = config.share * count
    return math.floor(wanted) if config.rule == "choice" else round(wanted)


def chosen_records(config: FractionConfig, identities: Sequence[Identity]) -> np.ndarray:
    """Returns the records that a rule chooses from a split whose ids are known.

    Args:
      config: settings.
      identities: ids of the N records, in order.

    Returns:
      Indices of the records, int64[k], ascending.

    Raises:
      ConfigError: if no record is left.
      DataError: if the file of ids cannot be read, names an id twice, or names an id that the
        split does not have while `absent` is "refuse".
    """
    if config.rule in _OF_PATIENTS:
        found = _of_patients(config, identities)
    elif config.ids is None:
        found = rows(config, len(identities))
    else:
        listed = read_ids(config.ids)
        if config.rule != "list":
            listed = [listed[row] for row in rows(config, len(listed))]
        found = _at(listed, identities, config=config)
    if not len(found):
        raise ConfigError(
            f"A share of {config.share:g} by the rule {config.rule!r} leaves none of the "
            f"{len(identities)} training records.",
            "Raise the share.",
            where="config.data.fraction.share",
        )
    return np.unique(np.asarray(found, np.int64))


def open_fraction(
    config: FractionConfig,
    reader: RecordReader,
    *,
    cache_dir: str | os.PathLike[str],
    threads: int,
) -> np.ndarray:
    """Returns the records of a split that are trained on; see `chosen_records`.

    Args:
      config: settings.
      reader: reader of the training split.
      cache_dir: folder that keeps the ids of the records, so that they are read once.
      threads: number of threads that read.
    """
    if config.rule not in _OF_PATIENTS and config.ids is None:
        identities = [Identity(study="", subject="", images=())] * len(reader)
    else:
        identities = _identities(reader, cache_dir=pathlib.Path(cache_dir), threads=threads)
    found = chosen_records(config, identities)
    logging.info(
        "training on %d of %d records (%s, share %g)",
        len(found), len(reader), config.rule, config.share,
    )  # fmt: skip
    return found


def read_ids(path: str | os.PathLike[str]) -> list[str]:
    """Returns the lines of a text file with an id in each; empty lines are left out.

    A byte-order mark before the first of them, as Windows writes it, is no part of the id.

    Raises:
      DataError: if the file cannot be read as text, holds no id, or an id twice.
    """
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The list of ids cannot be read ({error}).",
            "Give a text file with an id in each line.",
            where=os.fspath(path),
        ) from error
    ids = [line.strip() for line in lines if line.strip()]
    twice = sorted(one for one, count in collections.Counter(ids).items() if count > 1)
    if twice:
        raise DataError(
            f"{len(twice)} ids are listed twice, among them {_some(twice)}.",
            "List every id once.",
            where=os.fspath(path),
        )
    if not ids:
        raise DataError("The list holds no id.", "Write an id in each line.", where=os.fspath(path))
    return ids


def list_digest(config: FractionConfig | None) -> str | None:
    """Returns the sha256 of the ids that a fraction is chosen from; None if it has no list."""
    if config is None or config.ids is None:
        return None
    return hashlib.sha256("\n".join(read_ids(config.ids)).encode()).hexdigest()


def _of_patients(config: FractionConfig, identities: Sequence[Identity]) -> np.ndarray:
    subjects = sorted({one.subject for one in identities})
    count = max(round(config.share * len(subjects)), 1)
    if config.rule == "stratified":
        positive = _findings(identities, subjects)
        order = stratified.choose(positive, count=count, seed=config.seed)
    else:
        order = np.random.RandomState(config.seed).permutation(len(subjects))
    chosen = {subjects[row] for row in order[:count]}
    return np.array([i for i, one in enumerate(identities) if one.subject in chosen], np.int64)


def _findings(identities: Sequence[Identity], subjects: Sequence[str]) -> np.ndarray:
    """Returns whether any record of each patient has each finding, bool[P, L]."""
    names = sorted({name for one in identities for name in one.findings})
    rows = {subject: row for row, subject in enumerate(subjects)}
    columns = {name: column for column, name in enumerate(names)}
    found = np.zeros((len(subjects), len(names)), bool)
    for one in identities:
        for name in one.findings:
            found[rows[one.subject], columns[name]] = True
    return found


def _at(
    listed: Sequence[str], identities: Sequence[Identity], *, config: FractionConfig
) -> np.ndarray:
    """Returns the positions of the records that ids of a list belong to."""
    positions: dict[str, int] = {}
    for position, one in enumerate(identities):
        for name in (one.study, *one.images):
            positions.setdefault(name, position)
            positions.setdefault(_stem(name), position)
    found = {
        line: next((positions[name] for name in _readings(line) if name in positions), None)
        for line in listed
    }
    absent = [name for name, position in found.items() if position is None]
    if absent and config.absent == "refuse":
        raise DataError(
            f"{len(absent)} of {len(found)} ids are of no training record of the set, among them "
            f"{_some(absent)}.",
            "Prepare the set with these records in its split train, or set "
            "--config.data.fraction.absent=leave_out.",
            where=f"config.data.fraction.ids ({config.ids})",
        )
    return np.array([i for i in found.values() if i is not None], np.int64)


def _readings(line: str) -> list[str]:
    """Returns the ids that a line may mean, in the order in which they are looked for.

    The id as it is written comes before the id without the suffix of a file, which may be
    another's; then those without the labels behind it, and without the folders in front of it.
    """
    words = [word for word in _BEHIND_IDS.split(line) if word]
    labelled = bool(words) and all(map(_LABEL.fullmatch, words[1:]))
    name = words[0] if labelled else line
    parts = name.split("/")
    shorter = ["/".join(parts[start:]) for start in range(1, len(parts))]
    return [found for one in (line, name, *shorter) for found in (one, _stem(one))]


def _stem(name: str) -> str:
    """Returns an id without the suffix of a file of images."""
    stem, dot, suffix = name.rpartition(".")
    known = ("png", "jpg", "jpeg", "dcm", "dicom", "tif", "tiff")
    return stem if dot and suffix.lower() in known else name


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN]))


def _identities(reader: RecordReader, *, cache_dir: pathlib.Path, threads: int) -> list[Identity]:
    """Returns ids and findings of all records; reads them once and keeps them in the cache."""
    digest = hashlib.sha256(f"{_FORMAT} {reader.split}\n".encode())
    for shard in reader.shards:
        digest.update(f"{shard} {reader.manifest.shards.get(shard)}\n".encode())
    path = cache_dir / f"record_ids-{digest.hexdigest()[:32]}.json"
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return [
                Identity(study=s, subject=p, images=tuple(i), findings=tuple(f))
                for s, p, i, f in stored
            ]
        except (ValueError, TypeError) as error:
            raise DataError(
                f"The stored ids of the records are damaged ({error}).",
                "Delete the file; the ids are then read again.",
                where=str(path),
            ) from error

    def one(index: int) -> Identity:
        record = reader.read(index)
        labels = zip(reader.manifest.label_names, record.labels, strict=True)
        named = {name for name, state in labels if state == LABEL_POSITIVE}
        return Identity(
            study=record.study_id,
            subject=record.subject_id,
            images=record.image_ids,
            findings=tuple(sorted(named | set(record.region_labels))),
        )

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(one, range(len(reader)), chunksize=64))
    content = json.dumps([dataclasses.astuple(one) for one in found])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.encode("utf-8"))
    return found
