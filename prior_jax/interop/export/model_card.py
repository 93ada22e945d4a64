"""Writes the model card: a README beside exported weights on their content, origin and loading."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prior_jax.interop.export.parts import Exported, upsample_of
from prior_jax.interop.weights_folder import About

# Settings that get a row of their own if the config has them; config.training.json has all.
_SETTINGS = (
    "name", "objective", "seed", "model.fidelity", "model.switched_choices", "model.dtype",
    "model.embed_dim",
    "model.image.resnet.depths", "model.image.resnet.width", "model.image.resnet.block",
    "model.image.pool", "model.image.upsample", "model.classes", "model.loss", "model.upsample",
    "model.head.kind", "model.decoder.kind", "model.decoder.channels", "model.head.anchors",
    "model.post.conf_threshold", "model.post.nms_threshold", "model.text.hidden_size",
    "model.text.layers", "model.text.heads",
    "init.image.path", "init.text.path", "data.batch_size", "data.image.size",
    "data.image.channels", "data.image.fit", "data.image.equalize", "data.image.to_white",
    "data.image.draft_margin", "data.text_mode", "data.max_tokens", "data.max_sentences",
    "stage_unit", "optimizer.beta1", "optimizer.beta2", "optimizer.decay", "optimizer.clip_norm",
)  # fmt: skip
_STAGE = ("length", "warmup", "schedule", "learning_rate", "weight_decay")

# Setting of the images and its value -> row of the card.
_IMAGE_WORDS = (
    (("fit", "stretch"), "made square", "by stretching: the aspect ratio is not kept"),
    (("fit", "pad"), "made square", "by black margins on both sides, before it is resized"),
    (
        ("fit", "pad_evenly"),
        "made square",
        "by equal black margins on both sides, before it is resized; one pixel may be stretched",
    ),
    (("equalize", True), "histogram", "equalised, before anything else"),
    (("to_white", True), "levels", "multiplied so that the brightest is 255, before anything else"),
)

TRAINING_CONFIG = "config.training.json"
"""File name of the whole config, which is written beside the card."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The data set that weights were trained on.

    Attributes:
      path: path of the prepared set.
      program: program that prepared the set.
      sha256: sha256 of the set's manifest.
      splits: split -> studies, images, subjects and sentences.
      phantom: whether the images are drawn and the reports written by a program.
    """

    path: str
    program: str
    sha256: str
    splits: Mapping[str, Mapping[str, int]]
    phantom: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts on a model card besides the weights themselves.

    Attributes:
      name: name of the run or the source.
      step: step of the checkpoint; None for weights that are not from a run.
      config: config of the run, all sections; None for weights that are not from a run.
      data: data set that the run was trained on, or None.
      tokenizer: sha256 of everything that determines the token ids, or None.
      results: content of the files of `eval/`, as `evaluate.results.read_results` returns it.
    """

    name: str
    step: int | None
    config: Mapping[str, Any] | None
    data: DataFacts | None
    tokenizer: str | None
    results: Sequence[Mapping[str, Any]]


