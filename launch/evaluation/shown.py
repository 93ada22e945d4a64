"""The examples of a model on a split, for the report."""

from collections.abc import Callable

from absl import logging

from launch.evaluation import region_masks
from launch.evaluation.subject import Opened, Subject
from prior_jax.errors import ConfigError, DataError
from prior_jax.report import sections
from prior_jax.report.gather import Examples, gather

COUNT = 6
"""Number of studies that the report shows."""


def lacking(subject: Subject) -> dict[str, str]:
    """Returns the sections of examples that the model cannot have, see `sections.lacking`."""
    if not subject.reads_reports:
        return dict.fromkeys(sections.EXAMPLES, "")
    return sections.lacking(subject.objective, stages=subject.stages)


def examples(
    subject: Subject, opened: Callable[[str], Opened], *, split: str, batch_size: int
) -> Examples:
    """Computes the report's examples.

    Args:
      subject: model on the set whose studies are shown.
      opened: function from the name of a split to the split.
      split: name of the split of these studies.
      batch_size: number of studies that the model reads at once.

    Returns:
      The examples; none for a model or a split without reports that it reads. What cannot be read
      or computed is logged, and the report has no examples either.
    """
    try:
        return _gathered(subject, opened(split), split=split, batch_size=batch_size)
    except (ConfigError, DataError) as error:
        logging.error("The report has no examples: %s", error)
        return Examples(missing=f"The examples could not be made. {error}")


def _gathered(subject: Subject, opened: Opened, *, split: str, batch_size: int) -> Examples:
    if not subject.reads_reports or not len(opened.split.with_text):
        return Examples(missing=f"The split {split} has no report that the model reads.")

    def batches():
        return subject.batches(opened, batch_size=batch_size, require_text=True)

    return gather(
        subject.objective,
        encoder=subject.trained,
        studies=subject.trained.studies(batches(), reports=True),
        batches=batches,
        texts=opened.texts,
        label_names=opened.split.label_names,
        tokenizer=opened.split.tokenizer,
        count=COUNT,
        block=batch_size,
        located=lambda index: region_masks.masks_of(opened.record(index), image=subject.data.image),
        lacking=lacking(subject),
    )
