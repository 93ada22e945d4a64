"""Phrase grounding as MaCo's release does it (arXiv:2309.05904; eval/common.py, eval/metric.py).

Regions without a phrase are asked for by "Findings suggesting <label>.", as MaCo asks for them on
RSNA, SIIM, COVID Rural, CheXlocalize and ChestX-Det10. Its `cnr` is our `cnr_signed`; the table of
the release, with 3 digits, is `settings.table`. Differs: our boxes are moved as their image is.
"""

from ml_collections import ConfigDict

from configs.eval import phrase_grounding


def get_config() -> ConfigDict:
    """Returns the task with the switch of MaCo's release."""
    config = phrase_grounding.get_config()
    config.protocol = "maco"
    config.min_positives = 1
    config.phrases.centres = "tiles"
    config.phrases.release = "maco"
    return config
