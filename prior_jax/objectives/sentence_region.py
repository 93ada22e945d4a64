"""Sentences and regions of a finer feature map in one space, where a sentence finds its place."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.errors import ConfigError, check_choice, check_field, check_least, in_section
from prior_jax.losses.limits import check_scales
from prior_jax.losses.normalize import unit
from prior_jax.losses.word_region import (
    AGGREGATES,
    word_region_attention,
    word_region_similarity,
)
from prior_jax.nn import hidden_regions
from prior_jax.nn.heads import projection
from prior_jax.nn.layers import torch_linear
from prior_jax.nn.log_scale import MAX_SCALE, clamp_from_above, log_scale
from prior_jax.nn.patches import spatial_patches
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.objectives.all_pairs import AllPairs
from prior_jax.types import ImageFeatures, ReportFeatures

SENTENCE_REGION = "sentence_region"
"""Name of the loss term, and of the section of its settings."""

Features = TypeVar("Features")

# Number of reports that are compared with all given images at once. For 32 images, reports of 16
# sentences and 196 regions, the attention takes 12 MiB.
_BLOCK = 32

COORDINATES = 4
"""Number of features of a region's place."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceRegionConfig:
    """The contrast of sentences and regions over the global batch.

    Attributes:
      stages_back: feature map whose pixels are the regions: 0 for the last stage's of the ResNet,
        whose pixels are PRIOR's patches, 1 for the stage before, with four times as many.
      attention_scale: factor of the cosines in each sentence's softmax over regions, an inverse
        temperature; the sharper, the smaller the place a sentence finds.
      learn_attention_scale: whether that factor is learned, from the given value on, up to 100.
      sentence_scale: factor of each sentence's cosine with the regions that it attends to.
      contrast_scale: factor of the similarity of a whole report with an image in the cross-entropy;
        it has no effect on the similarity of a trained model.
      aggregate: aggregation over a report's sentences in the loss, see `losses.word_region`. The
        similarity of a trained model takes "mean".
      chunk: number of reports compared with all images at once, which bounds the memory; with
        `group` the number of images compared with all reports of their group. Without a group,
        training on one CPU takes one image at a time, whatever the number.
      group: number of pairs that are contrasted with each other, 2 or more and a divisor of the
        batch size; None contrasts the whole global batch, whose cost grows with its square.
      hidden_every: in training, one of so many images, a divisor of the batch size, is encoded a
        second time with some of its regions hidden, and the sentences look for their places among
        the others of the copy; 0 hides nothing. Without hidden regions a region may stand for what
        lies beside it. The copies count in the batch's statistics of the ResNet's normalisation. A
        stage whose weight of this term is 0 makes none.
      hidden_share: share of the regions that are hidden in a copy.
      hidden_side: side of the squares that are hidden, in regions, less than that of the map. What
        fills several regions is hidden by larger squares alone. Where nothing is hidden it has no
        effect.
      coordinates: whether a region's features are joined by those of its place in the image, so
        that a sentence about the left lung need not look where left can be told from right.
    """

    stages_back: int
    attention_scale: float
    learn_attention_scale: bool
    sentence_scale: float
    contrast_scale: float
    aggregate: str
    chunk: int
    group: int | None
    # As in runs that do not have these settings.
    hidden_every: int = 0
    hidden_share: float = 0.0
    hidden_side: int = 1
    coordinates: bool = False

    def __post_init__(self):
        """Refuses configuration values that no contrast accepts."""
        check_choice(self, "stages_back", (0, 1))
        check_choice(self, "aggregate", AGGREGATES)
        check_least(self, chunk=1, hidden_every=0, hidden_side=1)
        hides = 0 < self.hidden_share < 1 if self.hidden_every else self.hidden_share == 0
        must_be = "between 0 and 1 where hidden_every is not 0, and otherwise 0"
        check_field(self, "hidden_share", hides, must_be)
        fits = self.group is None or self.group >= 2
        check_field(self, "group", fits, "2 or more pairs, as a loss of one is 0, or None")
        check_scales(self, "attention_scale", "sentence_scale", "contrast_scale")
        starts = not self.learn_attention_scale or self.attention_scale <= MAX_SCALE
        must_be = f"at most {MAX_SCALE}, where a learned one is clamped"
        check_field(self, "attention_scale", starts, must_be)

    def check_fits(
        self,
        image: ImageEncoderConfig,
        weights: Mapping[str, Mapping[str, float]],
        *,
        where: str,
    ) -> None:
        """Refuses settings that do not fit the rest of the model's.

        Args:
          image: configuration of the image encoder.
          weights: weights of the terms, stage -> term -> weight.
          where: names of the weights of the contrast, for the message.

        Raises:
          ConfigError: naming the section, or a field of it.
        """
        with in_section(SENTENCE_REGION):
            grid = image.resnet.grid(image.image_size, stages_back=self.stages_back)
            must_be = f"less than {grid}, the regions of a side, as the whole image would be hidden"
            fits = not self.hidden_every or self.hidden_side < grid
            check_field(self, "hidden_side", fits, must_be)
        if not any(terms[SENTENCE_REGION] > 0 for terms in weights.values()):
            raise ConfigError(
                f"The section is given, but {where} is 0 in every stage: the projections that it "
                "adds would stay random, and attention maps and grounding use them.",
                "Set the weight above 0, or the section to None and leave the weight out.",
                where=SENTENCE_REGION,
            )


