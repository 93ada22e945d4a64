"""Losses on logits of any shape, for masks and for labels that are not mutually exclusive.

A target lies in [0, 1]; it may be soft, since shrinking a mask makes it soft (quirk G45). Padded
images have weight 0: their content affects neither value nor gradient.
"""

import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import weighted_mean


def soft_dice(
    logits: jax.Array, target: jax.Array, *, weight: jax.Array, smooth: float = 1.0
) -> jax.Array:
    """Computes the Dice coefficient of all pixels of the batch together.

    It is 1 where the masks are the same.

    Args:
      logits: logits of the masks, [B, ...], one per pixel.
      target: target masks, [B, ...], in [0, 1].
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.
      smooth: constant added to numerator and denominator, in pixels; it makes two empty masks
        equal.

    Returns:
      Dice coefficient, float32[], in (0, 1], dimensionless.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

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
    """Computes one minus each image's Dice coefficient over squared masks.

    The loss of a perfect mask is 0.

    Args:
      logits: logits of the masks, [B, ...], one per pixel.
      target: target masks, [B, ...], in [0, 1].
      smooth: constant added to numerator and denominator, in pixels.
      power: exponent of the masks in the denominator; V-Net uses 2, the usual coefficient 1.
      release: whether to reproduce the release, which uses the logits as probabilities and counts
        the overlap once instead of twice: a perfect mask costs about 0.5 (quirk G62).

    Returns:
      Losses, float32[B], dimensionless. Padded rows hold numbers too, which the caller must leave
      out of the mean.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

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
    """Averages `dice_losses` over the real images.

    Args:
      logits: logits of the masks, [B, ...], one per pixel.
      target: target masks, [B, ...], in [0, 1].
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.
      smooth: constant in pixels, as for `dice_losses`.
      power: exponent of the masks, as for `dice_losses`.
      release: whether to reproduce the release, as for `dice_losses`.

    Returns:
      Loss, float32[], dimensionless; 0 without a real image.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.
    """
    logits, target, weight = _rows(logits, target, weight)
    losses = dice_losses(logits, target, smooth=smooth, power=power, release=release)
    return weighted_mean(losses, weight[:, 0])


def focal(
    logits: jax.Array, target: jax.Array, *, weight: jax.Array, gamma: float = 2.0
) -> jax.Array:
    """Computes each pixel's cross-entropy, scaled down where the prediction is already right.

    The factor is (1 - p) ** gamma.

    Args:
      logits: logits of the masks, [B, ...], one per pixel.
      target: target masks, [B, ...], in [0, 1].
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.
      gamma: exponent of the factor; 0 gives plain cross-entropy.

    Returns:
      Loss, float32[], nats, mean over the pixels of real images.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: arXiv:1708.02002, equation 4, without its alpha; GLoRIA's release,
      gloria/loss/segmentation_loss.py, `FocalLoss`. For a soft target t the release computes 1 - p
      as sigmoid(-x (2 t - 1)), and so does this function.
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
    """Computes focal loss minus log Dice, the segmentation loss of GLoRIA and MGCA.

    Args:
      logits: logits of the masks, [B, ...], one per pixel.
      target: target masks, [B, ...], in [0, 1].
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.
      alpha: weight of the focal loss; release 10.
      gamma: exponent of the focal factor, as for `focal`.

    Returns:
      Loss, float32[], `alpha * focal - log(soft_dice)`.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: GLoRIA's release, gloria/loss/segmentation_loss.py, `MixedLoss`.
    """
    return alpha * focal(logits, target, weight=weight, gamma=gamma) - jnp.log(
        soft_dice(logits, target, weight=weight)
    )


def dice_of_batch(logits: jax.Array, target: jax.Array, *, weight: jax.Array) -> jax.Array:
    """Computes one minus the Dice coefficient of all pixels and classes of the batch together.

    Args:
      logits: logits of the masks, [B, ...], one per pixel.
      target: target masks, [B, ...], in [0, 1].
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.

    Returns:
      Loss, float32[], 0 to 1; 0, with no gradient, for a batch without a lesion (quirk L34).

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: segmentation_models_pytorch 0.2.1, losses/dice.py, DiceLoss of mode "binary", as LoVT's
      release calls it (src/models/downstream/segmentation.py).
    """
    logits, target, weight = _rows(logits, target, weight)
    probability = jax.nn.sigmoid(logits) * weight
    both = jnp.sum(probability * target)
    either = jnp.sum(probability + target)
    loss = 1 - 2 * both / jnp.maximum(either, 1e-7)
    return jnp.where(jnp.any(target > 0), loss, jnp.float32(0))


def softmax_cross_entropy(logits: jax.Array, target: jax.Array, *, weight: jax.Array) -> jax.Array:
    """Computes the cross-entropy of each pixel over the background and classes that exclude others.

    A pixel that lies in the masks of several classes has no one class, and is left out.

    Args:
      logits: logits of the background and of K classes, [B, H, W, 1 + K].
      target: target masks, [B, H, W, K], 0 or 1.
      weight: weight of each image, float32[B], 1 for a real image, 0 for padding.

    Returns:
      Loss, float32[], nats, mean over the pixels of real images that have one class.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: mmsegmentation 1.2.2, models/losses/cross_entropy_loss.py, without `use_sigmoid`, to
      which it is equal for one class.
    """
    classes = target.shape[-1]
    if logits.shape != (*target.shape[:-1], classes + 1) or weight.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {logits.shape}, target {target.shape} and weight {weight.shape} must have the "
            "shapes [B, H, W, 1 + K], [B, H, W, K] and [B]."
        )
    target = target.astype(jnp.float32)
    counted = jnp.sum(target, axis=-1) <= 1
    every = jnp.concatenate([1 - jnp.sum(target, axis=-1, keepdims=True), target], axis=-1)
    real = weight.astype(jnp.float32)[:, None, None] * counted.astype(jnp.float32)
    logits = jnp.where(real[..., None] > 0, logits.astype(jnp.float32), jnp.float32(0))
    losses = -jnp.sum(every * jax.nn.log_softmax(logits, axis=-1), axis=-1)
    return weighted_mean(losses, real)


def binary_cross_entropy(
    logits: jax.Array,
    target: jax.Array,
    *,
    weight: jax.Array,
    positive_weight: jax.Array | None = None,
) -> jax.Array:
    """Computes the binary cross-entropy of every entry.

    Args:
      logits: logits of pixels or of labels, [B, ..., C].
      target: target masks, [B, ..., C], in [0, 1].
      weight: weight of each row, float32[B], 1 for a real row, 0 for padding.
      positive_weight: weight of a positive relative to a negative, float32[C]; None is 1 for all.

    Returns:
      Loss, float32[], nats, mean over the entries of real rows.

    Raises:
      ValueError: during tracing, if the shapes are inconsistent.

    Source: torch.nn.BCEWithLogitsLoss, which GLoRIA's release uses for classification
      (gloria/builder.py, `build_loss`).
    """
    if positive_weight is not None:
        if positive_weight.shape != logits.shape[-1:]:
            raise ValueError(
                f"positive_weight {positive_weight.shape} must have the shape {logits.shape[-1:]}, "
                "one weight for each class."
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
    """Flattens both inputs to float32[B, N] with zeros in padded rows.

    Also returns the weights as float32[B, 1].
    """
    if logits.ndim < 2 or logits.shape != target.shape or weight.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {logits.shape}, target {target.shape} and weight {weight.shape} must have the "
            "shapes [B, ...], the same, and [B]."
        )
    weight = weight.astype(jnp.float32)[:, None]
    logits, target = (
        jnp.where(weight > 0, x.reshape(x.shape[0], -1).astype(jnp.float32), jnp.float32(0))
        for x in (logits, target)
    )
    return logits, target, weight
