"""The base of the fine-tuning configs: a classifier of images on a prepared set.

Mesh, checkpoints, logging and the other settings of the run are those of `configs/prior/base.py`.
No reports are read. A run starts from random weights unless --config.init.image.path=DIR names a
folder of weights or the folder of a run; the adaptations that make an encoder fit are named with
--config.init.image.adapt (PRIOR: 'repeat_gray', 'drop_pool'; GLoRIA: 'drop_embedders').
"""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.prior import base
from prior_jax.errors import ConfigError

# Fields of `config.data` that say how reports are read.
_OF_REPORTS = (
    "tokenizer",
    "caption",
    "text_mode",
    "text_sources",
    "shuffle_sentences",
    "max_tokens",
    "max_sentences",
    "buckets",
    "bucket_window",
)
COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""CheXpert's five competition classes: GLoRIA, release, gloria/constants.py; MGCA the same."""

# GLoRIA, release, gloria/datasets/image_dataset.py; MGCA, release,
# mgca/datasets/classification_dataset.py: both read uncertain labels so (quirk G43).
UNCERTAIN = {
    "Atelectasis": "positive",
    "Cardiomegaly": "negative",
    "Consolidation": "negative",
    "Edema": "positive",
    "Pleural Effusion": "positive",
}


def get_config(
    *, classes: Sequence[str], uncertain: str | Mapping[str, str] = "negative"
) -> ConfigDict:
    """Returns a linear classifier on a frozen ResNet-50 at 224 pixels.

    Args:
      classes: names of the labels that are classes.
      uncertain: value of `config.model.uncertain`.
    """
    config = base.get_config("paper")
    config.name = "finetune"
    config.objective = "classification"
    config.model = ConfigDict(model(classes, uncertain=uncertain))
    for name in _OF_REPORTS:
        del config.data[name]
    config.data.image.channels = 3
    config.data.augment.update(dict(rotation_degrees=0.0, flip_probability=0.0))
    config.prepare = ConfigDict(dict(phantom=None))
    config.init = ConfigDict(dict(image=base.drawn(), text=None))
    config.stages = ConfigDict(dict(frozen=stage(length=50, peak=5e-4)))
    config.checkpoint.update(
        dict(every_steps=1000, keep_best=1, best_metric="validation_macro_auroc")
    )
    config.checkpoint.best_is = "highest"
    return config


def model(classes: Sequence[str], *, uncertain: str | Mapping[str, str]) -> dict:
    """Returns the model: ResNet-50 with a mean over its last map, and a linear head."""
    image = dict(base.model("paper")["image"])
    return dict(
        # GLoRIA, LoVT and BenchX train in float16; MGCA does not, and its configs say so.
        dtype="bfloat16",
        image={**image, "pool": "mean", "pool_heads": 1},
        upsample=placeholder(int),
        head=dict(kind="linear", hidden=placeholder(int), dropout=0.0),
        classes=tuple(classes),
        loss="binary",
        uncertain=uncertain if isinstance(uncertain, str) else dict(uncertain),
        not_mentioned="negative",
        encoder_rate=1.0,
        layer_decay=placeholder(float),
        drifting_statistics=False,
    )


def stage(*, length: float, peak: float) -> dict:
    """Returns a stage of constant rate, without weight decay."""
    return dict(
        length=length,
        warmup=0,
        schedule="constant",
        plateau=None,
        learning_rate=peak,
        learning_rate_start=peak,
        learning_rate_end=0.0,
        weight_decay=0.0,
    )


def fraction(
    share: float, *, rule: str, seed: int = 0, ids: str | None = None
) -> ConfigDict | None:
    """Returns the section `config.data.fraction`; None for all records."""
    if share == 1:
        return None
    return ConfigDict(dict(share=share, rule=rule, seed=seed, draws=1, ids=ids, absent="refuse"))


def share_of(percent: str) -> float:
    """Returns the share that the part of a config's name behind the colon asks for.

    Raises:
      ConfigError: for anything but a percentage above 0 and at most 100.
    """
    try:
        share = float(percent) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError.of_value("percent", percent, "a number above 0 and at most 100")
    return share
