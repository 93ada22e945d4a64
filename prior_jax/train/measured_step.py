"""The checkpoint that stands for a run where its user names no step."""

import pathlib

from prior_jax.processes.distributed import agree
from prior_jax.train.checkpoint_read import best_step
from prior_jax.train.checkpoint_table import CheckpointConfig

FINETUNE_MARK = "training.json"
"""File that marks the folder of a training of the evaluation task "finetune"."""


def measured_step(workdir: pathlib.Path, checkpoint: CheckpointConfig) -> int | None:
    """Returns the step of the checkpoint that the results of a fine-tuning were measured on.

    All processes must call it.

    Args:
      workdir: folder of a run.
      checkpoint: settings of its checkpoints.

    Returns:
      For a training of the task "finetune": the step with the best score on the validation split,
      or None if the training was not validated, so that the newest was measured. For the run of
      `launch.train`: None, for its results are of the newest checkpoint.

    Raises:
      CheckpointError: if the folder of the checkpoints cannot be listed.
    """
    if not agree((workdir / FINETUNE_MARK).is_file()):
        return None
    folder = checkpoint.folder(workdir)
    return best_step(folder, best_is=checkpoint.best_is, metric=checkpoint.best_metric)
