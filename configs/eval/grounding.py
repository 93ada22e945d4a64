"""Grounding: tests if the attention of a finding's word or sentence falls on the finding."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: the pointing game on the masks of a phantom."""
    return ConfigDict(
        dict(
            task="grounding",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every label with prompts and enough masks
            exclude=(),
            min_positives=3,
            # "report": each study's own sentences, which name the side; "prompts": the same
            # sentences for every image, which name neither side nor place.
            text="report",
            prompts=dict(set="ensemble", negatives=False),
            masks=placeholder(str),  # None: the launcher's phantom, DIR/data/raw
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
