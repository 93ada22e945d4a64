"""Whether the local losses look at the image: their value with another study's image, and mirrored.

A local loss can be small although a sentence finds no place in its image, for example when its
negatives are the other sentences of the same report. It then hardly changes when the image is
another patient's. The training losses cannot tell; these numbers can.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from prior_jax.objectives.base import AlignsLocally, TrainObjective
from prior_jax.types import Batch

NAMES = (
    "validation_local_image_use",
    "validation_local_image_use_share",
    "validation_local_mirror_use",
    "validation_local_mirror_use_share",
)
"""What `use_of` returns, for another study's image and for the mirrored one.

The first of each is the weighted sum of the local terms with that image less their sum with the
report's own image, in nats for contrasts. The second divides it by the sum of the weighted terms'
sizes with that image: 0 if the loss does not look at the image, at most about 1.
"""
SHARE = NAMES[1]
"""Name of the number that tells whether local losses look at the image at all."""
UNUSED = 0.1
"""A share below which a local loss hardly looks at the image.

Measured on the phantom: PRIOR as the paper describes it 0.02 to 0.04, with the contrast of
sentences and regions 0.8 to 0.9.
"""

Terms = Callable[[Batch], Mapping[str, jax.Array]]


def trained_terms(objective: TrainObjective, stage: str) -> tuple[str, ...]:
    """Returns the names of a stage's local terms whose weight is above 0: those that are trained.

    There are none for an objective without local terms.
    """
    if not isinstance(objective, AlignsLocally):
        return ()
    weights = objective.weights(stage)
    return tuple(name for name in objective.local_terms(stage) if weights[name] > 0)


def local_sums(
    terms: Terms, batch: Batch, *, own: Mapping[str, jax.Array], weights: Mapping[str, float]
) -> dict[str, jax.Array]:
    """Computes the sums of local terms that `use_of` compares.

    Args:
      terms: function from a batch to the objective's loss terms.
      batch: global batch; rows of weight 0 are filling rows, after the real ones.
      own: the terms of the batch as it is.
      weights: weight of each local term that is trained, by its name.

    Returns:
      Sums of weighted terms, float32[]: "own", and with the other images "other" and "mirrored";
      and of their absolute values, "other_size" and "mirrored_size".
    """
    found = {
        "other": terms(dataclasses.replace(batch, image=other_images(batch))),
        "mirrored": terms(dataclasses.replace(batch, image=batch.image[:, :, ::-1])),
    }

    def weighted(of: Mapping[str, jax.Array]) -> jax.Array:
        return jnp.stack([jnp.float32(weight) * of[name] for name, weight in weights.items()])

    sums = {"own": jnp.sum(weighted(own))}
    for name, values in found.items():
        terms_of = weighted(values)
        sums |= {name: jnp.sum(terms_of), f"{name}_size": jnp.sum(jnp.abs(terms_of))}
    return sums


def other_images(batch: Batch) -> jax.Array:
    """Returns images float32[B, H, W, C] of which row i is another study's than report i.

    Of R real rows it is that of the row R // 2 further on, and behind the last one from the first
    on: neighbours are often of one patient.
    """
    rows = batch.image.shape[0]
    real = jnp.sum(batch.weight > 0)
    ahead = real // 2
    return jnp.where(
        (jnp.arange(rows) < real - ahead)[:, None, None, None],
        _rolled(batch.image, rows - ahead),
        _rolled(batch.image, real - ahead),
    )


def _rolled(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Moves the rows of images by a number int32[] that is only known when the program runs.

    The steps are powers of two, which are known before, so that a batch that is split over devices
    is passed on between them and not gathered on each.
    """
    for bit in range(images.shape[0].bit_length()):
        images = jnp.where((shift >> bit) & 1, jnp.roll(images, 1 << bit, axis=0), images)
    return images


def use_of(sums: Mapping[str, float]) -> dict[str, float]:
    """Returns the numbers of `NAMES` from sums of `local_sums`, or from means of several.

    There are none where the terms are 0 with every image. A share of terms that are 0 with such an
    image is 0.
    """
    if not any(sums[f"{name}_size"] for name in ("other", "mirrored")):
        return {}
    numbers = []
    for name in ("other", "mirrored"):
        use, size = sums[name] - sums["own"], sums[f"{name}_size"]
        numbers += [use, use / size if size else 0.0]
    return dict(zip(NAMES, numbers, strict=True))


def said(numbers: Mapping[str, float], terms: Sequence[str]) -> str:
    """Says in words what the numbers of `NAMES` tell about a model.

    Args:
      numbers: the numbers, by their names.
      terms: names of the local terms that are trained; () leaves them out.
    """
    named = f" ({', '.join(terms)})" if terms else ""
    text = (
        "Compared with the report's own image, the weighted sum of the local losses that are "
        f"trained{named} is {_difference(numbers, NAMES[:2])} with another study's image, and "
        f"{_difference(numbers, NAMES[2:])} with the mirrored image."
    )
    return f"{text} {_BLIND}" if looks_away(numbers) else text


def _difference(numbers: Mapping[str, float], names: Sequence[str]) -> str:
    """Returns a comparison such as "0.30 nats higher (6 % of the losses' size there)"."""
    use, share = (numbers[name] for name in names)
    if round(abs(use), 2) == 0:
        return "the same"
    size = f"{100 * abs(share):.0f} % of the losses' size there"
    return f"{abs(use):.2f} nats {'higher' if use > 0 else 'lower'} ({size})"


def looks_away(numbers: Mapping[str, float]) -> bool:
    """Tells whether the local losses hardly depend on the image; False where none were measured."""
    return abs(numbers.get(SHARE, 1.0)) < UNUSED


_BLIND = (
    "They hardly look at the image, so do not expect a sentence or a word to find its place in it "
    "(docs/fidelity.md, Beyond the paper)."
)
