"""Exports fine-tuned models as whole state dicts under the names of the libraries that run them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from prior_jax.errors import WeightsError
from prior_jax.interop.export.image_files import (
    architecture,
    json_bytes,
    normalised,
    resized,
    with_counters,
)
from prior_jax.interop.export.parts import Exported, renamed, safetensors_bytes
from prior_jax.interop.torch.finetuned_tables import (
    classifier_table,
    linear_decoder_table,
    unet_table,
    upernet_table,
    yolo_table,
)
from prior_jax.interop.torch.module_tables import resnet_table
from prior_jax.interop.torch.names import Table
from prior_jax.objectives.classification import ClassificationConfig
from prior_jax.objectives.detection import DetectionConfig
from prior_jax.objectives.segmentation_config import SegmentationConfig

Config = ClassificationConfig | DetectionConfig | SegmentationConfig
_ENCODER = "image_encoder/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Names:
    """The names that a kind of model gets.

    Attributes:
      table: table from torch's names to the paths of the model's arrays, those of the image encoder
        without its own name in front.
      build: Python expression of the model in the library that has these names, or None.
      imports: what the expression imports.
      note: sentence on the names for the model card.
    """

    table: Table
    build: str | None
    imports: str
    note: str


def finetuned_files(
    arrays: Mapping[str, np.ndarray],
    config: Config,
    *,
    image: Mapping[str, Any],
    origin: Mapping[str, Any] | None = None,
) -> Exported:
    """Exports a classifier, a segmentation or a detector, encoder and all.

    `model.safetensors` is a state dict: a U-Net of form "unet" that of segmentation_models_pytorch
    0.2.0, "unet_transposed" that of the ResnetUNet of GLoRIA's release, "upernet" that of
    mmsegmentation, a detector that of MGCA's ModelMain, and a classifier with a linear head that of
    torchvision's ResNet. `num_batches_tracked`, which ours does not count, is 0.

    Args:
      arrays: path -> array of the whole model.
      config: settings of the model.
      image: settings of its images, for `config.json` and the example.
      origin: origin and licence of the weights, for `config.json`, from `parts.origin_of`; None if
        they are not known.

    Raises:
      WeightsError: if the arrays are not those of the settings.
    """
    names = _names(config)
    plain = {name.removeprefix(_ENCODER): array for name, array in arrays.items()}
    if len(plain) != len(arrays):
        raise WeightsError(
            "Arrays of the encoder and of the model have the same names.", "Rename one of them."
        )
    settings = {
        **{name: image[name] for name in image},
        "classes": list(config.classes),
        "upsample": _upsample(config),
        "model": dataclasses.asdict(config),
        "origin": dict(origin or {}),
    }
    return Exported(
        files={
            "model.safetensors": safetensors_bytes(with_counters(renamed(plain, names.table))),
            "config.json": json_bytes(settings),
        },
        example=_example(names, image, upsample=_upsample(config)),
        notes=(names.note, *_outputs(config)),
    )


def _names(config: Config) -> _Names:
    if isinstance(config, SegmentationConfig):
        return _segmentation(config)
    return _detection(config) if isinstance(config, DetectionConfig) else _classification(config)


def _segmentation(config: SegmentationConfig) -> _Names:
    resnet, decoder = config.image.resnet, config.decoder
    if decoder.kind == "unet":
        known, build = architecture(resnet), None
        if known is not None:
            build = (
                f'smp.Unet("{known}", encoder_weights=None, in_channels={resnet.in_channels},\n'
                f"                 classes={config.logits}, "
                f"decoder_channels={list(decoder.channels)})"
            )
        return _Names(
            table=unet_table(decoder.unet(), resnet),
            build=build,
            imports="import segmentation_models_pytorch as smp",
            note="`model.safetensors` is the state dict of `Unet` of segmentation_models_pytorch "
            "0.2.0.",
        )
    if decoder.kind == "unet_transposed":
        return _Names(
            table=unet_table(decoder.unet(), resnet),
            build=None,
            imports="",
            note="`model.safetensors` is the state dict of `ResnetUNet` in gloria/models/unet.py "
            "of GLoRIA's release; LoVT's decoder has the same names below `resunet`.",
        )
    encoder = resnet_table(resnet)
    if decoder.kind == "linear":
        table = encoder.under("encoder.", ("resnet",)) + _below(linear_decoder_table(), "decoder")
        note = (
            "`model.safetensors` holds torchvision's names behind `encoder.` and the decoder as "
            "`segmentation_head.classifier`, a convolution of kernel 1 on the last map, whose "
            "logits are resized bilinearly."
        )
    else:
        upernet = _below(upernet_table(decoder.upernet(), resnet), "decoder")
        table = encoder.under("backbone.", ("resnet",)) + upernet
        note = (
            "`model.safetensors` is the state dict of an EncoderDecoder of mmsegmentation 1.2.2 "
            "with UPerHead, on torchvision's ResNet as `backbone`."
        )
    return _Names(table=table, build=None, imports="", note=note)


def _detection(config: DetectionConfig) -> _Names:
    encoder = resnet_table(config.image.resnet).under("backbone.model.", ("resnet",))
    return _Names(
        table=encoder + _below(yolo_table(), "head"),
        build=None,
        imports="",
        note="`model.safetensors` is the state dict of `ModelMain` in mgca/models/ssl_detector.py "
        "of MGCA's release on its `ResNetDetector`; the head is LoVT's as well.",
    )


def _classification(config: ClassificationConfig) -> _Names:
    resnet, linear = config.image.resnet, config.head.kind == "linear"
    known = architecture(resnet) if linear and config.image.pool == "mean" else None
    build = None
    if known is not None:
        build = f"torchvision.models.{known}(num_classes={config.logits})"
        if resnet.in_channels == 1:
            build += "\nmodel.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)"
    head = "a linear `fc`" if linear else "`head.`, which stands on its pooled vector"
    enlarged = (
        ""
        if config.upsample is None
        else f" Images are first resized to {config.upsample} pixels, bilinearly with corners "
        "aligned; the state dict does not do it, so give the model images that are resized so."
    )
    return _Names(
        table=classifier_table(config.image, config.head),
        build=build,
        imports="import torchvision",
        note=f"`model.safetensors` is the state dict of torchvision's ResNet with {head}."
        f"{enlarged}",
    )


def _upsample(config: Config) -> int | None:
    """Returns the side in pixels to which the model first resizes its images, or None."""
    return config.upsample if isinstance(config, ClassificationConfig) else None


def _below(table: Table, name: str) -> Table:
    return table.under("", (name,))


def _outputs(config: Config) -> tuple[str, ...]:
    """Returns what the outputs mean, in words."""
    classes = ", ".join(config.classes)
    if isinstance(config, DetectionConfig):
        return (
            "The head gives three maps of raw numbers; each anchor of a cell has x, y, width, "
            f"height, objectness and the classes {classes}. Their anchors in pixels are "
            f"{config.head.scaled_anchors(config.image.image_size)}, from the coarse map to the "
            "fine one.",
        )
    exclusive = (
        config.exclusive if isinstance(config, SegmentationConfig) else config.loss == "exclusive"
    )
    if not exclusive:
        return (f"The logits are those of {classes}; the sigmoid of each is its probability.",)
    first = ", behind that of none of them" if config.logits > len(config.classes) else ""
    return (f"The logits are those of {classes}{first}; their softmax gives probabilities.",)


def _example(names: _Names, image: Mapping[str, Any], *, upsample: int | None) -> str:
    if names.build is None:
        return "\n".join(
            (
                "from safetensors.numpy import load_file",
                "",
                'tensors = load_file("model.safetensors")',
                "for name, tensor in tensors.items():",
                "    print(name, tensor.shape)  # convolutions are OIHW",
            )
        )
    channels, size = image.get("channels", 3), image.get("size") or 224
    return "\n".join(
        (
            names.imports,
            "import torch",
            "from safetensors.torch import load_file",
            "",
            f"model = {names.build}",
            'model.load_state_dict(load_file("model.safetensors"), strict=True)',
            "model.eval()",
            f"image = torch.rand(1, {channels}, {size}, {size})  # gray values from 0 to 1",
            *resized(upsample),
            f"logits = model({normalised(image)})",
            "print(logits.shape)",
        )
    )
