"""Zero-shot classification of a split with prompts."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: affirming minus denying prompts, all classes with enough positives."""
    return ConfigDict(
        dict(
            task="zero_shot",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every other label that has prompts and enough positives
            # Lung Opacity is the parent of five other labels (arXiv:1901.07031), and a
            # device is not a finding.
            exclude=("Lung Opacity", "Support Devices"),
            min_positives=3,
            prompts=dict(set="described", negatives=True),
            zero_shot=dict(
                mode="multi_label",
                pool="mean",
                normalise="none",
                # Records that are uncertain about a class are left out of that class; a finding
                # that the report does not mention counts as absent (arXiv:1901.07031).
                policy=dict(uncertain="ignore", unmentioned="negative"),
                block=128,
            ),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
