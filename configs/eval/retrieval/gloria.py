"""Retrieval as GLoRIA's paper describes it (ICCV 2021, sec. 4.2), for CheXpert 5x200.

GLoRIA's release has no evaluation of retrieval. Open in the paper, and chosen here: the own report
is in the gallery, and equal similarities keep the order of the records.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def get_config() -> ConfigDict:
    """Returns the task: reports of the image's class among the reports of all records."""
    return ConfigDict(
        dict(
            task="gallery_retrieval",
            protocol="gloria",
            data=dict(path=placeholder(str)),
            split="test",
            batch_size=64,
            classes=CLASSES,
            exclude=(),
            min_positives=0,
            gallery=dict(
                rule=dict(
                    ranks=(5, 10, 100),  # table 3
                    own="kept",
                    divisor="candidates",
                    mean="queries",
                ),
                gallery=placeholder(int),  # None: all records
                seed=placeholder(int),
                kind="both",  # sec. 3.4: the global and the local similarity
                subset="single_positive",  # sec. 4.1
                policy=dict(uncertain="ignore", unmentioned="negative"),
                block=128,
            ),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
