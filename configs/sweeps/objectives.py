"""A sweep of every objective on one phantom, with the same encoders, budget and seeds."""

from typing import Any

from ml_collections import ConfigDict

from configs.baselines.objectives import OBJECTIVES

STEPS = 300

# The recipe of the release (configs/prior/base.py), except tokenizer, pixel statistics and the
# reading of JPEG files at a smaller scale (data.image.draft_margin), which are alike in every arm.
RELEASE = (
    ("model.fidelity", "release"),
    ("data.text_mode", "release"),
    ("data.augment.flip_probability", 0.5),
    ("data.bucket_window", 1),
    ("optimizer.decay_mask", "all"),
    ("optimizer.past_end", "rise"),
)


def get_config() -> ConfigDict:
    """Returns every objective with three seeds; each trial has 300 steps of 32 pairs."""
    phantom, baselines = "configs/phantom.py:paper", "configs/baselines/phantom.py"
    return ConfigDict(
        dict(
            name="objectives",
            data=dict(config=phantom, overrides=()),
            arms=(
                dict(name="prior_paper", config=phantom, overrides=()),
                dict(name="prior_release", config=phantom, overrides=RELEASE),
                dict(name="gloria", config="configs/gloria/phantom.py", overrides=()),
                *(
                    dict(name=name, config=f"{baselines}:{name}", overrides=())
                    for name in OBJECTIVES
                ),
            ),
            space=None,
            seeds=(0, 1, 2),
            # PRIOR's three stages share the steps.
            budget=dict(steps=STEPS, batch_size=32),
            shared=shared(STEPS),
            tasks=(
                "configs/eval/zero_shot.py",
                "configs/eval/retrieval.py",
                "configs/eval/probe.py",
            ),
            metrics=(
                "zero_shot.macro_auroc",
                "retrieval.precision_at_5",
                "retrieval.recall_at_10",
                "probe.macro_auroc",
            ),
            reference="prior_paper",
            confidence=0.95,
        )
    )


def shared(steps: int) -> tuple[tuple[str, Any], ...]:
    """Returns the settings of every trial of `steps` steps: one validation and little output."""
    return (
        ("validate_every", steps),
        ("checkpoint.every_steps", steps // 2),
        ("log.progress", False),
        ("log.tensorboard", False),
    )
