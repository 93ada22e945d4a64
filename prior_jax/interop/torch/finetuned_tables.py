"""Tables of torch names for models that were fine-tuned: classifiers, segmentations, detectors."""

from prior_jax.interop.torch.module_tables import (
    attention_pool_table,
    decoder_blocks_table,
    resnet_table,
)
from prior_jax.interop.torch.names import (
    Entry,
    Path,
    Table,
    batch_norm_table,
    concatenate,
    conv_table,
    layer_norm_table,
    linear_table,
)
from prior_jax.nn.classification_head import HeadConfig
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.nn.unet import UNetDecoderConfig
from prior_jax.nn.upernet import POOLS, UPerNetConfig
from prior_jax.nn.yolo_head import SCALES


def unet_table(config: UNetDecoderConfig, resnet: ResNetConfig) -> Table:
    """Returns the table from the U-Net of the configured form to `nn.unet.UNet`.

    "nearest" is the Unet of segmentation_models_pytorch 0.2.0 (`encoder.conv1`,
    `decoder.blocks.0.conv1.0`, `segmentation_head.0`), "transposed" GLoRIA's release's own
    ResnetUNet, gloria/models/unet.py (`input_block.0`, `down_blocks.0.0.conv1`,
    `bridge.bridge.0.conv`, `up_blocks.0.upsample`), whose decoder LoVT's names follow as well.
    """
    if config.form == "transposed":
        stages = [f"down_blocks.{stage}" for stage in range(len(resnet.depths))]
        encoder = resnet_table(resnet, conv="input_block.0", norm="input_block.1", stages=stages)
        decoder = learned_decoder_table(config) + conv_table("out", ("output",), bias=True)
    else:
        encoder = resnet_table(resnet).under("encoder.", ())
        decoder = decoder_blocks_table(len(config.channels)).under("decoder.", ())
        decoder += conv_table("segmentation_head.0", ("output",), bias=True)
    return encoder.under("", ("resnet",)) + decoder.under("", ("decoder",))


def learned_decoder_table(config: UNetDecoderConfig) -> Table:
    """Returns the table from bridge and blocks of GLoRIA's and LoVT's U-Net to `UNetDecoder`."""
    table = concatenate(_conv_norm_table(f"bridge.bridge.{i}", ("bridge",), i + 1) for i in (0, 1))
    for block in range(len(config.channels)):
        torch, path = f"up_blocks.{block}", ("blocks", f"block{block}")
        table += _conv_transpose_table(f"{torch}.upsample", (*path, "upsample"))
        table += concatenate(_conv_norm_table(f"{torch}.conv_block_{i}", path, i) for i in (1, 2))
    return table


def _conv_norm_table(torch: str, path: Path, number: int) -> Table:
    table = conv_table(f"{torch}.conv", (*path, f"conv{number}"), bias=True)
    return table + batch_norm_table(f"{torch}.bn", (*path, f"norm{number}"))


def _conv_transpose_table(torch: str, path: Path) -> Table:
    """Returns the table from ConvTranspose2d `<torch>.weight`, `.bias` to `kernel`, `bias`."""
    return Table(
        entries=(
            Entry(torch=f"{torch}.weight", path=(*path, "kernel"), layout="conv_transpose"),
            Entry(torch=f"{torch}.bias", path=(*path, "bias")),
        )
    )


def upernet_table(config: UPerNetConfig, resnet: ResNetConfig) -> Table:
    """Returns the table from mmsegmentation's UPerHead and FCNHead to `UPerNetDecoder`.

    Source: mmsegmentation 1.2.2, decode_heads/uper_head.py and fcn_head.py, in an EncoderDecoder.
    """
    head, stages = "decode_head.", range(1, len(resnet.depths))
    table = concatenate(
        _conv_module(f"{head}psp_modules.{number}.1", ("pools", f"pool{side}"))
        for number, side in enumerate(POOLS)
    )
    table += _conv_module(f"{head}bottleneck", ("bottleneck",))
    for stage in stages:
        name = f"stage{stage}"
        table += _conv_module(f"{head}lateral_convs.{stage - 1}", ("laterals", name))
        table += _conv_module(f"{head}fpn_convs.{stage - 1}", ("smooth", name))
    table += _conv_module(f"{head}fpn_bottleneck", ("fusion",))
    table += conv_table(f"{head}conv_seg", ("classifier", "output"), bias=True)
    if config.auxiliary is not None:
        beside = "auxiliary_head."
        table += _conv_module(f"{beside}convs.0", ("auxiliary",))
        table += conv_table(f"{beside}conv_seg", ("auxiliary_classifier", "output"), bias=True)
    return table


def _conv_module(torch: str, path: Path) -> Table:
    """Returns the table from a convolution with batch normalisation, `conv` and `bn`, to ours."""
    norm = batch_norm_table(f"{torch}.bn", (*path, "norm"))
    return conv_table(f"{torch}.conv", (*path, "conv"), bias=False) + norm


def linear_decoder_table() -> Table:
    """Returns the table of the linear decoder, `segmentation_head.classifier`, as LoVT calls it.

    The kernel is one of a convolution, [K, C, 1, 1], where LoVT's has three axes.
    """
    return conv_table("segmentation_head.classifier", ("output",), bias=True)


def yolo_table() -> Table:
    """Returns the table from LoVT's and MGCA's head to `nn.yolo_head.YoloHead`."""
    tables: list[Table] = []
    for scale in range(SCALES):
        head = ("heads", f"head{scale}")
        for block in range(6):
            path = (*head, "blocks", f"block{block}")
            tables.append(_conv_module(f"embedding{scale}.{block}", path))
        tables.append(conv_table(f"embedding{scale}.conv_out", (*head, "output"), bias=True))
        if scale:
            branch = ("branches", f"branch{scale}")
            tables.append(_conv_module(f"embedding{scale}_cbl", branch))
    return concatenate(tables)


def classifier_table(encoder: ImageEncoderConfig, head: HeadConfig) -> Table:
    """Returns the table of a classifier, whose paths lack the name of its image encoder.

    With a linear head it is that of torchvision's ResNet, whose classifier is `fc`. Another head is
    `head.`, under our names, and an attention pool is `atten_pool.`, as in PRIOR's release.
    """
    table = resnet_table(encoder.resnet).under("", ("resnet",))
    if encoder.pool == "attention":
        table += attention_pool_table(positions=True).under("atten_pool.", ("pool",))
    if head.kind == "linear":
        return table + linear_table("fc", ("head", "classifier"))
    table += linear_table("head.classifier", ("head", "classifier"))
    if head.kind == "layer_norm":
        return table + layer_norm_table("head.norm", ("head", "norm"))
    hidden = Entry(torch="head.hidden.weight", path=("head", "hidden", "kernel"), layout="linear")
    return table + Table(entries=(hidden,)) + batch_norm_table("head.norm", ("head", "norm"))
