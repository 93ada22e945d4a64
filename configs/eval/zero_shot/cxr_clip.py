"""Zero-shot classification as CXR-CLIP does it (arXiv:2310.13292, sec. 3).

    --task=configs/eval/zero_shot/cxr_clip.py          several classes: CheXpert 5x200, MIMIC 5x200
    --task=configs/eval/zero_shot/cxr_clip.py:binary   each finding by itself, "X" against "No X"

The numbers are `accuracy` for several classes and `auroc_<class>` for one. On RSNA it asks
"Findings suggesting pneumonia." against "No evidence of pneumonia.": give a file of them by
--task.prompts.set.
"""

from ml_collections import ConfigDict

from configs.eval import zero_shot
from prior_jax.errors import ConfigError

CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def get_config(kind: str = "classes") -> ConfigDict:
    """Returns the task.

    Args:
      kind: "classes" or "binary".

    Raises:
      ConfigError: for another kind.
    """
    if kind not in ("classes", "binary"):
        raise ConfigError.of_value("kind", kind, "one of classes, binary")
    config = zero_shot.get_config()
    config.zero_shot.pool = "mean"  # over all combinations of GLoRIA's table
    if kind == "classes":
        config.protocol = "cxr_clip"
        config.classes = CLASSES
        config.prompts = ConfigDict(dict(set="gloria_release_all", negatives=False))
        config.zero_shot.mode = "multi_class"
    else:
        config.protocol = "cxr_clip_binary"
        config.prompts = ConfigDict(dict(set="named", negatives=True))
        config.zero_shot.denial = "softmax"
    return config
