r"""LoVT's segmentations: a U-Net or a linear decoder, on five sets.

    python -m launch.train --config=configs/finetune/lovt_segmentation.py:siim_100 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=WEIGHTS

WEIGHTS is a folder of weights or a run; no program here reads the checkpoints of LoVT's authors
(docs/weights.md).

The name behind the colon is the set and the percentage of the training images; behind it the way,
if it is not the first of `TRAININGS`: "frozen" for a U-Net on the frozen encoder, "finetune" for
one whose encoder is released after some frozen steps, "linear" for one linear map on the frozen
encoder. "_release" behind all of it repeats what is wrong with the release. Prepare the sets with
`--split=lovt`, and Object-CXR for the release with `--geometry=lovt`. Boxes are filled to masks.
Below 100 % give the paper's order of the images with
--config.data.fraction.ids=SET/split_order.train.txt; the evaluation's task reads it by itself.

Sources, of LoVT's release: [model] configs/evaluation_model/*_unet_*.yaml, covid_linear_frozen.yaml
and *_seg_frozen*.yaml, [stop] configs/experiment/eval/*.yaml of the same names, [base]
configs/base_config.yaml, [statistics] datasets/*/dataset_statistics.json, [program]
src/models/downstream/downstream_evaluation.py. Differs: the release validates the parts of RSNA on
the first tenth of its validation images (configs/dataset/rsna_seg*.yaml, val_subset), and runs five
times; the optimizer of the decoder begins anew when the encoder is released.
"""

import dataclasses

from ml_collections import ConfigDict

from configs.finetune import base, segmentation_base, segmentation_names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Lengths and rates for one set, percentage and way.

    Attributes:
      images: number of training images.
      batch: images of a batch; the last one that is not full is left out [program].
      epochs: number of epochs.
      rate: learning rate of the decoder on the frozen encoder, or of the fine-tuning.
      patience: validations without a better one before training ends [stop].
      frozen_steps: steps of the decoder alone before the encoder is released.
    """

    images: int
    batch: int
    epochs: int
    rate: float
    patience: int
    frozen_steps: int = 0


def _siim(images: int, epochs: int) -> dict[str, Training]:
    frozen = Training(images=images, batch=64, epochs=epochs, rate=1e-3, patience=10)
    return {"frozen": frozen, "finetune": dataclasses.replace(frozen, frozen_steps=100)}


_COVID = Training(images=133, batch=8, epochs=100, rate=3e-4, patience=20)
SETTINGS = {
    "siim_10": _siim(723, 100),
    "siim_100": _siim(7229, 50),
    "covid_rural_100": {
        "frozen": _COVID,
        "finetune": dataclasses.replace(_COVID, rate=1e-4, frozen_steps=20),
        "linear": dataclasses.replace(_COVID, rate=3e-2),
    },
    "rsna_1": {"linear": Training(images=160, batch=8, epochs=500, rate=1e-2, patience=20)},
    "rsna_10": {"linear": Training(images=1601, batch=64, epochs=100, rate=3e-2, patience=10)},
    "rsna_100": {"linear": Training(images=16010, batch=64, epochs=50, rate=1e-2, patience=10)},
    "nih_100": {"linear": Training(images=588, batch=64, epochs=100, rate=1e-2, patience=10)},
    "object_cxr_100": {
        "linear": Training(images=6400, batch=64, epochs=100, rate=1e-2, patience=10)
    },
}
"""[model] and [stop], of each set and percentage, and of each way."""

TRAININGS = {name: tuple(ways) for name, ways in SETTINGS.items()}
"""Ways of training of each set and percentage."""

STATISTICS = {
    "siim": (0.50430, 0.28800),
    "covid_rural": (0.50811, 0.29063),
    "rsna": (0.48988, 0.24818),
    "nih": (0.50414, 0.28797),
    "object_cxr": (0.50534, 0.28991),
}
"""Mean and standard deviation of the training images [statistics]."""

SEED = 12345  # [base]

WARM_UP_RATE = 1e-3  # [model], warmup_lr


def get_config(name: str = "siim_100") -> ConfigDict:
    """Returns the config for a set, a percentage, a way and a fidelity.

    Raises:
      ConfigError: for a name that the release has no settings for.
    """
    given = segmentation_names.read(name, known=TRAININGS)
    training = SETTINGS[given.setting][given.way]
    config = segmentation_base.get_config(classes=segmentation_names.CLASSES[given.set])
    config.name = f"lovt_segmentation_{name}"
    config.seed = SEED
    config.model.loss = "dice"  # [model]
    if given.way == "linear":
        config.model.decoder.update(dict(kind="linear", channels=()))
    else:  # src/models/image/resunet.py
        config.model.decoder.update(
            dict(kind="unet_transposed", channels=(1024, 512, 256, 128, 64))
        )
    mean, std = STATISTICS[given.set]
    config.data.image.update(dict(mean=(mean,) * 3, std=(std,) * 3))
    # src/models/image/scan_transforms.py (quirk L12)
    config.data.image.fit = "pad_evenly" if given.release else "pad"
    config.data.image.equalize = given.set != "rsna"  # src/data/datasets
    config.data.batch_size = training.batch
    config.data.fraction = base.fraction(given.share, rule="first_rounded")
    config.data.regions.convert = given.set in ("rsna", "nih", "object_cxr")
    config.stage_unit = "steps"
    epoch = training.images // training.batch
    config.validate_every = epoch
    config.stages = ConfigDict(_stages(training, training.epochs * epoch))
    if given.release and training.frozen_steps:
        config.stages.finetune.schedule = "constant"  # quirk L8
    config.optimizer.update(dict(decay="coupled", decay_mask="all"))  # [program], Adam
    segmentation_base.stop(config, metric="validation_dice", patience=training.patience)
    return config


def _stages(training: Training, steps: int) -> dict[str, dict]:
    """Returns the stages: of the decoder alone, or with the encoder after some frozen steps."""
    warm_up = training.frozen_steps
    plateau = dict(
        metric="validation_total_loss",  # [program]
        factor=0.5,  # [model]
        patience=3,  # [model]
        threshold=1e-4,  # torch's default
        min_learning_rate=0.0,  # torch's default
        every=1,
    )
    last = base.stage(length=steps - warm_up, peak=training.rate)
    last.update(dict(schedule="plateau", plateau=plateau, weight_decay=1e-6))  # [model]
    if not warm_up:
        return dict(frozen=last)
    first = {**base.stage(length=warm_up, peak=WARM_UP_RATE), "weight_decay": 1e-6}
    return dict(frozen=first, finetune=last)
