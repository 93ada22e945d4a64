r"""MGCA's segmentation: trains its U-Net on the model's image encoder, and measures it.

    python -m launch.evaluate --weights=DIR --task=configs/eval/segmentation/mgca.py:rsna_1 \
        --task.data.path=SET --out=RESULTS

Names and sources are those of `configs/finetune/mgca_segmentation.py`. MGCA's published number is
`mean_dice`; the release averages it over batches, which "_release" repeats. For images of 512
pixels: "--task.finetune.overrides=('data.image.size=512',)".
"""

from ml_collections import ConfigDict

from configs.finetune import mgca_segmentation, segmentation_names, segmentation_tasks


def get_config(name: str = "siim_100") -> ConfigDict:
    """Returns the task for a set, a percentage and a fidelity."""
    given = segmentation_names.read(name, known=mgca_segmentation.TRAININGS)
    task = segmentation_tasks.of_paper(
        "mgca", given, seed=mgca_segmentation.SEEDS[given.setting], usual="siim_frozen"
    )
    if given.release:
        task.segmenter.release_batch = mgca_segmentation.BATCHES[given.set]  # quirk G64
    return task
