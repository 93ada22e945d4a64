"""The evaluation tasks that train a segmentation, for the files of configs/eval/segmentation."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.eval import segmentation
from configs.finetune import any_set_segmentation, segmentation_names
from prior_jax.errors import ConfigError

NAMES = {"finetune": "segmentation_any_set", "frozen": "segmentation_any_set_frozen"}
"""Name of the results of each way of training."""


def any_set(way: str) -> ConfigDict:
    """Returns the task of `configs/eval/segmentation/any_set.py`.

    Args:
      way: "finetune", or "frozen" for the decoder alone on the frozen encoder.

    Raises:
      ConfigError: for another way.
    """
    if way not in any_set_segmentation.RATES:
        ways = ", ".join(any_set_segmentation.RATES)
        raise ConfigError.of_value("way", way, f"one of {ways}")
    return ConfigDict(
        dict(
            task="train_segmentation",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every label of masks or boxes that can be learnt and measured
            exclude=(),
            min_positives=3,
            finetune=dict(
                name=NAMES[way],
                config=f"configs/finetune/any_set_segmentation.py:{way}",
                overrides=(),  # "name=value" each, over the config
                fraction=1.0,  # share of the training patients
                seed=0,  # of the choice of patients, the decoder, and the random baseline
                epochs=100.0,  # passes over the labelled part ...
                max_steps=200,  # ... and at most so many steps
                validations=5,
                keeps=(),
            ),
            segmenter=segmentation.get_config().segmenter,
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
            protocol="",
        )
    )


def of_paper(
    paper: str, given: segmentation_names.Named, *, seed: int, usual: str, batch_size: int = 64
) -> ConfigDict:
    """Returns the task of a paper, which keeps images, fraction and length of its config.

    Args:
      paper: name of the paper.
      given: set, percentage, way and fidelity.
      seed: seed of the paper's config.
      usual: set and way that the name of the results leaves out, such as "siim_frozen".
      batch_size: number of images that are measured at once.
    """
    task = any_set("finetune")
    task.protocol = paper if given.without_share == usual else f"{paper}_{given.without_share}"
    task.classes = segmentation_names.CLASSES[given.set]
    task.min_positives = 1
    task.batch_size = batch_size
    task.finetune.update(
        dict(
            name="segmentation",
            config=f"configs/finetune/{paper}_segmentation.py:{given.name}",
            fraction=given.share,
            seed=seed,
            keeps=("images", "fraction", "length"),
        )
    )
    task.finetune.max_steps = placeholder(int)  # no limit
    return task
