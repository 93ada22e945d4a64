r"""Detection on images with boxes alone, as PRIOR is said to measure it; not PRIOR's detector.

    python -m launch.evaluate --weights=DIR --task=configs/eval/detection/prior.py \
        --task.data.path=SET --out=RESULTS

PRIOR's detector, its settings and its metric are not published, so that none of these numbers
compares with one of the paper's. Its author writes (issue 12 of its repository) that RSNA's 6,012
images with boxes were used, in five folds; its README names Lightning-Flash. Here our own detector
of `configs/eval/detection/any_set.py` is trained and measured on images with boxes alone, on the
splits of the prepared set.
"""

from ml_collections import ConfigDict

from configs.finetune import detection_tasks


def get_config() -> ConfigDict:
    """Returns the task: our detector, on images with boxes."""
    task = detection_tasks.any_set("finetune")
    task.finetune.name = "detection"
    task.protocol = "prior"
    task.finetune.overrides = (
        "data.regions.train_images='with_regions'",
        "data.regions.test_images='with_regions'",
    )
    task.remark = (
        "PRIOR's detector and its metric are not published: these numbers are of our own detector "
        "on images with boxes alone, and compare with none of the paper's"
    )
    return task
