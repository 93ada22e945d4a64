"""Segmentation: measures a run of the objective "segmentation" on a split.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/segmentation.py

What is published as Dice is counted in three ways, each a column here: `pixel_dice` (LoVT),
`mean_dice` (GLoRIA, MGCA) and `mdice` with `miou` (BenchX).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: every class of the model that has a mask on the split."""
    return ConfigDict(
        dict(
            task="segmentation",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every class of the model with enough images
            exclude=(),
            min_positives=1,
            regions=dict(  # None: as the run was trained
                any_of=placeholder(tuple),
                convert=placeholder(bool),
                test_images=placeholder(str),
            ),
            segmenter=dict(threshold=0.5, inclusive=False, release_batch=placeholder(int)),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
