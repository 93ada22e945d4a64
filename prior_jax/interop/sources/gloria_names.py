"""Torch names of GLoRIA's release for `prior_jax.objectives.gloria_model`."""

from prior_jax.interop.torch.module_tables import bert_table, resnet_table
from prior_jax.interop.torch.names import Table, conv_table, linear_table
from prior_jax.nn.region_encoder import RegionEncoderConfig
from prior_jax.objectives.gloria_config import GloriaConfig

CHECKPOINT_PREFIX = "gloria."
"""Prefix of every name in the released checkpoints' `state_dict`."""


def gloria_table(config: GloriaConfig) -> Table:
    """Returns the table from the release's GLoRIA to `objectives.gloria_model.GloriaModel`.

    Args:
      config: sizes of the model.

    Returns:
      The table of every torch name, without `CHECKPOINT_PREFIX`.
    """
    table = bert_table(config.text).under("text_encoder.model.", ("text_encoder",))
    return table + region_encoder_table(config.image).under("img_encoder.", ("image_encoder",))


def region_encoder_table(config: RegionEncoderConfig) -> Table:
    """Returns the table from the release's ImageEncoder to `nn.region_encoder.RegionEncoder`."""
    table = resnet_table(config.resnet).under("model.", ("resnet",))
    table += linear_table("global_embedder", ("global_embedder",))
    return table + conv_table("local_embedder", ("local_embedder",), bias=False)
