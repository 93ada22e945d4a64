"""The tensors of a file, compared with the names, shapes and dtypes of our model."""

import dataclasses
from collections.abc import Mapping
from typing import cast

import numpy as np
from flax import traverse_util

from prior_jax.interop.sources.accounting import Unused
from prior_jax.interop.sources.plans import Plan, structure
from prior_jax.interop.sources.stand_ins import replaced_paths, stand_ins
from prior_jax.interop.sources.table import BUFFERS, WRAPPED
from prior_jax.interop.torch.misfits import MisfitError
from prior_jax.interop.torch.names import find_problems, to_nnx

_FLOATS = ("float32", "float16", "bfloat16")  # float32 holds each of them exactly


class Fit:
    """Tensors of a file, beside the table of the names that the planned model has in it.

    Attributes:
      table: table of the names that are imported.
      used: torch name -> tensor, for the tensors that are imported.
    """

    def __init__(
        self, tensors: Mapping[str, np.ndarray], plan: Plan, *, unused: tuple[Unused, ...]
    ):
        """Makes the table.

        Args:
          tensors: torch name -> tensor.
          plan: plan of the import.
          unused: the recipe's rules for names that are not imported.
        """
        self.table, self._abstract = structure(plan)
        names = {entry.torch for entry in self.table.entries}
        self.used = {name: array for name, array in tensors.items() if name in names}
        self._tensors, self._plan, self._unused = tensors, plan, (*unused, *WRAPPED)

    def rule_of(self, name: str) -> Unused | None:
        """Returns the rule for a name that is not imported; None for an unknown name.

        It is the first that matches, of the recipe's own or those of buffers.
        """
        rules = (*self._unused, *(BUFFERS if self.table.ignores(name) else ()))
        return next((rule for rule in rules if rule.matches(name)), None)

    def check(self) -> None:
        """Raises a MisfitError that lists all problems, if the state dict does not fit."""
        ignored = (*self.table.ignored, *(rule.pattern for rule in self._unused))
        accepted = dataclasses.replace(self.table, ignored=ignored)
        problems = find_problems(self._tensors, accepted, self._abstract)
        misshaped, mistyped = [], []
        model = self._plan.model
        sizes = {**model, **model.get("text", {}), "vocab_size": self._plan.vocab_size}
        for name, array in self._tensors.items():
            rule = None if name in self.used else self.rule_of(name)
            if rule is not None and rule.shape is not None:
                wanted = tuple(sizes[n] if isinstance(n, str) else n for n in rule.shape)
                if array.shape != wanted:
                    misshaped.append(f"{name}: {array.shape}, the model needs {wanted}")
            if name in self.used and str(array.dtype) not in _FLOATS:
                mistyped.append(f"{name}: {array.dtype}, the model needs {' or '.join(_FLOATS)}")
        if misshaped:
            problems["misshaped"] = problems.get("misshaped", []) + misshaped
        if mistyped:
            problems["mistyped"] = mistyped
        if problems:
            raise MisfitError.of(
                problems, "Check that --source and --part fit the file, and that the file is whole."
            )

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the imported tensors as our arrays, by their paths joined by "/"."""
        tree = to_nnx(self.used, self.table, self._abstract)
        found = cast(dict[str, np.ndarray], traverse_util.flatten_dict(tree, sep="/"))
        return {**found, **stand_ins(found, self._plan)}

    def kept(self) -> dict[str, np.ndarray]:
        """Returns the tensors that are kept beside our model.

        They are those without a place in it, and those that another array stands for.
        """
        rest = {name: self.rule_of(name) for name in self._tensors if name not in self.used}
        kept = [name for name, rule in rest.items() if rule is not None and rule.keep]
        replaced = replaced_paths(self._plan)
        kept += [e.torch for e in self.table.entries if "/".join(e.path) in replaced]
        return {name: self._tensors[name] for name in kept}
