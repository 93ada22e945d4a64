"""Losses of masks, and of labels that do not exclude each other, from logits of any size.

A target lies in [0, 1]; it may be soft, as masks become when they are shrunk (quirk G45). Padded
images have weight 0: they touch neither value nor gradient, whatever they hold.
"""

import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import weighted_mean


def soft_dice(
    logits: jax.Array, target: jax.Array, *, weight: jax.Array, smooth: float = 1.0
) -> jax.Array:
    """Dice coefficient of all pixels of the batch together: 1 where the masks are the same.

    Args:
      logits: [B, ...], of each pixel's mask.
      target: [B, ...], in [0, 1].
      weight: float32[B], 1 for a real image, 0 for padding.
      smooth: added above and below, in pixels; it makes two empty masks the same.

    Returns:
      float32[], in (0, 1], dimensionless.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: GLoRIA's release, gloria/loss/segmentation_loss.py, `dice_loss`, which is named a loss
      and returns the coefficient (quirk G61).
    """
    logits, target, weight = _rows(logits, target, weight)
    probability = jax.nn.sigmoid(logits) * weight
    both = jnp.sum(probability * target)
    either = jnp.sum(probability + target)
    return (2 * both + smooth) / (either + smooth)


def dice_losses(
    logits: jax.Array,
    target: jax.Array,
    *,
    smooth: float = 1.0,
    power: int = 2,
    release: bool = False,
) -> jax.Array:
    """One minus each image's dice coefficient over squared masks; 0 for a perfect mask.

    Args:
      logits: [B, ...], of each pixel's mask.
      target: [B, ...], in [0, 1].
      smooth: added above and below, in pixels.
      power: of the masks in the denominator; 2 is V-Net's, 1 the usual coefficient's.
      release: whether to repeat the release, which takes the logits for probabilities and counts
        the overlap once instead of twice: a perfect mask costs about 0.5 (quirk G62).

    Returns:
      float32[B], dimensionless. Padded rows hold numbers too: leave them out of the mean.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: V-Net, arXiv:1606.04797, section 3; GLoRIA's release,
      gloria/loss/segmentation_loss.py, `DiceLoss`.
    """
    logits, target, _ = _rows(logits, target, jnp.ones(logits.shape[:1], jnp.float32))
    mask = logits if release else jax.nn.sigmoid(logits)
    overlap = jnp.sum(mask * target, axis=1) * (1 if release else 2)
    size = jnp.sum(mask**power + target**power, axis=1)
    return 1 - (overlap + smooth) / (size + smooth)


def dice_loss(
    logits: jax.Array,
    target: jax.Array,
    *,
    weight: jax.Array,
    smooth: float = 1.0,
    power: int = 2,
    release: bool = False,
) -> jax.Array:
    """Mean of `dice_losses` over the real images.

    Args:
      logits: [B, ...], of each pixel's mask.
      target: [B, ...], in [0, 1].
      weight: float32[B], 1 for a real image, 0 for padding.
      smooth: as for `dice_losses`.
      power: as for `dice_losses`.
      release: as for `dice_losses`.

    Returns:
      float32[], dimensionless; 0 without a real image.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.
    """
    logits, target, weight = _rows(logits, target, weight)
    losses = dice_losses(logits, target, smooth=smooth, power=power, release=release)
    return weighted_mean(losses, weight[:, 0])


def focal(
    logits: jax.Array, target: jax.Array, *, weight: jax.Array, gamma: float = 2.0
) -> jax.Array:
    """Cross-entropy of each pixel, scaled down by (1 - p) ** gamma where it is already right.

    Args:
      logits: [B, ...], of each pixel's mask.
      target: [B, ...], in [0, 1].
      weight: float32[B], 1 for a real image, 0 for padding.
      gamma: 0 is plain cross-entropy.

    Returns:
      float32[], nats, mean over the pixels of real images.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: arXiv:1708.02002, equation 4, without its alpha; GLoRIA's release,
      gloria/loss/segmentation_loss.py, `FocalLoss`. Of a soft target t the release takes
      sigmoid(-x (2 t - 1)) for 1 - p, and so do we.
    """
    logits, target, weight = _rows(logits, target, weight)
    wrong = jnp.exp(gamma * jax.nn.log_sigmoid(-logits * (2 * target - 1)))
    return weighted_mean(jnp.mean(wrong * _cross_entropy(logits, target), axis=1), weight[:, 0])


def mixed(
    logits: jax.Array,
    target: jax.Array,
    *,
    weight: jax.Array,
    alpha: float = 10.0,
    gamma: float = 2.0,
) -> jax.Array:
    """Focal loss and the logarithm of the batch's dice: what GLoRIA and MGCA segment with.

    Args:
      logits: [B, ...], of each pixel's mask.
      target: [B, ...], in [0, 1].
      weight: float32[B], 1 for a real image, 0 for padding.
      alpha: weight of the focal loss; release 10.
      gamma: as for `focal`.

    Returns:
      float32[], `alpha * focal - log(soft_dice)`.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: GLoRIA's release, gloria/loss/segmentation_loss.py, `MixedLoss`.
    """
    return alpha * focal(logits, target, weight=weight, gamma=gamma) - jnp.log(
        soft_dice(logits, target, weight=weight)
    )


def binary_cross_entropy(
    logits: jax.Array,
    target: jax.Array,
    *,
    weight: jax.Array,
    positive_weight: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of every entry with its own yes or no.

    Args:
      logits: [B, ..., C], of pixels or of labels.
      target: [B, ..., C], in [0, 1].
      weight: float32[B], 1 for a real row, 0 for padding.
      positive_weight: float32[C], what a yes counts against a no; None is 1 for all.

    Returns:
      float32[], nats, mean over the entries of real rows.

    Raises:
      ValueError: while tracing, if the shapes do not fit together.

    Source: torch.nn.BCEWithLogitsLoss, which GLoRIA's release classifies with
      (gloria/builder.py, `build_loss`).
    """
    if positive_weight is not None:
        if positive_weight.shape != logits.shape[-1:]:
            raise ValueError(
                f"positive_weight {positive_weight.shape}: accepted {logits.shape[-1:]}, "
                "one weight a class"
            )
        positive_weight = jnp.broadcast_to(positive_weight, logits.shape)
        positive_weight = positive_weight.reshape(logits.shape[0], -1).astype(jnp.float32)
    logits, target, weight = _rows(logits, target, weight)
    losses = _cross_entropy(logits, target, positive_weight)
    return weighted_mean(jnp.mean(losses, axis=1), weight[:, 0])


def _cross_entropy(
    logits: jax.Array, target: jax.Array, positive_weight: jax.Array | None = None
) -> jax.Array:
    yes = -jax.nn.log_sigmoid(logits) * target
    no = -jax.nn.log_sigmoid(-logits) * (1 - target)
    return (yes if positive_weight is None else yes * positive_weight) + no


def _rows(
    logits: jax.Array, target: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """float32[B, N] twice, with zeros in padded rows, and the weight as float32[B, 1]."""
    if logits.ndim < 2 or logits.shape != target.shape or weight.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {logits.shape}, target {target.shape} and weight {weight.shape}: "
            "accepted [B, ...], the same and [B]"
        )
    weight = weight.astype(jnp.float32)[:, None]
    logits, target = (
        jnp.where(weight > 0, x.reshape(x.shape[0], -1).astype(jnp.float32), jnp.float32(0))
        for x in (logits, target)
    )
    return logits, target, weight
