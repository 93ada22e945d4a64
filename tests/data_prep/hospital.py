"""A tiny hospital in the layout of MIMIC-CXR-JPG, for tests of the preparers."""

import gzip
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old with cough.

 FINDINGS:

 The lungs are clear number {number}.  The heart is not
 enlarged.  No effusion is seen.  There is a 3 cm. nodule in the left lung.

 IMPRESSION:

 No acute disease.
"""


def jpeg(seed: int, *, size=(80, 64)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 10), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def dicom(study: int, view: str) -> str:
    return "-".join(f"{(study * 7919 + k) % 16**8:08x}" for k in range(4)) + f"-{view.lower():0>8}"


def draw(
    root: pathlib.Path,
    *,
    studies: int,
    seed: int = 0,
    image=jpeg,
    zipped: bool = False,
    version: str = "2.0.0",
) -> list[tuple[int, int]]:
    """Writes a hospital, two studies a patient, and returns (subject, study) of each study."""
    metadata = ["dicom_id,subject_id,study_id,ViewPosition,Rows,Columns"]
    split = ["dicom_id,study_id,subject_id,split"]
    labels = ["subject_id,study_id,Atelectasis,Edema,No Finding"]
    reports, drawn = {}, []
    for number in range(studies):
        subject = 10_000_000 + (number // 2) * 7_370_003 % 9_999_991
        study = 50_000_000 + number
        folder = root / "files" / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{study}"
        folder.mkdir(parents=True)
        name = "train" if number // 2 % 10 < 8 else ("validate", "test")[number // 2 % 10 - 8]
        for view in ("PA", "LATERAL"):
            metadata.append(f"{dicom(study, view)},{subject},{study},{view},64,80")
            split.append(f"{dicom(study, view)},{study},{subject},{name}")
            content = image(seed + number) if view == "PA" else jpeg(0)
            (folder / f"{dicom(study, view)}.jpg").write_bytes(content)
        if number % 5:
            labels.append(f"{subject},{study},1.0,{number % 2},-1.0")
        reports[f"files/{folder.parent.parent.name}/p{subject}/s{study}.txt"] = REPORT.format(
            number=number
        )
        drawn.append((subject, study))
    for kind, lines in (("metadata", metadata), ("split", split), ("chexpert", labels)):
        with gzip.open(root / f"mimic-cxr-{version}-{kind}.csv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    if zipped:
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in reports.items():
                archive.writestr(name, text)
    else:
        for name, text in reports.items():
            (root / name).write_text(text)
    return drawn


def paths_of(root: pathlib.Path, subject: int, study: int):
    """Returns (report, PA image) of a study."""
    patient = root / "files" / f"p{str(subject)[:2]}" / f"p{subject}"
    return patient / f"s{study}.txt", patient / f"s{study}" / f"{dicom(study, 'PA')}.jpg"
