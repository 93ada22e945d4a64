"""The aligned features of a batch in PRIOR, and the loss terms that need only those features."""

import flax.struct
import jax
import jax.numpy as jnp

from prior_jax.losses import local_alignment, reconstruction
from prior_jax.losses.normalize import unit
from prior_jax.nn.cross_attention import LocalContext
from prior_jax.nn.layers import resize_align_corners
from prior_jax.nn.prototype_bank import Lookup
from prior_jax.objectives import sentence_region
from prior_jax.objectives.all_pairs import AllPairs
from prior_jax.objectives.prior_model import PriorModel
from prior_jax.objectives.sentence_region import SENTENCE_REGION
from prior_jax.types import Batch, ImageFeatures


@flax.struct.dataclass
class Replay:
    """Random and combinatorial choices made elsewhere, to repeat a computation exactly.

    Attributes:
      noise: noise added to the logits of the sentences' lookup, float32[B, S, K].
      second_noise: noise added to the logits of the predicted prototypes' lookup (stage 3),
        float32[B, Q, K].
      col_ind: target of each query (stage 3), int32[B, Q].
    """

    noise: jax.Array | None = None
    second_noise: jax.Array | None = None
    col_ind: jax.Array | None = None


@flax.struct.dataclass
class StepKeys:
    """Random keys of one step's draws; each is None if the step got no key."""

    text: jax.Array | None
    bank: jax.Array | None
    sentence_decoder: jax.Array | None
    second_bank: jax.Array | None
    image_decoder: jax.Array | None
    hidden_regions: jax.Array | None

    @classmethod
    def of(cls, key: jax.Array | None) -> "StepKeys":
        """Returns a key for each draw, split from the step's; without a step's key all are None."""
        parts = (None,) * 6 if key is None else tuple(jax.random.split(key, 6))
        return cls(*parts)


@flax.struct.dataclass
class AlignedPairs:
    """The aligned features of a batch.

    Attributes:
      image: patch embeddings and global embeddings of the images.
      sentences: sentence embeddings before the bank, [B, S, D].
      lookup: lookup of the sentences in the bank; None in stage 1.
      aligned: embeddings that images are aligned with, [B, S, D]: prototypes, or sentences in stage
        1.
      mask: mask of the real sentences, bool[B, S].
      context: contexts of patches and of `aligned` from their cross-attention.
      report: report embedding, [B, D].
      weight: weights of the pairs, float32[B], 0 for filling rows and reports without a sentence.
      regions: regions of a finer map for the sentences to find, [B, P', D], or None.
      region_mask: mask of the regions that are not hidden, bool[B, P'], or None.
    """

    image: ImageFeatures
    sentences: jax.Array
    lookup: Lookup | None
    aligned: jax.Array
    mask: jax.Array
    context: LocalContext
    report: jax.Array
    weight: jax.Array
    regions: jax.Array | None = None
    region_mask: jax.Array | None = None

    @property
    def sentence_weight(self) -> jax.Array:
        """Returns the weight of each sentence, float32[B, S]."""
        return self.mask.astype(jnp.float32) * self.weight[:, None]


def alignment_terms(
    model: PriorModel, pairs: AlignedPairs, all_pairs: AllPairs
) -> dict[str, jax.Array]:
    """Computes the terms of all stages, PRIOR section 3.2: global and local alignment.

    Args:
      model: model, whose predictor and scales are used.
      pairs: aligned features.
      all_pairs: form in which the losses over all pairs of the batch are computed.

    Returns:
      The terms, float32[] each: "global_alignment", "local_image", "local_text", and with regions
      "sentence_region".
    """
    patches, context = pairs.image.local, pairs.context
    terms = {
        "global_alignment": all_pairs.paired_contrastive(
            unit(pairs.image.global_), unit(pairs.report),
            scale=model.scale(), weight=pairs.weight,
        ),
        "local_image": local_alignment.local_image(
            patches, context.image,
            predicted_patches=model.predictor(patches),
            predicted_context=model.predictor(context.image),
            weight=pairs.weight,
        ),
        "local_text": local_alignment.local_text(
            pairs.aligned, context.text,
            scale=model.local_scale(), mask=pairs.mask, weight=pairs.weight,
        ),
    }  # fmt: skip
    head = model.sentence_region
    if head is not None and pairs.regions is not None:
        terms[SENTENCE_REGION] = sentence_region.contrast(
            head, pairs.aligned, pairs.regions, all_pairs,
            mask=pairs.mask, region_mask=pairs.region_mask, weight=pairs.weight,
        )  # fmt: skip
    return terms


def image_term(
    model: PriorModel, pairs: AlignedPairs, batch: Batch, *, train: bool, key: jax.Array | None
) -> jax.Array:
    """Computes the L1 loss of reconstructed images: float32[].

    Images are reconstructed from their patches and the text that these patches attend to.
    """
    output = model.decode_image(pairs.image.local, pairs.context.image, train=train, key=key)
    target = batch.image
    if output.shape != target.shape:
        target = resize_align_corners(target, size=(output.shape[1], output.shape[2]))
    return reconstruction.image_l1(output, target, weight=pairs.weight)


def step_metrics(
    model: PriorModel, pairs: AlignedPairs, temperature: jax.Array
) -> dict[str, jax.Array]:
    """Returns the numbers that are logged beside the terms, float32[] each, without gradients.

    They are both scales and, where sentences were looked up, the bank's temperature and usage.
    """
    metrics = {"logit_scale": model.scale(), "local_logit_scale": model.local_scale()}
    if pairs.lookup is not None:
        metrics["bank_temperature"] = temperature
        metrics["bank_perplexity"] = model.sentence_bank.usage(pairs.lookup, pairs.sentence_weight)
    return {name: jax.lax.stop_gradient(value) for name, value in metrics.items()}
