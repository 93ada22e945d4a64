r"""BenchX's segmentation: trains UPerNet on the model's image encoder, and measures it.

    python -m launch.evaluate --weights=DIR --task=configs/eval/segmentation/benchx.py:rsna_100 \
        --task.data.path=SET --out=RESULTS

Names and sources are those of `configs/finetune/benchx_segmentation.py`. Below 100 % BenchX's list
of images is read, "train_1.txt" or "train_10.txt" in the current folder, or the file that
"--task.finetune.overrides=('data.fraction.ids=FILE',)" names. BenchX's published number is `mdice`
of 100 % in percent, a mean over three seeds: the Dice coefficients of lesion and background.
"""

from ml_collections import ConfigDict

from configs.finetune import benchx_segmentation, segmentation_names, segmentation_tasks


def get_config(name: str = "siim_100") -> ConfigDict:
    """Returns the task for a set and a percentage."""
    given = segmentation_names.read(name, known=benchx_segmentation.TRAININGS, release=False)
    return segmentation_tasks.of_paper(
        "benchx", given, seed=benchx_segmentation.SEED, usual="siim_frozen", batch_size=8
    )
