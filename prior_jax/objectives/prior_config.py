"""The configuration of PRIOR, with every departure of the authors' release from the paper."""

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Literal, get_args

from prior_jax.errors import (
    ConfigError,
    check_choice,
    check_field,
    check_least,
    in_section,
)
from prior_jax.losses.limits import check_scales, check_weights
from prior_jax.nn.bert import BertConfig
from prior_jax.nn.image_decoder import ImageDecoderConfig
from prior_jax.nn.log_scale import check_learned_temperatures
from prior_jax.nn.resnet import ImageEncoderConfig
from prior_jax.nn.sentence_decoder import SentenceDecoderConfig
from prior_jax.nn.transformer import Remat
from prior_jax.objectives.sentence_region import SENTENCE_REGION, SentenceRegionConfig

FidelityName = Literal["paper", "release"]
TemperatureSchedule = Literal["fixed", "linear", "exp"]
SentencePool = Literal["mean", "attention"]
ComputeDtype = Literal["float32", "bfloat16"]

STAGES = ("stage1", "stage2", "stage3")

_ALIGNMENT = ("global_alignment", "local_image", "local_text")
_RECONSTRUCTION = (
    "image_reconstruction",
    "sentence_prototype",
    "prototype_kl",
    "global_prototype",
)
TERMS: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        "stage1": _ALIGNMENT,
        "stage2": (*_ALIGNMENT, "prototype"),
        "stage3": (*_ALIGNMENT, "prototype", *_RECONSTRUCTION),
    }
)
"""The loss terms of each stage. Source: release, codes/prior/models/prior.py, `stage1_step`...

With `PriorConfig.sentence_region` every stage has the term `SENTENCE_REGION` beside them.
"""

