"""Tables of the wording of findings in reports and of the names that data sets give them."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassPrompts:
    """The sentences of one class.

    Attributes:
      positive: sentences that affirm the finding; at least one.
      negative: sentences that deny the finding; may be empty.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The wording of one finding in reports.

    Attributes:
      name: name of the class.
      a: name of the finding with its article, as in "there is ...".
      bare: the finding without its article, as in "no ...".
      positive: further sentences that affirm the finding.
      negative: further sentences that deny the finding.
      described: templates with the slots {size} and {place}, which are filled with every pair of
        values.
      sizes: values of {size}.
      places: values of {place}.
      words: words that name the finding by themselves; () for the last word of `bare`.
    """

    name: str
    a: str
    bare: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    described: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


_SIDES = ("left", "right")
_ZONES = tuple(
    f"{side} {zone}" for side in _SIDES for zone in ("upper lung", "mid lung", "lower lung")
)
_EXTENT = ("small", "moderate", "large")
_SEVERITY = ("mild", "moderate", "severe")

# The CheXpert labels (arXiv:1901.07031, table 1), then those that only ChestX-ray14
# (arXiv:1705.02315, sec. 3) has. The wording is this project's own.
FINDINGS = (
    Finding(
        name="Atelectasis",
        a="atelectasis",
        bare="atelectasis",
        positive=("Bibasilar atelectasis.", "Linear opacity at the lung base, atelectasis."),
        described=("{size} {place} atelectasis.", "There is {size} {place} atelectasis."),
        sizes=("mild", "moderate"),
        places=(
            "left basilar",
            "right basilar",
            "bibasilar",
            "left lower lobe",
            "right lower lobe",
        ),
    ),
    Finding(
        name="Cardiomegaly",
        a="cardiomegaly",
        bare="cardiomegaly",
        positive=("The heart is enlarged.", "The cardiac silhouette is enlarged."),
        negative=("The heart size is normal.", "The cardiac silhouette is normal in size."),
        described=("{size} cardiomegaly.", "There is {size} cardiomegaly."),
        sizes=_SEVERITY,
        places=("",),
    ),
    Finding(
        name="Consolidation",
        a="consolidation",
        bare="consolidation",
        positive=("Focal consolidation in the lung.", "There is an airspace consolidation."),
        negative=("No focal consolidation.", "The lungs are clear of consolidation."),
        described=(
            "{size} consolidation in the {place}.",
            "There is a {size} consolidation in the {place}.",
        ),
        sizes=("small", "large"),
        places=_ZONES,
    ),
    Finding(
        name="Edema",
        a="pulmonary edema",
        bare="pulmonary edema",
        positive=("Interstitial pulmonary edema.", "Pulmonary vascular congestion and edema."),
        negative=("The pulmonary vasculature is normal.",),
        described=("{size} pulmonary edema.", "There is {size} pulmonary edema."),
        sizes=_SEVERITY,
        places=("",),
    ),
    Finding(
        name="Pleural Effusion",
        a="a pleural effusion",
        bare="pleural effusion",
        positive=("Blunting of the costophrenic angle, pleural effusion.",),
        negative=("The costophrenic angles are sharp.",),
        described=(
            "{size} {place} pleural effusion.",
            "There is a {size} {place} pleural effusion.",
        ),
        sizes=_EXTENT,
        places=_SIDES,
    ),
    Finding(
        name="Pneumothorax",
        a="a pneumothorax",
        bare="pneumothorax",
        positive=("A pleural line is visible, pneumothorax.",),
        described=("{size} {place} pneumothorax.", "There is a {size} {place} pneumothorax."),
        sizes=_EXTENT,
        places=_SIDES,
    ),
    Finding(
        name="Lung Lesion",
        a="a lung lesion",
        bare="lung lesion",
        words=("nodule", "mass"),
        positive=("There is a pulmonary nodule or mass.", "A nodular opacity in the lung."),
        negative=("No pulmonary nodule or mass.",),
        described=("{size} nodule in the {place}.", "There is a {size} nodule in the {place}."),
        sizes=("12 mm", "large"),
        places=_ZONES,
    ),
    Finding(
        name="Nodule",
        a="a pulmonary nodule",
        bare="pulmonary nodule",
        positive=("There is a nodule in the lung.", "A small round nodular opacity."),
        negative=("No suspicious pulmonary nodule.",),
        described=("{size} nodule in the {place}.", "There is a {size} nodule in the {place}."),
        sizes=("12 mm", "large"),
        places=_ZONES,
    ),
    Finding(name="Mass", a="a lung mass", bare="lung mass", positive=("A large round opacity.",)),
    Finding(
        name="Lung Opacity",
        a="a lung opacity",
        bare="lung opacity",
        positive=("An opacity projects over the lung.",),
        negative=("The lungs are clear.",),
        described=("{size} opacity in the {place}.",),
        sizes=("patchy", "linear"),
        places=_ZONES,
    ),
    Finding(
        name="Pneumonia",
        a="pneumonia",
        bare="pneumonia",
        positive=("Opacity concerning for pneumonia.",),
    ),
    Finding(
        name="Enlarged Cardiomediastinum",
        a="widening of the mediastinum",
        bare="mediastinal widening",
        positive=("The cardiomediastinal silhouette is enlarged.",),
        negative=("The cardiomediastinal silhouette is normal.",),
    ),
    Finding(name="Pleural Other", a="a pleural abnormality", bare="pleural abnormality"),
    Finding(
        name="Fracture",
        a="a fracture",
        bare="fracture",
        positive=("A rib fracture is seen.",),
        negative=("The bones are intact.",),
    ),
    Finding(
        name="Support Devices",
        a="a support device",
        bare="support device",
        positive=("A tube or catheter is in place.",),
        negative=("No lines or tubes.",),
        described=("{place}.",),
        sizes=("",),
        places=(
            "An endotracheal tube is in place",
            "A central venous catheter is in place",
            "A pacemaker is in place",
            "Sternotomy wires are in place",
        ),
    ),
    Finding(name="Infiltration", a="an infiltrate", bare="infiltrate"),
    Finding(
        name="Emphysema",
        a="emphysema",
        bare="emphysema",
        positive=("The lungs are hyperinflated.",),
        negative=("The lungs are normally expanded.",),
    ),
    Finding(
        name="Fibrosis",
        a="pulmonary fibrosis",
        bare="pulmonary fibrosis",
        positive=("Coarse reticular opacities.",),
    ),
    Finding(name="Pleural Thickening", a="pleural thickening", bare="pleural thickening"),
    Finding(name="Hernia", a="a hiatal hernia", bare="hiatal hernia"),
)

# The templates do not fit the absence of every finding.
NO_FINDING = ClassPrompts(
    positive=(
        "No acute cardiopulmonary abnormality.",
        "Normal chest radiograph.",
        "No acute cardiopulmonary process.",
        "The lungs are clear and the heart size is normal.",
    ),
    negative=(
        "There is an acute cardiopulmonary abnormality.",
        "Abnormal chest radiograph.",
        "There is an abnormal opacity.",
        "Abnormal findings are present.",
    ),
)

# Names that other data sets give to the same class.
SYNONYMS = {
    "effusion": "pleural effusion",
    "pulmonary edema": "edema",
    "lung nodule": "nodule",
    "pulmonary nodule": "nodule",
    "lung mass": "mass",
    "normal": "no finding",
    "no findings": "no finding",
    "airspace opacity": "lung opacity",
    "infiltrate": "infiltration",
    "pulmonary fibrosis": "fibrosis",
    "lung fibrosis": "fibrosis",
}
