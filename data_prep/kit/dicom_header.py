"""Sex, age and view in the header of a DICOM file, for sets whose tables do not give them."""

import pathlib
import warnings
from typing import Any

from data_prep.kit import subgroups, values

_VIEWS = ("PA", "AP")


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns `sex`, `age` and `view`: "", None and "" where the header does not say them.

    Whatever else is wrong with the file is said when its pixels are read.
    """
    try:
        import pydicom

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = ["PatientSex", "PatientAge", "ViewPosition"]
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            said = [str(found.get(tag, "") or "") for tag in tags]
    except Exception:  # pydicom raises anything on damaged files
        return {"sex": "", "age": None, "view": ""}
    sex, age, view = said
    return {
        "sex": _read(subgroups.sex_of, sex, otherwise=""),
        "age": _read(subgroups.age_of, age, otherwise=None),
        "view": view.strip().upper() if view.strip().upper() in _VIEWS else "",
    }


def _read(function: Any, text: str, *, otherwise: Any) -> Any:
    try:
        return function(text, field="header")
    except values.CellProblem:
        return otherwise
