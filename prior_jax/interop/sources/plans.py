"""The plan of an import: sections of the model's config, and its tree and names in the file.

A `Plan` is made from shapes when weights are imported, and from the weights themselves when they
are converted back to their original names; `structure` turns either into the same table of names.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from prior_jax.data.fitting import Fit
from prior_jax.errors import ConfigError
from prior_jax.interop.sources.gloria_names import gloria_table
from prior_jax.interop.sources.infer import (
    HEAD_SIZE,
    Layout,
    Shapes,
    bert_sizes,
    check_last_stage,
    has_pooler,
    pool_grid,
    prior_sizes,
    resnet_features,
    resnet_sizes,
)
from prior_jax.interop.sources.prior_names import prior_table
from prior_jax.interop.torch.module_tables import attention_pool_table, bert_table, resnet_table
from prior_jax.interop.torch.names import Table
from prior_jax.interop.weights_folder import Part
from prior_jax.nn.bert import Bert, BertConfig
from prior_jax.nn.resnet import ImageEncoder, ImageEncoderConfig
from prior_jax.objectives import gloria_config, prior_config
from prior_jax.objectives.gloria_model import GloriaModel
from prior_jax.objectives.prior_model import PriorModel
from prior_jax.strict import build

_POOL_HEADS = 8  # number of heads in both attention pools of the release


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unseen:
    """Settings that no array's shape shows; None means the value of the release or BERT's authors.

    Attributes:
      heads: attention heads of BERT; by default one for 64 features.
      decoder_heads: attention heads of PRIOR's sentence decoder; by default one for 64 features.
      pool_heads: heads of PRIOR's attention pool over the image; by default 8.
      image_size: side of the images, in pixels; by default the size that the attention pool was
        made for, or the source's.
      mean: value to subtract from pixels in [0, 1], one number a channel, given with `std`; by
        default the source's, where it has one for such images.
      std: value above 0 that pixels are divided by after subtracting `mean`.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    pool_heads: int | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """Preprocessing of images and texts by a source's authors.

    Attributes:
      image_size: side of the images, in pixels.
      in_channels: number of channels of the images.
      mean: value subtracted from pixels in [0, 1], one number per channel; None if it is not known.
      std: value that pixels are divided by after subtracting `mean`.
      fit: rule by which images become squares, `ImageConfig.fit`; None if it is not known, which
        stretches them.
      upsample: side in pixels to which the authors first resize images, corners aligned; None for
        none.
      lower_case: whether the tokenizer lower-cases; None for images alone.
      max_tokens: length of the longest text, in tokens; None for images alone.
      notes: further notes for the user.
    """

    image_size: int = 224
    in_channels: int = 3
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: Fit | None = None
    upsample: int | None = None
    lower_case: bool | None = None
    max_tokens: int | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A part, as `weights_folder.Weights` describes it, and the spelling of its names in the file.

    Attributes:
      part: "image", "text" or "model".
      objective: objective of a whole model.
      model: sizes of the model.
      data: known properties of the input.
      vocab_size: rows of the word embedding; None for an image encoder.
      layout: spelling of the names.
      pooler: whether BERT's pooler is present.
      ids: number of ids of the tokenizer, where the word embedding has more rows and is cut to
        them; None where all rows are taken.
      notes: notes for the user.
    """

    part: Part
    objective: str | None
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    vocab_size: int | None
    layout: Layout
    pooler: bool
    ids: int | None = None
    notes: tuple[str, ...] = ()


def image_plan(shapes: Shapes, layout: Layout, unseen: Unseen, known: Known) -> Plan:
    """Returns the plan of a ResNet, with its attention pool if there is one.

    Raises:
      WeightsError: if a classifier in the file shows that the ResNet's last stages are missing.
    """
    resnet = resnet_sizes(shapes, layout, in_channels=known.in_channels)
    check_last_stage(shapes, layout, resnet)
    encoder, image = _image_sections(shapes, layout, resnet, unseen, known)
    if known.upsample is not None:
        encoder["upsample"] = known.upsample
    return Plan(
        part="image", objective=None, model=encoder, data={"image": image}, vocab_size=None,
        layout=layout, pooler=False, notes=known.notes,
    )  # fmt: skip


def text_plan(shapes: Shapes, layout: Layout, unseen: Unseen, known: Known) -> Plan:
    """Returns the plan of a BERT, with or without its pooler."""
    sizes = bert_sizes(shapes, layout)
    heads, notes = _heads(sizes, unseen.heads, "heads")
    pooler = has_pooler(shapes, layout)
    if not pooler:
        notes += ("the file has no pooler: a model keeps the one that it was made with",)
    if layout.one_position:
        notes += (
            "the authors read every token at the position 0, without a token type: the first row "
            "of the position embedding stands for all of them, and the file's is kept beside it",
        )
    return Plan(
        part="text", objective=None, model={**sizes, "heads": heads},
        data=_text_data(known, sizes), vocab_size=sizes["vocab_size"], layout=layout,
        pooler=pooler, notes=known.notes + notes,
    )  # fmt: skip


def prior_plan(shapes: Shapes, layout: Layout, unseen: Unseen, known: Known) -> Plan:
    """Returns the plan of PRIOR; settings that no shape shows are from configs/prior/base.py."""
    spelt = Layout(prefix="image_encoder.encoder.", pool="image_encoder.atten_pool.")
    resnet = resnet_sizes(shapes, spelt, in_channels=known.in_channels)
    encoder, image = _image_sections(shapes, spelt, resnet, unseen, known)
    text = bert_sizes(shapes, Layout(prefix="text_encoder.encoder."))
    decoder = bert_sizes(shapes, Layout(prefix="sentence_decoder."), cross=True)
    sizes = prior_sizes(shapes)
    heads, notes = _heads(text, unseen.heads, "heads")
    # The decoder's width is the width of the aligned features.
    decoder["hidden_size"] = sizes["embed_dim"]
    decoder_heads, decoder_notes = _heads(decoder, unseen.decoder_heads, "decoder_heads")
    del decoder["hidden_size"]
    vocab_size = text.pop("vocab_size")
    weighs = any(name.startswith("item_gather.") for name in shapes)
    model = {
        "fidelity": "release",
        "dtype": "float32",
        "image": encoder,
        "text": {**text, "heads": heads},
        "embed_dim": sizes["embed_dim"],
        "sentence_pool": "attention" if weighs else "mean",
        "sentence_heads": _POOL_HEADS,
        "temperature": 0.01,
        "local_temperature": 0.01,
        "num_queries": sizes["num_queries"],
        "bank": {
            "num_prototypes": sizes["num_prototypes"], "temperature": 0.9, "schedule": "fixed",
        },
        "sentence_decoder": {**decoder, "heads": decoder_heads},
        "image_decoder": {"dropout": 0.5},
        "weights": {stage: dict(terms) for stage, terms in prior_config.RELEASE_WEIGHTS.items()},
    }  # fmt: skip
    data = {"image": image, **_text_data(known, text), "caption": "report", "text_mode": "release"}
    return Plan(
        part="model", objective="prior", model=model, data=data, vocab_size=vocab_size,
        layout=layout, pooler=True, notes=known.notes + notes + decoder_notes,
    )  # fmt: skip


def gloria_plan(shapes: Shapes, layout: Layout, unseen: Unseen, known: Known) -> Plan:
    """Returns the plan of GLoRIA; settings that no shape shows are from configs/gloria/base.py."""
    spelt = Layout(prefix=f"{layout.prefix}img_encoder.model.")
    resnet = resnet_sizes(shapes, spelt, in_channels=known.in_channels)
    encoder, image = _image_sections(shapes, spelt, resnet, unseen, known)
    text = bert_sizes(shapes, Layout(prefix=f"{layout.prefix}text_encoder.model."))
    heads, notes = _heads(text, unseen.heads, "heads")
    vocab_size = text.pop("vocab_size")
    model = {
        "fidelity": "release",
        "dtype": "float32",
        "image": {"resnet": encoder["resnet"], "upsample": 299},
        "text": {**text, "heads": heads},
        "last_layers": min(4, text["layers"] + 1),
        "layer_pool": "sum",
        "whole_words": True,
        "unit_text": False,
        "unit_regions": False,
        "attention_scale": 4.0,
        "word_scale": 5.0,
        "contrast_scale": 10.0,
        "caption_chunk": 16,
        "weights": dict(gloria_config.RELEASE_WEIGHTS),
    }
    data = {
        "image": image,
        **_text_data(known, text),
        "caption": "sentence",
        "text_mode": "paper",
        "splitter": "gloria_inference",
    }
    return Plan(
        part="model", objective="gloria", model=model, data=data, vocab_size=vocab_size,
        layout=layout, pooler=True, notes=known.notes + notes,
    )  # fmt: skip


def structure(plan: Plan) -> tuple[Table, Any]:
    """Returns the names of a plan's file, and the tree of shapes that their tensors fill.

    Raises:
      ConfigError: if the sizes fit no model.
    """
    table, create = _STRUCTURES[plan.objective or plan.part](plan)
    state = nnx.state(nnx.eval_shape(create), nnx.Any(nnx.Param, nnx.BatchStat))
    abstract = nnx.to_pure_dict(state)
    for name in without(plan):
        del abstract[name]
    return table, abstract


def without(plan: Plan) -> tuple[str, ...]:
    """Returns the parts of our BERT that a file of one has no tensors for."""
    if plan.part != "text":
        return ()
    types = ("token_type_embedding",) if plan.layout.one_position else ()
    return types if plan.pooler else ("pooler", *types)


def _image(plan: Plan) -> tuple[Table, Callable[[], nnx.Module]]:
    section = {name: value for name, value in plan.model.items() if name != "upsample"}
    config = build(ImageEncoderConfig, _encoder(section, plan), name="config.model.image")
    table = resnet_table(config.resnet, **plan.layout.resnet_names).under(
        plan.layout.prefix, ("resnet",)
    )
    if config.pool == "attention":
        table += attention_pool_table(positions=True).under(plan.layout.pool, ("pool",))
    return table, lambda: ImageEncoder(config, dtype="float32", rngs=nnx.Rngs(0))


def _text(plan: Plan) -> tuple[Table, Callable[[], nnx.Module]]:
    config = build(BertConfig, {**plan.model, "pad_token": 0}, name="config.model.text")
    table = bert_table(config)
    entries = tuple(entry for entry in table.entries if entry.path[0] not in without(plan))
    if plan.layout.gamma_beta:
        entries = tuple(
            dataclasses.replace(entry, torch=_old_norm_name(entry.torch)) for entry in entries
        )
    table = Table(entries=entries, ignored=table.ignored).under(plan.layout.prefix, ())
    return table, lambda: Bert(config, dtype="float32", rngs=nnx.Rngs(0))


def _prior(plan: Plan) -> tuple[Table, Callable[[], nnx.Module]]:
    # The bank's schedule does not affect the structure, so any values do.
    bank = {**plan.model["bank"], "start_step": 0, "steps": 1}
    model = {**_whole(plan), "bank": bank}
    config = build(prior_config.PriorConfig, model, name="config.model")
    return prior_table(config), lambda: PriorModel(config, bank_axis=None, rngs=nnx.Rngs(0))


def _gloria(plan: Plan) -> tuple[Table, Callable[[], nnx.Module]]:
    config = build(gloria_config.GloriaConfig, _whole(plan), name="config.model")
    table = gloria_table(config).under(plan.layout.prefix, ())
    return table, lambda: GloriaModel(config, rngs=nnx.Rngs(0))


_STRUCTURES = {"image": _image, "text": _text, "prior": _prior, "gloria": _gloria}


def _whole(plan: Plan) -> dict[str, Any]:
    """Returns the section `config.model` with the values that follow from data and vocabulary."""
    text = {**plan.model["text"], "vocab_size": plan.vocab_size, "pad_token": 0}
    return {**plan.model, "image": _encoder(plan.model["image"], plan), "text": text}


def _encoder(section: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Returns the section of an image encoder with the values that follow from the data."""
    image = plan.data["image"]
    resnet = {**section["resnet"], "in_channels": image["channels"]}
    return {**section, "resnet": resnet, "image_size": image["size"]}


