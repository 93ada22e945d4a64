r"""GLoRIA's segmentation: trains its U-Net from the model's image encoder, and measures it.

    python -m launch.evaluate --weights=GLORIA --task=configs/eval/segmentation/gloria.py:siim_1 \
        --task.data.path=SET --out=RESULTS

Names and sources are those of `configs/finetune/gloria_segmentation.py`. GLoRIA's published number
is `mean_dice` of the last weights, and here that of the best checkpoint; the release averages it
over batches of 8, which "_release" repeats.
"""

from ml_collections import ConfigDict

from configs.finetune import gloria_segmentation, segmentation_names, segmentation_tasks


def get_config(name: str = "siim_100") -> ConfigDict:
    """Returns the task for a set, a percentage and a fidelity."""
    given = segmentation_names.read(name, known=gloria_segmentation.TRAININGS)
    task = segmentation_tasks.of_paper(
        "gloria", given, seed=gloria_segmentation.SEED, usual="siim_finetune", batch_size=8
    )
    if given.release:
        task.segmenter.release_batch = 8  # quirk G64
    return task
