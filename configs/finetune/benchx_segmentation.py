r"""BenchX's segmentation: UPerNet on a frozen ResNet-50, on four sets at 1, 10 or 100 %.

    python -m launch.train --config=configs/finetune/benchx_segmentation.py:rsna_100 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=GLORIA \
        "--config.init.image.adapt=('drop_embedders',)"

The name behind the colon is the set, "siim", "rsna", "object_cxr" or "tbx11k", and the percentage;
below 100 give BenchX's list of images with --config.data.fraction.ids. The release trains its masks
on all images of the lists (configs/_base_/datasets), so that no published number belongs to 1 and
10 %. Prepare the sets but SIIM with `--split=benchx`. Boxes are filled to masks. BenchX's SIIM is
an edition in PNG (preprocess/datasets/SIIM/preprocess_siim.py names it), with other ids than the
competition's: make a table of the columns image, id, split and mask of BenchX's lists, and prepare
it with `data_prep.manifest --mask_columns=mask=Pneumothorax`.

Sources: [py] release, preprocess/mmsegmentation/configs/benchmark/*/upernet_r50.py; [model]
configs/_base_/models/upernet_my_r50.py in the same folder. Differs: the release shrinks SIIM's
masks by Lanczos' filter, a pixel of more than 128 being inside, where here each pixel takes the old
one below its centre; mmengine's rates are one step ahead of ours behind the warm-up.
"""

from ml_collections import ConfigDict

from configs.finetune import base, segmentation_base, segmentation_names

RATES = {"siim": 1e-3, "rsna": 1e-4, "object_cxr": 1e-3, "tbx11k": 1e-3}  # [py]
TRAININGS = {f"{name}_{percent}": ("frozen",) for name in RATES for percent in (1, 10, 100)}
"""Ways of training of each set and percentage: the release freezes the encoder [py]."""

BOXED = ("Active Tuberculosis", "Latent Tuberculosis")
"""Findings of TBX11K's boxes, which are one class in the release."""

SEED = 42  # [py]; the release runs 0 and 1 as well


def get_config(name: str = "siim_100") -> ConfigDict:
    """Returns the config for a set and a percentage.

    Raises:
      ConfigError: for a name that the release has no settings for.
    """
    given = segmentation_names.read(name, known=TRAININGS, release=False)
    config = segmentation_base.get_config(classes=segmentation_names.CLASSES[given.set])
    config.name = f"benchx_segmentation_{name}"
    config.seed = SEED
    config.model.loss = "cross_entropy"  # [model]
    config.model.decoder = ConfigDict(
        dict(kind="upernet", channels=(512, 256), auxiliary_weight=0.4, dropout=0.1)  # [model]
    )
    config.data.image.size = 512  # [py]
    config.data.image.mean = (0.4978,) * 3  # [model]
    config.data.image.std = (0.2449,) * 3  # [model]
    config.data.augment.flip_probability = 0.5  # configs/_base_/datasets
    config.data.batch_size = 8  # [py]
    if given.share < 1:
        config.data.fraction = base.fraction(
            given.share, rule="list", ids=f"train_{100 * given.share:g}.txt"
        )
    config.data.regions.convert = given.set != "siim"
    if given.set == "tbx11k":
        config.data.regions.any_of = BOXED
    config.stage_unit = "steps"
    stage = base.stage(length=20000, peak=RATES[given.set])  # [py]
    stage.update(
        dict(
            schedule="linear",  # [py], PolyLR of power 1
            warmup=1500,  # [py]
            learning_rate_start=1e-6 * RATES[given.set],  # [py], start_factor
            weight_decay=0.05,  # [py]
        )
    )
    config.stages = ConfigDict(dict(frozen=stage))
    config.optimizer.update(dict(decay="decoupled", decay_mask="all"))  # [py], AdamW
    config.validate_every = 2000  # [py]
    config.checkpoint.best_metric = "validation_mdice"  # [py], save_best
    return config
