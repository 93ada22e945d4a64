"""Writes phantom studies, and their tables, in the layouts of `layouts.py`."""

import csv
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator

from data_prep.phantom import cases, radiographs, studies
from data_prep.phantom.layouts import LAYOUTS, Drawn, File, Layout

Records = Callable[[], Iterator[dict]]
"""Function that reads the records of all studies from the start, as `write_study` returned them."""


def write_study(
    out: pathlib.Path,
    *,
    layout: str,
    seed: int,
    number: int,
    shares: cases.SplitShares,
    size: int,
) -> dict:
    """Draws the images of a study that the layout has room for, and writes them and their masks.

    Args:
      out: root directory of the data set.
      layout: one of `layouts.LAYOUTS`.
      seed: seed of the data set.
      number: number of the study.
      shares: shares of patients by split.
      size: pixels of an image's shorter side.

    Returns:
      {"images": [{"truth": line, "rows": {table: rows}}], "truth": line}; there may be no image.
    """
    kind, study = LAYOUTS[layout], cases.sample_study(seed, number, shares)
    earlier = list(_earlier(seed, study, shares))
    frontal = sum(view not in radiographs.LATERAL_VIEWS for one in earlier for view in one.views)
    images = []
    for index, view in enumerate(study.views):
        lateral = view in radiographs.LATERAL_VIEWS
        if (lateral and not kind.lateral) or (kind.one_a_patient and frontal):
            continue
        drawn = Drawn(
            study=study,
            index=index,
            number=len(earlier) + 1,
            frontal=frontal,
            exposure=radiographs.expose(seed, study, index, size=size),
            seed=seed,
        )
        images.append(_write_image(out, kind, drawn))
        frontal += not lateral
    return {
        "images": images,
        "truth": {
            "study_id": study.study_id,
            "subject_id": study.patient.subject_id,
            "split": study.patient.split,
            "devices": list(study.devices),
        },
    }


def _earlier(seed: int, study: cases.Study, shares: cases.SplitShares) -> Iterator[cases.Study]:
    """Yields the studies of the same patient before this one; they are in the same block."""
    for number in range(study.number - study.number % cases.BLOCK, study.number):
        other = cases.sample_study(seed, number, shares)
        if other.patient.subject_id == study.patient.subject_id:
            yield other


def _write_image(out: pathlib.Path, kind: Layout, drawn: Drawn) -> dict:
    """Writes an image and its masks, and returns its truth and its rows of the tables."""
    file = kind.write(drawn)
    (out / file.path).parent.mkdir(parents=True, exist_ok=True)
    (out / file.path).write_bytes(file.content)
    return {"truth": _truth(out, drawn, file), "rows": file.rows}


def _truth(out: pathlib.Path, drawn: Drawn, file: File) -> dict:
    """Writes the masks of an image, and returns its line of findings.jsonl."""
    subject = drawn.study.patient.subject_id
    folder = f"p{subject // 1_000_000}/p{subject}/s{drawn.study.study_id}"
    mask = studies.write_masks(out, folder, drawn.study.dicom_ids[drawn.index], drawn.exposure)
    truth = studies.image_truth(drawn.study, drawn.index, drawn.exposure, path=file.path, mask=mask)
    height, width = drawn.exposure.pixels.shape
    shown = [
        {"shape": one.shape, "points": one.points, "box": studies.box_of(one.mask(height, width))}
        for one in file.shown
    ]
    return {**truth, "objects": shown} if shown else truth


def write_tables(out: pathlib.Path, records: Records, *, layout: str) -> None:
    """Writes the tables and lists of a layout, and the truth, with one pass over the records each.

    Args:
      out: root directory of the data set.
      records: records of all studies.
      layout: one of `layouts.LAYOUTS`.
    """
    for name, header in LAYOUTS[layout].tables.items():
        rows = (
            row
            for record in records()
            for image in record["images"]
            for row in image["rows"].get(name, ())
        )
        with (out / name).open("w", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            if header is not None:
                writer.writerow(header)
            writer.writerows(rows)
    found = (image["truth"] for record in records() for image in record["images"])
    _write_lines(out / "phantom" / "findings.jsonl", found)
    told = (record["truth"] for record in records() if record["images"])
    _write_lines(out / "phantom" / "studies.jsonl", told)


def _write_lines(path: pathlib.Path, rows: Iterable[dict]) -> None:
    with path.open("w") as text:
        text.writelines(json.dumps(row) + "\n" for row in rows)
