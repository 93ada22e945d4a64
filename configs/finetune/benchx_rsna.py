"""BenchX's fine-tuning on RSNA Pneumonia with GLoRIA's settings: two classes by cross-entropy.

Sources: [yml] release, configs/classification/RSNA/gloria.yml. Differs: the release stops by the
macro F1 of its validation, here by the area under the ROC curve; see `benchx_nih.py` for the rest.
"""

from ml_collections import ConfigDict

from configs.finetune import benchx_nih

COUNTS = {"1": 186, "10": 1867, "100": 18678}
"""Training images of each percentage: release, preprocess/datasets/RSNA."""


def get_config(percent: str = "1") -> ConfigDict:
    """Returns the config for one of the percentages that the release has lists for."""
    config = benchx_nih.get_config(percent)
    config.name = f"benchx_rsna_{percent}"
    config.model.classes = ("Pneumonia",)
    config.model.loss = "exclusive"  # [yml], CrossEntropyLoss over two classes
    config.data.batch_size = 32  # [yml]
    epoch = COUNTS[percent] // 32
    config.stages.finetune.length = 200 * epoch
    config.validate_every = 5 * epoch
    return config
