"""Writes the report of a phantom study, and the CheXpert labels that its sentences assert."""

import dataclasses
import re
import textwrap

from data_prep.phantom import cases, phrases
from data_prep.phantom.phrases import Phrase

LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""Columns of mimic-cxr-2.0.0-chexpert.csv, in its order."""

# Layouts of reports; the rarer layouts are test cases for the preparers' filters.
_LAYOUTS = {
    "both": 0.78,
    "impression": 0.07,
    "findings": 0.04,
    "joined": 0.03,
    "short": 0.05,
    "headless": 0.03,
}

_ZONES = {
    "upper": ("upper lung", "upper lobe", "upper lung"),
    "mid": ("mid lung", "mid lung zone"),
    "lower": ("lower lung", "lower lobe", "lung base"),
}

# Probability that a report with denials denies an absent finding.
_DENIED = {
    "Pleural Effusion": 0.85,
    "Pneumothorax": 0.85,
    "Consolidation": 0.75,
    "Edema": 0.5,
    "Cardiomegaly": 0.8,
    "Atelectasis": 0.25,
    "Lung Lesion": 0.35,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence of a report.

    Attributes:
      text: text as written, before lines are wrapped.
      section: "findings", "impression", or "none" in a report without sections.
      about: (kind, side) of each finding that the sentence states.
      labels: (CheXpert label, value 1, 0 or -1) of each label that the sentence asserts.
    """

    text: str
    section: str
    about: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A report: its layout, its text file, its sentences in order, and its labels."""

    layout: str
    text: str
    sentences: tuple[Sentence, ...]
    labels: dict[str, int]


def write_report(seed: int, study: cases.Study) -> Report:
    """Writes the report of a study.

    Args:
      seed: seed of the data set.
      study: study to report.

    Returns:
      The report, which is a pure function of the arguments. `labels` has an entry for each label
      that the text asserts, and is empty for a layout without sections, which CheXpert's labeler
      does not read.
    """
    rng = cases.stream(seed, 5, study.number)
    layout = cases.pick(rng, _LAYOUTS)
    if layout in ("short", "headless") and study.findings and rng.random() < 0.5:
        layout = "both"
    sections = {
        "both": ("findings", "impression"),
        "impression": ("impression",),
        "findings": ("findings",),
        "joined": ("findings",),
        "short": ("impression",),
        "headless": ("none",),
    }[layout]
    sentences: list[Sentence] = []
    for section in sections:
        if section == "findings" or layout == "impression":
            sentences += _findings_section(rng, study, section)
        else:
            sentences += _impression_section(rng, study, section, brief=layout != "both")
    sentences = [_with_typos(rng, sentence) for sentence in sentences]
    labels = {} if layout == "headless" else merge_labels(sentences)
    return Report(
        layout=layout,
        text=_lay_out(rng, study, layout, sentences),
        sentences=tuple(sentences),
        labels=labels,
    )


def merge_labels(sentences) -> dict[str, int]:
    """Returns one value for each label over all sentences (1 beats -1 beats 0), and No Finding.

    CheXpert's No Finding is 1 if only devices are positive or uncertain; otherwise it has no value.
    """
    merged: dict[str, int] = {}
    for sentence in sentences:
        for label, value in sentence.labels:
            old = merged.get(label, 0)
            merged[label] = 1 if 1 in (old, value) else min(old, value)
    if not any(value for label, value in merged.items() if label != "Support Devices"):
        merged["No Finding"] = 1
    return merged


def _findings_section(rng, study, section) -> list[Sentence]:
    groups = [_statements(rng, study, section), _device_sentences(rng, study, section)]
    groups.append(_denials(rng, study, section, share=1.0))
    groups.append(_normals(rng, study, section, count=int(rng.integers(1, 4))))
    order = rng.permutation(len(groups)) if rng.random() < 0.5 else (1, 0, 2, 3)
    sentences = [sentence for i in order for sentence in groups[i]]
    if rng.random() < 0.12:
        first = sentences[0]
        text = phrases.LEAD_INS[int(rng.integers(len(phrases.LEAD_INS)))]
        sentences[0] = dataclasses.replace(
            first, text=text + first.text[0].lower() + first.text[1:]
        )
    return sentences


def _impression_section(rng, study, section, *, brief) -> list[Sentence]:
    stated = _statements(rng, study, section)
    if not stated:
        clear = phrases.CLEAR_IMPRESSIONS
        stated = [Sentence(text=clear[int(rng.integers(len(clear)))], section=section, about=(),
                           labels=())]  # fmt: skip
    elif not brief and len(stated) > 1 and rng.random() < 0.15:
        stated = stated[:-1]
    if rng.random() < 0.35:
        stated += _denials(rng, study, section, share=0.35)[:1]
    if not brief and rng.random() < 0.15:
        remark = phrases.REMARKS[int(rng.integers(len(phrases.REMARKS)))]
        stated.append(Sentence(text=remark, section=section, about=(), labels=()))
    return stated[:3] if brief and not study.findings else stated


def _statements(rng, study, section) -> list[Sentence]:
    """Returns one sentence for each kind of finding in the chest, in random order."""
    kinds = [kind for kind in cases.KINDS if study.of(kind)]
    return [_statement(rng, study.of(kinds[i]), section) for i in rng.permutation(len(kinds))]


def _statement(rng, findings: tuple[cases.Finding, ...], section: str) -> Sentence:
    first = findings[0]
    hedged = first.hedged
    if hedged:
        rows = phrases.HEDGED[first.kind]
    else:
        rows = phrases.POSITIVE[first.kind, _form(findings)]
        rows = [row for row in rows if first.size[0] in row.sizes]
    # Radiologists are briefer in the impression; the tables begin with their shortest rows.
    terse = section == "impression" and rng.random() < 0.6
    row = rows[int(rng.integers(min(3, len(rows)) if terse else len(rows)))]
    about = tuple((finding.kind, finding.side) for finding in findings)
    return Sentence(
        text=_fill(rng, row, findings),
        section=section,
        about=about,
        labels=((first.kind, -1 if hedged else 1), *row.labels),
    )


def _form(findings) -> str:
    first = findings[0]
    if first.kind in ("Edema", "Cardiomegaly"):
        return "one"
    if len(findings) == 1:
        return "one" if first.form == "plain" and first.zone in ("pleura", "apex") else first.form
    if first.kind == "Pleural Effusion":
        return "same" if first.size == findings[1].size else "both"
    return "both"


def _fill(rng, row: Phrase, findings) -> str:
    first = findings[0]
    words = {finding.side: _word(rng, finding) for finding in findings}
    size = words[first.side]
    zones = _ZONES.get(first.zone, ("lung",))
    adverb = {
        "mild": "mildly",
        "moderate": "moderately",
        "severe": "severely",
        "marked": "markedly",
    }
    text = row.text.replace("{size:ly}", adverb.get(size, "mildly")).format(
        side=first.side,
        size=size,
        left=words.get("left", ""),
        right=words.get("right", ""),
        zone=zones[int(rng.integers(len(zones)))],
        base="basilar" if first.zone == "lower" else "mid lung",
        place="lung base" if first.zone == "lower" else "mid lung",
        mm=round(first.extent),
        cm=f"{first.extent / 10:.1f}",
        ratio=f"{first.extent:.2f}",
    )
    text = re.sub(r"\b([Aa]) (?=[aeiou]|8|11\b|18\b|11\.|18\.)", r"\1n ", text)
    return text[0].upper() + text[1:]


def _word(rng, finding) -> str:
    words = phrases.SIZE_WORDS[finding.kind][finding.size]
    return words[int(rng.integers(len(words)))]


def _device_sentences(rng, study, section) -> list[Sentence]:
    sentences = []
    for device in study.devices:
        rows = phrases.DEVICES.get(device)
        if rows and rng.random() < 0.9:
            text = rows[int(rng.integers(len(rows)))]
            sentences.append(
                Sentence(text=text, section=section, about=(), labels=(("Support Devices", 1),))
            )
    return sentences


def _absent(study) -> set[str]:
    return {kind for kind in cases.KINDS if not study.of(kind)}


def _denials(rng, study, section, *, share) -> list[Sentence]:
    """Returns sentences that deny absent findings, each finding at most once."""
    absent = sorted(_absent(study))
    due = {kind for kind in absent if rng.random() < share * _DENIED[kind]}
    sentences = []
    for i in rng.permutation(len(phrases.NEGATIVE)):
        kinds, text = phrases.NEGATIVE[i]
        if due.issuperset(kinds):
            due.difference_update(kinds)
            labels = tuple((kind, 0) for kind in kinds)
            sentences.append(Sentence(text=text, section=section, about=(), labels=labels))
    return sentences


def _normals(rng, study, section, *, count) -> list[Sentence]:
    absent = _absent(study)
    rows = [row for kinds, row in phrases.NORMAL if absent.issuperset(kinds)]
    chosen = rng.permutation(len(rows))[:count]
    return [
        Sentence(text=rows[i].text, section=section, about=(), labels=rows[i].labels)
        for i in chosen
    ]


def _with_typos(rng, sentence: Sentence) -> Sentence:
    text = sentence.text
    if rng.random() < 0.012:
        for right, wrong in phrases.MISSPELLINGS.items():
            if right in text:
                text = text.replace(right, wrong, 1)
                break
    if rng.random() < 0.008:
        text = text.removesuffix(".")
    return dataclasses.replace(sentence, text=text)


def _one(rng, rows) -> str:
    return rows[int(rng.integers(len(rows)))]


def _opening(rng, study) -> list[tuple[str, str]]:
    """Returns the blocks before the findings, as pairs (header, text)."""
    patient = study.patient
    who = "woman" if patient.woman else "man"
    age = "___" if rng.random() < 0.8 else str(patient.age)
    complaint = _one(rng, phrases.COMPLAINTS)
    question = _one(rng, phrases.QUESTIONS)
    blocks = [
        ("EXAMINATION", procedure(study)),
        ("INDICATION", f"{age} year old {who} with {complaint}  // {question}"),
    ]
    if rng.random() < 0.4:
        blocks.append(("TECHNIQUE", "Chest radiograph."))
    if rng.random() < 0.85:
        blocks.append(("COMPARISON", _one(rng, phrases.COMPARISONS)))
    return blocks


def procedure(study: cases.Study) -> str:
    """Returns the name of the procedure, which depends on the views taken."""
    if len(study.views) == 2 and study.views[1] != "AP":
        return "CHEST (PA AND LAT)"
    if "PA" in study.views:
        return "CHEST (PA)"
    return "CHEST (PORTABLE AP)" if "AP" in study.views else "CHEST (LAT)"


def _lay_out(rng, study, layout, sentences) -> str:
    """Returns the text file: a banner, header blocks, and wrapped lines that begin with a space."""
    blocks = _opening(rng, study)
    gap = "  " if rng.random() < 0.6 else " "
    by_section = {
        name: gap.join(s.text for s in sentences if s.section == name)
        for name in ("findings", "impression", "none")
    }
    numbered = [s.text for s in sentences if s.section == "impression"]
    if layout == "joined":
        blocks.append(("BOTH", by_section["findings"]))
    elif by_section["findings"]:
        blocks.append(("FINDINGS", by_section["findings"]))
    if len(numbered) > 1 and rng.random() < 0.3:
        blocks.append(("IMPRESSION", [f"{i}.  {text}" for i, text in enumerate(numbered, 1)]))
    elif numbered:
        blocks.append(("IMPRESSION", by_section["impression"]))
    blank = "\n \n" if rng.random() < 0.8 else "\n\n"
    paragraphs = [f"{'FINAL REPORT':>45}"]
    for name, body in blocks:
        header = _one(rng, phrases.HEADERS[name])
        paragraphs.append(_block(f"{header}:", body, width=int(rng.integers(74, 82))))
    if by_section["none"]:
        paragraphs.append(_wrap(by_section["none"], width=78))
    end = "\n" if rng.random() < 0.9 else ""
    return paragraphs[0] + "\n" + blank.join(paragraphs[1:]) + end


def _block(header: str, body, *, width: int) -> str:
    if isinstance(body, list):
        return "\n".join([f" {header}", *(_wrap(item, width=width) for item in body)])
    return _wrap(f"{header}  {body}", width=width)


def _wrap(text: str, *, width: int) -> str:
    lines = textwrap.wrap(
        text, width, initial_indent=" ", subsequent_indent=" ", break_on_hyphens=False
    )
    return "\n".join(lines)
