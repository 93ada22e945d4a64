"""The study: what each correction of PRIOR's release and each option of the improved form buys.

    python -m launch.sweep --config=configs/sweeps/study.py --workdir=DIR --parallel=2

An ablation study: an arm is compared with the one of which it changes a part. All models have the
phantom, the text tower's size and the number of steps in common. docs/study.md reports what came
out.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from configs import phantom
from configs.baselines import phantom as baseline_phantom
from configs.baselines.objectives import OBJECTIVES
from configs.sweeps.objectives import RELEASE, shared
from prior_jax.objectives.prior_config import FIDELITY

STEPS = 600

PAPER, IMPROVED = "configs/phantom.py:paper", "configs/phantom.py"

# Choices of the model that change nothing here: the bank's schedule is constant, and the tasks
# score each image without the others of its batch.
IDLE = ("clip_temperature", "local_score_per_image")

# What the release's data and optimizer do otherwise (docs/fidelity.md). No run trains past its end,
# and the bucket window changes no value.
RECIPE = {
    "no_flip": ("data.augment.flip_probability", 0.0),
    "text_mode": ("data.text_mode", "paper"),
    "decay_mask": ("optimizer.decay_mask", "matrices"),
}

CONTRAST = "model.sentence_region"
NO_HIDDEN = ((f"{CONTRAST}.hidden_every", 0), (f"{CONTRAST}.hidden_share", 0.0))
SMALL_SQUARES = (f"{CONTRAST}.hidden_side", 1)

# The released configuration starts both contrasts at 0.01, the phantom's at 0.07.
TEMPERATURES = (("model.temperature", 0.01), ("model.local_temperature", 0.01))

# A tenth of the temperature of the bank: a sentence takes most of its mixture from one prototype.
SHARP = 0.09

STAGES = ("stage1", "stage2", "stage3")


def get_config() -> ConfigDict:
    """Returns the arms of the study with five seeds."""
    return ConfigDict(
        dict(
            name="study",
            data=dict(config=PAPER, overrides=()),
            arms=(
                arm("paper", PAPER),
                arm("release", PAPER, *RELEASE),
                *_corrections(),
                *_options(),
                arm("gloria", "configs/gloria/phantom.py"),
                *(baseline(name) for name in OBJECTIVES),
                *(baseline(name, reference=of) for name, of in baseline_phantom.IMPROVED.items()),
            ),
            space=None,
            seeds=(0, 1, 2, 3, 4),
            budget=dict(steps=STEPS, batch_size=32),
            shared=shared(STEPS),
            tasks=(
                "configs/eval/zero_shot.py",
                "configs/eval/retrieval.py",
                "configs/eval/grounding.py",
                "configs/eval/grounding.py:fine",
                "configs/eval/probe.py",
            ),
            metrics=(
                "zero_shot.macro_auroc",
                "retrieval.precision_at_5",
                "retrieval.recall_at_5",
                "grounding.macro_pointing",
                "grounding.macro_attention_ratio",
                "grounding.macro_cnr",
                "grounding_fine.macro_pointing",
                "probe.macro_auroc",
            ),
            reference="paper",
            confidence=0.95,
        )
    )


def _corrections() -> list[dict]:
    """Returns the release with one correction each: of the model, the data or the optimizer."""
    model = [
        (field.name, ("model.switched_choices", (field.name,)))
        for field in dataclasses.fields(FIDELITY["paper"])
        if field.name not in IDLE
    ]
    return [
        arm(f"release_{name}", PAPER, *RELEASE, value, reference="release")
        for name, value in (*model, *RECIPE.items())
    ]


def _options() -> list[dict]:
    """Returns the options of the improved form, alone and together, and the paper's losses."""
    return [
        arm("improved", IMPROVED),
        arm("fine_map_alone", PAPER, *_resnet("improved")),
        arm("contrast_alone", IMPROVED, *_resnet("paper")),
        option("with_local_text", *_weights("local_text", 1.0)),
        option("with_local_image", *_weights("local_image", 1.0)),
        option("no_hidden_regions", *NO_HIDDEN),
        option("small_hidden_squares", SMALL_SQUARES),
        option("with_coordinates", (f"{CONTRAST}.coordinates", True)),
        arm("paper_no_local_image", PAPER, *_weights("local_image", 0.0)),
        arm("paper_no_local_text", PAPER, *_weights("local_text", 0.0)),
        arm("paper_no_local", PAPER, *_weights("local_image", 0.0), *_weights("local_text", 0.0)),
        arm("paper_temperature_0_01", PAPER, *TEMPERATURES),
        arm("paper_sharp_prototypes", PAPER, ("model.bank.temperature", SHARP)),
        option("attention_scale_10", (f"{CONTRAST}.attention_scale", 10.0)),
        option("learned_attention_scale", (f"{CONTRAST}.learn_attention_scale", True)),
    ]


def _resnet(form: str) -> list[tuple[str, Any]]:
    """Returns the image tower of a form of the main job, for the other form."""
    resnet = phantom.get_config(form).model.image.resnet
    return [(f"model.image.resnet.{name}", resnet[name]) for name in ("depths", "width")]


def _weights(term: str, weight: float) -> list[tuple[str, float]]:
    return [(f"model.weights.{stage}.{term}", weight) for stage in STAGES]


def option(name: str, *overrides: tuple) -> dict:
    """Returns the improved form with one option changed, which is compared with it."""
    return arm(name, IMPROVED, *overrides, reference="improved")


def baseline(name: str, *, reference: str | None = None) -> dict:
    """Returns a baseline; see `arm`."""
    return arm(name, f"configs/baselines/phantom.py:{name}", reference=reference)


def arm(name: str, config: str, *overrides: tuple, reference: str | None = None) -> dict:
    """Returns an arm: a config with overrides.

    Args:
      name: name of the arm.
      config: file of the config.
      *overrides: pairs of a setting and its value.
      reference: arm that it is compared with; None for the reference of the sweep.
    """
    return dict(name=name, config=config, overrides=overrides, reference=reference)
