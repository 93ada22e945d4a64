r"""BenchX's fine-tuning on NIH ChestX-ray14, at 1, 10 or 100 %, with the settings of a method.

    python -m launch.train --config=configs/finetune/benchx_nih.py:1 --workdir=DIR \
        --config.data.path=SET --config.data.fraction.ids=train_1.txt \
        --config.init.image.path=GLORIA "--config.init.image.adapt=('drop_embedders',)"
    python -m launch.train --config=configs/finetune/benchx_nih.py:mgca_1 --workdir=DIR \
        --config.data.path=SET --config.data.fraction.ids=train_1.txt --config.init.image.path=MGCA

The name behind the colon is the percentage, with a method of `METHODS` in front of it, GLoRIA if it
has none; "_release" behind it repeats what is wrong with the release. BenchX tests its best
checkpoint (bin/test.py), and `launch.evaluate` measures the newest one unless it is given the step
that the last line of the training names: `--step=N`.

Sources: [yml] release, configs/classification/NIH/<method>.yml; [lists] release,
preprocess/datasets/NIH_Chest_Xray; [trainer] release, unifier/executors/trainer.py; [transforms]
release, unifier/datasets/transforms.py, NIHTransforms, which [yml] names; its evaluation keeps the
aspect ratio and cuts out the middle, which for the square images of the set is all of them.
Differs: the release trains up to 200 epochs, with a rate that rises and falls again every 5,900
steps (quirk B10); here training ends with the 3,000 steps of the schedule, or after 200 epochs if
they are fewer, and is validated at least ten times. Only "_release" has the published length. In
both the first validation is not after ten epochs but at the first interval, and every batch is
full, where the release trains on the rest of the images too. ConVIRT's and M-FLAG's heads begin
with weights of a deviation of 2e-5 there [yml], trunc_init. MedKLIP and the methods with a
transformer are not here.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from configs.finetune import base
from prior_jax.errors import ConfigError

CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The labels of ChestX-ray14, in the order of its paper, arXiv:1705.02315."""

COUNTS = {"1": 785, "10": 7847, "100": 78468}
"""Training images of each percentage [lists]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """The settings in which the methods of the release differ [yml].

    Attributes:
      rate: peak learning rate of the head.
      batch: number of images of a batch.
      encoder_rate: factor of the encoder's rate, lr_multiplier_ve.
      head: kind of the head; with use_fc_norm "layer_norm".
      warmup: steps of the warm-up, warmup_steps.
      planned: steps of the schedule, t_total.
    """

    rate: float
    batch: int
    encoder_rate: float = 1.0
    head: str = "layer_norm"
    warmup: int = 50
    planned: int = 3000


METHODS = {
    "gloria": Method(rate=1e-4, batch=64, encoder_rate=0.1),
    "convirt": Method(rate=1e-4, batch=64, encoder_rate=0.1),
    "medclip": Method(rate=1e-5, batch=64, head="linear"),
    "mflag": Method(rate=1e-4, batch=32),
    "mgca": Method(rate=1e-5, batch=32),
}
"""Methods whose encoder is a ResNet-50."""

USUAL = "gloria"
"""The method that a name need not name."""

RELEASE = "release"
EPOCHS, INTERVAL = 200, 5  # [yml], epochs and eval_interval


def get_config(name: str = "1") -> ConfigDict:
    """Returns the config for a percentage that the release has lists for, and a method.

    Args:
      name: "1", "mgca_1", "mgca_1_release" and the like.

    Raises:
      ConfigError: for another name.
    """
    return of_set("nih", name, classes=CLASSES, counts=COUNTS, methods=METHODS)


def of_set(
    data_set: str,
    name: str,
    *,
    classes: Sequence[str],
    counts: Mapping[str, int],
    methods: Mapping[str, Method],
) -> ConfigDict:
    """Returns the config of a set.

    Args:
      data_set: name of the set.
      name: percentage, method and fidelity, see `get_config`.
      classes: labels that are classes.
      counts: training images of each percentage.
      methods: settings of each method.

    Raises:
      ConfigError: for a name that the release has no settings for.
    """
    rest = name.removesuffix(f"_{RELEASE}")
    before, joined, percent = rest.rpartition("_")
    used = before if joined else USUAL
    if used not in methods or percent not in counts:
        must_be = (
            f"a percentage ({', '.join(counts)}), with a method ({', '.join(methods)}) and '_' in "
            f"front of it or without, and with '_{RELEASE}' behind it or without"
        )
        raise ConfigError.of_value("name", name, must_be)
    method = methods[used]
    config = base.get_config(classes=classes)
    config.name = f"benchx_{data_set}_{name}"
    config.seed = 42  # [yml]; the release runs 0 and 1 as well
    config.model.head.kind = method.head
    config.model.encoder_rate = method.encoder_rate
    config.data.image.mean = (0.4978,) * 3  # [transforms]
    config.data.image.std = (0.2449,) * 3  # [transforms]
    config.data.augment.flip_probability = 0.5  # [transforms], torchvision's default
    # [transforms], RandomResizedCrop with torchvision's defaults.
    config.data.augment.resized_crop = ConfigDict(dict(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)))
    config.data.batch_size = method.batch
    if percent != "100":
        config.data.fraction = base.fraction(
            base.share_of(percent), rule="list", ids=f"train_{percent}.txt"
        )
    config.optimizer.update(dict(decay="coupled", decay_mask="all"))  # [yml], Adam without decay
    config.optimizer.clip_norm = 1.0  # [yml]
    config.early_stopping = ConfigDict(  # [yml], early_stop and its metric
        dict(metric="validation_macro_auroc", patience=10, mode="max", min_delta=0.0)
    )
    epoch = math.ceil(counts[percent] / method.batch)  # [trainer], its last batch is not full
    _set_length(config, method, epoch=epoch, release=rest != name)
    return config


def _set_length(config: ConfigDict, method: Method, *, epoch: int, release: bool) -> None:
    """Sets the stage and the validations.

    Args:
      config: config; it is changed in place.
      method: settings of the method.
      epoch: steps of an epoch of the release.
      release: whether what is wrong with the release is repeated.
    """
    config.stage_unit = "steps"
    length = min(EPOCHS * epoch, method.planned)
    config.validate_every = min(INTERVAL * epoch, length // 10)
    start = method.rate / method.warmup
    if release:
        length = (EPOCHS + 1) * epoch  # [trainer], range(0, epochs + 1)
        config.validate_every = INTERVAL * epoch
        start = 0.0  # a step without effect (quirk B10)
        config.optimizer.past_end = "rise"  # quirk B10
    config.stages = ConfigDict(dict(finetune=base.stage(length=length, peak=method.rate)))
    config.stages.finetune.update(
        dict(
            schedule="cosine_late_peak",  # [yml], WarmupCosineScheduler
            warmup=method.warmup,
            schedule_steps=method.planned,
            learning_rate_start=start,
        )
    )
