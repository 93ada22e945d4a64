"""PRIOR at full size with what makes a sentence find its place in the image.

Give the data: --config.data.path=DIR. The paper's local losses contrast the sentences of one report
and the patches of one image with each other, which both can solve without looking at the other.
Here whole reports and images of the global batch are contrasted by what their sentences find in the
regions of a finer map, some of which are hidden in a copy of one image of four (docs/fidelity.md).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.prior import base


def get_config() -> ConfigDict:
    """Returns the paper's full-size config with the contrast of sentences and regions."""
    config = base.get_config("paper")
    config.name = "prior_improved"
    return improve(config)


def sentence_region() -> ConfigDict:
    """Returns the settings of the contrast of sentences and regions."""
    return ConfigDict(
        dict(
            stages_back=1,
            attention_scale=20.0,
            learn_attention_scale=False,
            sentence_scale=5.0,  # as GLoRIA's, configs/gloria/base.py
            contrast_scale=10.0,  # as GLoRIA's
            aggregate="sum",  # as GLoRIA's
            chunk=32,
            hidden_every=4,
            hidden_share=0.3,
            hidden_side=2,
            coordinates=False,
            group=placeholder(int),  # 128 on a pod, where all pairs cost more than the encoders
        )
    )


def improve(config: ConfigDict) -> ConfigDict:
    """Replaces the local losses of a PRIOR config by the contrast of sentences and regions."""
    with config.model.unlocked():
        config.model.sentence_region = sentence_region()
    for stage in ("stage1", "stage2", "stage3"):
        weights = config.model.weights[stage]
        with weights.unlocked():
            weights.sentence_region = 1.0
        weights.local_image = weights.local_text = 0.0
    return config
