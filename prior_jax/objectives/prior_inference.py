"""What a trained PRIOR is asked: report features, similarity, zero-shot, attention, images."""

import flax.struct
import jax
import jax.numpy as jnp

from prior_jax.losses.normalize import unit, weighted_mean
from prior_jax.objectives.prior_model import PriorModel
from prior_jax.types import ImageFeatures, ReportFeatures

# Images and reports of one block of scores: 32 x 32 reports of 16 sentences over 49 patches are
# 3 MiB of attention, however many are compared.
_BLOCK = 32

# Where the release draws noise at inference and no key is given, its own seed (base_config.yaml).
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
    """Sentences, as the bank gives them back, and the report as one vector.

    Args:
      model: the model.
      tokens: int32[B, L].
      token_mask: bool[B, L].
      sentence_index: int32[B, L], -1 or 0..S-1.
      sentence_mask: bool[B, S].
      temperature: float32[], of the bank.
      key: of the noise that the release adds at inference too (quirk P8); by default its seed.
        The paper's mode draws none.
      noise: float32[B, S, K] to add instead of drawing.
      prototypes: False keeps the sentences as they are, as stage 1 aligns them.

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
    """How well images and reports fit.

    Attributes:
      global_: float32[Bi, Br], scaled cosine of the global vectors.
      local: float32[Bi, Br], in [0, 1], mean attention between patches and real sentences.
    """

    global_: jax.Array
    local: jax.Array


def pair_scores(model: PriorModel, images: ImageFeatures, reports: ReportFeatures) -> PairScores:
    """Scores every image against every report, a block at a time.

    Args:
      model: the model, whose `choices` say whether the scale is an exponential (quirk P26) and
        whether the local score is of one image or of the mean image (quirk P27).
      images: features of Bi images.
      reports: features of Br reports.

    Returns:
      The scores; memory beyond them does not grow with Bi x Br.

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

    local = jax.lax.map(one_image, images.local, batch_size=_BLOCK)
    if not model.choices.local_score_per_image:
        local = jnp.broadcast_to(jnp.mean(local, axis=0, keepdims=True), local.shape)
    return PairScores(global_=scale * cosine, local=local)


def similarity(model: PriorModel, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
    """One number a pair: the global logit plus half the local score.

    These are the two parts of the release's zero-shot score, with its weights, before the softmax
    over classes that `zero_shot_probabilities` takes: a score of the pair alone, fit to rank
    images as well as reports.

    Returns:
      float32[Bi, Br]; higher is closer.
    """
    scores = pair_scores(model, images, reports)
    return scores.global_ + 0.5 * scores.local


def zero_shot_probabilities(
    scores: PairScores, prompt_class: jax.Array, *, num_classes: int
) -> jax.Array:
    """The release's zero-shot answer: softmax of global logits + half that of local scores.

    Args:
      scores: of images against prompts, one "report" a prompt.
      prompt_class: int32[Br], the class of each prompt; every class has one.
      num_classes: C.

    Returns:
      float32[Bi, C]; rows sum to 1.5. A class takes the best of its prompts' global logits and
      the mean of their local scores.

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
    """Which tokens of a prompt form its one sentence.

    Evaluation leaves [SEP] out in both fidelities (`data.text.encode_prompts`); hand this index to
    `encode_report` to score prompts as the release does.

    Args:
      token_mask: bool[B, L], True on real tokens, [CLS] first and [SEP] last.
      separator_in_prompt: False takes the words alone. True repeats the release, which cuts off
        the first and the last column: of a padded prompt [CLS] and a pad, so that [SEP] stays
        (quirk P28).

    Returns:
      int32[B, L], 0 on the sentence's tokens, -1 elsewhere.

    Source: release, codes/prior/downstream/zero_classification_model.py, `on_test_start`.
    """
    length = token_mask.shape[1]
    place = jnp.arange(length, dtype=jnp.int32)[None, :]
    count = jnp.sum(token_mask, axis=1, dtype=jnp.int32)[:, None]
    last = length - 1 if separator_in_prompt else count - 1
    inside = token_mask & (place > 0) & (place < last)
    return jnp.where(inside, jnp.int32(0), jnp.int32(-1))


def text_attention(model: PriorModel, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
    """Where in its image each sentence looks.

    Args:
      model: the model.
      images: features of B images.
      reports: features of their B reports.

    Returns:
      float32[B, S, P], in [0, 1], 0 for absent sentences; P row-major over the feature grid in
      the paper's mode, without spatial meaning in the release's (quirk P1).
    """
    return model.attend(images.local, reports.local, reports.local_mask).text_attention


def reconstruct(model: PriorModel, image: jax.Array, reports: ReportFeatures) -> jax.Array:
    """Redraws images from their own patches and their reports, without masking.

    Args:
      model: a model that went through stage 3.
      image: float32[B, H, W, C], normalised.
      reports: features of the images' reports.

    Returns:
      float32[B, h * stride, w * stride, C], in the normalised scale of the images.
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
    """Which prototype each sentence looks up most, without noise.

    Args:
      model: the model.
      tokens: int32[B, L].
      token_mask: bool[B, L].
      sentence_index: int32[B, L], -1 or 0..S-1.
      sentence_mask: bool[B, S].
      temperature: float32[], of the bank.

    Returns:
      int32[B, S], the prototype, -1 for absent sentences; and float32[B, S], its share of the
      lookup, 0 for absent sentences.
    """
    sentences, mask = model.encode_sentences(
        tokens, token_mask, sentence_index, sentence_mask, train=False
    )
    lookup = model.sentence_bank(sentences, mask, temperature=temperature)
    choice = jnp.argmax(lookup.probability, axis=-1).astype(jnp.int32)
    share = jnp.max(lookup.probability, axis=-1)
    return jnp.where(mask, choice, jnp.int32(-1)), jnp.where(mask, share, jnp.float32(0))