# Program that prepared a set -> terms for passing on weights trained on it.
LICENCES: Mapping[str, str] = {
    "data_prep.mimic_cxr": (
        "Trained on MIMIC-CXR, which PhysioNet gives to credentialed users under the PhysioNet "
        "Credentialed Health Data Use Agreement 1.5.0. The weights inherit it: pass them on only "
        "to people who have signed it, best as a credentialed PhysioNet project of their own, and "
        "never to a public hub. If the set at the path above was drawn by `data_prep.phantom`, "
        "none of this applies."
    ),
    "data_prep.chexpert": (
        "Trained on CheXpert, under Stanford's research use agreement: no commercial use, and no "
        "passing on without the same terms."
    ),
    "data_prep.chexpert_5x200": (
        "Trained on CheXpert, under Stanford's research use agreement: no commercial use, and no "
        "passing on without the same terms."
    ),
    "data_prep.chexpert_plus": (
        "Trained on CheXpert Plus, under Stanford's research use agreement: no commercial use, and "
        "no passing on without the same terms."
    ),
    "data_prep.covid_rural": (
        "Trained on COVID Rural: images of the collection COVID-19-AR of The Cancer Imaging "
        "Archive, with masks by others. The terms of both are not recorded here: find them out "
        "before the weights are passed on."
    ),
    "data_prep.covidx": (
        "Trained on COVIDx, which gathers images of several collections, each under terms of its "
        "own, some of them without commercial use. They are not recorded here: find them out "
        "before the weights are passed on."
    ),
    "data_prep.iu_xray": (
        "Trained on IU X-Ray of Open-i, under CC BY-NC-ND 4.0: credit its authors, no commercial "
        "use, and no passing on of what is adapted from it."
    ),
    "data_prep.ms_cxr": (
        "Trained on MS-CXR, whose images are those of MIMIC-CXR, and which PhysioNet gives to "
        "credentialed users under its credentialed data use agreement. The weights inherit it: "
        "pass them on only to people who have signed it."
    ),
    "data_prep.nih": (
        "Trained on NIH ChestX-ray14, which may be used without restrictions; acknowledge the NIH "
        "Clinical Center as its provider, and cite arXiv:1705.02315."
    ),
    "data_prep.object_cxr": (
        "Trained on Object-CXR, which JF Healthcare gave out for a challenge. Its terms are not "
        "recorded here: find them out before the weights are passed on."
    ),
    "data_prep.rsna": (
        "Trained on the RSNA Pneumonia Detection Challenge's images, under the competition's "
        "rules: academic research and education alone."
    ),
    "data_prep.siim": (
        "Trained on the SIIM-ACR Pneumothorax images, under the competition's rules: academic "
        "research and education alone."
    ),
    "data_prep.tbx11k": (
        "Trained on TBX11K of Nankai University and InferVision. Its terms are not recorded here: "
        "find them out before the weights are passed on."
    ),
    "data_prep.vindr": (
        "Trained on VinDr-CXR, which PhysioNet gives to credentialed users under the PhysioNet "
        "Credentialed Health Data Use Agreement 1.5.0. The weights inherit it: pass them on only "
        "to people who have signed it."
    ),
}
PHANTOM = (
    "Trained on drawn images and written sentences (`data_prep.phantom`): no patient, no data use "
    "agreement, and no use on patients. The weights may be passed on under this project's "
    "licence, Apache-2.0."
)
_UNKNOWN = (
    "What the weights were trained on is not recorded here: its terms bind whoever passes them on. "
    "Find them out first."
)


def model_card(
    *,
    kind: str,
    about: About,
    exported: Exported,
    facts: Facts,
    files: Mapping[str, str],
) -> str:
    """Returns the text of the model card.

    Args:
      kind: name of the format.
      about: description of the weights.
      exported: content of the folder beside the card.
      facts: facts on the weights' training.
      files: file name -> sha256 of every file beside the card.

    Returns:
      Markdown. Its one block of Python is the loading example, for the folder as working
      directory.
    """
    what = {"image": "image encoder", "text": "text encoder", "model": "model"}[about.part]
    lines = [f"# {facts.name}: {kind}", ""]
    source = about.origin.get("source", "unknown")
    step = "" if facts.step is None else f", checkpoint of step {facts.step}"
    whose = "" if about.objective is None else f" of the objective `{about.objective}`"
    lines += [f"The {what}{whose}, from `{source}`{step}. Not a medical device.", ""]
    for note in exported.notes:
        lines += [note, ""]
    lines += ["## Loading", "", "```python", exported.example, "```", ""]
    lines += ["## Preprocessing", "", *_preprocessing(about, facts), ""]
    lines += ["## Training", "", *_training(about, facts), ""]
    lines += ["## Data", "", *_data(facts.data), ""]
    lines += ["## Metrics", "", *_metrics(facts), ""]
    lines += ["## Licence", "", about.origin.get("licence", _UNKNOWN), ""]
    lines += ["## Files", "", *_table(("file", "sha256"), sorted(files.items()))]
    return "\n".join(lines) + "\n"


