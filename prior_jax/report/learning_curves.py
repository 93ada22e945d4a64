"""The curves of a training that a task ran: its loss, and what was measured on the way."""

import pathlib
from collections.abc import Mapping

from prior_jax.report import charts, curves

FOLDER, MODEL = "finetune", "model"
"""Folder of a task's trainings under that of its results: `finetune/<task>/model`."""
_LOSS, _HELD_OUT = "total_loss", "validation_"
TITLES: Mapping[str, str] = {
    "validation_dice": "Dice of all pixels, validation",
    "validation_image_dice": "Mean Dice of the images, validation",
    "validation_mdice": "mDice with background, validation",
    "validation_map": "mAP at IoU .40 to .75, validation",
    "validation_lovt_map": "LoVT's mAP, validation",
    "validation_mgca_map": "MGCA's mAP, validation",
    "validation_froc": "FROC, validation",
}
"""Headings of the numbers of a validation, in the order of the page."""


def of_task(workdir: pathlib.Path, task: str) -> list[charts.Chart]:
    """Draws the training of the model that a task trained.

    Args:
      workdir: folder of the results.
      task: name of the results.

    Returns:
      A chart of the loss, with that of the validation split, and one of each number of `TITLES`
      that was measured; () where nothing is logged, as after the folder was deleted.
    """
    log = curves.read_log(workdir / FOLDER / task / MODEL / "metrics.jsonl")
    if not log.records:
        return []
    stages = curves.stages_of(log.records)
    loss = curves.series_of(log.records, _LOSS)
    found = []
    if loss is not None:
        held_out = curves.series_of(log.records, _HELD_OUT + _LOSS)
        found.append(
            charts.line_chart("Loss", loss, held_out=held_out, stages=stages, logarithmic=False)
        )
    for name, title in TITLES.items():
        series = curves.series_of(log.records, name)
        if series is not None:
            found.append(
                charts.line_chart(
                    title, series, held_out=None, stages=stages, logarithmic=False, marked=True
                )
            )
    return found
