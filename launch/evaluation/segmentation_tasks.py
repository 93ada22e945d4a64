"""The tasks of segmentation: one measures a segmentation model, one trains it and measures it."""

import dataclasses

from launch.evaluation.detection_tasks import TaskRegions
from launch.evaluation.task_base import Task
from launch.evaluation.training_tasks import TrainingTask
from prior_jax.data.pipeline import DataConfig
from prior_jax.evaluate import segmenter


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationTask(Task):
    """The task "segmentation", for a run of the objective "segmentation".

    Attributes:
      regions: what is read of the masks of the set.
      segmenter: settings of the measurement.
    """

    regions: TaskRegions
    segmenter: segmenter.SegmenterConfig

    @property
    def reads_text(self) -> bool:
        """Returns False: a segmentation model reads images alone."""
        return False

    @property
    def learns_regions(self) -> bool:
        """Returns True: a segmentation model learns masks."""
        return True

    def on(self, data: DataConfig) -> DataConfig:
        """Returns the settings of the data with the masks that the model was trained to find."""
        found = super().on(data)
        if data.regions is None:
            return found
        regions = dataclasses.replace(data.regions, **self.regions.changes())
        return dataclasses.replace(found, regions=regions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSegmentationTask(TrainingTask):
    """The task "train_segmentation": trains a segmentation model, and measures it.

    Attributes:
      segmenter: settings of the measurement.
    """

    OBJECTIVE = "segmentation"

    segmenter: segmenter.SegmenterConfig

    @property
    def measured(self) -> SegmentationTask:
        """Returns the task "segmentation"."""
        return SegmentationTask(
            task="segmentation",
            regions=TaskRegions(),
            segmenter=self.segmenter,
            **self.of_model(),
        )