def coordinates_of(grid: tuple[int, int]) -> np.ndarray:
    """Returns the place of each region of a grid (h, w): float32[h * w, COORDINATES], row-major.

    These are sine and cosine of the row and of the column, of half a period over the image: the
    sine grows from -1 at the top and the left, and the cosine is greatest in the middle.

    Source: the idea is CoordConv's, arXiv:1807.03247, section 3, which appends linear coordinates.
    """
    rows, columns = (np.pi * ((np.arange(size) + 0.5) / size - 0.5) for size in grid)
    angles = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    found = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(-1, COORDINATES)
    return found.astype(np.float32)


class SentenceRegionHead(nnx.Module):
    """Projects regions and sentences to unit vectors, and attends from sentences to regions."""

    def __init__(
        self,
        config: SentenceRegionConfig,
        *,
        features: int,
        embed_dim: int,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Creates both projections.

        Args:
          config: configuration of the contrast.
          features: number of channels of the regions' map.
          embed_dim: size D of sentences and of the common space.
          dtype: compute dtype; parameters are float32.
          rngs: source of the initial parameters.
        """
        features += COORDINATES if config.coordinates else 0
        self.region = projection(features, embed_dim, dtype=dtype, rngs=rngs)
        self.sentence = torch_linear(embed_dim, embed_dim, dtype=dtype, rngs=rngs)
        learned = config.learn_attention_scale
        self.log_scale = log_scale(1 / config.attention_scale) if learned else None
        self.config = config

    def regions(self, feature_map: jax.Array) -> jax.Array:
        """Returns the regions of maps [B, h, w, features], row-major: [B, P, D], unit norm."""
        patches = spatial_patches(feature_map)
        if self.config.coordinates:
            _, height, width, _ = feature_map.shape
            place = jnp.asarray(coordinates_of((height, width)), patches.dtype)
            place = jnp.broadcast_to(place, (len(patches), *place.shape))
            patches = jnp.concatenate([patches, place], axis=-1)
        found = self.region(patches)
        return unit(found).astype(found.dtype)

    def sentences(self, sentences: jax.Array) -> jax.Array:
        """Returns sentences [..., S, D] in the space of regions: [..., S, D], unit norm."""
        found = self.sentence(sentences)
        return unit(found).astype(found.dtype)

    def attention_scale(self) -> jax.Array:
        """Returns the factor of the cosines in the softmax over regions, float32[]."""
        if self.log_scale is None:
            return jnp.float32(self.config.attention_scale)
        return jnp.exp(clamp_from_above(self.log_scale[...]))

    def attention(self, regions: jax.Array, sentences: jax.Array, mask: jax.Array) -> jax.Array:
        """Computes the attention of each sentence over the regions of its image.

        Args:
          regions: regions from `regions`, [B, P, D].
          sentences: sentences before their projection, [B, S, D].
          mask: mask of the real sentences, bool[B, S].

        Returns:
          Attention, float32[B, S, P]; rows of real sentences sum to 1, others are 0.
        """
        return word_region_attention(
            self.sentences(sentences), regions, word_mask=mask,
            temp1=self.attention_scale(), softmax_over_words=False,
        )  # fmt: skip


def region_head(
    config: SentenceRegionConfig | None,
    *,
    resnet: ResNetConfig,
    embed_dim: int,
    dtype: jax.typing.DTypeLike,
    rngs: nnx.Rngs,
) -> SentenceRegionHead | None:
    """Returns the head of a model with this image encoder, or None without the contrast.

    For the other arguments see `SentenceRegionHead`.
    """
    if config is None:
        return None
    features = resnet.stage_features[-1 - config.stages_back]
    return SentenceRegionHead(
        config, features=features, embed_dim=embed_dim, dtype=dtype, rngs=rngs
    )


class SeesRegions:
    """The image side of an objective that can have the contrast.

    Its models have `encode_regions`, which gives the features of images and their regions, or None
    in place of the regions.

    Attributes:
      config: configuration with the image encoder's and `sentence_region`, which may be None.
    """

    config: Any

    def encode_image(self, model: Any, image: jax.Array) -> ImageFeatures:
        """Encodes images float32[B, H, W, C] in inference mode.

        `local` holds what texts attend to: patches or, with `sentence_region`, regions.
        """
        features, regions = model.encode_regions(image, train=False)
        return features if regions is None else dataclasses.replace(features, local=regions)

    @property
    def patch_spacing(self) -> float:
        """Returns the spacing of the centres of patches or regions, in pixels.

        That of patches is the encoder's stride; each stage before the last halves it.
        """
        chosen = self.config.sentence_region
        return self.config.image.resnet.stride / 2 ** (0 if chosen is None else chosen.stages_back)


def encode_with_hidden(
    encode: Callable[[jax.Array], tuple[Features, jax.Array | None]],
    image: jax.Array,
    *,
    config: SentenceRegionConfig | None,
    spacing: float,
    key: jax.Array | None,
    hides: bool,
) -> tuple[Features, jax.Array | None, jax.Array | None]:
    """Encodes images, and copies of some of them with hidden regions.

    Args:
      encode: function from images to arrays whose rows are the images, and their regions,
        [B, P, D], or None.
      image: normalised images, float32[B, H, W, C].
      config: configuration, which says how many images have a copy; None for no contrast.
      spacing: distance of the regions in pixels.
      key: random key of the hidden regions; None only where nothing is hidden.
      hides: whether copies are made: in steps that train the contrast.

    Returns:
      The features of the images; the regions that sentences look at, [B, P, D], of the copy where
      there is one, or None; and the mask of the regions that are not hidden, bool[B, P], or None if
      none is.
    """
    if not hides or config is None or not config.hidden_every:
        return (*encode(image), None)
    if key is None:
        raise ValueError("hiding regions needs a key, got None")
    every, step = config.hidden_every, int(spacing)
    first = image[::every]
    groups, (height, width) = len(first), image.shape[1:3]
    visible = hidden_regions.draw_visible(
        key,
        images=groups,
        grid=(-(-height // step), -(-width // step)),
        share=config.hidden_share,
        side=config.hidden_side,
    )
    copies = hidden_regions.hide(first, visible, spacing=step)
    features, regions = encode(hidden_regions.append_copies(image, copies))
    plain = functools.partial(hidden_regions.without_copies, groups=groups)
    hidden = functools.partial(hidden_regions.with_copies_first, groups=groups)
    features, regions = jax.tree.map(plain, features), jax.tree.map(hidden, regions)
    seen = visible.reshape(groups, 1, -1)
    whole = jnp.ones((groups, every - 1, seen.shape[2]), bool)
    mask = jnp.concatenate([seen, whole], axis=1).reshape(len(image), -1)
    return features, regions, mask


def contrast(
    head: SentenceRegionHead,
    sentences: jax.Array,
    regions: jax.Array,
    all_pairs: AllPairs,
    *,
    mask: jax.Array,
    region_mask: jax.Array | None,
    weight: jax.Array,
) -> jax.Array:
    """Computes the contrast of all images and reports by sentences and regions: float32[].

    A sentence attends to the regions of an image, and is compared with what it finds there; the
    similarities of its report's sentences are aggregated. In the right image a sentence must find a
    better place than in the others, which a contrast within one report cannot ask of it.

    Args:
      head: head whose space both are in.
      sentences: sentences before their projection, [B, S, D].
      regions: regions from the head, [B, P, D].
      all_pairs: form in which the loss is computed.
      mask: mask of the real sentences, bool[B, S].
      region_mask: mask of the regions that are not hidden, bool[B, P], or None if none is.
      weight: weights of the pairs, float32[B].

    Source: the form is GLoRIA's, ICCV 2021, the local contrastive loss, with sentences or their
    prototypes as words, and unit vectors.
    """
    config = head.config
    found = all_pairs.word_region_contrast(
        head.sentences(sentences), regions,
        word_mask=mask, weight=weight, region_mask=region_mask,
        temp1=head.attention_scale(), temp2=config.sentence_scale, temp3=config.contrast_scale,
        softmax_over_words=False, aggregate=config.aggregate,
        chunk=config.chunk, group=config.group,
    )  # fmt: skip
    return found.image_to_text + found.text_to_image


def scores(head: SentenceRegionHead, images: ImageFeatures, reports: ReportFeatures) -> jax.Array:
    """Returns how well reports' sentences match what they find in images: float32[Bi, Br].

    It is the logarithm of the mean exponential of the sentences' scaled cosines, which leans
    towards the best match. Reports without a sentence have 0.
    """
    found = word_region_similarity(
        head.sentences(reports.local), images.local, word_mask=reports.local_mask,
        temp1=head.attention_scale(), temp2=head.config.sentence_scale,
        softmax_over_words=False, aggregate="mean", chunk=_BLOCK,
    )  # fmt: skip
    return jnp.where(jnp.any(reports.local_mask, axis=1)[None], found, jnp.float32(0))
