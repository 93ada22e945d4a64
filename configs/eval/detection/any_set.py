r"""Detection on any set: trains a detector from the model's image encoder, and measures it.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/detection/any_set.py \
        --task.data.path=SET --task.finetune.fraction=0.01 --out=RESULTS

`configs/eval/detection/any_set.py:frozen` trains the head alone. The same training from random
weights lies beside it. It is not the protocol of any paper.
"""

from ml_collections import ConfigDict

from configs.finetune import detection_tasks


def get_config(way: str = "finetune") -> ConfigDict:
    """Returns the task for one way of training, "finetune" or "frozen"."""
    return detection_tasks.any_set(way)
