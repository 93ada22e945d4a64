"""Reads what `launch.export` wrote beside a ResNet, for an import of the ResNet.

Without it an import would take its images and its licence for those of the source that it is told.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prior_jax.data.image import ImageConfig
from prior_jax.errors import WeightsError, first_line
from prior_jax.interop.sources.plans import Plan, Unseen
from prior_jax.interop.sources.table import UNKNOWN_LICENCE
from prior_jax.strict import build

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_SHAPE = ("depths", "width", "block", "in_channels")
_KNOWN = (*_SHAPE, "stem_pool")
_IMAGE = ("mean", "std", "fit", "equalize", "to_white", "draft_margin")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedSettings:
    """Content of the `config.json` of the format `image_safetensors` or `model_safetensors`.

    Attributes:
      path: path of the file.
      resnet: depths, width, block, in_channels and stem_pool of the ResNet.
      image: fields of `ImageConfig` that the file tells, without the channels.
      upsample: side in pixels to which the exported model first resized its images, or None.
      origin: origin of the weights; empty in a file of an earlier version.
    """

    path: pathlib.Path
    resnet: Mapping[str, Any]
    image: Mapping[str, Any]
    upsample: int | None
    origin: Mapping[str, Any]

    @property
    def licence(self) -> str:
        """Returns the terms for passing on the weights."""
        return self.origin.get("licence", UNKNOWN_LICENCE)

    def told(self, plan: Plan, unseen: Unseen) -> Plan:
        """Returns the plan of a ResNet with its images as they were before the export.

        Args:
          plan: plan of the import, with the images of the source.
          unseen: settings that the user gave, which count more than the file.

        Raises:
          WeightsError: if the file describes a ResNet of another shape.
          ConfigError: if no images have such settings.
        """
        sizes = {**plan.model["resnet"], "in_channels": plan.data["image"]["channels"]}
        wrong = [name for name in _SHAPE if sizes[name] != self.resnet[name]]
        if wrong:
            differences = " and ".join(
                f"{name} {self.resnet[name]!r} in place of {sizes[name]!r}" for name in wrong
            )
            raise WeightsError(
                f"The file describes another ResNet than the {_WEIGHTS} beside it: {differences}.",
                f"Give the {_WEIGHTS} that was exported with it, or move {_CONFIG} elsewhere to "
                "import the weights without it.",
                where=str(self.path),
            )
        given = {"size": unseen.image_size, "mean": unseen.mean, "std": unseen.std}
        given = {name: value for name, value in given.items() if value is not None}
        image = {**plan.data["image"], **self.image, **given}
        checked = build(ImageConfig, image, name=f"{self.path}: image")
        resnet = {**plan.model["resnet"], "stem_pool": self.resnet["stem_pool"]}
        enlarged = {} if self.upsample is None else {"upsample": self.upsample}
        return dataclasses.replace(
            plan,
            model={**plan.model, "resnet": resnet, **enlarged},
            data={"image": {name: getattr(checked, name) for name in image}},
            notes=(*plan.notes, *self._notes()),
        )

    def _notes(self) -> tuple[str, ...]:
        """Returns notes for the user on the origin and on what the ResNet alone does not do."""
        names = ("source", "run", "step")
        told = ", ".join(f"{name} {self.origin[name]}" for name in names if name in self.origin)
        said = f"its images and licence are those that launch.export wrote into {_CONFIG} beside it"
        resized = (
            f"the model that it was exported from first resizes its images to {self.upsample} "
            "pixels, corners aligned, and so do probes of these weights",
        )
        return (
            f"{said} ({told})" if told else said,
            *(resized if self.upsample is not None else ()),
        )


def read_exported_settings(weights: pathlib.Path) -> ExportedSettings | None:
    """Reads the settings beside an exported ResNet.

    Args:
      weights: path of the file that is imported.

    Returns:
      The settings; None for a file of another origin.

    Raises:
      WeightsError: if the `config.json` beside a `model.safetensors` cannot be read.
    """
    path = weights.with_name(_CONFIG)
    if weights.name != _WEIGHTS or not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"The description of the weights beside it cannot be read ({first_line(error)}).",
            f"Export or copy the folder again, or move {_CONFIG} elsewhere to import the weights "
            "without it.",
            where=str(path),
        ) from error
    # A fine-tuned model has the ResNet among the settings of the whole model.
    sections = (_at(content), _at(content, "model", "image", "resnet"))
    found = next((section for section in sections if section.keys() >= {*_KNOWN}), None)
    if found is None:
        return None
    size = content.get("image_size", content.get("size"))
    return ExportedSettings(
        path=path,
        resnet={name: _frozen(found[name]) for name in _KNOWN},
        image={
            **({} if size is None else {"size": size}),
            **{"mean": None, "std": None},
            **{name: content[name] for name in _IMAGE if name in content},
        },
        upsample=content.get("upsample"),
        origin=_at(content, "origin"),
    )


def _at(content: Any, *keys: str) -> Mapping[str, Any]:
    """Returns the section under nested keys, or an empty one."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
