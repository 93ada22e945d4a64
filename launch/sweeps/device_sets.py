"""The GPUs or cores that each concurrent program of a local queue has to itself."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping

from prior_jax.errors import ConfigError

# No machine has more devices than five digits count, and more numbers might not fit into memory.
_PART = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_FORM = (
    "written as kind:set;set;..., e.g. 'gpu:0;1;2,3' or 'cpu:0-3;4-7', with no device twice, none "
    "above 99999 and no range backwards"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceSet:
    """Devices that one program at a time may use.

    Attributes:
      locks: names of the locks that are held while a program runs, one for each device.
      environment: environment variables that restrict the program to its devices.
      cores: cores that the program is restricted to; empty for all.
    """

    locks: tuple[str, ...]
    environment: Mapping[str, str]
    cores: frozenset[int]

    def bind(self, process: int) -> None:
        """Restricts a program that has just been started, and its later threads, to the cores."""
        if self.cores:
            with contextlib.suppress(ProcessLookupError):  # the process has ended already
                os.sched_setaffinity(process, self.cores)


def places(count: int) -> tuple[DeviceSet, ...]:
    """Returns device sets for `count` programs that share all devices."""
    return tuple(
        DeviceSet(locks=(f"place_{index}",), environment={}, cores=frozenset())
        for index in range(count)
    )


def device_sets(text: str) -> tuple[DeviceSet, ...]:
    """Reads the flag --device_sets.

    Args:
      text: kind and sets, e.g. "gpu:0;1;2,3" for three sets of GPUs, or "cpu:0-3;4-7".

    Raises:
      ConfigError: if the text has another form, if a device is in two sets, or if this machine
        does not have a core.
    """
    kind, _, listed = text.partition(":")
    sets = [_numbers(part) for part in listed.split(";")]
    numbers = [number for one in sets for number in one]
    if kind not in ("gpu", "cpu") or not all(sets) or len(set(numbers)) != len(numbers):
        raise ConfigError.of_value("--device_sets", text, _FORM)
    if kind == "cpu":
        there = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        if not there.issuperset(numbers):
            problem = f"The value {text!r} names cores that this machine does not have."
            remedy = f"Choose from the cores {sorted(there)}."
            if not there:
                problem = "This machine cannot restrict programs to cores."
                remedy = "Use --parallel instead."
            raise ConfigError(problem, remedy, where="--device_sets")
    return tuple(
        DeviceSet(
            locks=tuple(f"{kind}_{number}" for number in one),
            environment={"CUDA_VISIBLE_DEVICES": ",".join(map(str, one))} if kind == "gpu" else {},
            cores=frozenset(one) if kind == "cpu" else frozenset(),
        )
        for one in sets
    )


def _numbers(part: str) -> list[int]:
    """Converts "0,2-4" into [0, 2, 3, 4], and a text of another form into []."""
    found = []
    for piece in part.split(","):
        match = _PART.fullmatch(piece.strip())
        if match is None:
            return []
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            return []
        found += range(first, last + 1)
    return found
