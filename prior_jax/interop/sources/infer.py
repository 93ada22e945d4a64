"""Infers sizes of models from the shapes in a torch state dict.

Every size is the value in the majority of the tensors that show it. The strict comparison of names
and shapes that follows therefore reports a single misshaped tensor, instead of the size being
taken from it.
"""

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from prior_jax.errors import WeightsError
from prior_jax.interop.torch.module_tables import STAGES
from prior_jax.nn.resnet import EXPANSION

Shapes = Mapping[str, tuple[int, ...]]

HEAD_SIZE = 64
"""Features per attention head in every BERT by its authors (arXiv:1810.04805, section 3)."""


# End of a ResNet's prefix -> name, in place of that end, of a projection of its last feature map.
_PROJECTIONS = {
    "img_encoder.model.": "img_encoder.global_embedder.weight",
    "image_encoder.encoder.": "local_image_projection.weight",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Spelling of a model's names in a file.

    Attributes:
      prefix: prefix of every name of the ResNet, of BERT or of the whole model.
      pool: prefix of the names of the attention pool over the ResNet's map.
      numbered: whether the ResNet is a torch.nn.Sequential: "0" for "conv1", "4" for "layer1", ...
      unet: whether the ResNet is that of GLoRIA's ResnetUNet: "input_block.0" for "conv1",
        "down_blocks.0" for "layer1", ...
      one_position: whether BERT is MGCA's, which has no token types and reads every token at the
        position 0 (quirk M32).
      gamma_beta: whether BERT's layer norms have "gamma" and "beta", as in files before 2019.
    """

    prefix: str = ""
    pool: str = ""
    numbered: bool = False
    unet: bool = False
    one_position: bool = False
    gamma_beta: bool = False

    @property
    def resnet_names(self) -> dict[str, Any]:
        """Returns arguments of `module_tables.resnet_table`."""
        if self.numbered:
            return {"conv": "0", "norm": "1", "stages": ("4", "5", "6", "7")}
        if self.unet:
            stages = tuple(f"down_blocks.{stage}" for stage in range(len(STAGES)))
            return {"conv": "input_block.0", "norm": "input_block.1", "stages": stages}
        return {"conv": "conv1", "norm": "bn1", "stages": STAGES}


def resnet_sizes(shapes: Shapes, layout: Layout, *, in_channels: int) -> dict[str, Any]:
    """Returns fields of `nn.resnet.ResNetConfig`.

    Args:
      shapes: torch name -> shape.
      layout: spelling of the ResNet's names.
      in_channels: number of input channels to use if the first convolution is absent.
    """
    names = layout.resnet_names
    prefix = re.escape(layout.prefix)
    conv, norm = prefix + re.escape(names["conv"]), prefix + re.escape(names["norm"])
    patterns = [rf"{prefix}{re.escape(stage)}\.(\d+)\..*" for stage in names["stages"]]
    depths = tuple(itertools.takewhile(bool, _blocks(shapes, *patterns)))
    first = rf"{prefix}{re.escape(names['stages'][0])}\.\d+\."
    convolutions = [
        sum(bool(re.fullmatch(rf"{prefix}.*\.\d+\.conv{i}\.weight", name)) for name in shapes)
        for i in (2, 3)
    ]
    width = _most(
        shapes,
        {
            rf"{conv}\.weight": 0,
            rf"{norm}\.(weight|bias|running_mean|running_var)": 0,
            rf"{first}conv1\.weight": 0,
            rf"{first}bn1\.(weight|bias|running_mean|running_var)": 0,
        },
        default=64,
    )
    return {
        "depths": depths if len(depths) > 1 else (3, 4, 6, 3),
        "width": width,
        "in_channels": _most(shapes, {rf"{conv}\.weight": 1}, default=in_channels),
        "block": "bottleneck" if 2 * convolutions[1] >= convolutions[0] else "basic",
        "stem_pool": True,
        "remat": "none",
    }


def resnet_features(sizes: Mapping[str, Any]) -> int:
    """Returns the number of channels of the last feature map of a ResNet of these sizes."""
    return sizes["width"] * 2 ** (len(sizes["depths"]) - 1) * EXPANSION[sizes["block"]]


def check_last_stage(shapes: Shapes, layout: Layout, sizes: Mapping[str, Any]) -> None:
    """Refuses a ResNet whose last stages are missing, as a classifier in the same file shows.

    Args:
      shapes: torch name -> shape.
      layout: spelling of the ResNet's names.
      sizes: sizes from `resnet_sizes`.

    Raises:
      WeightsError: naming the classifier and the stages that it was trained on.
    """
    stages, features = layout.resnet_names["stages"], resnet_features(sizes)
    kept = len(sizes["depths"])
    heads = {f"{layout.prefix}{name}" for name in ("fc.weight", "fc.0.weight")}
    for end, name in _PROJECTIONS.items():
        if layout.prefix.endswith(end):
            heads.add(f"{layout.prefix.removesuffix(end)}{name}")
    for name in sorted(heads & shapes.keys()):
        shape = shapes[name]
        wider = len(shape) == 2 and shape[1] > features and shape[1] % features == 0
        if kept < len(stages) and wider:
            missing = ", ".join(f"{layout.prefix}{stage}" for stage in stages[kept:])
            raise WeightsError(
                f"This classifier of shape {list(shape)} takes {shape[1]} features, but the file "
                f"gives the {features} features of {layout.prefix}{stages[kept - 1]}, the last "
                f"stage in the file: {missing} is missing.",
                "Give the whole checkpoint, or remove the classifier from the file to import the "
                "shorter ResNet.",
                where=name,
            )


def pool_grid(shapes: Shapes, layout: Layout) -> int | None:
    """Returns the side of the map that an attention pool was made for, or None without a pool."""
    pool = re.escape(layout.pool)
    if not any(re.match(rf"{pool}(positional_embedding|[kqvc]_proj)", name) for name in shapes):
        return None
    places = _most(shapes, {rf"{pool}positional_embedding": 0}, default=50)
    side = math.isqrt(places - 1)
    return side if side * side + 1 == places else 7


def bert_sizes(shapes: Shapes, layout: Layout, *, cross: bool = False) -> dict[str, Any]:
    """Returns fields of `nn.bert.BertConfig`, except `heads` and `pad_token`, which no shape shows.

    Args:
      shapes: torch name -> shape.
      layout: spelling of BERT's names.
      cross: whether BERT is a decoder, whose size cannot be read from its word embeddings.
    """
    prefix = re.escape(layout.prefix)
    embeddings, layer = rf"{prefix}embeddings\.", rf"{prefix}encoder\.layer\.\d+\."
    hidden = {
        rf"{embeddings}(position|token_type)_embeddings\.weight": 1,
        rf"{layer}.*attention\.(self|output)\..*": 0,
        rf"{layer}output\..*": 0,
        rf"{prefix}pooler\.dense\..*": 0,
    }
    words = rf"{embeddings}word_embeddings\.weight"
    sizes = {
        "hidden_size": _most(shapes, hidden, default=768),
        "layers": _blocks(shapes, rf"{prefix}encoder\.layer\.(\d+)\..*")[0] or 12,
        "intermediate_size": _most(
            shapes,
            {rf"{layer}intermediate\.dense\.(weight|bias)": 0, rf"{layer}output\.dense\.weight": 1},
            default=3072,
        ),
        "dropout": 0.1,
        "max_positions": _most(
            shapes,
            {rf"{embeddings}position_embeddings\.weight": 0, rf"{embeddings}position_ids": -1},
            default=512,
        ),
        "token_types": _most(shapes, {rf"{embeddings}token_type_embeddings\.weight": 0}, default=2),
        "scan_layers": True,
        "remat": "none",
    }
    return sizes if cross else {**sizes, "vocab_size": _most(shapes, {words: 0}, default=28996)}


def has_pooler(shapes: Shapes, layout: Layout) -> bool:
    """Returns whether the file has BERT's projection of the first token."""
    return any(name.startswith(f"{layout.prefix}pooler.") for name in shapes)


def prior_sizes(shapes: Shapes) -> dict[str, int]:
    """Returns `embed_dim`, `num_queries` and `num_prototypes` of the release's Prior."""
    return {
        "embed_dim": _most(
            shapes,
            {
                r"(global|local)_(image|text)_projection\.(weight|bias)": 0,
                r"local_cross_attention\..*": 0,
                r"global_text_attention\..*": 0,
                r"predictor\.2\.(weight|bias)": 0,
                r"prototype_queries": 2,
                r"sentence_bank\.embed\.weight": 1,
            },
            default=768,
        ),
        "num_queries": _most(shapes, {r"prototype_queries": 1}, default=16),
        "num_prototypes": _most(shapes, {r"sentence_bank\.embed\.weight": 0}, default=512),
    }


def _most(shapes: Shapes, places: Mapping[str, int], *, default: int) -> int:
    """Returns the size in the majority of the tensors.

    Args:
      shapes: torch name -> shape.
      places: regular expression of a whole name -> axis that has the size.
      default: size if no tensor shows it; the release's, so that errors name missing tensors.
    """
    counts = collections.Counter(
        shape[axis]
        for pattern, axis in places.items()
        for name, shape in shapes.items()
        if re.fullmatch(pattern, name) and -len(shape) <= axis < len(shape)
    )
    return counts.most_common(1)[0][0] if counts else default


def _blocks(shapes: Shapes, *patterns: str) -> list[int]:
    """Counts the blocks, for each pattern whose group is a block's number.

    A number counts as a block if it has at least half as many names as the largest block: a single
    stray name does not add a block, and a single missing name does not remove one.
    """
    counts = [collections.Counter() for _ in patterns]
    for name in shapes:
        for pattern, count in zip(patterns, counts, strict=True):
            if match := re.fullmatch(pattern, name):
                count[int(match[1])] += 1
    most = max((n for count in counts for n in count.values()), default=0)
    return [
        1 + max((number for number, n in count.items() if 2 * n >= most), default=-1)
        for count in counts
    ]
