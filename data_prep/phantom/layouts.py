"""The phantom in the layouts of CheXpert, RSNA, SIIM-ACR, NIH ChestX-ray14 and Object-CXR.

Each layout turns an image and its findings into a file and into rows of the data set's own tables.
Labels, boxes and masks are those of the findings that are drawn, not of the report.
"""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from data_prep.kit import rle
from data_prep.phantom import cases, dicom_file, objects, radiographs
from prior_jax.data import regions

MIMIC = "mimic"
JPEG_QUALITY = 92
CHEXPERT_LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
_CHEXPERT_FILES = {"train": "train", "validate": "valid", "test": "test"}
_NIH_NAMES = {"Pleural Effusion": "Effusion", "Lung Lesion": "Nodule"}
_NIH_BOXED = ("Atelectasis", "Cardiomegaly", "Effusion", "Mass", "Nodule", "Pneumothorax")
_NIH_ENTRIES, _NIH_BOXES = "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"
_NIH_LISTS = {"train": "train_val_list", "validate": "train_val_list", "test": "test_list"}
_OPACITY = "Consolidation"
"""Finding that stands for the lung opacities of the RSNA challenge."""

Rows = dict[str, list[Sequence[object]]]
"""Name of a table -> rows for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """An image that is drawn, with what the layouts need to know of it.

    Attributes:
      study: study of the image.
      index: place of the image in the study.
      number: number of the study among those of its patient, from 1.
      frontal: number of frontal images of the patient before this one.
      exposure: image and masks.
      seed: seed of the data set.
    """

    study: cases.Study
    index: int
    number: int
    frontal: int
    exposure: radiographs.Exposure
    seed: int

    @property
    def view(self) -> str:
        """Returns the view: PA, AP, LATERAL or LL."""
        return self.study.views[self.index]

    @property
    def sex(self) -> str:
        """Returns "F" or "M"."""
        return "F" if self.study.patient.woman else "M"

    @property
    def patient(self) -> int:
        """Returns the number of the patient, below 10,000,000."""
        return self.study.patient.subject_id - 10_000_000

    @property
    def identity(self) -> str:
        """Returns the hexadecimal digits of the image's id."""
        return self.study.dicom_ids[self.index].replace("-", "")

    def masks(self) -> list[tuple[cases.Finding, np.ndarray]]:
        """Returns the findings of a frontal image that have pixels, each with its bool[H, W]."""
        found = ((f, self.exposure.mask(bit)) for bit, f in enumerate(self.study.findings))
        return [(finding, mask) for finding, mask in found if mask.any()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file of a layout: its path, its content, its rows, and objects that are painted on it."""

    path: str
    content: bytes
    rows: Rows
    shown: tuple[objects.ForeignObject, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A layout.

    Attributes:
      write: function from an image to its file and its rows.
      tables: name of a table -> its header, None for a list without one.
      lateral: whether it has lateral images.
      one_a_patient: whether it has one image of each patient, since it does not name patients.
    """

    write: Callable[[Drawn], File]
    tables: Mapping[str, Sequence[str] | None]
    lateral: bool = False
    one_a_patient: bool = False


def _chexpert(drawn: Drawn) -> File:
    frontal = drawn.view not in radiographs.LATERAL_VIEWS
    folder = _CHEXPERT_FILES[drawn.study.patient.split]
    place = f"{folder}/patient{drawn.patient:05d}/study{drawn.number}"
    name = f"view{drawn.index + 1}_{'frontal' if frontal else 'lateral'}.jpg"
    row = [
        f"CheXpert-v1.0-small/{place}/{name}",
        "Female" if drawn.sex == "F" else "Male",
        drawn.study.patient.age,
        "Frontal" if frontal else "Lateral",
        drawn.view if frontal else "",
        *chexpert_labels(drawn.study).values(),
    ]
    content = _image(drawn.exposure.pixels, "JPEG", quality=JPEG_QUALITY)
    return File(path=f"{place}/{name}", content=content, rows={f"{folder}.csv": [row]})


def chexpert_labels(study: cases.Study) -> dict[str, str]:
    """Returns the 14 labels as CheXpert writes them: 1.0, 0.0, -1.0 for a hedged finding, or blank.

    A kind of finding that the phantom draws is 0.0 where it is not drawn, and a label that the
    phantom does not draw is blank.
    """
    labels = dict.fromkeys(CHEXPERT_LABELS, "")
    for kind in cases.KINDS:
        found = study.of(kind)
        sure = any(not finding.hedged for finding in found)
        labels[kind] = ("1.0" if sure else "-1.0") if found else "0.0"
    if not study.findings:
        labels["No Finding"] = "1.0"
    if study.devices:
        labels["Support Devices"] = "1.0"
    return labels


def _rsna(drawn: Drawn) -> File:
    h = drawn.identity
    name = f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"
    boxes = [_box(mask) for finding, mask in drawn.masks() if finding.kind == _OPACITY]
    label = "Lung Opacity" if boxes else "No Lung Opacity / Not Normal"
    label = label if drawn.study.findings else "Normal"
    return File(
        path=f"stage_2_train_images/{name}.dcm",
        content=_dicom(drawn, name=name, patient=name),
        rows={
            "stage_2_train_labels.csv": [(name, *box, 1) for box in boxes]
            or [(name, "", "", "", "", 0)],
            "stage_2_detailed_class_info.csv": [(name, label)] * max(len(boxes), 1),
        },
    )


def _siim(drawn: Drawn) -> File:
    name = dicom_file.uid("instance", drawn.identity)
    masks = [mask for finding, mask in drawn.masks() if finding.kind == "Pneumothorax"]
    runs = [rle.encode(mask) for mask in masks] or [rle.NO_MASK]
    study, series = dicom_file.uid("study", name), dicom_file.uid("series", name)
    return File(
        path=f"dicom-images-train/{study}/{series}/{name}.dcm",
        content=_dicom(drawn, name=name, patient=f"{drawn.patient:07d}"),
        rows={"train-rle.csv": [(name, f" {run}") for run in runs]},
    )


def _nih(drawn: Drawn) -> File:
    name = f"{drawn.patient + 1:08d}_{drawn.frontal:03d}.png"
    height, width = drawn.exposure.pixels.shape
    labels = sorted({nih_label(finding) for finding in drawn.study.findings})
    entry = (
        name,
        "|".join(labels) or "No Finding",
        drawn.frontal,
        drawn.patient + 1,
        drawn.study.patient.age,
        drawn.sex,
        drawn.view,
        width,
        height,
        *[f"{1 / drawn.exposure.px_per_mm:.3f}"] * 2,
        "",
    )
    boxes = [
        (name, nih_label(finding), *_box(mask))
        for finding, mask in drawn.masks()
        if nih_label(finding) in _NIH_BOXED
    ]
    return File(
        path=f"images_{drawn.patient % 12 + 1:03d}/images/{name}",
        content=_image(drawn.exposure.pixels, "PNG"),
        rows={
            _NIH_ENTRIES: [entry],
            _NIH_BOXES: boxes,
            f"{_NIH_LISTS[drawn.study.patient.split]}.txt": [(name,)],
        },
    )


def nih_label(finding: cases.Finding) -> str:
    """Returns the name that NIH ChestX-ray14 has for a finding."""
    if finding.kind == "Lung Lesion" and finding.form == "mass":
        return "Mass"
    return _NIH_NAMES.get(finding.kind, finding.kind)


def _object_cxr(drawn: Drawn) -> File:
    rng = cases.stream(drawn.seed, 6, drawn.study.number, drawn.index)
    found = objects.sample_objects(rng, drawn.exposure)
    split = "dev" if drawn.study.patient.split == "test" else "train"
    name = f"{drawn.patient:05d}.jpg"
    pixels = objects.painted(drawn.exposure.pixels, found)
    return File(
        path=f"{split}/{name}",
        content=_image(pixels, "JPEG", quality=JPEG_QUALITY),
        rows={f"{split}.csv": [(name, ";".join(one.annotation() for one in found))]},
        shown=found,
    )


def _box(mask: np.ndarray) -> list[int]:
    """Returns x, y, width and height of the smallest box around a mask that has pixels."""
    x1, y1, x2, y2 = map(int, regions.box_of_mask(mask))
    return [x1, y1, x2 - x1, y2 - y1]


def _image(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, kind, **options)
    return packed.getvalue()


def _dicom(drawn: Drawn, *, name: str, patient: str) -> bytes:
    return dicom_file.content_of(
        drawn.exposure.pixels,
        name=name,
        patient=patient,
        sex=drawn.sex,
        age=drawn.study.patient.age,
        view=drawn.view,
    )


_CHEXPERT_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS)
LAYOUTS: Mapping[str, Layout] = {
    "chexpert": Layout(
        write=_chexpert,
        tables={f"{name}.csv": _CHEXPERT_COLUMNS for name in _CHEXPERT_FILES.values()},
        lateral=True,
    ),
    "rsna": Layout(
        write=_rsna,
        tables={
            "stage_2_train_labels.csv": ("patientId", "x", "y", "width", "height", "Target"),
            "stage_2_detailed_class_info.csv": ("patientId", "class"),
        },
        one_a_patient=True,
    ),
    "siim": Layout(
        write=_siim,
        tables={"train-rle.csv": ("ImageId", " EncodedPixels")},
        one_a_patient=True,
    ),
    "nih": Layout(
        write=_nih,
        tables={
            # Both headers have commas within names, as the NIH writes them, and the rows of boxes
            # end before the last three commas of theirs.
            _NIH_ENTRIES: (
                "Image Index",
                "Finding Labels",
                "Follow-up #",
                "Patient ID",
                "Patient Age",
                "Patient Sex",
                "View Position",
                "OriginalImage[Width",
                "Height]",
                "OriginalImagePixelSpacing[x",
                "y]",
                "",
            ),
            _NIH_BOXES: ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""),
            "train_val_list.txt": None,
            "test_list.txt": None,
        },
    ),
    "object_cxr": Layout(
        write=_object_cxr,
        tables={name: ("image_name", "annotation") for name in ("train.csv", "dev.csv")},
        one_a_patient=True,
    ),
}
"""Name of a layout, other than MIMIC-CXR's -> how it is written."""
