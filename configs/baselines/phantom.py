"""A baseline on the phantom, with the data, encoders and steps of configs/phantom.py:paper.

python -m launch.train --config=configs/baselines/phantom.py:siglip --workdir=/tmp/siglip

`lovt_improved` and `mgca_improved` have the contrast of texts and regions of `configs/phantom.py`,
and its image encoder.
"""

from ml_collections import ConfigDict

from configs import phantom, small
from configs.baselines import base
from configs.baselines.objectives import LOCAL_TERMS, OBJECTIVES, ON_PHANTOM, improve
from configs.prior.base import stage
from prior_jax.errors import ConfigError

IMPROVED = {f"{name}_improved": name for name in LOCAL_TERMS}
"""Name of an improved form -> name of its objective in `OBJECTIVES`."""


def get_config(objective: str = "clip") -> ConfigDict:
    """Returns one objective at the size of `configs/phantom.py:paper`, in one stage.

    Args:
      objective: name in `OBJECTIVES`, or in `IMPROVED`.

    Raises:
      ConfigError: if the name is unknown.
    """
    known = (*OBJECTIVES, *IMPROVED)
    if objective not in known:
        raise ConfigError.of_value("objective", objective, f"one of {', '.join(known)}")
    config = phantom.get_config("paper")
    config.name, improved = f"phantom_{objective}", objective in IMPROVED
    config.objective = objective = IMPROVED.get(objective, objective)
    shared, own = base.encoders(config.model), OBJECTIVES[objective]()
    own["embed_dim"] = shared["embed_dim"]
    if own.get("hidden_dim") is not None:
        own["hidden_dim"] = 2 * shared["embed_dim"]
    if own.get("text_pool") == "first":
        # [CLS] has to learn to pool the tokens before it can tell reports apart; a mean need not.
        own["text_pool"] = "mean"
    config.model = ConfigDict({**shared, **own, **ON_PHANTOM.get(objective, {})})
    if improved:
        config.model = ConfigDict({**config.model, **improve(objective, own)})
        phantom.refine(config)
    if objective not in LOCAL_TERMS:
        config.after = small.get_config().after
    config.checkpoint.best_metric = base.best_metric(own)
    steps = sum(part.length for part in config.stages.values())
    config.stages = ConfigDict(dict(pretrain=stage(length=steps, warmup=50, peak=3e-3, start=1e-5)))
    return config
