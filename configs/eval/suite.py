r"""The suite: every task that the model and the sets at hand allow, in one table.

python -m launch.evaluate --workdir=RUN --task=configs/eval/suite.py \
        "--task.sets=('nih=/data/prepared/nih','rsna=/data/prepared/rsna')" \
        --task.imagenet=/runs/resnet50
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

TASKS = (
    "configs/eval/zero_shot.py",
    "configs/eval/retrieval.py",
    "configs/eval/classification.py",
    "configs/eval/probe.py",
    "configs/eval/finetune.py:linear",
    "configs/eval/finetune.py",
    "configs/eval/segmentation.py",
    # The encoder is frozen, as LoVT, MGCA and BenchX compare encoders by masks and boxes.
    "configs/eval/segmentation/any_set.py:frozen",
    "configs/eval/detection.py",
    "configs/eval/detection/any_set.py:frozen",
    "configs/eval/grounding.py",
    "configs/eval/phrase_grounding.py",
)


def get_config() -> ConfigDict:
    """Returns the task: all tasks on all sets, with probe and classifiers at three fractions."""
    return ConfigDict(
        dict(
            task="suite",
            data=dict(path=placeholder(str)),  # the only set, if `sets` is empty
            sets=(),  # "name=path" each; () for the set that the run was trained on
            tasks=TASKS,  # files of tasks, those of protocols as well
            fractions=(0.01, 0.1, 1.0),  # of the labelled patients; arXiv:2010.00747, sec. 4.1
            region_fractions=(
                0.01,
            ),  # of patients, for masks and boxes, whose trainings take longer
            seeds=(0, 1, 2),  # of the choice of patients for each fraction below 1
            # Steps of each training, few enough for a demo; None leaves them to the tasks.
            # After 100 steps a detector still finds few boxes. Protocols of papers are not cut.
            max_steps=100,
            detector_max_steps=200,
            imagenet=placeholder(str),  # folder of launch.import_weights --source=torchvision
            split="test",
            batch_size=64,
            classes=(),  # () leaves the choice to each task
            exclude=(),  # () leaves the choice to each task
            min_positives=3,
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
