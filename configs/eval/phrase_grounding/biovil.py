"""Phrase grounding by BioViL's protocol (arXiv:2204.09817, sec. 4.3), for MS-CXR.

BioViL released the maps, in hi-ml-multimodal, and no metric; what the paper leaves open is as in
configs/eval/phrase_grounding.py. Its `cnr` is the absolute contrast.
"""

from ml_collections import ConfigDict

from configs.eval import phrase_grounding


def get_config() -> ConfigDict:
    """Returns the task on all phrases: MS-CXR 1.1.0 has 1,162 of 8 findings."""
    config = phrase_grounding.get_config()
    config.protocol = "biovil"
    config.min_positives = 1  # every class counts
    # The similarity of patches and the whole phrase; an objective's attention is not BioViL's.
    config.phrases.heat = "cosine"
    config.phrases.centres = "tiles"  # inference_engine.py interpolates tiles
    config.phrases.scale = "none"  # inference_engine.py returns the cosines
    return config
