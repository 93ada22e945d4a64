r"""MGCA's segmentation of SIIM and RSNA: a U-Net on a frozen ResNet-50.

    python -m launch.train --config=configs/finetune/mgca_segmentation.py:siim_1 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=MGCA

The name behind the colon is the set, "siim" or "rsna", and the percentage of the training images;
"_release" behind it repeats what is wrong with the release. Prepare SIIM with
`--split=mgca` and RSNA with `--split=mgca_detection`, whose order of the images is given for 1 and
10 % with --config.data.fraction.ids=SET/split_order.train.txt; the evaluation's task reads it by
itself.
RSNA's boxes are filled to masks. The release has images of 224 pixels; its users needed 512 for the
paper's numbers (issue 39 of its repository): --config.data.image.size=512.

Sources, of MGCA's release: [program] mgca/models/mgca/mgca_segmenter.py, [segmenter]
mgca/models/ssl_segmenter.py, [shell] mgca/models/mgca/run_seg_finetune.sh, [data]
mgca/datasets/segmentation_dataset.py. Differs: the release draws as many images of SIIM without a
finding as there are with one, and then the fraction of both; here the fraction is drawn first. Its
validation leaves the last batch out where it is not full.
"""

from ml_collections import ConfigDict

from configs.finetune import base, segmentation_base, segmentation_names

BATCHES = {"siim": 8, "rsna": 16}  # [program], [shell]
TRAININGS = {f"{name}_{percent}": ("frozen",) for name in BATCHES for percent in (1, 10, 100)}
"""Ways of training of each set and percentage: the release only has the frozen encoder."""

SEEDS = {name: 0 if name == "siim_10" else 42 for name in TRAININGS}  # [shell], [program]
"""Seed of each set and percentage: of the run and of the draw of its images."""


def get_config(name: str = "siim_1") -> ConfigDict:
    """Returns the config for a set, a percentage and a fidelity.

    Raises:
      ConfigError: for a name that the release has no settings for.
    """
    given = segmentation_names.read(name, known=TRAININGS)
    config = segmentation_base.get_config(classes=segmentation_names.CLASSES[given.set])
    config.name = f"mgca_segmentation_{name}"
    config.seed = SEEDS[given.setting]
    config.model.dtype = "float32"  # [program] names no other precision
    config.data.image.mean = config.data.image.std = (0.5, 0.5, 0.5)  # [data]
    segmentation_base.augment(config)  # [data]
    config.data.batch_size = BATCHES[given.set]
    config.data.fraction = base.fraction(given.share, rule="choice", seed=config.seed)  # [data]
    config.data.regions.convert = given.set == "rsna"  # [data]
    config.data.regions.train_images = "balanced" if given.set == "siim" else "all"  # [data]
    config.stages = ConfigDict(dict(frozen=base.stage(length=50, peak=5e-4)))  # [program], [shell]
    config.stages.frozen.weight_decay = 0.05  # [program]; the class itself has 1e-6
    config.optimizer.update(dict(decay="decoupled", decay_mask="all"))  # [segmenter], AdamW
    config.validate_every, config.validate_unit = 1, "epochs"
    segmentation_base.stop(
        config, metric="validation_total_loss", patience=10, mode="min"
    )  # [program]
    if given.release:
        config.model.drifting_statistics = True  # quirk M31
        config.data.image.to_white = True  # quirk M16
        if config.data.fraction is not None:
            config.data.fraction.draws = 2  # quirk M15
    return config
