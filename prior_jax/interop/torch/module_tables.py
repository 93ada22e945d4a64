"""Tables of torch names for the modules of `prior_jax.nn`, spelt as in the PRIOR release.

Compose them with `Table.under`; see `prior_jax.interop.torch.names`.
"""

from collections.abc import Sequence

from prior_jax.interop.torch.names import (
    Path,
    Table,
    array_table,
    batch_norm_table,
    concatenate,
    conv_table,
    ignore,
    layer_norm_table,
    linear_table,
    stacked_table,
)
from prior_jax.nn.bert import BertConfig
from prior_jax.nn.image_decoder import ImageDecoderConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.nn.sentence_decoder import SentenceDecoderConfig

STAGES = ("layer1", "layer2", "layer3", "layer4")
"""Names of the stages of a ResNet in torchvision."""


def resnet_table(
    config: ResNetConfig,
    *,
    conv: str = "conv1",
    norm: str = "bn1",
    stages: Sequence[str] = STAGES,
) -> Table:
    """Returns the table from torchvision's ResNet to `nn.resnet.ResNet`.

    Its names are `conv1`, `bn1`, `layer1.0.conv1`, ... The classifier `fc`, which the release still
    has for 3 channels, is ignored; MoCo v2's has several layers, `fc.0` and `fc.2`.

    Args:
      config: shape of the ResNet.
      conv: name of the stem's convolution, where it is not torchvision's.
      norm: name of the stem's batch norm.
      stages: names of the stages, at least as many as there are.
    """
    table = conv_table(conv, ("stem_conv",), bias=False)
    table += batch_norm_table(norm, ("stem_norm",))
    convolutions = 3 if config.block == "bottleneck" else 2
    features = config.width
    for stage, depth in enumerate(config.depths):
        for index in range(depth):
            changes = stage > 0 or features != config.stage_features[stage]
            block = _residual_table(convolutions, shortcut=index == 0 and changes)
            path = ("stages", f"stage{stage + 1}", f"block{index}")
            table += block.under(f"{stages[stage]}.{index}.", path)
        features = config.stage_features[stage]
    return table + ignore(r"fc(\.\d+)?\.(weight|bias)")


def _residual_table(convolutions: int, *, shortcut: bool) -> Table:
    table = concatenate(
        conv_table(f"conv{i}", (f"conv{i}",), bias=False)
        + batch_norm_table(f"bn{i}", (f"norm{i}",))
        for i in range(1, convolutions + 1)
    )
    if shortcut:
        table += conv_table("downsample.0", ("shortcut_conv",), bias=False)
        table += batch_norm_table("downsample.1", ("shortcut_norm",))
    return table


def attention_pool_table(*, positions: bool) -> Table:
    """Returns the table from the release's AttentionPool2d and SentenceAttentionPool to ours.

    Args:
      positions: whether the pool has a position embedding.
    """
    table = concatenate(
        linear_table(f"{name[0]}_proj", (name,)) for name in ("key", "query", "value")
    )
    table += linear_table("c_proj", ("output",))
    if positions:
        table += array_table("positional_embedding", ("position_embedding",))
    return table


def image_encoder_table(config: ImageEncoderConfig) -> Table:
    """Returns the table from the release's image encoder to `nn.resnet.ImageEncoder`.

    Its names are `encoder.*` and `atten_pool.*`.
    """
    table = resnet_table(config.resnet).under("encoder.", ("resnet",))
    if config.pool == "attention":
        table += attention_pool_table(positions=True).under("atten_pool.", ("pool",))
    return table


def bert_table(config: BertConfig) -> Table:
    """Returns the table from transformers' BertModel to `nn.bert.Bert`, with stacked layers."""
    table = array_table("embeddings.word_embeddings.weight", ("word_embedding",))
    table += _embeddings_table() + _layers_table(config.layers, cross=False)
    return table + linear_table("pooler.dense", ("pooler",))


def sentence_decoder_table(config: SentenceDecoderConfig) -> Table:
    """Returns the table from CrossModalityBertDecoder to `nn.sentence_decoder.SentenceDecoder`.

    CrossModalityBertDecoder is the release's decoder. Its word embeddings, which no code reads,
    are ignored.
    """
    table = _embeddings_table() + _layers_table(config.layers, cross=True)
    return table + ignore(r"embeddings\.word_embeddings\.weight")


def _embeddings_table() -> Table:
    table = array_table("embeddings.position_embeddings.weight", ("position_embedding",))
    table += array_table("embeddings.token_type_embeddings.weight", ("token_type_embedding",))
    table += layer_norm_table("embeddings.LayerNorm", ("embedding_norm",))
    return table + ignore(r"embeddings\.position_ids")


def _layers_table(layers: int, *, cross: bool) -> Table:
    layer = _attention_table("attention", ("self_attention",))
    if cross:
        layer += _attention_table("crossattention", ("cross_attention",))
    layer += linear_table("intermediate.dense", ("feed_forward", "inner"))
    layer += linear_table("output.dense", ("feed_forward", "outer"))
    layer += layer_norm_table("output.LayerNorm", ("feed_forward", "norm"))
    return stacked_table(layers, lambda i: layer.under(f"encoder.layer.{i}.", ("layers",)))


def _attention_table(torch: str, path: Path) -> Table:
    table = concatenate(
        linear_table(f"{torch}.self.{name}", (*path, name)) for name in ("query", "key", "value")
    )
    table += linear_table(f"{torch}.output.dense", (*path, "output"))
    return table + layer_norm_table(f"{torch}.output.LayerNorm", (*path, "norm"))


def image_decoder_table(config: ImageDecoderConfig) -> Table:
    """Returns the table from the release's ImageDecoder to `nn.image_decoder.ImageDecoder`."""
    table = conv_table("output_head.0", ("output",), bias=True)
    return table + decoder_blocks_table(config.blocks)


def decoder_blocks_table(count: int) -> Table:
    """Returns the table from segmentation_models_pytorch's blocks to `nn.decoder_block`s."""
    table = Table(entries=())
    for block in range(count):
        for i in (1, 2):
            torch, path = f"blocks.{block}.conv{i}", ("blocks", f"block{block}")
            table += conv_table(f"{torch}.0", (*path, f"conv{i}"), bias=False)
            table += batch_norm_table(f"{torch}.1", (*path, f"norm{i}"))
    return table
