"""From the labels of a set to the targets of a classifier: which classes, and what is unknown."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prior_jax.errors import ConfigError

POLICIES = ("positive", "negative", "ignore")
_UNCERTAIN, _NOT_MENTIONED = -1, -2  # data/schema.py


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelTargets:
    """Reads the columns of some classes, and gives every state of a label its meaning.

    Attributes:
      columns: position of each class among the labels of the set.
      uncertain: policy for uncertain labels of each class, one of `POLICIES`.
      not_mentioned: policy for labels that are not mentioned, one of `POLICIES`.
    """

    columns: tuple[int, ...]
    uncertain: tuple[str, ...]
    not_mentioned: str

    def __call__(self, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns targets and the mask of the known ones.

        Args:
          labels: labels of all classes of the set, int8[B, C]: 1 positive, 0 negative, -1
            uncertain, -2 not mentioned.

        Returns:
          Targets, float32[B, K], 1 positive and 0 negative or unknown; and float32[B, K], 1 for a
          known target, 0 for one that does not count.
        """
        labels = labels[:, np.asarray(self.columns)].astype(jnp.int32)
        target = (labels == 1).astype(jnp.float32)
        known = jnp.ones_like(target)
        for state, policies in (
            (_UNCERTAIN, self.uncertain),
            (_NOT_MENTIONED, (self.not_mentioned,) * len(self.columns)),
        ):
            here = labels == state
            positive = np.array([[policy == "positive" for policy in policies]], np.float32)
            ignored = np.array([[policy == "ignore" for policy in policies]], np.float32)
            target = jnp.where(here, jnp.broadcast_to(positive, target.shape), target)
            known = jnp.where(here, jnp.broadcast_to(1 - ignored, known.shape), known)
        return target, known


def one_class(target: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the class of each row, where classes exclude each other.

    Args:
      target: targets, float32[B, K].
      known: mask of the known ones, float32[B, K].

    Returns:
      int32[B] and float32[B], 1 where it is known. A single class has two values, 0 absent and 1
      present. Of several classes exactly one has to be known and positive; a row with none or more
      is unknown.
    """
    if target.shape[1] == 1:
        return target[:, 0].astype(jnp.int32), known[:, 0]
    positive = target * known
    single = jnp.sum(positive, axis=1) == 1
    return jnp.argmax(positive, axis=1).astype(jnp.int32), single.astype(jnp.float32)


def columns_of(classes: Sequence[str], labels: Sequence[str]) -> tuple[int, ...]:
    """Returns the position of each class among the labels of a set.

    Raises:
      ConfigError: for a class that the set does not have, naming the nearest that it has.
    """
    positions = {name: index for index, name in enumerate(labels)}
    for name in classes:
        if name in positions:
            continue
        folded = {label.lower(): label for label in labels}
        near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.0)
        nearest = f"The nearest is {folded[near[0]]!r}; all" if near else "All"
        raise ConfigError(
            f"The class {name!r} is no label of the set. {nearest} labels are "
            f"{', '.join(labels) or 'none'}.",
            "Name labels of the set.",
            where="config.model.classes",
        )
    return tuple(positions[name] for name in classes)


def policies_of(uncertain: str | Mapping[str, str], classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the policy for uncertain labels of each class.

    Args:
      uncertain: one policy for all classes, or class -> policy.
      classes: names of the classes.

    Raises:
      ConfigError: for an unknown policy, or a mapping that does not name exactly the classes.
    """
    if isinstance(uncertain, str):
        uncertain = dict.fromkeys(classes, uncertain)
    if set(uncertain) != set(classes):
        raise ConfigError(
            f"Policies are given for {sorted(uncertain)}, and the classes are {sorted(classes)}.",
            "Give one policy for all classes, or one for each of them.",
            where="uncertain",
        )
    for name, policy in uncertain.items():
        if policy not in POLICIES:
            raise ConfigError.of_value(f"uncertain.{name}", policy, f"one of {POLICIES}")
    return tuple(uncertain[name] for name in classes)
