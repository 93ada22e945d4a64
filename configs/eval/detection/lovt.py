r"""LoVT's detection: trains its detector from the model's image encoder, and measures it.

    python -m launch.evaluate --weights=DIR --task=configs/eval/detection/lovt.py:rsna_1 \
        --task.data.path=SET --out=RESULTS

Names and sources are those of `configs/finetune/lovt_detection.py`. LoVT's published numbers are
means over five runs, of `lovt_map` on RSNA and of `lovt_froc` on Object-CXR
(configs/experiment/eval, reported_metrics).
"""

from ml_collections import ConfigDict

from configs.finetune import detection_names, detection_tasks, lovt_detection


def get_config(name: str = "rsna_100") -> ConfigDict:
    """Returns the task for a set, a percentage, a way and a fidelity."""
    known = tuple(lovt_detection.TRAININGS)
    given = detection_names.read(name, known=known, ways=lovt_detection.WAYS)
    return detection_tasks.of_paper("lovt", given, seed=lovt_detection.SEED)
