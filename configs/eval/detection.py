"""Detection: measures a run of the objective "detection" on a split.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/detection.py

Published numbers of one task are counted in different ways, each a column here: `coco_ap` (MaCo),
`lovt_map` and `lovt_pos_map` (LoVT), `mgca_map` (MGCA), `froc` (Object-CXR). `map` is COCO's
counting at LoVT's and MGCA's overlaps, and `coco_ap50` what is called mAP@.5.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: every class of the model that has a box on the split."""
    return ConfigDict(
        dict(
            task="detection",
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
            detector=dict(froc=False, coco="own"),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
