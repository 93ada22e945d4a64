r"""Fine-tuning: trains a classifier from the model's image encoder, and measures it on test.

    python -m launch.evaluate --workdir=RUN --task=configs/eval/finetune.py \
        --task.finetune.fraction=0.01
    python -m launch.evaluate --weights=DIR --task=configs/eval/finetune.py:linear \
        --task.data.path=SET --out=RESULTS

`configs/eval/finetune.py:linear` trains the head alone. The same training from random weights lies
beside it.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.eval import classification
from configs.finetune import any_set
from prior_jax.errors import ConfigError


def get_config(way: str = "finetune") -> ConfigDict:
    """Returns the task for one way of training.

    Args:
      way: "finetune", or "linear" for the head alone on the frozen encoder.

    Raises:
      ConfigError: for another way.
    """
    if way not in any_set.STAGES:
        raise ConfigError.of_value("way", way, f"one of {', '.join(any_set.STAGES)}")
    measured = classification.get_config()
    return ConfigDict(
        dict(
            task="finetune",
            data=dict(path=placeholder(str)),  # None: the set that the run was trained on
            split="test",
            batch_size=64,
            classes=(),  # () selects every other label that can be learnt and measured
            # As in configs/eval/probe.py, so that the macro average is over the same findings.
            exclude=("Lung Opacity", "Support Devices"),
            min_positives=3,
            finetune=dict(
                name=way,
                config=f"configs/finetune/any_set.py:{way}",
                overrides=(),  # "name=value" each, over the config, e.g. "model.dtype='float32'"
                fraction=1.0,  # share of the training patients
                seed=0,  # of the choice of patients, the head, and the random baseline
                epochs=100.0,  # passes over the labelled part ...
                max_steps=200,  # ... and at most so many steps
                validations=10,
            ),
            classification=measured.classification,
            bootstrap=dict(resamples=1000, confidence=0.95, seed=0),
        )
    )
