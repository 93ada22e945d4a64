"""The main job in about a minute: every part runs, but nothing is learnt.

`configs/debug.py` is PRIOR; `configs/debug.py:clip` is another objective at the same size.
"""

import functools

from ml_collections import ConfigDict

from configs import phantom
from configs.baselines import phantom as baseline_phantom
from configs.baselines.objectives import OBJECTIVES
from configs.gloria import phantom as gloria_phantom
from prior_jax.errors import ConfigError


def get_config(objective: str = "prior") -> ConfigDict:
    """Returns the phantom config with few studies, few steps and a tiny model.

    Args:
      objective: name of an objective that reads reports; classifiers have
        `configs/finetune/debug.py`.

    Raises:
      ConfigError: if the name is unknown.
    """
    full = {"prior": phantom.get_config, "gloria": gloria_phantom.get_config}
    names = (*OBJECTIVES, *baseline_phantom.IMPROVED)
    full |= {name: functools.partial(baseline_phantom.get_config, name) for name in names}
    if objective not in full:
        raise ConfigError.of_value("objective", objective, f"one of {', '.join(full)}")
    config = full[objective]()
    config.name = "debug" if objective == "prior" else f"debug_{objective}"
    config.prepare.phantom.update(dict(studies=120, size=64, validate=0.2, test=0.4))
    config.prepare.vocab_size = 300
    config.data.update(dict(batch_size=16, buckets=(128,), max_tokens=128))
    config.data.image.size = 32
    shrink(config.model)
    config.stage_unit = "steps"
    for stage in config.stages.values():
        stage.update(dict(length=8, warmup=2))
    config.checkpoint.every_steps = 4
    config.log.every_steps = 1
    config.validate_every = 8 * len(config.stages)
    config.quick_compile = True
    return config


def shrink(model: ConfigDict) -> None:
    """Gives those sizes that an objective has their smallest values.

    Args:
      model: section `config.model`, which is changed.
    """
    model.image.resnet.update(dict(depths=(1, 1), width=8))
    model.text.update(dict(hidden_size=32, layers=1, intermediate_size=64))
    # A loop over a single layer would only add compile time.
    model.text.scan_layers = False
    if "sentence_decoder" in model:
        model.sentence_decoder.update(dict(layers=1, intermediate_size=64, scan_layers=False))
    if "bank" in model:
        model.bank.num_prototypes = 16
    if "num_prototypes" in model:
        model.num_prototypes = 16
    if model.get("hidden_dim") is not None:
        model.hidden_dim = 64
    if "embed_dim" in model:
        model.embed_dim = 32
