"""Contrastive losses between whole images and whole reports."""

import dataclasses

import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import cosine_of_products, weighted_mean

# Logit of an absent negative; finite, so that no gradient is NaN.
ABSENT = -1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Directions:
    """A contrastive loss in both directions, each float32[], nats per real pair.

    Attributes:
      image_to_text: loss of each image classified among all reports.
      text_to_image: loss of each report classified among all images.
    """

    image_to_text: jax.Array
    text_to_image: jax.Array


def paired_contrastive(
    image: jax.Array,
    text: jax.Array,
    *,
    scale: jax.Array,
    weight: jax.Array,
    image_share: float = 0.5,
) -> jax.Array:
    """Computes the symmetric cross-entropy over all image-report pairs of the global batch.

    Args:
      image: image embeddings, float32[B, D], unit L2 norm over D.
      text: text embeddings, float32[B, D], unit L2 norm over D; row i belongs to image i.
      scale: inverse temperature, float32[], dimensionless, > 0.
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.
      image_share: weight of the direction in which an image chooses among reports; the rest is the
        weight of the direction in which a report chooses among images. CLIP 1/2, ConVIRT 3/4.

    Returns:
      Loss, float32[], nats per real pair, averaged over the two directions; 0 without a real pair.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: CLIP, arXiv:2103.00020, figure 3; ConVIRT, arXiv:2010.00747, section 2.2; release,
      codes/prior/models/prior.py, `global_alignment_loss`. Differs: padded rows neither count as
      anchors nor as negatives, and the batch is one global array, so no rank offset of labels
      exists (quirks P18 and P19).
    """
    check_pairs(image, text, weight)
    logits = scale * jnp.einsum("id,jd->ij", image, text, preferred_element_type=jnp.float32)
    found = directed_cross_entropy(logits, weight > 0, weight)
    return image_share * found.image_to_text + (1 - image_share) * found.text_to_image


def cosine_contrastive(
    image: jax.Array, text: jax.Array, *, scale: jax.Array, weight: jax.Array
) -> Directions:
    """Computes the cross-entropy of all image-report cosines, for each direction separately.

    Args:
      image: image embeddings, [B, D], of any norm.
      text: text embeddings, [B, D], of any norm; row i belongs to image i.
      scale: factor of the cosines, float32[], > 0; 10 in GLoRIA (temp3).
      weight: weight of each pair, float32[B], 1 for a real pair, 0 for padding.

    Returns:
      Two losses, float32[] each: the release's loss0 and loss1; 0 without a real pair.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: GLoRIA, ICCV 2021, the global contrastive loss; release, gloria/loss/gloria_loss.py,
      `global_loss`. Differs: padded pairs are neither anchors nor negatives.
    """
    check_pairs(image, text, weight)
    square_image, square_text = (
        jnp.sum(jnp.square(x.astype(jnp.float32)), axis=1) for x in (image, text)
    )
    dots = jnp.einsum("id,jd->ij", image, text, preferred_element_type=jnp.float32)
    cosines = cosine_of_products(dots, square_image[:, None], square_text[None, :])
    return directed_cross_entropy(scale * cosines, weight > 0, weight)


def paired_cross_entropy(logits: jax.Array, mask: jax.Array, weight: jax.Array) -> jax.Array:
    """Computes the cross-entropy of a square logit matrix against its diagonal, both ways.

    Args:
      logits: logit matrix, float32[N, N].
      mask: mask of rows (and columns) that exist, bool[N].
      weight: weight of each row in the mean, float32[N]; 0 where `mask` is False.

    Returns:
      Loss, float32[], nats, averaged over rows and the two directions; 0 if no row has weight.
    """
    rows, columns = _cross_entropies(logits, mask)
    return weighted_mean((rows + columns) / 2, weight)


def directed_cross_entropy(logits: jax.Array, mask: jax.Array, weight: jax.Array) -> Directions:
    """Computes the two directions whose mean is `paired_cross_entropy`.

    Args:
      logits: logit matrix, float32[N, N], images by reports.
      mask: mask of rows (and columns) that exist, bool[N].
      weight: weight of each row in the mean, float32[N]; 0 where `mask` is False.

    Returns:
      Two losses, float32[] each, nats; 0 if no row has weight.
    """
    rows, columns = _cross_entropies(logits, mask)
    return Directions(
        image_to_text=weighted_mean(rows, weight), text_to_image=weighted_mean(columns, weight)
    )


def _cross_entropies(logits: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes the cross-entropies of rows and columns against the diagonal: float32[N] twice."""
    row = jnp.where(mask[None, :], logits, jnp.float32(ABSENT))
    column = jnp.where(mask[:, None], logits, jnp.float32(ABSENT))
    # Each device computes this sum for its own rows; indexing the diagonal would gather all rows.
    own = jnp.sum(jnp.where(jnp.eye(mask.size, dtype=bool), logits, 0), axis=1)
    own = jnp.where(mask, own, jnp.float32(ABSENT))
    rows = jax.nn.logsumexp(row, axis=1) - own
    columns = jax.nn.logsumexp(column, axis=0) - own
    return rows, columns


def check_pairs(image: jax.Array, text: jax.Array, weight: jax.Array) -> None:
    """Raises a ValueError that names the shapes unless they are [B, D], [B, D] and [B]."""
    if image.ndim != 2 or image.shape != text.shape or weight.shape != image.shape[:1]:
        raise ValueError(
            f"image {image.shape}, text {text.shape} and weight {weight.shape} must have the "
            "shapes [B, D], [B, D] and [B]."
        )
