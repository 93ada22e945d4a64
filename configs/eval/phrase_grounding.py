"""Phrase grounding: whether the map of a phrase over its image lies on the phrase's regions."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the task: mIoU, contrast and pointing on the regions of a set."""
    return ConfigDict(
        dict(
            task="phrase_grounding",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every label with enough phrases
            exclude=(),
            min_positives=3,
            phrases=dict(
                prompt="Findings suggesting {}.",  # for a region without a phrase
                heat="auto",
                sigma=1.5,  # BioViL, arXiv:2204.09817, hi-ml-multimodal, inference_engine.py
                centres="strides",
                scale="map",  # MaCo, eval/utils.py, norm_heatmap
                rule=dict(
                    thresholds=(0.1, 0.2, 0.3, 0.4, 0.5),  # BioViL, sec. 4.3
                    overlap="clip",
                    ties="share",
                    unseen="left_out",
                    digits=placeholder(int),
                ),
                release="none",
            ),
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
