"""Retrieval by BenchX's protocol (arXiv:2410.21969), for MIMIC 5x200.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/retrieval/benchx.py \
        --task.data.path=MIMIC_5x200

Source: [model] release, unifier/blocks/zeroshot/zeroshot_model.py, `evaluate`. Flags give other
galleries: --task.gallery.rule.own=removed leaves the own report out, and a --task.gallery.gallery
above the number of records searches all of them. Differs: reports are cut to the model's own
length, not to 97 tokens.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def get_config() -> ConfigDict:
    """Returns the task: the 1,000 records as one batch, the own report among them."""
    gallery = ConfigDict(
        dict(
            rule=dict(
                ranks=(1, 5, 10),
                own="kept",  # [model] (quirk B25)
                divisor="ranks",  # [model] (quirk B25)
                mean="batches",  # [model] (quirk B25)
            ),
            gallery=placeholder(int),
            seed=placeholder(int),  # the order of the records; the release's is random
            kind="global",  # release, configs: similarity_type
            subset="all",  # relevant: an equal row of labels
            policy=dict(uncertain="ignore", unmentioned="negative"),
            block=128,
        )
    )
    # The result depends on the size of the batch, and the release measures the whole set as one.
    gallery.gallery = 1000
    return ConfigDict(
        dict(
            task="gallery_retrieval",
            protocol="benchx",
            data=dict(path=placeholder(str)),
            split="test",
            batch_size=64,
            classes=CLASSES,
            exclude=(),
            min_positives=0,
            gallery=gallery,
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
