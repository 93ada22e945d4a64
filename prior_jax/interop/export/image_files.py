"""Exports image encoders under torchvision's names."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from prior_jax.interop.export.parts import (
    Exported,
    origin_of,
    part_of,
    picked,
    renamed,
    safetensors_bytes,
    section,
    upsample_of,
)
from prior_jax.interop.sources.prior_names import LOCAL_MAPS
from prior_jax.interop.torch.module_tables import attention_pool_table, resnet_table
from prior_jax.interop.torch.names import (
    Table,
    array_table,
    concatenate,
    conv_table,
    linear_table,
)
from prior_jax.interop.weights_folder import Weights
from prior_jax.nn.resnet import Block, ResNetConfig

PREFIX = {"image": "resnet/", "model": "image_encoder/resnet/"}
"""Part of the weights -> prefix of the ResNet's paths."""

STANDARD: Mapping[tuple[Block, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
"""ResNets of width 64 that torchvision and timm build by name: (block, depths) -> name."""

_WIDTH = 64
_IMAGE = ("fit", "equalize", "to_white", "draft_margin")  # written where they are known


def image_files(weights: Weights) -> Exported:
    """Exports the ResNet of any objective under torchvision's names, and the layers that follow it.

    `model.safetensors` is the state dict of torchvision's ResNet without its classifier `fc`:
    `num_batches_tracked`, which ours does not count, is 0. `projection.safetensors`, for
    objectives that have any, holds the attention pool, the projections to the space shared with
    reports and what compares the two: PRIOR's and GLoRIA's under their release's names, the
    baselines' under ours, with all else that belongs to them (`projections`). `config.json` tells
    the ResNet's shape, how its images are made, and where it comes from;
    `sources.exported_settings` reads it again.

    Args:
      weights: weights of an image encoder or a whole model.

    Raises:
      WeightsError: if the weights have no image encoder.
    """
    arrays = part_of(weights, PREFIX, wanted="image encoder")
    config = resnet_config(weights, arrays)
    tensors = with_counters(renamed(arrays, resnet_table(config)))
    files = {"model.safetensors": safetensors_bytes(tensors)}
    behind = projections(weights, "image")
    if behind:
        files["projection.safetensors"] = safetensors_bytes(behind)
    image = dict(weights.data.get("image") or {})
    name, upsample = architecture(config), upsample_of(weights)
    files["config.json"] = json_bytes(
        {
            "architecture": name or "none of torchvision's or timm's",
            "block": config.block,
            "depths": list(config.depths),
            "width": config.width,
            "stem_pool": config.stem_pool,
            "in_channels": config.in_channels,
            "num_features": config.features,
            "image_size": image.get("size"),
            "mean": image.get("mean"),
            "std": image.get("std"),
            **{name: image[name] for name in _IMAGE if name in image},
            "upsample": upsample,
            "objective": weights.objective,
            "origin": origin_of(weights),
        }
    )
    return Exported(
        files=files,
        example=_example(name, config, image, upsample=upsample),
        notes=_notes(name, behind, weights),
    )


def resnet_config(weights: Weights, arrays: Mapping[str, np.ndarray]) -> ResNetConfig:
    """Returns the config of a ResNet from its arrays, except the stem's pool, which has no array.

    Args:
      weights: weights that hold the ResNet.
      arrays: arrays of the ResNet, keyed by their paths within it.
    """
    model = weights.model if weights.part == "image" else section(weights.model, "image")
    blocks = {
        match for path in arrays for match in re.findall(r"^stages/stage(\d)/block(\d+)", path)
    }
    stages = sorted({stage for stage, _ in blocks})
    kernel = arrays["stem_conv/kernel"]
    block: Literal["bottleneck", "basic"] = (
        "bottleneck" if "stages/stage1/block0/conv3/kernel" in arrays else "basic"
    )
    return ResNetConfig(
        depths=tuple(sum(owner == stage for owner, _ in blocks) for stage in stages),
        width=kernel.shape[3],
        in_channels=kernel.shape[2],
        block=block,
        stem_pool=section(model, "resnet").get("stem_pool", True),
        remat="none",
    )


def architecture(config: ResNetConfig) -> str | None:
    """Returns the name under which torchvision and timm know a ResNet's shape, or None."""
    if config.width != _WIDTH or not config.stem_pool:
        return None
    return STANDARD.get((config.block, config.depths))


def with_counters(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the counter that torch keeps in every batch norm and requires when it loads."""
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor
        if name.endswith(".running_var"):
            counter = name.removesuffix("running_var") + "num_batches_tracked"
            found[counter] = np.zeros((), np.int64)
    return found


def projections(weights: Weights, tower: Literal["image", "text"]) -> dict[str, np.ndarray]:
    """Returns the arrays that follow the encoder of a tower in a model or an imported encoder.

    Of a fine-tuned model that is its attention pool alone, see `finetuned_files`.

    Of an objective without names of its own here (`_BEHIND`), nothing is left out: arrays that are
    no part of a head are returned under their paths, dots between, as they are. Those whose first
    name speaks of the other tower follow that one, and those that speak of neither follow both.
    """
    tables = _BEHIND[tower]
    table = tables.get(weights.objective or weights.part, tables["baseline"])
    paths = {"/".join(entry.path) for entry in table.entries}
    present = Table(entries=tuple(e for e in table.entries if "/".join(e.path) in weights.arrays))
    found = picked({n: x for n, x in weights.arrays.items() if n in paths}, present)
    if table is not tables["baseline"]:
        return found
    other = "text" if tower == "image" else "image"
    for name, array in weights.arrays.items():
        encoder = name.startswith(("image_encoder/resnet/", "text_encoder/"))
        if not encoder and name not in paths and other not in name.split("/")[0]:
            found[name.replace("/", ".")] = array
    return found


def _prior_both() -> Table:
    """Returns what PRIOR compares the two towers by."""
    table = concatenate(
        linear_table(f"local_cross_attention.{name}", ("local_cross_attention", name))
        for name in LOCAL_MAPS
    )
    for name in ("logit_scale", "local_logit_scale"):
        table += array_table(name, (name,))
    return table + array_table("sentence_region.log_scale", ("sentence_region", "log_scale"))


def _prior_image() -> Table:
    pool = attention_pool_table(positions=True)
    table = pool.under("image_encoder.atten_pool.", ("image_encoder", "pool"))
    for name in ("global_image_projection", "local_image_projection"):
        table += linear_table(name, (name,))
    table += linear_table("sentence_region.region", ("sentence_region", "region"))
    return table + _prior_both()


def _prior_text() -> Table:
    table = linear_table("local_text_projection", ("local_text_projection",))
    table += array_table("sentence_bank.embed.weight", ("sentence_bank", "embed"))
    table += linear_table("sentence_region.sentence", ("sentence_region", "sentence"))
    for name in ("query", "key"):
        table += linear_table(f"item_gather.attention_pool.{name}", ("item_gather", name))
    table += attention_pool_table(positions=False).under(
        "global_text_attention.", ("global_text_attention",)
    )
    return table + _prior_both()


def _gloria_image() -> Table:
    table = linear_table("global_embedder", ("global_embedder",))
    table += conv_table("local_embedder", ("local_embedder",), bias=False)
    return table.under("img_encoder.", ("image_encoder",))


def _head(name: str) -> Table:
    table = linear_table(f"{name}.hidden", (name, "hidden"))
    return table + linear_table(f"{name}.output", (name, "output"))


_BEHIND: Mapping[str, Mapping[str, Table]] = {
    "image": {
        "prior": _prior_image(),
        "gloria": _gloria_image(),
        "image": attention_pool_table(positions=True).under("image_encoder.atten_pool.", ("pool",)),
        # What stands on these encoders is in the format model_safetensors.
        "classification": attention_pool_table(positions=True).under(
            "image_encoder.atten_pool.", ("image_encoder", "pool")
        ),
        "detection": Table(entries=()),
        "segmentation": Table(entries=()),
        "baseline": attention_pool_table(positions=True).under(
            "image_encoder.atten_pool.", ("image_encoder", "pool")
        )
        + _head("image_head")
        + _head("local_image_head"),
    },
    "text": {
        "prior": _prior_text(),
        "gloria": Table(entries=()),
        "text": Table(entries=()),
        "baseline": _head("text_head") + _head("local_text_head"),
    },
}


def _example(
    name: str | None, config: ResNetConfig, image: Mapping[str, Any], *, upsample: int | None
) -> str:
    if name is None:
        return "\n".join(
            (
                "from safetensors.numpy import load_file",
                "",
                "# torchvision and timm build no ResNet of this shape; the names are theirs.",
                'tensors = load_file("model.safetensors")',
                "print(len(tensors), tensors['conv1.weight'].shape)  # OIHW",
            )
        )
    channels, size = config.in_channels, image.get("size") or 224
    first = (
        []
        if channels == 3
        else ["model.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)"]
    )
    lines = (
        "import torch",
        "import torchvision",
        "from safetensors.torch import load_file",
        "",
        f"model = torchvision.models.{name}()",
        *first,
        "model.fc = torch.nn.Identity()",
        'model.load_state_dict(load_file("model.safetensors"), strict=True)',
        "model.eval()",
        f"image = torch.rand(1, {channels}, {size}, {size})  # gray values from 0 to 1",
        *resized(upsample),
        f"features = model({normalised(image)})  # float32[1, {config.features}]",
        f'# timm: timm.create_model("{name}", num_classes=0, in_chans={channels}), strict too.',
    )
    return "\n".join(lines)


def resized(upsample: int | None) -> tuple[str, ...]:
    """Returns the line of Python that resizes `image` as the model first does, or no line.

    The model resizes normalised images, and the line images from 0 to 1: a bilinear resize of the
    one is that of the other, normalised, but for rounding.
    """
    if upsample is None:
        return ()
    size = (upsample, upsample)
    return (
        f"image = torch.nn.functional.interpolate(image, size={size}, "
        'mode="bilinear", align_corners=True)',
    )


def normalised(image: Mapping[str, Any]) -> str:
    """Returns Python code that normalises `image` as in training."""
    mean, std = image.get("mean"), image.get("std")
    if mean is None or std is None:
        return "image"
    if len(set(mean)) == len(set(std)) == 1:
        return f"(image - {mean[0]:.6g}) / {std[0]:.6g}"
    shape = "view(1, -1, 1, 1)"
    return f"(image - torch.tensor({list(mean)}).{shape}) / torch.tensor({list(std)}).{shape}"


def _notes(name: str | None, behind: Mapping[str, np.ndarray], weights: Weights) -> tuple[str, ...]:
    notes = [
        "`model.safetensors` is the ResNet under torchvision's names, without the classifier "
        "`fc`: load it with `model.fc = torch.nn.Identity()` and `strict=True`."
    ]
    if name is None:
        notes.append("Neither torchvision nor timm builds this shape; see `config.json`.")
    upsample = upsample_of(weights)
    if upsample is not None:
        notes.append(
            f"The model that was trained first resizes its images to {upsample} x {upsample} "
            "pixels, bilinearly with corners aligned. The ResNet alone does not, so give it images "
            "that are resized so."
        )
    if behind:
        notes.append(
            "`projection.safetensors` holds what follows the ResNet in "
            f"{weights.objective or 'the source'}: {', '.join(f'`{n}`' for n in behind)}."
        )
    if any(n.endswith(".kernel") for n in behind):
        notes.append("Each `kernel` of them is a matrix [in, out], each `weight` one [out, in].")
    if any("atten_pool" in tensor for tensor in behind):
        notes.append(
            "The vector that was trained is that of the attention pool; torchvision's model, "
            "as below, gives the mean over the map instead."
        )
    return tuple(notes)


def json_bytes(content: Any) -> bytes:
    """Returns JSON values as the content of a file."""
    return (json.dumps(content, indent=2) + "\n").encode()
