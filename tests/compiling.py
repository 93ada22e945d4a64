"""How the tests have XLA compile; imported before JAX."""

import importlib.metadata
import os
import sys

# Compiling is most of what the tests cost. Without these emitters the code of an elementwise
# program is made in half the time, and rounds otherwise. A release that no longer knows the flag
# would not start with it.
_KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
_FLAG = "xla_cpu_use_fusion_emitters"

AS_USERS_DO: dict[str, bool | int | float | str] = {_FLAG: True} if _KNOWN else {}
"""Options of `jax.jit` for a test whose tolerance leaves no room for other rounding."""


def compile_quickly() -> None:
    """Sets the flag for this process and those that it starts.

    Comparisons with a named set of recordings are compiled as users compile. The workers of a run
    inherit the decision of the process that starts them.
    """
    golden = any(argument.startswith("--golden") for argument in sys.argv)
    if _KNOWN and not golden and "PYTEST_XDIST_WORKER" not in os.environ:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}=false".strip()
