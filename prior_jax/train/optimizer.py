"""Adam and AdamW with torch's arithmetic, applied only to the parameters that a stage trains."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from prior_jax.errors import check_choice, check_field, check_least
from prior_jax.train.stages import PAST_END, Stage

DECAYS = ("decoupled", "coupled")
DECAY_MASKS = ("all", "matrices")
_VECTORS = ("bias", "scale")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer settings that all stages share.

    Attributes:
      beta1: decay of the first moment; the release has torch's 0.9.
      beta2: decay of the second moment; the release has torch's 0.999.
      epsilon: constant added to the root of the second moment; the release has torch's 1e-8.
      decay: "decoupled" shrinks a parameter by the rate times the weight decay (torch's AdamW;
        PRIOR); "coupled" adds the weight decay times the parameter to its clipped gradient,
        before the moments (the L2 penalty of torch's Adam; GLoRIA: betas 0.5 and 0.999, 1e-6 on
        everything, clip_norm 0.25: release, gloria/builder.py and
        configs/chexpert_pretrain_config.yaml; quirk G52).
      decay_mask: "all" decays every trained parameter, biases, norms and temperatures included
        (release, configs/experiments/pre_train/train_prior.yaml; quirk P16); "matrices" decays
        those of two or more dimensions that are not called bias or scale.
      clip_norm: largest global gradient norm, or None not to clip (release: None).
      past_end: see `stages.learning_rate`; "rise" is the release, "hold" the paper's schedule.
      accumulate_steps: number of parts of a batch whose gradients are accumulated for one update;
        see `accumulate.Accumulation`. 1 processes the whole batch at once, like the release.
    """

    beta1: float
    beta2: float
    epsilon: float
    decay: str
    decay_mask: str
    clip_norm: float | None
    past_end: str
    accumulate_steps: int

    def __post_init__(self):
        """Refuses values for which Adam is not defined."""
        for name in ("beta1", "beta2"):
            check_field(self, name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        check_field(self, "epsilon", self.epsilon > 0, "above 0")
        check_choice(self, "decay", DECAYS)
        check_choice(self, "decay_mask", DECAY_MASKS)
        check_choice(self, "past_end", PAST_END)
        check_least(self, accumulate_steps=1)
        clips = self.clip_norm is None or self.clip_norm > 0
        check_field(self, "clip_norm", clips, "above 0, or None not to clip")


def decays(path: str, *, ndim: int, decay_mask: str) -> bool:
    """Returns whether weight decay applies to a parameter.

    Args:
      path: the parameter's path, parts joined by "/".
      ndim: number of dimensions of the parameter (biases of stacked layers have two, which is why
        the name counts too).
      decay_mask: see `OptimizerConfig`.

    Returns:
      True if the parameter is decayed.
    """
    if decay_mask == "all":
        return True
    return ndim >= 2 and path.rsplit("/", 1)[-1] not in _VECTORS


def make_optimizer(config: OptimizerConfig, stage: Stage) -> optax.GradientTransformation:
    """Returns the stage's Adam or AdamW, without the learning rate: see `apply_updates`.

    Its updates are Adam's direction, so that p - lr * update equals torch's
    p - lr m / (sqrt(v) + eps), where m and v are the moments of the clipped gradient. Decoupled
    decay adds weight decay times the parameter to the direction, coupled decay to the gradient.

    Args:
      config: moments, decay and clipping.
      stage: stage whose weight decay is used.

    Returns:
      A transformation over flat dictionaries of the parameters that the stage trains.
    """

    def mask(parameters):
        return {
            path: decays(path, ndim=value.ndim, decay_mask=config.decay_mask)
            for path, value in parameters.items()
        }

    parts = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    moments = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    decay = optax.add_decayed_weights(stage.weight_decay, mask=mask)
    parts += [decay, moments] if config.decay == "coupled" else [moments, decay]
    return optax.chain(*parts)


def apply_updates(
    transformation: optax.GradientTransformation,
    *,
    gradients: Mapping[str, jax.Array],
    state: Any,
    parameters: Mapping[str, jax.Array],
    learning_rate: jax.Array,
    factors: Mapping[str, float] = types.MappingProxyType({}),
) -> tuple[dict[str, jax.Array], Any]:
    """Applies one optimizer step.

    Args:
      transformation: optimizer from `make_optimizer`.
      gradients: path -> gradient, for the trained parameters.
      state: state of the transformation.
      parameters: path -> float32 parameter, the same paths.
      learning_rate: float32[].
      factors: path -> factor on the learning rate of the parameter, where it is not 1; torch's
        groups of parameters with a learning rate each.

    Returns:
      The new parameters and the new state.
    """
    # optax mixes Python floats with integer counts, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        found, state = transformation.update(dict(gradients), state, dict(parameters))
    updates = cast(Mapping[str, jax.Array], found)
    rates = {path: learning_rate * jnp.float32(factor) for path, factor in factors.items()}
    new = {
        path: value - rates.get(path, learning_rate) * updates[path]
        for path, value in parameters.items()
    }
    return new, state


def adam_step_count(optimizer_state: Any) -> jax.Array:
    """Returns int32[], the updates since the stage began, as counted by Adam's bias correction."""
    return jnp.asarray(optax.tree_utils.tree_get(optimizer_state, "count"), jnp.int32)
