"""The names of the papers' segmentations: set, percentage, way of training and fidelity."""

from collections.abc import Mapping

from configs.finetune.detection_names import RELEASE, Named
from prior_jax.errors import ConfigError

CLASSES = {
    "siim": ("Pneumothorax",),
    "rsna": ("Pneumonia",),
    "covid_rural": ("Lung Opacity",),
    "object_cxr": ("Foreign Object",),
    "tbx11k": ("Tuberculosis",),
    "nih": (
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
    ),
}
"""Classes of each set, the labels of its regions as data_prep prepares them."""


def read(name: str, *, known: Mapping[str, tuple[str, ...]], release: bool = True) -> Named:
    """Reads a name such as "siim_1", "siim_10_finetune" or "siim_10_release".

    Args:
      name: the name.
      known: ways of training of each set and percentage; the first need not be named.
      release: whether there are flaws of a release to be repeated.

    Raises:
      ConfigError: for another name.
    """
    rest = name.removesuffix(f"_{RELEASE}") if release else name
    for setting, ways in known.items():
        if rest == setting or rest in {f"{setting}_{way}" for way in ways}:
            way = rest.removeprefix(setting).removeprefix("_") or ways[0]
            return Named(name=name, setting=setting, way=way, release=rest != name)
    every = [f"{one}_{way}" for one, ways in known.items() for way in ways]
    also = f", with _{RELEASE} or without" if release else ""
    raise ConfigError.of_value("name", name, f"one of {', '.join(every)}{also}")
