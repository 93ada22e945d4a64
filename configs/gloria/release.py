"""GLoRIA at full size as released, faults included.

Give the data and the vocabulary of Bio_ClinicalBERT:
--config.data.path=DIR --config.data.tokenizer.path=vocab.txt

Prepare the data with `--splitter=gloria_release`, which makes the release's sentences of the
reports (quirks G32, G34 and G35); the config does not split them.
"""

from ml_collections import ConfigDict

from configs.gloria import base


def get_config() -> ConfigDict:
    """Returns the full-size config that repeats the authors' training."""
    return base.get_config("release")
