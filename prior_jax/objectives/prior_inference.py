"""Inference with a trained PRIOR: features, similarity, zero-shot, attention, reconstruction."""

import flax.struct
import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import unit, weighted_mean
from prior_jax.objectives import sentence_region
from prior_jax.objectives.prior_model import PriorModel
from prior_jax.types import ImageFeatures, ReportFeatures

# Number of images and of reports in one block of scores. The attention of 32 x 32 reports with 16
# sentences over 49 patches takes 3 MiB, however many are compared.
_BLOCK = 32

# Seed of the release (base_config.yaml), used where the release draws noise at inference and no key
# is given.
_RELEASE_SEED = 114514


def encode_report(
    model: PriorModel,
    tokens: jax.Array,
    token_mask: jax.Array,
    sentence_index: jax.Array,
    sentence_mask: jax.Array,
    *,
    temperature: jax.Array,
    key: jax.Array | None = None,
    noise: jax.Array | None = None,
    prototypes: bool = True,
) -> ReportFeatures:
    """Encodes sentences as mixtures of prototypes, and whole reports.

    Args:
      model: trained PRIOR model.
      tokens: token ids, int32[B, L].
      token_mask: mask of the real tokens, bool[B, L].
      sentence_index: sentence that each token belongs to, int32[B, L], 0..S-1 or -1 for none.
      sentence_mask: mask of the real sentences, bool[B, S].
      temperature: temperature of the bank, float32[].
      key: random key of the noise that the release adds at inference too (quirk P8); by default
        the key of the release's seed. The paper's mode draws no noise.
      noise: noise that is added instead of a random draw, float32[B, S, K].
      prototypes: False keeps the sentence embeddings themselves, which stage 1 aligns.

    Returns:
      Features in the compute dtype.
    """
    sentences, mask = model.encode_sentences(
        tokens, token_mask, sentence_index, sentence_mask, train=False
    )
    if prototypes:
        if noise is None and model.choices.noise_at_inference:
            key = jax.random.key(_RELEASE_SEED) if key is None else key
            noise = model.sentence_bank.gumbel(key, batch=mask.shape[0], rows=mask.shape[1])
        lookup = model.sentence_bank(sentences, mask, temperature=temperature, noise=noise)
        sentences = lookup.prototypes
    return ReportFeatures(
        local=sentences,
        local_mask=mask,
        global_=model.global_text_attention(sentences, mask),
    )


@flax.struct.dataclass
class PairScores:
    """Scores of image-report pairs.

    Attributes:
      global_: scaled cosines of the global embeddings, float32[Bi, Br].
      local: mean attention between patches and real sentences, float32[Bi, Br], in [0, 1]; with
        `sentence_region` the logarithm of the mean exponential of the sentences' scaled cosines
        with the regions they attend to, within +- `sentence_scale`.
    """

    global_: jax.Array
    local: jax.Array


def pair_scores(
    model: PriorModel,
    images: ImageFeatures,
    reports: ReportFeatures,
    *,
    batches_of_one: bool = False,
) -> PairScores:
    """Scores every image against every report, a block at a time.

    Args:
      model: trained model, whose `choices` determine whether the scale is an exponential (quirk
        P26) and whether the local score is that of one image or of the mean image (quirk P27).
      images: features of Bi images.
      reports: features of Br reports.
      batches_of_one: whether each image is a batch of its own, as in the release's program, so that
        the mean image is the image.

    Returns:
      The scores; no other memory grows with Bi x Br.

    Source: release, codes/prior/downstream/zero_classification_model.py, `global_loss` and
      `local_loss`.
    """
    cosine = jnp.einsum("id,jd->ij", unit(images.global_), unit(reports.global_))
    scale = model.scale() if model.choices.exponential_scale else model.logit_scale[...]

    def one_pair(patches: jax.Array, sentences: jax.Array, mask: jax.Array) -> jax.Array:
        image_attention, text_attention = model.local_cross_attention.attention(patches, sentences)
        per_sentence = jnp.mean(image_attention, axis=0) + jnp.mean(text_attention, axis=1)
        return weighted_mean(per_sentence / 2, mask.astype(jnp.float32))

    def one_image(patches: jax.Array) -> jax.Array:
        return jax.lax.map(
            lambda report: one_pair(patches, *report),
            (reports.local, reports.local_mask),
            batch_size=_BLOCK,
        )

    if model.sentence_region is not None:
        local = sentence_region.scores(model.sentence_region, images, reports)
        return PairScores(global_=scale * cosine, local=local)
    local = jax.lax.map(one_image, images.local, batch_size=_BLOCK)
    if not (batches_of_one or model.choices.local_score_per_image):
        local = jnp.broadcast_to(jnp.mean(local, axis=0, keepdims=True), local.shape)
    return PairScores(global_=scale * cosine, local=local)


