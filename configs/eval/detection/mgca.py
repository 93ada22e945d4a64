r"""MGCA's detection: trains its detector from the model's image encoder, and measures it.

    python -m launch.evaluate --weights=DIR --task=configs/eval/detection/mgca.py:rsna_1 \
        --task.data.path=SET --out=RESULTS

Names and sources are those of `configs/finetune/mgca_detection.py`. MGCA's published number is
`mgca_map` of one run.
"""

from ml_collections import ConfigDict

from configs.finetune import detection_names, detection_tasks, mgca_detection


def get_config(name: str = "rsna_100") -> ConfigDict:
    """Returns the task for a set, a percentage, a way and a fidelity."""
    known = tuple(mgca_detection.TRAININGS)
    given = detection_names.read(name, known=known, ways=mgca_detection.WAYS)
    return detection_tasks.of_paper("mgca", given, seed=mgca_detection.SEED)
