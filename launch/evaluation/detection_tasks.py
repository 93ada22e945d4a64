"""The tasks of detection: one measures a detector, one trains it and measures it."""

import dataclasses
from typing import Any

from launch.evaluation.task_base import Task
from launch.evaluation.training_tasks import TrainingTask
from prior_jax.data.pipeline import DataConfig
from prior_jax.data.region_targets import TestImages
from prior_jax.evaluate import detector


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskRegions:
    """What a task reads of the boxes of a set, where it differs from the run's training.

    Attributes:
      any_of: `RegionConfig.any_of`; None for that of the training.
      convert: `RegionConfig.convert`; None for that of the training.
      test_images: `RegionConfig.test_images`; None for that of the training.
    """

    any_of: tuple[str, ...] | None = None
    convert: bool | None = None
    test_images: TestImages | None = None

    def changes(self) -> dict[str, Any]:
        """Returns the fields that differ, by name."""
        return {n: value for n, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionTask(Task):
    """The task "detection", for a run of the objective "detection".

    Attributes:
      regions: what is read of the boxes of the set.
      detector: settings of the measurement.
    """

    regions: TaskRegions
    detector: detector.DetectorConfig

    @property
    def reads_text(self) -> bool:
        """Returns False: a detector reads images alone."""
        return False

    @property
    def learns_regions(self) -> bool:
        """Returns True: a detector learns boxes."""
        return True

    def on(self, data: DataConfig) -> DataConfig:
        """Returns the settings of the data with the boxes that the model was trained to find."""
        found = super().on(data)
        if data.regions is None:
            return found
        regions = dataclasses.replace(data.regions, **self.regions.changes())
        return dataclasses.replace(found, regions=regions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainDetectionTask(TrainingTask):
    """The task "train_detection": trains a detector, and measures it.

    Attributes:
      detector: settings of the measurement.
      remark: sentence that is to be known where the results are read, "" for none.
    """

    OBJECTIVE = "detection"

    detector: detector.DetectorConfig
    remark: str = ""

    @property
    def measured(self) -> DetectionTask:
        """Returns the task "detection"."""
        return DetectionTask(
            task="detection",
            regions=TaskRegions(),
            detector=self.detector,
            **self.of_model(),
        )
