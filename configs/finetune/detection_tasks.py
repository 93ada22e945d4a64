"""The evaluation tasks that train a detector, for the files of configs/eval/detection."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.eval import detection
from configs.finetune import any_set_detection, detection_names
from prior_jax.errors import ConfigError

NAMES = {"finetune": "detection_any_set", "frozen": "detection_any_set_frozen"}
"""Name of the results of each way of training."""


def any_set(way: str) -> ConfigDict:
    """Returns the task of `configs/eval/detection/any_set.py`.

    Args:
      way: "finetune", or "frozen" for the head alone on the frozen encoder.

    Raises:
      ConfigError: for another way.
    """
    if way not in any_set_detection.RATES:
        ways = ", ".join(any_set_detection.RATES)
        raise ConfigError.of_value("way", way, f"one of {ways}")
    return ConfigDict(
        dict(
            task="train_detection",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every label of boxes or masks that can be learnt and measured
            exclude=(),
            min_positives=3,
            finetune=dict(
                name=NAMES[way],
                config=f"configs/finetune/any_set_detection.py:{way}",
                overrides=(),  # "name=value" each, over the config
                fraction=1.0,  # share of the training patients
                seed=0,  # of the choice of patients, the head, and the random baseline
                epochs=100.0,  # passes over the labelled part ...
                max_steps=200,  # ... and at most so many steps
                validations=5,
                keeps=(),
            ),
            detector=detection.get_config().detector,
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
            protocol="",
            remark="",  # said beside the results
        )
    )


def of_paper(paper: str, given: detection_names.Named, *, seed: int) -> ConfigDict:
    """Returns the task of a paper, which keeps images, fraction and length of its config.

    Args:
      paper: name of the paper.
      given: set, percentage, way and fidelity.
      seed: seed of the paper's config.
    """
    task = any_set("finetune")
    usual = (given.set, given.way, given.release) == ("rsna", "frozen", False)
    task.protocol = paper if usual else f"{paper}_{given.without_share}"
    task.classes = (detection_names.CLASSES[given.set],)
    task.min_positives = 1
    task.finetune.update(
        dict(
            name="detection",
            config=f"configs/finetune/{paper}_detection.py:{given.name}",
            fraction=given.share,
            seed=seed,
            keeps=("images", "fraction", "length"),
        )
    )
    task.finetune.max_steps = None
    task.detector.froc = given.set == "object_cxr"
    return task
