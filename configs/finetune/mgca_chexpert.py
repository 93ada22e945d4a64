r"""MGCA's linear classification of CheXpert: frozen encoder, five classes, at 1, 10 or 100 %.

    python -m launch.train --config=configs/finetune/mgca_chexpert.py:1 --workdir=DIR \
        --config.data.path=SET --config.data.fraction.ids=SET/split_order.train.txt \
        --config.init.image.path=MGCA

Prepare the set with `data_prep.chexpert --split=mgca`. The flag of the ids, for 1 and 10 %, draws
by the order of the paper's frontal images; its very images need `--split_as_released` as well.
MGCA tests its best checkpoint, and `launch.evaluate` measures the newest one unless it is given
the step that the last line of the training names: `--step=N`.

Sources: [finetuner] release, mgca/models/ssl_finetuner.py and mgca/models/mgca/mgca_finetuner.py;
[encoder] release, mgca/models/backbones/encoder.py; [data] release,
mgca/datasets/classification_dataset.py; [transforms] release, mgca/datasets/transforms.py,
Moco2Transform. Differs: the release evaluates the middle 224 of the square's 256 pixels; here
images are evaluated as a whole.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.finetune import base, gloria_chexpert


def get_config(percent: str = "1") -> ConfigDict:
    """Returns the config for a percentage of the frontal training images."""
    share = base.share_of(percent)
    # [data], uncertain labels.
    config = base.get_config(classes=base.COMPETITION, uncertain=base.UNCERTAIN)
    config.name = f"mgca_chexpert_{percent}"
    config.seed = 42  # [finetuner]
    config.model.dtype = "float32"  # [finetuner] names no other precision
    config.model.upsample = 299  # [encoder]: the pre-trained encoder enlarges, as GLoRIA's
    config.data.image.mean = config.data.image.std = (0.5, 0.5, 0.5)  # [transforms]
    config.data.image.fit = "pad"  # [data], black margins
    augment(config)
    config.data.batch_size = 48  # [finetuner]
    # [data]: a data frame's sample with random_state 42.
    config.data.fraction = base.fraction(share, rule="sample", seed=42)
    config.stages = ConfigDict(dict(frozen=base.stage(length=50, peak=5e-4)))  # [finetuner]
    config.stages.frozen.weight_decay = 1e-6  # [finetuner]
    config.optimizer.update(
        dict(beta1=0.9, beta2=0.999, decay="decoupled", decay_mask="all")  # [finetuner], AdamW
    )
    config.validate_every, config.validate_unit = 1, "epochs"
    gloria_chexpert.stop(config)  # [finetuner], the same rule
    return config


def augment(config: ConfigDict) -> None:
    """Sets the random changes of training images [transforms]."""
    config.data.augment.crop_from = 256  # [data], imsize; a random 224 pixels of it
    config.data.augment.jitter = ConfigDict(
        dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)
    )
    config.data.augment.grey_probability = 0.2  # changes no radiograph, as these are grey
    config.data.augment.blur = ConfigDict(
        dict(sigma=(0.1, 2.0), kernel=placeholder(int), probability=0.5)  # Pillow's blur
    )
    config.data.augment.flip_probability = 0.5