RELEASE_WEIGHTS: Mapping[str, Mapping[str, float]] = types.MappingProxyType(
    {
        "stage1": {"global_alignment": 1.0, "local_image": 1.0, "local_text": 1.0},
        "stage2": {
            "global_alignment": 1.0,
            "local_image": 1.0,
            "local_text": 1.0,
            "prototype": 10.0,
        },
        "stage3": {
            "global_alignment": 10.0,
            "local_image": 1.0,
            "local_text": 1.0,
            "prototype": 10.0,
            "image_reconstruction": 1.0,
            "sentence_prototype": 10.0,
            "prototype_kl": 1.0,
            "global_prototype": 1.0,
        },
    }
)
"""The released weights (quirk P10): lambda_proto 10, and the global loss times 10 in stage 3."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity:
    """The choices in which the release and the paper differ; see docs/fidelity.md.

    Attributes:
      spatial_patches: True takes locations of the feature map as patches; False reads the NCHW
        buffer as the release's `view` does (quirks P1 and P2).
      causal_decoder: whether query j of the sentence decoder attends only to queries up to j (quirk
        P11).
      inverse_permutation: whether the Hungarian permutation is applied in the right direction
        (quirk P3).
      ignore_padding: True restricts the matching and its L1 to real sentences; False keeps the
        zero-padded targets, towards which the release pulls the unmatched queries (quirk P4).
      break_ties: True chooses, among equally good assignments of queries to sentences, the one
        nearest to the order of the sentences; False leaves the choice to the solver, and so to
        rounding.
      stop_kl_target: whether the target of the KL term gets no gradient (quirk P7).
      clamp_scale: whether inverse temperatures are clamped at 100 (quirk P17).
      noise_at_inference: whether Gumbel noise is added outside training too (quirk P8).
      clip_temperature: True keeps the bank's temperature at its end value after the last step;
        False continues the formula.
      exponential_scale: True multiplies zero-shot scores by exp(logit_scale), False by logit_scale
        itself (quirk P26).
      local_score_per_image: True computes zero-shot local scores for each image, False averages
        them over the batch (quirk P27).
    """

    spatial_patches: bool
    causal_decoder: bool
    inverse_permutation: bool
    ignore_padding: bool
    break_ties: bool
    stop_kl_target: bool
    clamp_scale: bool
    noise_at_inference: bool
    clip_temperature: bool
    exponential_scale: bool
    local_score_per_image: bool


FIDELITY: Mapping[str, Fidelity] = types.MappingProxyType(
    {
        "paper": Fidelity(
            spatial_patches=True,
            causal_decoder=False,
            inverse_permutation=True,
            ignore_padding=True,
            break_ties=True,
            stop_kl_target=True,
            clamp_scale=True,
            noise_at_inference=False,
            clip_temperature=True,
            exponential_scale=True,
            local_score_per_image=True,
        ),
        "release": Fidelity(
            spatial_patches=False,
            causal_decoder=True,
            inverse_permutation=False,
            ignore_padding=False,
            break_ties=False,
            stop_kl_target=False,
            clamp_scale=False,
            noise_at_inference=True,
            clip_temperature=False,
            exponential_scale=False,
            local_score_per_image=False,
        ),
    }
)
"""The only mapping from the name of a fidelity to its choices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Configuration of the sentence prototype bank.

    Attributes:
      num_prototypes: number K of prototypes; release 512 (codes/prior/models/prior.py, spb_k).
      temperature: temperature of the lookup at the bank's first step; release 0.9
        (codes/prior/modules/spb.py).
      schedule: schedule by which the temperature falls to a tenth: "fixed" (release), "linear" or
        "exp".
      start_step: optimizer step at which the schedule starts: the first step of stage 2.
      steps: number of steps until a tenth is reached: those of stages 2 and 3 together.
    """

    num_prototypes: int
    temperature: float
    schedule: TemperatureSchedule
    start_step: int
    steps: int

    def __post_init__(self):
        """Refuses configuration values that no bank accepts."""
        check_least(self, num_prototypes=1)
        check_scales(self, "temperature")
        check_choice(self, "schedule", get_args(TemperatureSchedule))
        check_least(self, start_step=0, steps=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceDecoderOptions:
    """Configuration of the decoder from queries to sentence prototypes, of width `embed_dim`.

    Attributes:
      layers: number of layers; release 8 (codes/prior/decoders/sentence.py).
      heads: number of attention heads, a divisor of `embed_dim`; Bio_ClinicalBERT 12.
      intermediate_size: width of the feed-forward layers; Bio_ClinicalBERT 3072.
      dropout: dropout rate; Bio_ClinicalBERT 0.1.
      max_positions: number of rows of the position embedding; Bio_ClinicalBERT 512.
      token_types: number of rows of the token-type embedding; BERT 2.
      scan_layers: whether the layers run in a loop that is compiled once.
      remat: rematerialisation in the backward pass, see `nn.transformer.StackConfig`.
    """

    layers: int
    heads: int
    intermediate_size: int
    dropout: float
    max_positions: int
    token_types: int
    scan_layers: bool
    remat: Remat


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageDecoderOptions:
    """Configuration of the decoder from patches to images; sizes follow the image encoder.

    Attributes:
      dropout: share of the image map's channels masked in training; release 0.5
        (image_rec_drop_out_rate).
    """

    dropout: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Configuration of PRIOR, the section `config.model`.

    Attributes:
      fidelity: "paper", or "release" to load the authors' weights and reproduce their numbers.
      dtype: dtype of the computation; parameters, losses, softmax and normalisation stay float32.
      image: configuration of the image encoder; release ResNet-50 with attention pooling, 224
        pixels, 1 channel.
      text: configuration of the text encoder; release Bio_ClinicalBERT.
      embed_dim: size D of every aligned embedding; release 768.
      sentence_pool: pooling of a sentence's tokens into one embedding; release "mean" (gahter_pool
        avg).
      sentence_heads: number of heads of the attention pool over sentences; release 8.
      temperature: initial temperature of the global contrastive loss; release 0.01.
      local_temperature: initial temperature of the sentence contrastive loss; release 0.01.
      num_queries: largest number Q of sentences per report that stage 3 uses; release 16.
      sentence_region: contrast of sentences and regions over the batch, by which sentences find
        their place in the image; None, as in the paper and the release, has none.
      bank: configuration of the sentence prototype bank.
      sentence_decoder: configuration of the decoder that reconstructs sentence prototypes from the
        image.
      image_decoder: configuration of the decoder that reconstructs the image with the report's
        help.
      weights: weights of the terms, stage -> term -> weight; the release's are `RELEASE_WEIGHTS`.
      switched_choices: fields of `Fidelity` that have the value of the other fidelity: one
        correction of the release alone, or one fault of it in the paper's form.
    """

    fidelity: FidelityName
    dtype: ComputeDtype
    image: ImageEncoderConfig
    text: BertConfig
    embed_dim: int
    sentence_pool: SentencePool
    sentence_heads: int
    temperature: float
    local_temperature: float
    num_queries: int
    bank: BankConfig
    sentence_decoder: SentenceDecoderOptions
    image_decoder: ImageDecoderOptions
    weights: Mapping[str, Mapping[str, float]]
    # As in runs that do not have these settings.
    sentence_region: SentenceRegionConfig | None = None
    switched_choices: tuple[str, ...] = ()

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        for name, choices in (
            ("fidelity", get_args(FidelityName)),
            ("dtype", get_args(ComputeDtype)),
            ("sentence_pool", get_args(SentencePool)),
        ):
            check_choice(self, name, choices)
        check_least(self, embed_dim=1, sentence_heads=1, num_queries=1)
        check_scales(self, "temperature", "local_temperature")
        divides = self.embed_dim % self.sentence_heads == 0
        check_field(self, "sentence_heads", divides, f"a divisor of embed_dim {self.embed_dim}")
        check_least(self, embed_dim=8 if self.sentence_pool == "attention" else 2)
        positions = self.sentence_decoder.max_positions
        must_be = f"at most sentence_decoder.max_positions, which is {positions}"
        check_field(self, "num_queries", self.num_queries <= positions, must_be)
        self._check_weights()
        if self.sentence_region is not None:
            where = f"weights.STAGE.{SENTENCE_REGION}"
            self.sentence_region.check_fits(self.image, self.weights, where=where)
        names = tuple(field.name for field in dataclasses.fields(Fidelity))
        once = len(set(self.switched_choices)) == len(self.switched_choices)
        fits = once and set(self.switched_choices) <= set(names)
        check_field(self, "switched_choices", fits, f"some of {', '.join(names)}, each once")
        if self.choices.clamp_scale:
            check_learned_temperatures(self, "temperature", "local_temperature")
        # The decoders' sizes follow from several sections, so they are made, checked and kept here.
        with in_section("sentence_decoder"):
            _ = self.sentence_decoder_config
        with in_section("image_decoder"):
            _ = self.image_decoder_config

    def _check_weights(self) -> None:
        for stage in {*TERMS, *self.weights}:
            where = f"weights.{stage}"
            if stage not in TERMS or stage not in self.weights:
                raise ConfigError(
                    f"The stages with weights are {sorted(self.weights)}.",
                    f"Give weights for each of the stages {', '.join(STAGES)}.",
                    where=where,
                )
            terms = self.terms(stage)
            if self.sentence_region is None and SENTENCE_REGION in self.weights[stage]:
                raise ConfigError(
                    f"The value is None, but {where} has a weight for {SENTENCE_REGION!r}.",
                    "Give the section, as configs/prior/improved.py does, or leave the term out of "
                    "the weights of every stage.",
                    where="sentence_region",
                )
            if set(self.weights[stage]) != set(terms):
                raise ConfigError(
                    f"The terms with weights are {sorted(self.weights[stage])}.",
                    f"Give a weight for each of the terms {', '.join(terms)}.",
                    where=where,
                )
            check_weights(self.weights[stage], where=where)

    def terms(self, stage: str) -> tuple[str, ...]:
        """Returns the names of a stage's loss terms."""
        return TERMS[stage] + ((SENTENCE_REGION,) if self.sentence_region else ())

    def local_terms(self, stage: str) -> tuple[str, ...]:
        """Returns the names of a stage's terms between parts of an image and sentences."""
        return tuple(
            name
            for name in self.terms(stage)
            if name in ("local_image", "local_text", SENTENCE_REGION)
        )

    @property
    def choices(self) -> Fidelity:
        """Returns a value of each switch: that of the fidelity, or of the other one if switched."""
        (other,) = (name for name in FIDELITY if name != self.fidelity)
        theirs = {name: getattr(FIDELITY[other], name) for name in self.switched_choices}
        return dataclasses.replace(FIDELITY[self.fidelity], **theirs)

    @functools.cached_property
    def sentence_decoder_config(self) -> SentenceDecoderConfig:
        """Returns the full configuration of the sentence decoder."""
        return SentenceDecoderConfig(
            hidden_size=self.embed_dim,
            causal=self.choices.causal_decoder,
            **dataclasses.asdict(self.sentence_decoder),
        )

    @functools.cached_property
    def image_decoder_config(self) -> ImageDecoderConfig:
        """Returns the full configuration of the image decoder.

        The decoder doubles the grid until it reaches the image's size.
        """
        side, _ = self.image.grid
        return ImageDecoderConfig(
            features=self.embed_dim,
            grid=side,
            image_size=side * self.image.resnet.stride,
            channels=self.image.resnet.in_channels,
            dropout=self.image_decoder.dropout,
        )
