"""Zero-shot classification as GLoRIA's release does it (ICCV 2021), for CheXpert 5x200.

Sources: [release] gloria/gloria.py, `zero_shot_classification` and
`generate_chexpert_class_prompts`; [paper] sec. 4.1. Its number is `accuracy`.
"""

from ml_collections import ConfigDict

from configs.eval import zero_shot

CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def get_config() -> ConfigDict:
    """Returns the task: the best of five prompts, standardised over the images."""
    config = zero_shot.get_config()
    config.protocol = "gloria"
    config.classes = CLASSES  # [paper]
    config.prompts = ConfigDict(dict(set="gloria_release", negatives=False))  # [release]
    config.zero_shot.mode = "multi_class"  # [paper]
    config.zero_shot.pool = "max"  # [release]
    config.zero_shot.normalise = "z-score"  # [release]
    return config
