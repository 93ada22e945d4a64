"""What the baselines' configs share: encoders, data and the run around them.

Encoders, data, mesh, checkpoints and logging are those of `configs/prior/base.py`, so that only
the objective and its recipe differ.
"""

from ml_collections import ConfigDict

from configs.prior import base


def get_config(objective: str, *, model: dict, stage: dict, batch_size: int) -> ConfigDict:
    """Returns a full-size run of one objective: ResNet-50, BERT-base, MIMIC-CXR.

    Args:
      objective: a name that `config.objective` takes.
      model: the objective's part of `config.model`, see `encoders` for the rest.
      stage: the stage "pretrain", see `base.stage`.
      batch_size: pairs a step, over all devices.
    """
    config = base.get_config("paper")
    config.name = objective
    config.objective = objective
    config.model = ConfigDict({**encoders(base.model("paper")), **model})
    config.stages = ConfigDict(dict(pretrain=stage))
    config.data.batch_size = batch_size
    return config


def encoders(model: ConfigDict | dict) -> dict:
    """The part of PRIOR's `config.model` that every baseline has, mean pooling over the image.

    The papers start from ImageNet's and a clinical BERT's weights; a run starts from none.
    """
    shared = {name: model[name] for name in ("dtype", "image", "text", "embed_dim")}
    shared["image"] = {**dict(shared["image"].items()), "pool": "mean"}
    return shared
