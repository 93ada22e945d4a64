"""The base of every GLoRIA config: the settings of the release, each value with its source.

Sources: [yaml] release, configs/chexpert_pretrain_config.yaml at commit ffc4fe2; [builder.py],
[vision_model.py], [image_dataset.py] release, gloria/...; [bert] the config of Bio_ClinicalBERT.
Mesh, logging and the other settings of the run are those of `configs/prior/base.py`. The release
starts from ImageNet's ResNet-50 and Bio_ClinicalBERT; a run starts from random weights unless
`config.init` names weights. Differs: the release validates on the middle 224 of the square's 256
pixels; here images are validated on as a whole.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.prior import base


def get_config(fidelity: str = "paper") -> ConfigDict:
    """Returns the settings in one fidelity, for one device or many."""
    release = fidelity == "release"
    config = base.get_config(fidelity)
    config.name = f"gloria_{fidelity}"
    config.objective = "gloria"
    config.seed = 6  # release, gloria/gloria.py
    config.model = ConfigDict(model(fidelity))
    data(config, release=release)
    config.stages = ConfigDict(dict(pretrain=stage(length=50, peak=5e-5, plateau=not release)))
    config.optimizer.update(
        dict(
            beta1=0.5,  # [builder.py]
            beta2=0.999,  # [builder.py]
            decay="coupled",  # [builder.py], Adam's own
            decay_mask="all" if release else "matrices",  # quirk G52
            past_end="hold",
        )
    )
    config.optimizer.clip_norm = 0.25  # [yaml]
    # Early stopping and the plateau count epochs [yaml], [builder.py].
    config.validate_every, config.validate_unit = 1, "epochs"
    config.early_stopping = ConfigDict(  # [yaml]
        dict(metric="validation_total_loss", patience=10, mode="min", min_delta=0.0)
    )
    config.checkpoint.best_metric = "validation_total_loss"  # [yaml]
    config.checkpoint.keep_best = 10 if release else 1  # [yaml], save_top_k
    return config


def stage(*, length: float, peak: float, plateau: bool) -> dict:
    """Returns the only stage, whose learning rate halves when the validation loss stagnates.

    In the release the rate never halves, although it is configured to: the rate is constant
    (quirk G53).
    """
    return dict(
        length=length,  # [yaml], max_epochs
        warmup=0,
        schedule="plateau" if plateau else "constant",
        plateau=dict(  # [builder.py]
            metric="validation_total_loss",
            factor=0.5,
            patience=5,
            threshold=1e-4,
            min_learning_rate=0.0,
        )
        if plateau
        else None,
        learning_rate=peak,
        learning_rate_start=peak,
        learning_rate_end=peak,
        weight_decay=1e-6,  # [yaml]
    )


def model(fidelity: str) -> dict:
    """Returns the model: ResNet-50 at 299 pixels, and the sum of BERT-base's last four layers."""
    towers = base.model(fidelity)
    return dict(
        fidelity=fidelity,
        dtype="bfloat16",  # the release trains in fp16 [yaml]
        image=dict(
            resnet=towers["image"]["resnet"],
            upsample=299,  # [vision_model.py]
        ),
        text=towers["text"],  # [bert]
        last_layers=4,  # [yaml]
        layer_pool="sum",  # [yaml]
        whole_words=True,  # [yaml], agg_tokens
        unit_text=False,  # [yaml], norm
        unit_regions=False,  # [vision_model.py]
        attention_scale=4.0,  # [yaml], temp1
        word_scale=5.0,  # [yaml], temp2
        contrast_scale=10.0,  # [yaml], temp3
        caption_chunk=16,
        local_group=placeholder(int),  # the whole batch
        weights=dict(  # [yaml]
            global_image_to_text=1.0,
            global_text_to_image=1.0,
            local_image_to_text=1.0,
            local_text_to_image=1.0,
        ),
    )


def data(config: ConfigDict, *, release: bool) -> None:
    """Sets the data: a sentence of at most 97 tokens, an image of 224 pixels, 3 channels [yaml]."""
    config.data.update(
        dict(
            caption="sentence",  # [yaml], full_report false; the paper uses sentences too
            text_mode="paper",  # the release's drift of sentences occurs only in PRIOR
            shuffle_sentences=False,
            max_tokens=97,  # [yaml], word_num
            buckets=(97,) if release else (32, 64, 97),
            batch_size=48,  # [yaml]
        )
    )
    half = (0.5, 0.5, 0.5)  # [yaml], norm "half" (quirk G41)
    config.data.image.channels = 3
    config.data.image.mean = half if release else placeholder(tuple)
    config.data.image.std = half if release else placeholder(tuple)
    config.data.image.fit = "pad"  # [image_dataset.py], black margins
    # [yaml], a random crop of 224; the release neither rotates nor flips.
    config.data.augment.update(dict(crop_from=256, rotation_degrees=0.0, flip_probability=0.0))
