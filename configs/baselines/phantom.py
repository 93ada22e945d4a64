"""A baseline on the phantom, with the main job's data, towers and number of steps.

python -m launch.train --config=configs/baselines/phantom.py:siglip --workdir=/tmp/siglip
"""

from ml_collections import ConfigDict

from configs import phantom
from configs.baselines import base
from configs.baselines.objectives import OBJECTIVES
from configs.prior.base import stage


def get_config(objective: str = "clip") -> ConfigDict:
    """Returns one objective at the size of `configs/phantom.py`, in one stage.

    Args:
      objective: one of `OBJECTIVES`.

    Raises:
      ValueError: for another name.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective {objective!r}: accepted {', '.join(OBJECTIVES)}")
    config = phantom.get_config()
    config.name = f"phantom_{objective}"
    config.objective = objective
    shared, own = base.encoders(config.model), OBJECTIVES[objective]()
    own["embed_dim"] = shared["embed_dim"]
    if own["hidden_dim"] is not None:
        own["hidden_dim"] = 2 * shared["embed_dim"]
    if own.get("text_pool") == "first":
        # [CLS] has to learn to gather before it can tell reports apart; a mean need not.
        own["text_pool"] = "mean"
    if "num_prototypes" in own:
        own["num_prototypes"] = 64  # a step has 32 pairs to spread over them
    config.model = ConfigDict({**shared, **own})
    steps = sum(part.length for part in config.stages.values())
    config.stages = ConfigDict(dict(pretrain=stage(length=steps, warmup=50, peak=3e-3, start=1e-5)))
    return config