def similarity(model: PriorModel, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
    """Returns one score per pair: the global logit plus half the local score.

    These are the two parts of the release's zero-shot score, with its weights, before
    `zero_shot_probabilities` takes the softmax over classes. The score depends on the pair alone,
    so it can rank images as well as reports, and is what the release's program computes, whose
    batches are of one image (quirk P27).

    Returns:
      Scores, float32[Bi, Br]; higher is closer.
    """
    scores = pair_scores(model, images, reports, batches_of_one=True)
    return scores.global_ + 0.5 * scores.local


def zero_shot_probabilities(
    scores: PairScores, prompt_class: jax.Array, *, num_classes: int
) -> jax.Array:
    """Computes the release's zero-shot output: softmax of global logits + half that of local ones.

    Args:
      scores: scores of images against prompts, with one "report" per prompt.
      prompt_class: class of each prompt, int32[Br]; every class has at least one prompt.
      num_classes: number C of classes.

    Returns:
      Probabilities, float32[Bi, C]; rows sum to 1.5. A class gets the maximum of its prompts'
      global logits and the mean of their local scores.

    Source: release, codes/prior/downstream/zero_classification_model.py, `shared_step`.
    """
    classes = jnp.arange(num_classes, dtype=prompt_class.dtype)
    owns = prompt_class[None, :] == classes[:, None]
    best = jnp.max(jnp.where(owns[None], scores.global_[:, None, :], -jnp.inf), axis=-1)
    share = owns.astype(jnp.float32)
    share = share / jnp.sum(share, axis=1, keepdims=True)
    local = jnp.einsum("ip,cp->ic", scores.local, share)
    return jax.nn.softmax(best, axis=1) + 0.5 * jax.nn.softmax(local, axis=1)


def prompt_sentence_index(token_mask: jax.Array, *, separator_in_prompt: bool) -> jax.Array:
    """Returns which tokens of a prompt form its one sentence.

    Evaluation leaves [SEP] out in both fidelities (`data.text.encode_prompts`); hand this index to
    `encode_report` to score prompts as the release does.

    Args:
      token_mask: mask of the real tokens, bool[B, L], [CLS] first and [SEP] last.
      separator_in_prompt: False takes only the words. True reproduces the release, which cuts off
        the first and the last column: in a padded prompt these are [CLS] and a padding token, so
        [SEP] stays (quirk P28).

    Returns:
      Sentence index, int32[B, L], 0 on the sentence's tokens and -1 elsewhere.

    Source: release, codes/prior/downstream/zero_classification_model.py, `on_test_start`.
    """
    length = token_mask.shape[1]
    place = jnp.arange(length, dtype=jnp.int32)[None, :]
    count = jnp.sum(token_mask, axis=1, dtype=jnp.int32)[:, None]
    last = length - 1 if separator_in_prompt else count - 1
    inside = token_mask & (place > 0) & (place < last)
    return jnp.where(inside, jnp.int32(0), jnp.int32(-1))


def text_attention(model: PriorModel, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
    """Returns the attention of each sentence over the patches of its image.

    Args:
      model: trained PRIOR model.
      images: features of B images.
      reports: features of their B reports.

    Returns:
      Attention weights, float32[B, S, P], in [0, 1], 0 for absent sentences. P is row-major over
      the feature grid in the paper's mode and with `sentence_region`, and has no spatial meaning
      otherwise in the release's mode (quirk P1).
    """
    if model.sentence_region is not None:
        return model.sentence_region.attention(images.local, reports.local, reports.local_mask)
    return model.attend(images.local, reports.local, reports.local_mask).text_attention


def reconstruct(model: PriorModel, image: jax.Array, reports: ReportFeatures) -> jax.Array:
    """Reconstructs images from their own patches and their reports, without masking.

    Args:
      model: model that was trained in stage 3.
      image: normalised images, float32[B, H, W, C].
      reports: features of the images' reports.

    Returns:
      Images, float32[B, h * stride, w * stride, C], in the normalised scale of the input images.
    """
    patches = model.encode_image(image, train=False).local
    context = model.attend(patches, reports.local, reports.local_mask)
    return model.decode_image(patches, context.image, train=False)


def prototype_choice(
    model: PriorModel,
    tokens: jax.Array,
    token_mask: jax.Array,
    sentence_index: jax.Array,
    sentence_mask: jax.Array,
    *,
    temperature: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns each sentence's most probable prototype, without noise.

    Args:
      model: trained PRIOR model.
      tokens: token ids, int32[B, L].
      token_mask: mask of the real tokens, bool[B, L].
      sentence_index: sentence that each token belongs to, int32[B, L], 0..S-1 or -1 for none.
      sentence_mask: mask of the real sentences, bool[B, S].
      temperature: temperature of the bank, float32[].

    Returns:
      Index of the prototype, int32[B, S], -1 for absent sentences; and its probability in the
      lookup, float32[B, S], 0 for absent sentences.
    """
    sentences, mask = model.encode_sentences(
        tokens, token_mask, sentence_index, sentence_mask, train=False
    )
    lookup = model.sentence_bank(sentences, mask, temperature=temperature)
    choice = jnp.argmax(lookup.probability, axis=-1).astype(jnp.int32)
    share = jnp.max(lookup.probability, axis=-1)
    return jnp.where(mask, choice, jnp.int32(-1)), jnp.where(mask, share, jnp.float32(0))
