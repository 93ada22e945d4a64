r"""Segmentation on any set: trains masks from the model's image encoder, and measures them.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/segmentation/any_set.py \
        --task.data.path=SET --task.finetune.fraction=0.01 --out=RESULTS

`configs/eval/segmentation/any_set.py:frozen` trains the decoder alone. The same training from
random weights lies beside it. It is not the protocol of any paper.
"""

from ml_collections import ConfigDict

from configs.finetune import segmentation_tasks


def get_config(way: str = "finetune") -> ConfigDict:
    """Returns the task for one way of training, "finetune" or "frozen"."""
    return segmentation_tasks.any_set(way)
