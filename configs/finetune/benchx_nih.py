"""BenchX's fine-tuning on NIH ChestX-ray14 with GLoRIA's settings, at 1, 10 or 100 %.

    python -m launch.train --config=configs/finetune/benchx_nih.py:1 --workdir=DIR \
        --config.data.path=SET --config.data.fraction.ids=train_1.txt \
        --config.init.image.path=GLORIA "--config.init.image.adapt=('drop_embedders',)"

Sources: [yml] release, configs/classification/NIH/gloria.yml; [lists] release,
preprocess/datasets/NIH_Chest_Xray. The other methods differ in rate and batch alone:
ConVIRT 1e-4 and 64, MGCA's ResNet-50 1e-5 and 32. [transforms] release,
unifier/datasets/transforms.py, NIHTransforms, which [yml] names; its evaluation keeps the aspect
ratio and cuts out the middle, which for the square images of the set is all of them.
"""

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


def get_config(percent: str = "1") -> ConfigDict:
    """Returns the config for one of the percentages that the release has lists for.

    Raises:
      ConfigError: for another percentage.
    """
    if percent not in COUNTS:
        raise ConfigError.of_value("percent", percent, f"one of {', '.join(COUNTS)}")
    config = base.get_config(classes=CLASSES)
    config.name = f"benchx_nih_{percent}"
    config.seed = 42  # [yml]; the release runs 0 and 1 as well
    config.model.head.kind = "layer_norm"  # [yml], use_fc_norm
    config.model.encoder_rate = 0.1  # [yml], lr_multiplier_ve
    config.data.image.mean = (0.4978,) * 3  # [transforms]
    config.data.image.std = (0.2449,) * 3  # [transforms]
    config.data.augment.flip_probability = 0.5  # [transforms], torchvision's default
    # [transforms], RandomResizedCrop with torchvision's defaults.
    config.data.augment.resized_crop = ConfigDict(dict(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)))
    config.data.batch_size = 64  # [yml]
    if percent != "100":
        config.data.fraction = base.fraction(
            base.share_of(percent), rule="list", ids=f"train_{percent}.txt"
        )
    config.stage_unit = "steps"
    epoch = COUNTS[percent] // 64
    config.stages = ConfigDict(dict(finetune=base.stage(length=200 * epoch, peak=1e-4)))  # [yml]
    config.stages.finetune.update(
        dict(
            schedule="cosine_late_peak",  # [yml], WarmupCosineScheduler
            warmup=50,  # [yml], iterations
            schedule_steps=3000,  # [yml], t_total; past_end "hold" keeps the rate at 0 (quirk B10)
            learning_rate_start=1e-4 / 50,  # the release: 0, a step without effect (quirk B10)
        )
    )
    config.optimizer.update(dict(decay="coupled", decay_mask="all"))  # [yml], Adam without decay
    config.optimizer.clip_norm = 1.0  # [yml]
    config.validate_every = 5 * epoch  # [yml], eval_interval
    config.early_stopping = ConfigDict(  # [yml], early_stop and its metric
        dict(metric="validation_macro_auroc", patience=10, mode="max", min_delta=0.0)
    )
    return config
