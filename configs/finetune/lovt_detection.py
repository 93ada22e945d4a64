r"""LoVT's detection on RSNA and Object-CXR: YOLOv3's head on a ResNet-50.

    python -m launch.train --config=configs/finetune/lovt_detection.py:rsna_1 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=WEIGHTS

WEIGHTS is a folder of weights or a run; no program here reads the checkpoints of LoVT's authors
(docs/weights.md).

The name behind the colon is the set, "rsna" or "object_cxr", and the percentage of the training
images; "_finetune" behind it fine-tunes the encoder after 100 frozen steps, and "_release" repeats
what is wrong with the release. Prepare both sets with `--split=lovt`, and Object-CXR
for the release with `--geometry=lovt` (quirk L13).
Below 100 % give the paper's order of the images with
--config.data.fraction.ids=SET/split_order.train.txt; the evaluation's task reads it by itself.

Sources, of LoVT's release: [frozen] configs/evaluation_model/rsna_frozen*.yaml and
object_frozen*.yaml, [finetune] rsna_finetune*.yaml and object_finetune*.yaml in the same folder,
[stop] configs/experiment/eval/eval_rsna_*.yaml and eval_object_*.yaml, [base]
configs/base_config.yaml, [statistics] datasets/*/dataset_statistics.json, [model]
src/models/downstream/detection.py, [program] src/models/downstream/downstream_evaluation.py.
Differs: the release validates RSNA on the first tenth of its validation images
(configs/dataset/rsna*.yaml, val_subset), and runs five times; the optimizer of the head begins anew
when the encoder is released.
"""

import dataclasses

from ml_collections import ConfigDict

from configs.finetune import base, detection_base, detection_names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Lengths and rates for one set and percentage.

    Attributes:
      images: number of training images.
      batch: images of a batch; the last one that is not full is left out [program].
      epochs: number of epochs.
      frozen_rate: learning rate with the frozen encoder.
      rate: learning rate of the fine-tuning.
      patience: validations without a better one before training ends [stop].
    """

    images: int
    batch: int
    epochs: int
    frozen_rate: float
    rate: float
    patience: int


TRAININGS = {
    "rsna_1": Training(images=160, batch=8, epochs=500, frozen_rate=1e-3, rate=1e-4, patience=20),
    "rsna_10": Training(
        images=1601, batch=64, epochs=100, frozen_rate=1e-3, rate=3e-4, patience=10
    ),
    "rsna_100": Training(
        images=16010, batch=64, epochs=50, frozen_rate=1e-3, rate=1e-4, patience=10
    ),
    "object_cxr_100": Training(
        images=6400, batch=64, epochs=100, frozen_rate=1e-3, rate=3e-4, patience=10
    ),
}
"""[frozen] and [finetune]."""

STATISTICS = {"rsna": (0.48988, 0.24818), "object_cxr": (0.50534, 0.28991)}
"""Mean and standard deviation of the training images [statistics]."""

METRICS = {"rsna": "validation_lovt_map", "object_cxr": "validation_froc"}
"""The number that training stops by [stop]."""

WAYS = ("frozen", "finetune")
"""Ways of training."""

SEED = 12345  # [base]

WARM_UP_STEPS, WARM_UP_RATE = 100, 1e-3  # [finetune], frozen_warmup_steps and warmup_lr


def get_config(name: str = "rsna_1") -> ConfigDict:
    """Returns the config for a set, a percentage, a way and a fidelity.

    Raises:
      ConfigError: for a name that the release has no settings for.
    """
    given = detection_names.read(name, known=tuple(TRAININGS), ways=WAYS)
    training = TRAININGS[given.setting]
    config = detection_base.get_config(classes=(detection_names.CLASSES[given.set],))
    config.name = f"lovt_detection_{name}"
    config.seed = SEED
    config.model.head.anchors = "lovt"  # [frozen]
    config.model.post.update(dict(conf_threshold=0.2, nms_threshold=0.4))  # [model]
    mean, std = STATISTICS[given.set]
    config.data.image.update(dict(mean=(mean,) * 3, std=(std,) * 3))
    config.data.image.fit = "pad"  # src/models/image/scan_transforms.py
    # src/data/datasets/object_cxr/object_cxr_dataset.py; RSNA's images stay as they are.
    config.data.image.equalize = given.set == "object_cxr"
    config.data.batch_size = training.batch
    config.data.fraction = base.fraction(given.share, rule="first_rounded")
    config.stage_unit = "steps"
    epoch = training.images // training.batch
    config.validate_every = epoch
    config.stages = ConfigDict(_stages(training, given, steps=training.epochs * epoch))
    config.optimizer.update(dict(decay="coupled", decay_mask="all"))  # [program], Adam
    detection_base.stop(config, metric=METRICS[given.set], patience=training.patience)
    if given.release:
        detection_base.repeat_release(config)
        config.data.image.fit = "pad_evenly"  # quirk L12
    return config


def _stages(training: Training, given: detection_names.Named, *, steps: int) -> dict:
    """Returns the stages of a way of training."""
    decay = dict(weight_decay=1e-6)  # [frozen]
    if given.way == "frozen":
        return dict(frozen={**_plateau(steps, training.frozen_rate), **decay})
    warm_up = base.stage(length=WARM_UP_STEPS, peak=WARM_UP_RATE)
    rest = steps - WARM_UP_STEPS
    # As released the rate is set anew in each batch (quirk L8).
    plain = base.stage(length=rest, peak=training.rate)
    tuned = plain if given.release else _plateau(rest, training.rate)
    return dict(frozen={**warm_up, **decay}, finetune={**tuned, **decay})


def _plateau(length: int, peak: float) -> dict:
    """Returns a stage whose rate is halved when the validation loss no longer falls [frozen]."""
    plateau = dict(
        metric="validation_total_loss",  # [program]
        factor=0.5,
        patience=3,
        threshold=1e-4,  # torch's default
        min_learning_rate=0.0,  # torch's default
        every=1,
    )
    return {**base.stage(length=length, peak=peak), "schedule": "plateau", "plateau": plateau}
