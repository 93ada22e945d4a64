"""The names of the papers' detections: set, percentage, way of training and fidelity."""

import dataclasses
from collections.abc import Sequence

from configs.finetune import base
from prior_jax.errors import ConfigError

CLASSES = {"rsna": "Pneumonia", "object_cxr": "Foreign Object"}
"""Class of each set, the label of its regions as data_prep prepares them."""

RELEASE = "release"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    """What a name says.

    Attributes:
      name: the name itself.
      setting: set and percentage, such as "rsna_1".
      way: way of training, "frozen" or "finetune".
      release: whether the flaws of the release are repeated.
    """

    name: str
    setting: str
    way: str
    release: bool

    @property
    def set(self) -> str:
        """Returns the name of the set."""
        return self.setting.rpartition("_")[0]

    @property
    def share(self) -> float:
        """Returns the share of the training images."""
        return base.share_of(self.setting.rpartition("_")[2])

    @property
    def without_share(self) -> str:
        """Returns set, way and fidelity as a name of letters, digits and "_"."""
        release = (RELEASE,) if self.release else ()
        return "_".join((self.set, self.way, *release))


def read(name: str, *, known: Sequence[str], ways: Sequence[str]) -> Named:
    """Reads a name such as "rsna_1", "rsna_10_finetune" or "rsna_10_release".

    Args:
      name: the name.
      known: sets and percentages that there are.
      ways: ways of training that there are; the first need not be named.

    Raises:
      ConfigError: for another name.
    """
    rest = name.removesuffix(f"_{RELEASE}")
    way = next((one for one in ways if rest.endswith(f"_{one}")), None)
    setting = rest if way is None else rest.removesuffix(f"_{way}")
    if setting not in known:
        others = "".join(f", with _{one} or without" for one in (*ways[1:], RELEASE))
        raise ConfigError.of_value("name", name, f"one of {', '.join(known)}{others}")
    return Named(name=name, setting=setting, way=way or ways[0], release=rest != name)
