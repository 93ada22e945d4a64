"""Reads what `launch.export` wrote beside a ResNet, for an import of the ResNet.

Without it an import would take its images and its licence for those of the source that it is told.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from prior_jax.data.image import ImageConfig
from prior_jax.errors import WeightsError, first_line
from prior_jax.interop.sources.plans import Plan, Unseen
from prior_jax.interop.sources.table import UNKNOWN_LICENCE
from prior_jax.strict import build

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_BESIDE = (_WEIGHTS, "pytorch_model.bin")  # files that timm describes by a config.json
# ResNets of timm whose computation is torchvision's, with or without the name of a training behind
# a dot. Others, such as resnetblur50 and resnetaa50, can have the same names and shapes.
_PLAIN = re.compile(r"(tv_|ssl_|swsl_|gluon_)?resnet(18|26|34|50|101|152|200)(_v1b)?(\..+)?")
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
      WeightsError: if the `config.json` beside a `model.safetensors` or `pytorch_model.bin` cannot
        be read, or is timm's for a model that is no plain ResNet.
    """
    path = weights.with_name(_CONFIG)
    if weights.name not in _BESIDE or not path.is_file():
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
        _check_plain(_at(content).get("architecture"), path)
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


def _check_plain(architecture: Any, path: pathlib.Path) -> None:
    """Refuses a model of timm that is no plain ResNet; names and shapes do not tell all of them.

    Args:
      architecture: name of the model in timm; None where the file does not tell it.
      path: path of the `config.json`.
    """
    if architecture is None or _PLAIN.fullmatch(str(architecture)):
        return
    raise WeightsError(
        f"The weights beside it are of timm's {architecture!r}, which is no plain ResNet: under "
        "the same names and shapes it may compute something else.",
        f"Give weights of a plain ResNet, such as timm's resnet50; if these are of one, move "
        f"{_CONFIG} elsewhere to import them without it.",
        where=f"{path}: architecture",
    )


def _at(content: Any, *keys: str) -> Mapping[str, Any]:
    """Returns the section under nested keys, or an empty one."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