def licence_of_run(config: Mapping[str, Any], data: DataFacts) -> str:
    """Returns the terms for passing on a run's weights, kept in the weights' origin as "licence".

    Args:
      config: config of the run, all sections.
      data: data set that the run was trained on.
    """
    said = [PHANTOM if data.phantom else LICENCES.get(data.program, _UNKNOWN)]
    for encoder, given in (config.get("init") or {}).items():
        if given and given.get("path"):
            said.append(
                f"The {encoder} encoder started from `{given['path']}`, whose terms bind too."
            )
    return " ".join(said)


def _preprocessing(about: About, facts: Facts) -> list[str]:
    image = about.data.get("image") or {}
    tokenizer = about.data.get("tokenizer") or {}
    rows = []
    if about.part != "text" and image:
        rows += [
            ("image size", f"{_shown(image.get('size'))} x {_shown(image.get('size'))} pixels"),
            ("channels", _shown(image.get("channels"))),
            ("mean, of pixels from 0 to 1", _shown(image.get("mean"))),
            ("standard deviation", _shown(image.get("std"))),
            *((name, said) for key, name, said in _IMAGE_WORDS if image.get(key[0]) == key[1]),
        ]
        if (side := upsample_of(about)) is not None:
            how = f"to {side} x {side} pixels, bilinearly with corners aligned"
            rows.append(("resized within the model", how))
    if about.part != "image" and (tokenizer or "max_tokens" in about.data):
        rows += [(f"tokenizer: {name}", _shown(value)) for name, value in tokenizer.items()]
        rows.append(("tokenizer: sha256", _shown(facts.tokenizer)))
        names = ("text_mode", "max_tokens", "max_sentences", "splitter")
        rows += [(n.replace("_", " "), _shown(about.data[n])) for n in names if n in about.data]
    return _table(("setting", "value"), rows)


def _training(about: About, facts: Facts) -> list[str]:
    if facts.config is None:
        rows = [
            (name, _shown(value))
            for name, value in about.origin.items()
            if isinstance(value, str | int) and value != "" and name != "licence"
        ]
        rows += [("note", note) for note in about.origin.get("notes", ())]
        return ["Not trained by this project.", "", *_table(("origin", "value"), rows)]
    found = list(_settings(facts.config))
    return [
        *_table(("setting", "value"), found),
        "",
        f"The whole config is `{TRAINING_CONFIG}`.",
    ]


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _SETTINGS:
        value: Any = config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        # A section has rows of its own.
        if value not in (None, (), []) and not isinstance(value, Mapping):
            yield name, _shown(value)
    for name, stage in config["stages"].items():
        yield f"stages.{name}", ", ".join(f"{key} {_shown(stage.get(key))}" for key in _STAGE)


def _data(data: DataFacts | None) -> list[str]:
    if data is None:
        return ["No data set is recorded."]
    columns = ("studies", "images", "subjects", "sentences")
    rows = [
        (split, *(str(counts.get(name, "-")) for name in columns))
        for split, counts in data.splits.items()
    ]
    return [
        f"Prepared by `{data.program}` in `{data.path}`; sha256 of its manifest `{data.sha256}`.",
        "",
        *_table(("split", *columns), rows),
    ]


def _metrics(facts: Facts) -> list[str]:
    if not facts.results:
        return ["None were measured."]
    rows, notes = [], []
    for result in facts.results:
        task, untrained = result["task"], result["untrained"]
        rows += [
            (task, name, _interval(value), _interval(untrained.get(name)))
            for name, value in result["metrics"].items()
        ]
        settings = result["settings"]
        split, step = settings.get("split", "unknown"), settings.get("step", "unknown")
        step = settings.get("trained_step", step)  # of a fine-tuning, `step` is its encoder's
        other = "" if step == facts.step else ", which is not this checkpoint"
        notes.append(f"{task}: split {split}, step {step}{other}.")
    header = ("task", "metric", "trained [interval]", "random weights [interval]")
    return [*_table(header, rows), "", " ".join(notes)]


def _interval(metric: Mapping[str, Any] | None) -> str:
    if not metric or metric.get("value") is None:
        return "-"
    value = f"{metric['value']:.3f}"
    if metric.get("low") is None:
        return value
    return f"{value} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _shown(value: Any) -> str:
    """Returns a value in words that fit a table's cell."""
    if value is None:
        return "not recorded"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *map(line, rows)]
