"""Torch names of the released PRIOR checkpoint and the parameters they fill."""

from prior_jax.interop.torch.module_tables import (
    attention_pool_table,
    bert_table,
    image_decoder_table,
    image_encoder_table,
    sentence_decoder_table,
)
from prior_jax.interop.torch.names import (
    Table,
    array_table,
    concatenate,
    ignore,
    linear_table,
)
from prior_jax.objectives.prior_config import PriorConfig

LOCAL_MAPS = ("query1", "key1", "value1", "query2", "key2", "value2")
"""Names of the maps of the local cross-attention."""


def prior_table(config: PriorConfig) -> Table:
    """Returns the table from the release's Prior to `objectives.PriorModel`.

    It also fits the release's zero-shot model (quirk P29). `global_text_projection` and the
    sentence decoder's word embeddings, which no code reads, are ignored.

    Args:
      config: sizes of the model.

    Returns:
      The table of every torch name.
    """
    table = image_encoder_table(config.image).under("image_encoder.", ("image_encoder",))
    table += bert_table(config.text).under("text_encoder.encoder.", ("text_encoder",))
    for name in ("global_image_projection", "local_image_projection", "local_text_projection"):
        table += linear_table(name, (name,))
    if config.sentence_pool == "attention":
        table += concatenate(
            linear_table(f"item_gather.attention_pool.{name}", ("item_gather", name))
            for name in ("query", "key")
        )
    table += attention_pool_table(positions=False).under(
        "global_text_attention.", ("global_text_attention",)
    )
    table += linear_table("predictor.0", ("predictor", "hidden"))
    table += linear_table("predictor.2", ("predictor", "output"))
    table += concatenate(
        linear_table(f"local_cross_attention.{name}", ("local_cross_attention", name))
        for name in LOCAL_MAPS
    )
    table += array_table("sentence_bank.embed.weight", ("sentence_bank", "embed"))
    table += sentence_decoder_table(config.sentence_decoder_config).under(
        "sentence_decoder.", ("sentence_decoder",)
    )
    table += image_decoder_table(config.image_decoder_config).under(
        "image_decoder.", ("image_decoder",)
    )
    for name in ("prototype_queries", "logit_scale", "local_logit_scale"):
        table += array_table(name, (name,))
    return table + ignore(r"global_text_projection\.(weight|bias)")
