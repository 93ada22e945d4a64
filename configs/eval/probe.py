"""Linear probe of the image encoder: logistic regression on its frozen features."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: train on train, select the penalty on validate, measure on test."""
    return ConfigDict(
        dict(
            task="probe",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every other label with enough positives
            # As in configs/eval/zero_shot.py, so that the macro average is over the same findings.
            exclude=("Lung Opacity", "Support Devices"),
            min_positives=3,
            probe=dict(
                fraction=1.0,  # share of the training patients; 0.1, 0.01 in arXiv:2010.00747
                seed=0,
                penalties=(1e-4, 1e-3, 1e-2, 1e-1, 1.0),
                max_iterations=2000,
                policy=dict(uncertain="ignore", unmentioned="negative"),
            ),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
