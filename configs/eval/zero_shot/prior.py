"""Zero-shot classification as PRIOR's release does it (arXiv:2307.12577), for CheXpert 5x200.

    --task=configs/eval/zero_shot/prior.py         every record with exactly one positive class
    --task=configs/eval/zero_shot/prior.py:draws   and five draws of 200 of each class from a pool

PRIOR's settings are published no further than its release and its issue 10, which names the seeds
114514 to 114518 of five draws; the lists are not published. The numbers are `accuracy`,
`macro_precision`, `macro_recall`, `macro_f1` and `kappa`; over draws they are in
`settings.over_draws`. Images are normalised as the weights say, and not with the other numbers of
PRIOR's zero-shot program (quirk P30).

Sources: [model] release, codes/prior/downstream/zero_classification_model.py; [prompts] release,
codes/prior/data/zero_shot_classification/chexpert_zls.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.eval import zero_shot
from prior_jax.errors import ConfigError

CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def get_config(kind: str = "") -> ConfigDict:
    """Returns the task: a softmax of each part of the similarity to "<Class> is observed".

    Args:
      kind: "draws" for the five draws as well, "" for none.

    Raises:
      ConfigError: for another kind.
    """
    if kind not in ("", "draws"):
        raise ConfigError.of_value("kind", kind, "draws, or nothing")
    config = zero_shot.get_config()
    config.protocol = "prior"
    config.classes = CLASSES
    config.prompts = ConfigDict(dict(set="release", negatives=False))  # [prompts]
    config.zero_shot.mode = "multi_class"  # 5x200
    config.zero_shot.normalise = "softmax"  # [model]
    config.zero_shot.local_weight = placeholder(float)
    config.zero_shot.local_weight = 0.5  # [model]
    if kind == "draws":
        config.zero_shot.draws = ConfigDict(dict(each=200, seeds=tuple(range(114514, 114519))))
    return config
