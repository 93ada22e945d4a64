"""Retrieval of reports by images and of images by reports within a split."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: precision at K for classes, recall at K for pairs."""
    return ConfigDict(
        dict(
            task="retrieval",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every other label with enough positives
            # Lung Opacity is the parent of five other labels (arXiv:1901.07031), and a
            # device is not a finding.
            exclude=("Lung Opacity", "Support Devices"),
            min_positives=3,
            retrieval=dict(
                ranks=(1, 5, 10),
                subset="all",
                match="any",
                duplicates="hit",
                policy=dict(uncertain="ignore", unmentioned="negative"),
                block=128,
            ),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
