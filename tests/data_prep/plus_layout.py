"""The smallest folder in the layout of CheXpert Plus.

The columns are those of df_chexpert_plus_240401.csv as public code that reads it lists them, the
unnamed index of a data frame in front among them; labels are lines of JSON, as in chexbert_labels.
"""

import csv
import io
import json

from data_prep import chexpert
from tests.data_prep.odd_files import write_image

COLUMNS = (
    "",
    *("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id"),
    *("patient_report_date_order", "report", "section_narrative", "section_clinical_history"),
    *("section_history", "section_comparison", "section_technique", "section_procedure_comments"),
    *("section_findings", "section_impression", "section_end_of_impression", "section_summary"),
    *("section_accession_number", "age", "sex", "race", "ethnicity", "interpreter_needed"),
    *("insurance_type", "recent_bmi", "deceased", "split"),
)
TABLE, LABELS = "df_chexpert_plus_240401.csv", "chexbert_labels/impression_fixed.json"
ONE, TWO, NINE = (
    "train/patient00001/study1",
    "train/patient00002/study1",
    "valid/patient00009/study1",
)
EVERYTHING = (ONE, TWO, NINE)
IMAGE = f"{TWO}/view1_frontal"
FINDINGS = 'The lungs are clear.\n\nThe heart, of normal size, is "unremarkable".'
IMPRESSION = "1.  NO ACUTE DISEASE.\n2.  STABLE LINES."


def line_of(study, *, view="view1_frontal", **changes):
    """A row of the table; what is not changed is as in the data set."""
    path = f"{study}/{view}"
    side = "Lateral" if "lateral" in view else "Frontal"
    known = {
        "": "0",
        "path_to_image": f"{path}.jpg",
        "path_to_dcm": f"{path}.dcm",
        "frontal_lateral": side,
        "ap_pa": "" if side == "Lateral" else "AP",
        "deid_patient_id": study.split("/")[1] if "/" in study else "",
        "patient_report_date_order": "1",
        "report": f"NARRATIVE:\nCHEST\n\nFINDINGS:\n{FINDINGS}\n\nIMPRESSION:\n{IMPRESSION}",
        "section_findings": FINDINGS,
        "section_impression": IMPRESSION,
        "section_summary": "2-ABNORMAL, PREVIOUSLY REPORTED",
        "age": "58.0",
        "sex": "Female",
        "race": "White, non-Hispanic",
        "deceased": "No",
        "split": study.partition("/")[0],
    }
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        {**known, **changes}.get(n, "") for n in COLUMNS
    )
    return buffer.getvalue()


def label_line(study, view="view1_frontal", **said):
    names = {name: said.get(name.replace(" ", "_")) for name in chexpert.LABELS}
    return json.dumps({"path_to_image": f"{study}/{view}.jpg", **names})


def write(base):
    """Writes three studies with an image each, of which the last validates."""
    (base / "chexbert_labels").mkdir(parents=True)
    rows = [line_of(ONE), line_of(TWO, sex="Male", age="41.0", ap_pa="PA"), line_of(NINE)]
    (base / TABLE).write_text(",".join(COLUMNS) + "\n" + "".join(rows))
    labels = [label_line(ONE, Edema=1.0, Fracture=-1.0), label_line(TWO, Edema=0.0)]
    (base / LABELS).write_text("".join(f"{line}\n" for line in (*labels, label_line(NINE))))
    for place, study in enumerate(EVERYTHING):
        write_image(base / f"PNG/{study}/view1_frontal.png", place)
    return base
