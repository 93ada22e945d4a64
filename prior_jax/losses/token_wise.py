"""MGCA's attention between the words of a report and the patches of its image."""

import jax
import jax.numpy as jnp

from prior_jax.losses.contrastive import ABSENT
from prior_jax.losses.normalize import unit


def token_attention(
    queries: jax.Array, keys: jax.Array, *, key_mask: jax.Array, scale: jax.Array
) -> jax.Array:
    """Computes the attention of each token over the other modality's tokens, from cosines alone.

    Args:
      queries: query embeddings, [B, Q, D]; scaled to unit norm here.
      keys: key embeddings, [B, K, D]; scaled to unit norm here.
      key_mask: mask of the real keys, bool[B, K].
      scale: inverse temperature of the attention, float32[], > 0.

    Returns:
      Attention weights, float32[B, Q, K], 0 on absent keys; rows sum to 1 if there is a real key,
      and are 0 otherwise.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: MGCA, arXiv:2210.06044, section 3.3; its release, mgca/models/mgca/mgca_module.py, whose
      default leaves out the paper's query, key and value maps.
    """
    fits = queries.ndim == 3 and (queries.shape[0], queries.shape[2]) == keys.shape[::2]
    if not fits or key_mask.shape != keys.shape[:2]:
        raise ValueError(
            f"queries {queries.shape}, keys {keys.shape} and key_mask {key_mask.shape} must have "
            "the shapes [B, Q, D], [B, K, D] and [B, K]."
        )
    keys = jnp.where(key_mask[..., None], keys, jnp.zeros((), keys.dtype))
    score = scale * jnp.einsum("bqd,bkd->bqk", unit(queries), unit(keys))
    score = jnp.where(key_mask[:, None, :], score, jnp.float32(ABSENT))
    attention = jax.nn.softmax(score, axis=-1)
    return jnp.where(key_mask[:, None, :], attention, jnp.float32(0))


def token_context(
    queries: jax.Array, keys: jax.Array, *, key_mask: jax.Array, scale: jax.Array
) -> jax.Array:
    """Computes the context that each token gathers from the other modality.

    Args:
      queries: query embeddings, [B, Q, D].
      keys: key embeddings, [B, K, D], which at unit norm are also the values.
      key_mask: mask of the real keys, bool[B, K].
      scale: inverse temperature of the attention, float32[], > 0.

    Returns:
      Contexts, float32[B, Q, D], the mean of `keys` under `token_attention`, not normalised.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.
    """
    attention = token_attention(queries, keys, key_mask=key_mask, scale=scale)
    keys = jnp.where(key_mask[..., None], keys, jnp.zeros((), keys.dtype))
    return jnp.einsum("bqk,bkd->bqd", attention, unit(keys))
