r"""The study's main arms on a set of your own, with reports or labels, and boxes if it has some.

    python -m launch.sweep --config=configs/sweeps/study_own_set.py --workdir=DIR --parallel=2 \
        "--config.data.overrides=(('data.path','/data/prepared/mine'),)"

A set without boxes or masks has no phrase grounding; the other columns are made all the same.
"""

from ml_collections import ConfigDict

from configs.sweeps import study
from configs.sweeps.objectives import RELEASE


def get_config() -> ConfigDict:
    """Returns PRIOR's release, paper and improved form and GLoRIA with three seeds."""
    config = study.get_config()
    config.name = "study_own_set"
    config.arms = (
        study.arm("paper", study.PAPER),
        study.arm("release", study.PAPER, *RELEASE),
        study.arm("improved", study.IMPROVED),
        study.arm("gloria", "configs/gloria/phantom.py"),
    )
    config.seeds = (0, 1, 2)
    config.tasks = (
        "configs/eval/zero_shot.py",
        "configs/eval/retrieval.py",
        "configs/eval/phrase_grounding.py",
        "configs/eval/probe.py",
    )
    config.metrics = (
        "zero_shot.macro_auroc",
        "retrieval.precision_at_5",
        "retrieval.recall_at_5",
        "phrase_grounding.macro_pointing",
        "phrase_grounding.macro_miou",
        "phrase_grounding.macro_cnr",
        "probe.macro_auroc",
    )
    return config
