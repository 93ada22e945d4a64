"""Writes one phantom study to disk and returns its rows of the tables."""

import io
import pathlib

import numpy as np
from PIL import Image

from data_prep.phantom import cases, radiographs, report_text

_VIEW_MEANINGS = {
    "PA": "postero-anterior",
    "AP": "antero-posterior",
    "LATERAL": "lateral",
    "LL": "left lateral",
}
JPEG_QUALITY = 92


def write_study(
    out: pathlib.Path,
    *,
    seed: int,
    number: int,
    shares: cases.SplitShares,
    size: int,
) -> dict:
    """Draws a study and writes its images, masks and report.

    Args:
      out: root directory of the data set.
      seed: seed of the data set.
      number: number of the study.
      shares: shares of patients by split.
      size: pixels of an image's shorter side.

    Returns:
      {"images": [{"metadata": row, "split": row, "truth": line}], "chexpert": row or None,
      "truth": line}: rows of the three tables, lines of findings.jsonl and studies.jsonl.
    """
    study = cases.sample_study(seed, number, shares)
    report = report_text.write_report(seed, study)
    subject = study.patient.subject_id
    place = f"p{subject // 1_000_000}/p{subject}"
    folder = f"{place}/s{study.study_id}"
    (out / "files" / folder).mkdir(parents=True, exist_ok=True)
    images = [
        _write_image(out, folder, seed, study, index, size) for index in range(len(study.views))
    ]
    text = out / "reports" / "files" / place / f"s{study.study_id}.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_bytes(report.text.encode())
    return {
        "images": images,
        "chexpert": _chexpert_row(study, report) if report.labels else None,
        "truth": _study_truth(study, report, f"files/{place}/s{study.study_id}.txt"),
    }


def _write_image(out, folder, seed, study, index, size) -> dict:
    exposure = radiographs.expose(seed, study, index, size=size)
    dicom_id, view = study.dicom_ids[index], study.views[index]
    path = f"files/{folder}/{dicom_id}.jpg"
    # Images are written in place: a part counts only if its own file exists, so an incomplete image
    # of a killed run is always drawn again.
    packed = io.BytesIO()
    Image.fromarray(exposure.pixels).save(packed, "JPEG", quality=JPEG_QUALITY)
    (out / path).write_bytes(packed.getvalue())
    mask = write_masks(out, folder, dicom_id, exposure)
    ids = _ids(study, index)
    rows, columns = exposure.pixels.shape
    return {
        "metadata": _metadata_row(study, view, ids, rows, columns),
        "split": {**ids, "split": study.patient.split},
        "truth": image_truth(study, index, exposure, path=path, mask=mask),
    }


def write_masks(out: pathlib.Path, folder: str, dicom_id: str, exposure) -> str | None:
    """Writes the masks of a frontal image, and returns their path; None for a lateral image."""
    if exposure.regions is None:
        return None
    mask = f"phantom/masks/{folder}/{dicom_id}.png"
    (out / mask).parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    Image.fromarray(exposure.regions).save(packed, "PNG", compress_level=1)
    (out / mask).write_bytes(packed.getvalue())
    return mask


def image_truth(study, index: int, exposure, *, path: str, mask: str | None) -> dict:
    """Returns the line of findings.jsonl of an image.

    Args:
      study: study of the image.
      index: place of the image in the study.
      exposure: image and masks.
      path: path of the image's file, from the root of the data set.
      mask: path of its masks, None for a lateral image.
    """
    rows, columns = exposure.pixels.shape
    return {
        **_ids(study, index),
        "view": study.views[index],
        "path": path,
        "mask": mask,
        "rows": rows,
        "columns": columns,
        "px_per_mm": round(exposure.px_per_mm, 4),
        "findings": [
            _finding_truth(finding, bit, exposure) for bit, finding in enumerate(study.findings)
        ],
    }


def _ids(study, index: int) -> dict:
    return {
        "dicom_id": study.dicom_ids[index],
        "study_id": study.study_id,
        "subject_id": study.patient.subject_id,
    }


def _metadata_row(study, view, ids, rows, columns) -> dict:
    name = report_text.procedure(study)
    erect = "" if study.time.endswith("7") else "Recumbent" if view == "AP" else "Erect"
    return {
        **ids,
        "PerformedProcedureStepDescription": name,
        "ViewPosition": view,
        "Rows": rows,
        "Columns": columns,
        "StudyDate": study.date,
        "StudyTime": study.time,
        "ProcedureCodeSequence_CodeMeaning": name,
        "ViewCodeSequence_CodeMeaning": _VIEW_MEANINGS[view],
        "PatientOrientationCodeSequence_CodeMeaning": erect,
    }


def _chexpert_row(study, report) -> dict:
    values = {
        label: f"{report.labels[label]:.1f}" if label in report.labels else ""
        for label in report_text.LABELS
    }
    return {"subject_id": study.patient.subject_id, "study_id": study.study_id, **values}


def _finding_truth(finding: cases.Finding, bit: int, exposure) -> dict:
    line = {
        "label": finding.kind,
        "side": finding.side,
        "zone": finding.zone,
        "form": finding.form,
        "size": finding.size,
        "hedged": finding.hedged,
    }
    name = "ratio" if finding.kind == "Cardiomegaly" else "size_mm"
    line[name] = round(finding.extent, 3)
    if exposure.regions is not None:
        mask = exposure.mask(bit)
        line |= {"bit": bit, "box": box_of(mask), "area": int(np.count_nonzero(mask))}
    return line


def box_of(mask: np.ndarray) -> list[int] | None:
    """Returns the smallest box [x, y, width, height] in pixels around bool[H, W]; None if empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def _study_truth(study, report, path: str) -> dict:
    return {
        "study_id": study.study_id,
        "subject_id": study.patient.subject_id,
        "split": study.patient.split,
        "report": path,
        "layout": report.layout,
        "labels": report.labels,
        "devices": list(study.devices),
        "sentences": [
            {
                "text": sentence.text,
                "section": sentence.section,
                "about": [{"label": label, "side": side} for label, side in sentence.about],
                "labels": dict(sentence.labels),
            }
            for sentence in report.sentences
        ],
    }
