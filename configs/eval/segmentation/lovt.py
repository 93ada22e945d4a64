r"""LoVT's segmentation: trains its decoder from the model's image encoder, and measures it.

    python -m launch.evaluate --weights=DIR --task=configs/eval/segmentation/lovt.py:siim_100 \
        --task.data.path=SET --out=RESULTS

Names and sources are those of `configs/finetune/lovt_segmentation.py`. LoVT's published numbers are
means over five runs of `pixel_dice`, for NIH the mean over its classes. A pixel with a probability
of exactly one half is inside (torchmetrics 0.5, F1).
"""

from ml_collections import ConfigDict

from configs.finetune import lovt_segmentation, segmentation_names, segmentation_tasks


def get_config(name: str = "siim_100") -> ConfigDict:
    """Returns the task for a set, a percentage, a way and a fidelity."""
    given = segmentation_names.read(name, known=lovt_segmentation.TRAININGS)
    task = segmentation_tasks.of_paper(
        "lovt", given, seed=lovt_segmentation.SEED, usual="siim_frozen"
    )
    task.segmenter.inclusive = True
    return task
