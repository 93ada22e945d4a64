r"""GLoRIA's segmentation of SIIM's pneumothoraces: a U-Net, fine-tuned, at 1, 10 or 100 %.

    python -m launch.train --config=configs/finetune/gloria_segmentation.py:siim_1 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=GLORIA \
        "--config.init.image.adapt=('drop_embedders',)"

The name behind the colon is the set and the percentage of the training images; "_release" behind
it repeats what is wrong with the release. Prepare SIIM with `--split=gloria`.

Sources: [yaml] release, configs/pneumothorax_segmentation_config.yaml; [builder.py],
[image_dataset.py], [segmentation_model.py] release, gloria/... Differs: the release draws as many
images without a finding as there are with one, and then the fraction of both; here the fraction is
drawn first. Its draws have no seed. Its test is of the last weights (run.py hands the model itself
to the trainer of Lightning 1.1.4); the task of the evaluation measures the best checkpoint.
"""

from ml_collections import ConfigDict

from configs.finetune import base, segmentation_base, segmentation_names

TRAININGS = {f"siim_{percent}": ("finetune",) for percent in (1, 10, 100)}
"""Ways of training of each set and percentage: the release fine-tunes [yaml], freeze_cnn."""

SEED = 1  # release, run.py: the number of the split, plus 1


def get_config(name: str = "siim_1") -> ConfigDict:
    """Returns the config for a percentage and a fidelity.

    Raises:
      ConfigError: for a name that the release has no settings for.
    """
    given = segmentation_names.read(name, known=TRAININGS)
    config = segmentation_base.get_config(classes=segmentation_names.CLASSES[given.set])
    config.name = f"gloria_segmentation_{name}"
    config.seed = SEED
    config.data.image.size = 512  # [yaml]
    config.data.image.mean = config.data.image.std = (0.5, 0.5, 0.5)  # [image_dataset.py]
    segmentation_base.augment(config)  # [image_dataset.py]
    config.data.batch_size = 8  # [yaml]
    config.data.fraction = base.fraction(given.share, rule="choice")  # [image_dataset.py]
    config.data.regions.train_images = "balanced"  # [image_dataset.py]
    config.stages = ConfigDict(dict(finetune=base.stage(length=100, peak=5e-4)))  # [yaml]
    config.stages.finetune.update(
        dict(
            schedule="plateau",  # [yaml]
            plateau=dict(
                metric="validation_total_loss",  # [yaml], monitor
                factor=0.5,  # [builder.py]
                patience=5,  # [builder.py]
                threshold=1e-4,  # torch's default
                min_learning_rate=0.0,  # torch's default
                every=3,  # [yaml], frequency 3 (quirk G69)
            ),
            weight_decay=1e-6,  # [yaml]
        )
    )
    config.optimizer.update(
        dict(
            beta1=0.5,  # [builder.py]
            beta2=0.999,  # [builder.py]
            decay="coupled",  # [builder.py], Adam's own
            decay_mask="all",  # [builder.py] (quirk G52)
        )
    )
    config.validate_every, config.validate_unit = 1, "epochs"
    segmentation_base.stop(config, metric="validation_image_dice", patience=20)  # [yaml], val_dice
    config.data.image.to_white = given.release  # [image_dataset.py] (quirk M16, MGCA's has it too)
    return config