def _image_sections(
    shapes: Shapes, layout: Layout, resnet: dict[str, Any], unseen: Unseen, known: Known
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the section of an image encoder, and that of its images."""
    features, grid = resnet_features(resnet), pool_grid(shapes, layout)
    heads = unseen.pool_heads or (_POOL_HEADS if features % _POOL_HEADS == 0 else 1)
    channels = resnet.pop("in_channels")
    size = unseen.image_size or known.image_size
    if grid is not None and unseen.image_size is None:
        size = grid * 2 ** (len(resnet["depths"]) + 1)
    image = {"size": size, "channels": channels, **_statistics(channels, unseen, known)}
    if known.fit is not None:
        image["fit"] = known.fit
    pool = "mean" if grid is None else "attention"
    return {"resnet": resnet, "pool": pool, "pool_heads": heads}, image


def _statistics(channels: int, unseen: Unseen, known: Known) -> dict[str, Any]:
    """Returns the mean and std of the images, as they are given, or the source's; None for none."""
    given = {"mean": unseen.mean, "std": unseen.std}
    if given == {"mean": None, "std": None}:
        fits = known.mean is not None and len(known.mean) == channels
        return {"mean": known.mean, "std": known.std} if fits else given
    for name, values in given.items():
        least, above = (0.0, " above 0") if name == "std" else (-math.inf, "")
        if len(values or ()) != channels or not all(least < x < math.inf for x in values or ()):
            raise ConfigError.of_value(
                f"--{name}",
                values,
                f"{channels} finite numbers{above}, one for each channel; --mean and --std are "
                "given together",
            )
    return given


def _heads(sizes: Mapping[str, Any], given: int | None, name: str) -> tuple[int, tuple[str, ...]]:
    """Returns the number of attention heads, and a note if it was not given."""
    if given is not None:
        return given, ()
    features = sizes["hidden_size"]
    if features % HEAD_SIZE:
        raise ConfigError(
            f"The file does not show the number of attention heads, and its {features} features "
            f"are no multiple of {HEAD_SIZE}.",
            f"Give --{name}=NUMBER.",
            where=f"--{name}",
        )
    heads = features // HEAD_SIZE
    return heads, (
        f"the file does not show --{name}; it is {heads}, one head for {HEAD_SIZE} features",
    )


def _text_data(known: Known, sizes: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {"tokenizer": {"kind": "wordpiece", "lower_case": known.lower_case}}
    if known.max_tokens is not None:
        data["max_tokens"] = min(known.max_tokens, sizes["max_positions"])
    return data


def _old_norm_name(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )
