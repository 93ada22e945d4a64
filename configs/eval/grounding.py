"""Grounding: tests if the attention of a finding's word or sentence falls on the finding."""

import dataclasses

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from prior_jax.errors import ConfigError
from prior_jax.evaluate.fine_regions import FINE, OWN

ATTENTION = {"own": dataclasses.asdict(OWN), "fine": dataclasses.asdict(FINE)}
"""How attention is computed, by name: on the model's own regions, or on a grid twice as fine,
averaged over neighbours and with the mirror image, for which every image is encoded eight times."""


def get_config(attention: str = "own") -> ConfigDict:
    """Returns the task: the pointing game on the regions of a set or the masks of a phantom.

    Args:
      attention: name in `ATTENTION`.

    Raises:
      ConfigError: if the name is unknown.
    """
    if attention not in ATTENTION:
        raise ConfigError.of_value("attention", attention, f"one of {', '.join(ATTENTION)}")
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
            prompts=dict(set="ensemble", negatives=False),  # read with "prompts" alone
            masks=placeholder(str),  # None: the set's own regions, or those of the run's phantom
            attention=ATTENTION[attention],
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
