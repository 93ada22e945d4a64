"""The shared part of the baselines' configs: encoders, data and the settings of the run.

Encoders, data, mesh, checkpoints and logging are those of `configs/prior/base.py`, so that only
the objective and its training recipe differ; MGCA's images are fitted and cropped as its authors'.
"""

from ml_collections import ConfigDict

from configs.baselines.objectives import improve
from configs.prior import base
from prior_jax.errors import ConfigError

FORMS = ("paper", "improved")


def get_config(objective: str, *, model: dict, stage: dict, batch_size: int) -> ConfigDict:
    """Returns a full-size run of one objective: ResNet-50, BERT-base, MIMIC-CXR.

    Args:
      objective: name of the objective, a value of `config.objective`.
      model: objective's part of `config.model`; see `encoders` for the rest.
      stage: settings of the stage "pretrain"; see `base.stage`.
      batch_size: number of pairs in a step, over all devices.
    """
    config = base.get_config("paper")
    config.name = objective
    config.objective = objective
    config.model = ConfigDict({**encoders(base.model("paper")), **model})
    config.stages = ConfigDict(dict(pretrain=stage))
    config.data.batch_size = batch_size
    config.checkpoint.best_metric = best_metric(model)
    return config


def in_form(config: ConfigDict, form: str) -> ConfigDict:
    """Returns a full-size config in one of its forms.

    Args:
      config: config of an objective with local terms, as its paper has it.
      form: "paper", or "improved" for the contrast of texts and regions of
        `configs/prior/improved.py` in place of the local terms.

    Raises:
      ConfigError: if the form is unknown.
    """
    if form not in FORMS:
        raise ConfigError.of_value("form", form, f"one of {', '.join(FORMS)}")
    if form == "improved":
        config.name += "_improved"
        config.model = ConfigDict({**config.model, **improve(config.objective, config.model)})
    return config


def best_metric(model: ConfigDict | dict) -> str:
    """Returns the number of a validation by which the best checkpoint is chosen.

    Args:
      model: objective's `config.model`, with `weights` if it has more than one term.

    Returns:
      The loss of whole pairs, as in PRIOR, or the weighted sum of an objective that has no such
      term.
    """
    terms = model.get("weights", {"global_alignment": 1.0})
    return f"validation_{'global_alignment' if 'global_alignment' in terms else 'total'}_loss"


def encoders(model: ConfigDict | dict) -> dict:
    """Returns the part of PRIOR's `config.model` that all baselines share, with mean pooling.

    The mean is over the regions of the image. The papers start from weights of ImageNet and of a
    clinical BERT; a run starts from random weights.
    """
    shared = {name: model[name] for name in ("dtype", "image", "text", "embed_dim")}
    shared["image"] = {**dict(shared["image"].items()), "pool": "mean"}
    return shared
