"""One self-contained HTML page of a run, without scripts, fonts or external links."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from prior_jax.evaluate import pictures, region_columns, results
from prior_jax.report import (
    charts,
    curves,
    images,
    learning_curves,
    phrase_sheets,
    region_sheets,
    reliability,
    sections,
    sheets,
    suites,
    tables,
)
from prior_jax.report.attention import WORDS_SHOWN
from prior_jax.report.examples import (
    AttentionExample,
    BankUsage,
    ReconstructionExample,
    RetrievalExample,
    RunInfo,
)

_TRAIN = "python -m launch.train --config=CONFIG --workdir=WORKDIR"
_EVALUATE = "python -m launch.evaluate --workdir=WORKDIR --task=configs/eval/{}.py"

# The command that produces a section's data, for the sentence shown if the data is missing.
_COMMANDS = {
    "curves": _TRAIN,
    "evaluation": _EVALUATE.format("zero_shot"),
    "attention": _EVALUATE.format("zero_shot"),
    "retrieval": _EVALUATE.format("retrieval"),
    "reconstruction": _EVALUATE.format("zero_shot"),
    "bank": _EVALUATE.format("zero_shot"),
}
_HEADING = "Pre-training of image and report encoders"
_HEADINGS = {
    "classification": "Classification of images",
    "detection": "Detection of findings in images",
    "segmentation": "Segmentation of findings in images",
}
"""Lines above the title of the runs of objectives that read images alone."""
_SECTIONS = {
    "training": "Training",
    "evaluation": "Evaluation",
    "attention": "Attention",
    "retrieval": "Retrieval",
    "reconstruction": "Reconstruction",
    "bank": "Prototypes",
    "settings": "Settings",
}


def write_report(
    workdir: os.PathLike[str] | str,
    *,
    run: RunInfo,
    attention: Sequence[AttentionExample] = (),
    retrieval: Sequence[RetrievalExample] = (),
    reconstructions: Sequence[ReconstructionExample] = (),
    bank: BankUsage | None = None,
    missing: str = "",
) -> pathlib.Path:
    """Draws `workdir/report/index.html` from the run's files and the given examples.

    The phrases of grounding tasks are drawn from `eval/*.pictures.npz`, masks and boxes from
    `eval/*.masks.npz` and `eval/*.boxes.npz`, the curves of their trainings from
    `finetune/<task>/model`, and the parts of a suite from `suite/<set>/eval`. A section without
    data (no metrics.jsonl, no eval/*.json, no examples) is replaced by a sentence that says why, or
    names the command producing the data. A section that the model's objective cannot have is left
    out, with its link; in a folder of results alone, and for a model that reads no reports, so is a
    section of examples without any that the model could have.

    Args:
      workdir: folder of the run; `metrics.jsonl`, `eval`, `finetune` and `suite` are read from it.
      run: name, settings, versions and counts of the run.
      attention: examples of sentences or words over images.
      retrieval: examples of reports that images retrieved.
      reconstructions: examples of images and their reconstructions.
      bank: use of the prototypes; None for objectives without a bank.
      missing: sentence that says why there is no example of any kind; "" where that is not known.

    Returns:
      Path of the page; an older page is replaced atomically.

    Raises:
      DataError: if a file of results or of pictures is damaged; the error names it.
    """
    workdir = pathlib.Path(workdir)
    files = _of_files(workdir, run)
    sparse = files["evaluated_elsewhere"] or str(run.settings.get("objective")) in _HEADINGS
    examples = _of_examples(
        attention, retrieval, reconstructions, bank, sparse=sparse, lacking=run.lacking
    )
    examples["why"] = {name: run.lacking.get(name) or missing for name in sections.EXAMPLES}
    text = _environment().get_template("page.html").render(**_frame(run), **files, **examples)
    path = workdir / "report" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def _frame(run: RunInfo) -> dict[str, Any]:
    """Returns what stands around the sections: the header, the commands, legend and colours."""
    return dict(
        run=run,
        heading=_HEADINGS.get(str(run.settings.get("objective")), _HEADING),
        settings=tables.flatten(run.settings),
        count_names=_count_names(run),
        commands=_COMMANDS,
        legend=images.legend(),
        words_shown=WORDS_SHOWN,
        light=charts.LIGHT,
        dark=charts.DARK,
    )


def _of_files(workdir: pathlib.Path, run: RunInfo) -> dict[str, Any]:
    """Returns what is drawn from the files of a run: its training, and all that was measured."""
    log = curves.read_log(workdir / "metrics.jsonl")
    contents = results.read_results(workdir)
    tasks = [tables.task_of(content) for content in contents]
    suite = suites.read(workdir)
    return dict(
        log=log,
        curves=curves.draw(log, losses=run.losses) if log.records else None,
        local_use=run.losses.local_use(log.records),
        tasks=tasks,
        headlines=tables.headlines(tasks),
        reliability={one["task"]: reliability.curves_of(one) for one in contents},
        curve_headings=reliability.HEADINGS,
        few_records=charts.FEW_RECORDS,
        phrases={one.name: _phrases(workdir, one.name) for one in tasks},
        regions={one.name: region_sheets.load(workdir, one.name) for one in tasks},
        learning=_learning(workdir, contents),
        suite=suite,
        # A run's folder has its config; the folder of --out has results alone.
        evaluated_elsewhere=bool(tasks or suite) and not (workdir / "config.json").is_file(),
    )


def _of_examples(
    attention, retrieval, reconstructions, bank, *, sparse: bool, lacking: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the drawn examples, and the sections of the page; see `_sections`."""
    return dict(
        sections=_sections(
            sparse,
            lacking,
            attention=attention,
            retrieval=retrieval,
            reconstruction=reconstructions,
            bank=bank,
        ),
        attention=[sheets.attention_row(example) for example in attention],
        retrieval=[sheets.retrieval_sheet(example) for example in retrieval],
        reconstructions=[sheets.reconstruction_row(example) for example in reconstructions],
        bank=None if bank is None else sheets.bank_sheet(bank),
    )


def _count_names(run: RunInfo) -> list[str]:
    """Returns what is counted in any split of any set, in the order of the sets."""
    every = (counts for splits in run.datasets.values() for counts in splits.values())
    return list(dict.fromkeys(name for counts in every for name in counts))


def _sections(sparse: bool, lacking: Mapping[str, str], **examples: object) -> dict[str, str]:
    """Returns the title in the list of links of each section of the page, by its id.

    Args:
      sparse: whether sections of examples without any are left out: the folder holds an evaluation
        alone, or the model reads no reports.
      lacking: sections that the model cannot have, see `RunInfo`; those without a reason are left
        out, and the others say it.
      examples: examples of each section that has some, empty or None where there are none.
    """
    left_out = [
        name
        for name, found in examples.items()
        if not found and not lacking.get(name, "" if sparse else "absent")
    ]
    return {name: title for name, title in _SECTIONS.items() if name not in left_out}


def _phrases(workdir: pathlib.Path, task: str) -> phrase_sheets.Gallery | None:
    path = workdir / "eval" / f"{task}{pictures.SUFFIX}"
    return phrase_sheets.gallery(pictures.load(path))


def _learning(
    workdir: pathlib.Path, contents: Sequence[Mapping[str, Any]]
) -> dict[str, list[charts.Chart]]:
    """Returns the curves of the training of each task; none but of segmentation and detection."""
    return {
        one["task"]: (
            learning_curves.of_task(workdir, one["task"])
            if region_columns.kind_of(one["settings"]) is not None
            else []
        )
        for one in contents
    }


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("prior_jax.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
