"""What PRIOR is built from, and every way in which the authors' release departs from the paper."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args

from prior_jax.errors import ConfigError
from prior_jax.nn.bert import BertConfig
from prior_jax.nn.image_decoder import ImageDecoderConfig
from prior_jax.nn.resnet import ImageEncoderConfig
from prior_jax.nn.sentence_decoder import SentenceDecoderConfig
from prior_jax.nn.transformer import Remat

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
"""The loss terms of each stage. Source: release, codes/prior/models/prior.py, `stage1_step`..."""

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
"""The released weights (quirk 10): lambda_proto 10, and the global loss times 10 in stage 3."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Each choice on which the release and the paper differ; see docs/fidelity.md.

    Attributes:
      spatial_patches: patches are locations of the feature map; False reads the NCHW buffer as
        the release's `view` does (quirks 1 and 2).
      causal_decoder: query j of the sentence decoder sees only queries up to j (quirk 11).
      inverse_permutation: the Hungarian permutation is applied in the right direction (quirk 3).
      ignore_padding: matching and its L1 see real sentences only; False keeps the zero-padded
        targets, to which the release pulls the queries left over (quirk 4).
      break_ties: among equally good assignments of queries to sentences, the one nearest the
        order of the sentences is taken; False leaves the choice to the solver, and so to rounding.
      stop_kl_target: the target of the KL term gets no gradient (quirk 7).
      clamp_scale: inverse temperatures are clamped at 100 (quirk 17).
      noise_at_inference: Gumbel noise is added outside training too (quirk 8).
      clip_temperature: the bank's temperature stays at its end value beyond the last step;
        False follows the formula on.
      exponential_scale: zero-shot scores use exp(logit_scale), False logit_scale itself
        (quirk 26).
      local_score_per_image: zero-shot local scores are of one image, False averages them over
        the batch (quirk 27).
      separator_in_prompt: a prompt's [SEP] is pooled with its words (quirk 28).
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
    separator_in_prompt: bool


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
            separator_in_prompt=False,
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
            separator_in_prompt=True,
        ),
    }
)
"""The only place where the name of a fidelity is turned into choices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankConfig:
    """The sentence prototype bank.

    Attributes:
      num_prototypes: K; release 512 (codes/prior/models/prior.py, spb_k).
      temperature: temperature of the lookup at its first step; release 0.9
        (codes/prior/modules/spb.py).
      schedule: how the temperature falls to a tenth: "fixed" (release), "linear" or "exp".
      start_step: the optimizer step at which the schedule starts: the first of stage 2.
      steps: steps until a tenth is reached: those of stages 2 and 3 together.
    """

    num_prototypes: int
    temperature: float
    schedule: TemperatureSchedule
    start_step: int
    steps: int

    def __post_init__(self):
        """Refuses values no bank could have."""
        _check("bank", self, "num_prototypes", self.num_prototypes >= 1, "a positive integer")
        _check("bank", self, "temperature", self.temperature > 0, "a positive number")
        schedules = get_args(TemperatureSchedule)
        _check("bank", self, "schedule", self.schedule in schedules, f"one of {schedules}")
        _check("bank", self, "start_step", self.start_step >= 0, "a step, 0 or above")
        _check("bank", self, "steps", self.steps >= 1, "a positive number of steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceDecoderOptions:
    """The decoder from queries to sentence prototypes; its width is `embed_dim`.

    Attributes:
      layers: number of layers; release 8 (codes/prior/decoders/sentence.py).
      heads: attention heads, a divisor of `embed_dim`; Bio_ClinicalBERT's 12.
      intermediate_size: features inside the feed-forward; Bio_ClinicalBERT's 3072.
      dropout: rate for attention weights and every sublayer's output; Bio_ClinicalBERT's 0.1.
      max_positions: rows of the position embedding; Bio_ClinicalBERT's 512.
      token_types: rows of the token-type embedding; BERT's 2.
      scan_layers: whether layers run in a loop compiled once.
      remat: "layer" recomputes each layer in the backward pass, "none" nothing.
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
    """The decoder from patches to the image; its sizes follow the image encoder's.

    Attributes:
      dropout: share of the image map's channels masked in training; release 0.5
        (image_rec_drop_out_rate).
    """

    dropout: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """PRIOR, the section `config.model`.

    Attributes:
      fidelity: "paper", or "release" to load the authors' weights and repeat their numbers.
      dtype: number type of the computation; parameters, losses, softmax and normalisation stay
        float32.
      image: the image encoder; release ResNet-50 with attention pooling, 224 pixels, 1 channel.
      text: the text encoder; release Bio_ClinicalBERT.
      embed_dim: D, size of every aligned vector; release 768.
      sentence_pool: how a sentence's tokens become one vector; release "mean" (gahter_pool avg).
      sentence_heads: heads of the attention pool over sentences; release 8.
      temperature: temperature of the global contrast at the start; release 0.01.
      local_temperature: temperature of the sentence contrast at the start; release 0.01.
      num_queries: Q, most sentences that stage 3 uses of a report; release 16.
      bank: the sentence prototype bank.
      sentence_decoder: reconstructs sentence prototypes from the image.
      image_decoder: reconstructs the image with the report's help.
      weights: stage -> term -> weight; the release's are `RELEASE_WEIGHTS`.
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

    def __post_init__(self):
        """Refuses values that do not fit together."""
        for name, choices in (
            ("fidelity", get_args(FidelityName)),
            ("dtype", get_args(ComputeDtype)),
            ("sentence_pool", get_args(SentencePool)),
        ):
            _check("", self, name, getattr(self, name) in choices, f"one of {choices}")
        for name in ("embed_dim", "sentence_heads", "num_queries"):
            _check("", self, name, getattr(self, name) >= 1, "a positive integer")
        for name in ("temperature", "local_temperature"):
            _check("", self, name, getattr(self, name) > 0, "a positive number")
        divides = self.embed_dim % self.sentence_heads == 0
        _check("", self, "sentence_heads", divides, f"a divisor of embed_dim {self.embed_dim}")
        least = 8 if self.sentence_pool == "attention" else 2
        _check("", self, "embed_dim", self.embed_dim >= least, f"at least {least}")
        positions = self.sentence_decoder.max_positions
        accepted = f"at most config.model.sentence_decoder.max_positions {positions}"
        _check("", self, "num_queries", self.num_queries <= positions, accepted)
        self._check_weights()
        # Both raise a ConfigError of their own section.
        self.sentence_decoder_config()
        self.image_decoder_config()

    def _check_weights(self) -> None:
        for stage in {*TERMS, *self.weights}:
            name = f"config.model.weights.{stage}"
            if stage not in TERMS or stage not in self.weights:
                received = sorted(self.weights)
                raise ConfigError(name, received=received, accepted=f"the stages {STAGES}")
            if set(self.weights[stage]) != set(TERMS[stage]):
                received = sorted(self.weights[stage])
                raise ConfigError(name, received=received, accepted=f"the terms {TERMS[stage]}")

    @property
    def choices(self) -> Fidelity:
        """What the fidelity stands for."""
        return FIDELITY[self.fidelity]

    def sentence_decoder_config(self) -> SentenceDecoderConfig:
        """The sentence decoder's full configuration."""
        return SentenceDecoderConfig(
            hidden_size=self.embed_dim,
            causal=self.choices.causal_decoder,
            **dataclasses.asdict(self.sentence_decoder),
        )

    def image_decoder_config(self) -> ImageDecoderConfig:
        """The image decoder's full configuration: it doubles the grid up to the image's stride."""
        side, _ = self.image.grid
        return ImageDecoderConfig(
            features=self.embed_dim,
            grid=side,
            image_size=side * self.image.resnet.stride,
            channels=self.image.resnet.in_channels,
            dropout=self.image_decoder.dropout,
        )


def _check(section: str, config: Any, field: str, good: bool, accepted: str) -> None:
    if not good:
        name = ".".join(part for part in ("config.model", section, field) if part)
        raise ConfigError(name, received=getattr(config, field), accepted=accepted)
