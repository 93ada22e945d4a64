"""GLoRIA at full size as released, faults included.

Give the data and the vocabulary of Bio_ClinicalBERT:
--config.data.path=DIR --config.data.tokenizer.path=vocab.txt
"""

from ml_collections import ConfigDict

from configs.gloria import base


def get_config() -> ConfigDict:
    """Returns the full-size config that repeats the authors' training."""
    return base.get_config("release")
