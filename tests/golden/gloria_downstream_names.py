"""Torch names of the models that GLoRIA's release fine-tunes: U-Nets and a classifier."""

from prior_jax.interop.torch.module_tables import decoder_blocks_table, resnet_table
from prior_jax.interop.torch.names import (
    Entry,
    Path,
    Table,
    batch_norm_table,
    concatenate,
    conv_table,
    linear_table,
)
from prior_jax.nn.resnet import ResNetConfig
from prior_jax.nn.unet import UNetDecoderConfig


def unet_table(config: UNetDecoderConfig, resnet: ResNetConfig) -> Table:
    """Returns the table from the U-Net of the configured form to `nn.unet.UNet`.

    "nearest" is the Unet of segmentation_models_pytorch 0.2.0 (`encoder.conv1`,
    `decoder.blocks.0.conv1.0`, `segmentation_head.0`), "transposed" the release's ResnetUNet
    (`input_block.0`, `down_blocks.0.0.conv1`, `bridge.bridge.0.conv`, `up_blocks.0.upsample`).
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


def image_classifier_table(encoder: Table) -> Table:
    """Returns the table from PretrainedImageClassifier to `nn.classifier.ImageClassifier`.

    PretrainedImageClassifier is the classifier of GLoRIA's release.

    Args:
      encoder: table of the classifier's image encoder.
    """
    table = encoder.under("img_encoder.", ("encoder",))
    return table + linear_table("classifier", ("classifier",))
