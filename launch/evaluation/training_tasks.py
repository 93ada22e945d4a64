"""The tasks that train a model from the image encoder, and those that measure such a model."""

import abc
import dataclasses
from typing import ClassVar

from launch.evaluation.finetune_settings import FinetuneConfig
from launch.evaluation.task_base import Task
from prior_jax.evaluate import classification
from prior_jax.objectives.kinds import KINDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationTask(Task):
    """The task "classification", for a run of the objective "classification".

    Attributes:
      classification: settings of the measurement.
    """

    classification: classification.ClassificationConfig

    @property
    def reads_text(self) -> bool:
        """Returns False: a classifier reads images alone."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingTask(Task, abc.ABC):
    """A task that trains a model of one objective on "train", and measures it.

    A subclass names the objective, and makes the task that measures the model.

    Attributes:
      finetune: settings of the training.
    """

    OBJECTIVE: ClassVar[str]

    finetune: FinetuneConfig

    @property
    def reads_text(self) -> bool:
        """Returns False: the models that are trained read images alone."""
        return False

    @property
    def learns_from(self) -> tuple[str, ...]:
        """Returns the split that is trained on."""
        return ("train",)

    @property
    def learns_regions(self) -> bool:
        """Returns whether the objective learns boxes or masks."""
        return KINDS[self.OBJECTIVE].regions is not None

    @property
    def result(self) -> str:
        """Returns the name of the results file, different for each way and training fraction."""
        return f"{self.finetune.result}_{self.protocol}" if self.protocol else self.finetune.result

    @property
    @abc.abstractmethod
    def measured(self) -> Task:
        """Returns the task that measures the trained model on all of its classes."""

    def of_model(self) -> dict[str, object]:
        """Returns the fields that the task and the one that measures the model have in common."""
        return dict(
            data=self.data,
            split=self.split,
            batch_size=self.batch_size,
            classes=(),
            exclude=(),
            min_positives=0,
            bootstrap=self.bootstrap,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneTask(TrainingTask):
    """The task "finetune": trains a classifier, and measures it.

    Attributes:
      classification: settings of the measurement.
    """

    OBJECTIVE = "classification"

    classification: classification.ClassificationConfig

    @property
    def measured(self) -> ClassificationTask:
        """Returns the task "classification"."""
        return ClassificationTask(
            task="classification", classification=self.classification, **self.of_model()
        )
