r"""MGCA's detection on RSNA and Object-CXR: YOLOv3's head on a frozen ResNet-50.

    python -m launch.train --config=configs/finetune/mgca_detection.py:rsna_1 --workdir=DIR \
        --config.data.path=SET --config.init.image.path=MGCA

The name behind the colon is the set, "rsna" or "object_cxr", and the percentage of the training
images; "_release" behind it repeats what is wrong with the release. Prepare RSNA with
`--split=mgca_detection`, and Object-CXR with `--split=mgca`.
Below 100 % give the paper's order of the images with
--config.data.fraction.ids=SET/split_order.train.txt; the evaluation's task reads it by itself.

Sources, of MGCA's release: [program] mgca/models/mgca/mgca_detector.py, [detector]
mgca/models/ssl_detector.py, [shell] mgca/models/mgca/run_det_finetune.sh, [data]
mgca/datasets/detection_dataset.py, [transforms] mgca/datasets/transforms.py. Differs: the release
leaves the last batch of the validation out where it is not full.
"""

from ml_collections import ConfigDict

from configs.finetune import base, detection_base, detection_names

TRAININGS = {  # learning rate, batch [shell]
    "rsna_1": (2e-4, 8),
    "rsna_10": (5e-4, 16),
    "rsna_100": (5e-4, 16),
    "object_cxr_1": (2.5e-4, 8),
    "object_cxr_10": (5e-4, 16),
    "object_cxr_100": (5e-4, 16),
}

WAYS = ("frozen",)
"""Ways of training: the release only has the frozen encoder."""

SEED = 42  # [program]


def get_config(name: str = "rsna_1") -> ConfigDict:
    """Returns the config for a set, a percentage and a fidelity.

    Raises:
      ConfigError: for a name that the release has no settings for.
    """
    given = detection_names.read(name, known=tuple(TRAININGS), ways=WAYS)
    rate, batch = TRAININGS[given.setting]
    config = detection_base.get_config(classes=(detection_names.CLASSES[given.set],))
    config.name = f"mgca_detection_{name}"
    config.seed = SEED
    config.model.dtype = "float32"  # [program] names no other precision
    config.model.head.anchors = "coco"  # [detector]
    config.model.post.update(dict(conf_threshold=0.5, nms_threshold=0.5))  # [detector]
    config.data.image.mean = config.data.image.std = (0.5, 0.5, 0.5)  # [transforms]
    config.data.image.fit = "stretch"  # [data]
    config.data.batch_size = batch
    config.data.fraction = base.fraction(given.share, rule="choice", seed=42)  # [data]
    config.stages = ConfigDict(dict(frozen=base.stage(length=50, peak=rate)))  # [program]
    config.stages.frozen.weight_decay = 1e-6  # [program]
    config.optimizer.update(dict(decay="decoupled", decay_mask="all"))  # [detector], AdamW
    config.validate_every, config.validate_unit = 1, "epochs"
    detection_base.stop(config, metric="validation_mgca_map", patience=10)  # [program]
    if given.release:
        detection_base.repeat_release(config)
        config.model.loss.single_class = True  # quirk L25
        config.model.drifting_statistics = True  # quirk M31
        config.data.image.to_white = given.set == "rsna"  # quirk M16
        if config.data.fraction is not None:
            config.data.fraction.draws = 2  # quirk M15
    return config
