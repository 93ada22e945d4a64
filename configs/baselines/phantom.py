"""A baseline on the phantom, with the data, encoders and steps of configs/phantom.py:paper.

python -m launch.train --config=configs/baselines/phantom.py:siglip --workdir=/tmp/siglip
"""

from ml_collections import ConfigDict

from configs import phantom, small
from configs.baselines import base
from configs.baselines.objectives import OBJECTIVES, ON_PHANTOM, WITH_ATTENTION
from configs.prior.base import stage
from prior_jax.errors import ConfigError


def get_config(objective: str = "clip") -> ConfigDict:
    """Returns one objective at the size of `configs/phantom.py:paper`, in one stage.

    Args:
      objective: name in `OBJECTIVES`.

    Raises:
      ConfigError: if the name is unknown.
    """
    if objective not in OBJECTIVES:
        raise ConfigError.of_value("objective", objective, f"one of {', '.join(OBJECTIVES)}")
    config = phantom.get_config("paper")
    config.name = f"phantom_{objective}"
    config.objective = objective
    shared, own = base.encoders(config.model), OBJECTIVES[objective]()
    own["embed_dim"] = shared["embed_dim"]
    if own.get("hidden_dim") is not None:
        own["hidden_dim"] = 2 * shared["embed_dim"]
    if own.get("text_pool") == "first":
        # [CLS] has to learn to pool the tokens before it can tell reports apart; a mean need not.
        own["text_pool"] = "mean"
    config.model = ConfigDict({**shared, **own, **ON_PHANTOM.get(objective, {})})
    if objective not in WITH_ATTENTION:
        config.after = small.get_config().after
    config.checkpoint.best_metric = base.best_metric(own)
    steps = sum(part.length for part in config.stages.values())
    config.stages = ConfigDict(dict(pretrain=stage(length=steps, warmup=50, peak=3e-3, start=1e-5)))
    return config
