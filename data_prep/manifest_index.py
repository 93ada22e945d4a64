"""Groups the rows of a custom manifest into studies, in compact arrays."""

import array
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.kit import splits
from data_prep.kit.writer import Rejection
from data_prep.manifest_rows import Columns, Reject, Row, RowProblem, digest, parse_row, raw_rows
from prior_jax.data import schema
from prior_jax.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """Where the rows of each study are, studies sorted by split and patient.

    Attributes:
      offsets: int64[I], where each row begins in the file of parsed rows.
      starts: int64[N + 1], first row of each study.
      codes: int8[N], index into schema.SPLITS.
      subjects: S32[N], digests of the patients.
      label_names: in the set's order.
      seen: source -> labels its rows use.
    """

    offsets: np.ndarray
    starts: np.ndarray
    codes: np.ndarray
    subjects: np.ndarray
    label_names: tuple[str, ...]
    seen: Mapping[str, tuple[str, ...]]


def build_index(
    path: pathlib.Path,
    *,
    columns: Columns,
    fractions: Sequence[float],
    seed: int,
    rows: pathlib.Path,
    reject: Reject,
) -> Index:
    """Parses every row once, writes it to `rows`, and groups rows into studies.

    Args:
      path: the manifest.
      columns: names of its columns.
      fractions: shares of the splits, for rows that name none.
      seed: of the draw of those splits.
      rows: where parsed rows are written, one JSON object a line.
      reject: called for each row left out: malformed_row, row_without_image, unknown_split,
        malformed_labels, duplicate_row, study_in_two_patients or patient_in_two_splits.

    Raises:
      DataError: if there is not one usable row.
    """
    offsets, codes = array.array("q"), array.array("b")
    ids, studies, subjects = bytearray(), bytearray(), bytearray()
    seen: dict[str, set[str]] = {}
    with open(rows, "wb") as file:
        for line, raw in raw_rows(path, reject=reject):
            try:
                row = parse_row(raw, columns, fractions=fractions, seed=seed)
            except RowProblem as problem:
                name = raw.get(columns.id) or f"{path.name}:{line}"
                reject(Rejection(id=str(name), reason=problem.reason, detail=problem.detail))
                continue
            offsets.append(file.tell())
            codes.append(row.split)
            ids += digest(row.id)
            studies += digest(row.study)
            subjects += digest(row.patient)
            seen.setdefault(row.source, set()).update(row.labels)
            file.write(json.dumps(dataclasses.asdict(row)).encode() + b"\n")
    if not offsets:
        raise DataError("--manifest", received=f"{path}: not one row", accepted="rows of images")
    names = sorted(set().union(*seen.values()))
    return _grouped(
        np.frombuffer(offsets, np.int64),
        codes=np.frombuffer(codes, np.int8),
        ids=np.frombuffer(bytes(ids), "S32"),
        studies=np.frombuffer(bytes(studies), "S32"),
        subjects=np.frombuffer(bytes(subjects), "S32"),
        label_names=tuple(columns.label_columns) or tuple(names),
        seen={source: tuple(sorted(labels)) for source, labels in sorted(seen.items())},
        rows=rows,
        reject=reject,
    )


def _grouped(offsets, *, codes, ids, studies, subjects, label_names, seen, rows, reject) -> Index:
    """Rejects rows that contradict each other and sorts the others into studies."""
    _, of_subject = np.unique(subjects, return_inverse=True)
    first = np.zeros(len(ids), bool)
    first[np.unique(ids, return_index=True)[1]] = True
    mixed = splits.subjects_in_two_splits(studies, of_subject)
    leaking = splits.subjects_in_two_splits(subjects, codes)
    reasons = (
        ("duplicate_row", ~first),
        ("study_in_two_patients", first & mixed),
        ("patient_in_two_splits", first & ~mixed & leaking),
    )
    for reason, chosen in reasons:
        for place in np.flatnonzero(chosen):
            row = read_row(rows, int(offsets[place]))
            detail = f"patient {row.patient}, study {row.study}, {schema.SPLITS[row.split]}"
            reject(Rejection(id=row.id, reason=reason, detail=detail))
    keep = np.flatnonzero(first & ~mixed & ~leaking)
    order = keep[np.lexsort((offsets[keep], studies[keep], subjects[keep], codes[keep]))]
    ranked = studies[order]
    begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(order) else order
    return Index(
        offsets=offsets[order],
        starts=np.r_[begins, len(order)].astype(np.int64),
        codes=codes[order[begins]],
        subjects=subjects[order[begins]],
        label_names=label_names,
        seen=seen,
    )


def read_row(rows: pathlib.Path, offset: int) -> Row:
    """Reads one parsed row."""
    with open(rows, "rb") as file:
        file.seek(offset)
        return Row(**json.loads(file.readline()))
