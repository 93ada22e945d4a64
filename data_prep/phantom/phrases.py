"""The phantom's wording as data: all sentences that its reports can contain.

A row is `Phrase(text, labels)`. `report_text` fills the slots in braces: {side}, {zone}, {size} (a
word for the extent that suits the finding), {mm}, {cm}, {left} and {right} (size words of a pair).
`labels` are CheXpert labels that the sentence asserts besides its own finding. The sentences were
written for this project.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Phrase:
    """A sentence with slots; it suits findings of `sizes`, and asserts `labels` besides its own."""

    text: str
    sizes: str = "sml"
    labels: tuple[tuple[str, int], ...] = ()


_OPACITY = (("Lung Opacity", 1),)
_OPACITY_PNEUMONIA = (("Lung Opacity", 1), ("Pneumonia", -1))
_PNEUMONIA = (("Pneumonia", -1),)

SIZE_WORDS = {
    "Atelectasis": {"small": ("mild", "minimal"), "moderate": ("moderate",), "large": ("marked",)},
    "Cardiomegaly": {"small": ("mild",), "moderate": ("moderate",), "large": ("severe", "marked")},
    "Consolidation": {
        "small": ("small", "patchy"),
        "moderate": ("moderate-sized", "confluent"),
        "large": ("large", "extensive"),
    },
    "Edema": {"small": ("mild",), "moderate": ("moderate",), "large": ("severe",)},
    "Lung Lesion": {"small": ("small",), "moderate": ("well-defined",), "large": ("large",)},
    "Pleural Effusion": {
        "small": ("small", "small", "trace"),
        "moderate": ("moderate", "moderate-sized"),
        "large": ("large",),
    },
    "Pneumothorax": {
        "small": ("small", "small apical"),
        "moderate": ("moderate", "moderate-sized"),
        "large": ("large",),
    },
}

# Certain statements, by kind and form; the first rows are also short enough for an impression.
POSITIVE = {
    ("Pleural Effusion", "one"): (
        Phrase("{size} {side} pleural effusion."),
        Phrase("There is a {size} {side} pleural effusion."),
        Phrase("A {size} {side}-sided pleural effusion is present."),
        Phrase("Note is made of a {size} pleural effusion on the {side}."),
        Phrase(
            "Blunting of the {side} costophrenic angle is due to a {size} pleural effusion.", "s"
        ),
        Phrase("A {size} {side} effusion obscures the {side} hemidiaphragm.", "ml"),
        Phrase(
            "Opacification of the lower {side} hemithorax reflects a {size} pleural effusion.",
            "ml",
            _OPACITY,
        ),
        Phrase("Pleural effusion is {size} on the {side}."),
    ),
    ("Pleural Effusion", "both"): (
        Phrase("Bilateral pleural effusions, {left} on the left and {right} on the right."),
        Phrase(
            "There are bilateral pleural effusions, {right} on the right and {left} on the left."
        ),
        Phrase("A {left} left and a {right} right pleural effusion are seen."),
    ),
    ("Pleural Effusion", "same"): (
        Phrase("{size} bilateral pleural effusions."),
        Phrase("There are {size} bilateral pleural effusions."),
        Phrase("{size} pleural effusions are present on both sides."),
    ),
    ("Pneumothorax", "one"): (
        Phrase("{size} {side} pneumothorax."),
        Phrase("There is a {size} {side} pneumothorax."),
        Phrase("A {size} {side}-sided pneumothorax is present."),
        Phrase("A pleural line is seen on the {side}, in keeping with a {size} pneumothorax."),
        Phrase("{size} pneumothorax on the {side}, measuring {cm} cm at the apex."),
        Phrase("A {size} {side} pneumothorax with partial collapse of the {side} lung.", "ml"),
    ),
    ("Cardiomegaly", "one"): (
        Phrase("{size} cardiomegaly."),
        Phrase("There is {size} cardiomegaly."),
        Phrase("Cardiomegaly is {size}."),
        Phrase("The heart is {size:ly} enlarged."),
        Phrase("The cardiac silhouette is {size:ly} enlarged."),
        Phrase("Heart size is {size:ly} enlarged."),
        Phrase("The heart is enlarged with a cardiothoracic ratio of {ratio}."),
    ),
    ("Edema", "one"): (
        Phrase("{size} pulmonary edema."),
        Phrase("There is {size} pulmonary edema."),
        Phrase("{size} interstitial pulmonary edema with prominent vessels.", "sm"),
        Phrase(
            "Perihilar opacities on both sides are in keeping with {size} edema.", "ml", _OPACITY
        ),
        Phrase("Indistinct vessels and septal lines indicate {size} pulmonary edema."),
        Phrase("{size} pulmonary vascular congestion and edema."),
    ),
    ("Consolidation", "plain"): (
        Phrase("{size} consolidation in the {side} {zone}."),
        Phrase("There is a {size} consolidation in the {side} {zone}."),
        Phrase("{side} {zone} consolidation."),
        Phrase("{side} {zone} consolidation, concerning for pneumonia.", labels=_PNEUMONIA),
        Phrase("A {size} focal consolidation is seen in the {side} {zone}."),
        Phrase("Airspace consolidation with air bronchograms in the {side} {zone}.", "ml"),
        Phrase("{size} opacity in the {side} {zone} represents consolidation.", labels=_OPACITY),
    ),
    ("Lung Lesion", "plain"): (
        Phrase("{mm} mm nodule in the {side} {zone}."),
        Phrase("There is a {mm} mm nodule in the {side} {zone}."),
        Phrase("A {mm} mm nodule projects over the {side} {zone}."),
        Phrase("A {size} {cm} cm pulmonary nodule is seen in the {side} {zone}."),
        Phrase("{side} {zone} nodule measures {cm} cm in diameter."),
        Phrase("A {size} nodule is present in the {side} {zone}, measuring approx. {mm} mm."),
    ),
    ("Lung Lesion", "mass"): (
        Phrase("{cm} cm mass in the {side} {zone}."),
        Phrase("There is a {cm} cm mass in the {side} {zone}."),
        Phrase("A large lobulated mass measures {cm} cm in the {side} {zone}."),
        Phrase("A {mm} mm mass projects over the {side} {zone}."),
        Phrase("{side} {zone} mass, {cm} cm across."),
    ),
    ("Atelectasis", "linear"): (
        Phrase("{size} {side} {base} atelectasis."),
        Phrase("There is {size} {side} {base} atelectasis."),
        Phrase("{size} linear atelectasis at the {side} {place}."),
        Phrase("Bands of {size} atelectasis are seen at the {side} {place}.", "ml"),
        Phrase("{size} subsegmental atelectasis in the {side} {place}."),
        Phrase(
            "Linear opacities at the {side} {place} reflect {size} atelectasis.", "ml", _OPACITY
        ),
    ),
    ("Atelectasis", "both"): (
        Phrase("{size} bibasilar atelectasis."),
        Phrase("There is {size} bibasilar atelectasis."),
        Phrase("{size} linear atelectasis at both lung bases."),
        Phrase("Bands of {size} atelectasis are seen at both bases."),
    ),
    ("Atelectasis", "lobar"): (
        Phrase("{side} lower lobe atelectasis."),
        Phrase("There is {size} {side} lower lobe atelectasis."),
        Phrase("{size} volume loss in the {side} lower lobe, consistent with lobar atelectasis."),
        Phrase("{side} lower lobe collapse with {size} atelectasis and a raised hemidiaphragm."),
    ),
}

# Uncertain statements (label -1), for small findings only.
HEDGED = {
    "Pleural Effusion": (
        Phrase("Possible {size} {side} pleural effusion."),
        Phrase(
            "Blunting of the {side} costophrenic angle may represent a {size} pleural effusion."
        ),
        Phrase("A {size} {side} pleural effusion cannot be excluded."),
    ),
    "Cardiomegaly": (
        Phrase("Possible mild cardiomegaly."),
        Phrase("The heart appears borderline enlarged, which may represent mild cardiomegaly."),
    ),
    "Edema": (
        Phrase("Possible mild pulmonary edema."),
        Phrase("Mild perihilar haze may represent mild pulmonary edema."),
    ),
    "Consolidation": (
        Phrase("Possible small consolidation in the {side} {zone}."),
        Phrase(
            "Patchy opacity in the {side} {zone} may represent consolidation or pneumonia.",
            labels=_OPACITY_PNEUMONIA,
        ),
    ),
    "Lung Lesion": (
        Phrase("Possible {mm} mm nodule in the {side} {zone}."),
        Phrase(
            "A {mm} mm rounded opacity in the {side} {zone} may represent a nodule.",
            labels=_OPACITY,
        ),
    ),
    "Atelectasis": (
        Phrase("Possible {size} {side} {base} atelectasis."),
        Phrase("Streaky opacity at the {side} {place} may represent atelectasis.", labels=_OPACITY),
    ),
}

# Denials: the findings that the sentence denies, and the sentence.
NEGATIVE = (
    (("Pleural Effusion",), "No pleural effusion."),
    (("Pleural Effusion",), "There is no pleural effusion."),
    (("Pleural Effusion",), "The costophrenic angles are sharp without pleural effusion."),
    (("Pneumothorax",), "No pneumothorax."),
    (("Pneumothorax",), "There is no pneumothorax."),
    (("Pneumothorax",), "No evidence of pneumothorax is seen."),
    (("Pleural Effusion", "Pneumothorax"), "No pleural effusion or pneumothorax."),
    (("Pleural Effusion", "Pneumothorax"), "There is no pleural effusion or pneumothorax."),
    (("Pleural Effusion", "Pneumothorax"), "Neither pleural effusion nor pneumothorax is present."),
    (("Consolidation",), "No focal consolidation."),
    (("Consolidation",), "There is no focal consolidation."),
    (
        ("Consolidation", "Pleural Effusion", "Pneumothorax"),
        "No focal consolidation, pleural effusion, or pneumothorax.",
    ),
    (
        ("Consolidation", "Pleural Effusion", "Pneumothorax"),
        "There is no focal consolidation, effusion or pneumothorax.",
    ),
    (("Consolidation", "Edema"), "No consolidation or pulmonary edema."),
    (("Edema",), "No pulmonary edema."),
    (("Edema",), "There is no pulmonary edema."),
    (("Edema",), "No overt edema is seen."),
    (("Atelectasis",), "No atelectasis."),
    (("Atelectasis", "Consolidation"), "No atelectasis or consolidation."),
    (("Lung Lesion",), "No pulmonary nodule or mass."),
    (("Lung Lesion",), "No nodule is seen."),
    (("Cardiomegaly",), "No cardiomegaly."),
    (("Cardiomegaly",), "The heart is normal in size."),
    (("Cardiomegaly",), "Heart size is normal."),
    (("Cardiomegaly",), "The cardiac silhouette is not enlarged."),
    (("Cardiomegaly", "Edema"), "The heart is not enlarged and there is no edema."),
)

# Sentences for any chest without these kinds of findings; the labels are asserted.
NORMAL = (
    (("Consolidation", "Edema", "Atelectasis", "Lung Lesion", "Pneumothorax", "Pleural Effusion"),
     Phrase("The lungs are clear.")),
    (("Consolidation", "Edema", "Atelectasis", "Lung Lesion", "Pneumothorax", "Pleural Effusion"),
     Phrase("The lungs are well expanded and clear.")),
    (("Cardiomegaly",), Phrase("The cardiomediastinal silhouette is within normal limits.",
                               labels=(("Enlarged Cardiomediastinum", 0),))),
    (("Consolidation",), Phrase("There is no evidence of pneumonia.", labels=(("Pneumonia", 0),))),
    ((), Phrase("The mediastinal contours are unremarkable.",
                labels=(("Enlarged Cardiomediastinum", 0),))),
    ((), Phrase("No acute osseous abnormality.")),
    ((), Phrase("No displaced rib fracture is identified.", labels=(("Fracture", 0),))),
    ((), Phrase("Bony structures are intact.")),
    ((), Phrase("The imaged upper abdomen is unremarkable.")),
    ((), Phrase("There is no free air below the right hemidiaphragm.")),
)  # fmt: skip

DEVICES = {
    "endotracheal_tube": (
        "An endotracheal tube ends 4.5 cm above the carina.",
        "Endotracheal tube in standard position.",
    ),
    "central_line": (
        "A right internal jugular central venous line ends in the lower SVC.",
        "Right-sided central venous catheter is unchanged in position.",
    ),
    "pacemaker": (
        "A left pectoral pacemaker is in place with its leads in unchanged position.",
        "Left-sided dual-lead pacemaker is noted.",
    ),
    "sternotomy": ("Median sternotomy wires are intact.", "The patient is status post sternotomy."),
    "chest_tube_left": ("A left chest tube is in place.", "Left-sided chest tube is noted."),
    "chest_tube_right": ("A right chest tube is in place.", "Right-sided chest tube is noted."),
}

CLEAR_IMPRESSIONS = (
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No acute intrathoracic process.",
    "No radiographic evidence of acute disease.",
)

LEAD_INS = (
    "In comparison with the study of ___, ",
    "Compared to the prior radiograph of ___, ",
    "As compared to ___, ",
    "Again, ",
)

REMARKS = (
    "Follow-up radiographs are recommended.",
    "Findings were discussed with Dr. ___ by phone at 4:15 p.m. on ___.",
    "Recommend correlation with clinical findings.",
    "Dr. ___ was paged at 10:30 a.m. with these results.",
    "Repeat radiograph in 4 wks. is advised.",
)

HEADERS = {
    "EXAMINATION": ("EXAMINATION", "EXAM", "STUDY", "TYPE OF EXAMINATION"),
    "INDICATION": ("INDICATION", "HISTORY", "CLINICAL HISTORY", "REASON FOR EXAM"),
    "TECHNIQUE": ("TECHNIQUE",),
    "COMPARISON": ("COMPARISON", "COMPARISONS"),
    "FINDINGS": ("FINDINGS",) * 24 + ("FINDING", "FIDNINGS"),
    "IMPRESSION": ("IMPRESSION",) * 24 + ("CONCLUSION", "IMPRESSON", "IMPRESSION AND PLAN"),
    "BOTH": ("FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION"),
}

COMPLAINTS = (
    "cough and fever",
    "shortness of breath",
    "chest pain",
    "hypoxia",
    "a fall",
    "dyspnea on exertion",
    "weakness",
    "altered mental status",
    "___",
    "leukocytosis",
    "recent intubation",
    "weight loss",
)
QUESTIONS = (
    "evaluate for pneumonia",
    "?pneumonia",
    "eval for pneumothorax",
    "assess for effusion",
    "evaluate for acute process",
    "r/o edema",
    "interval change?",
    "please evaluate",
)
COMPARISONS = (
    "None.",
    "None available.",
    "___.",
    "Chest radiograph ___.",
    "___ and ___.",
    "Radiograph from ___",
)

MISSPELLINGS = {
    "pneumothorax": "pneumothroax",
    "effusion": "effsuion",
    "consolidation": "consoldiation",
    "pulmonary": "pulmonry",
    "unremarkable": "unremakable",
    "silhouette": "silhoutte",
    "enlarged": "enlagred",
}
