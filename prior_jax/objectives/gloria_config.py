"""What GLoRIA is built from, and every way in which the authors' release departs from the paper."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, get_args

from prior_jax.errors import ConfigError
from prior_jax.nn.bert import BertConfig
from prior_jax.nn.region_encoder import RegionEncoderConfig

FidelityName = Literal["paper", "release"]
ComputeDtype = Literal["float32", "bfloat16"]
Pool = Literal["sum", "mean"]

STAGES = ("pretrain",)

TERMS = (
    "global_image_to_text",
    "global_text_to_image",
    "local_image_to_text",
    "local_text_to_image",
)
"""The loss terms. Source: release, gloria/models/gloria_model.py, `calc_loss`."""

RELEASE_WEIGHTS: Mapping[str, float] = types.MappingProxyType(dict.fromkeys(TERMS, 1.0))
"""The released weights (configs/chexpert_pretrain_config.yaml), each for both directions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Each choice on which the release and the paper differ; see docs/fidelity.md.

    Attributes:
      single_softmax: a word's attention is one softmax over regions; the release takes one over
        the words first (quirk G1).
      words_only: real words alone are matched with regions; the release takes [CLS] with them,
        leaves [SEP] out and loses a trailing word for every [UNK] (quirks G2 and G3).
      word_mean: a caption's score is the log of the mean over its words, the release's of the
        sum, which grows with the caption (quirk G4).
      report_from_words: a report's vector is the mean over its real words; the release's is that
        over all positions, [CLS], [SEP] and padding included (quirk G8).
      score_as_trained: the local similarity is the training loss's, as a cosine; the release's is
        the maximum over words, multiplied by 5 (quirk G22).
      score_words: similarities see a caption's real words; the release sees as many positions
        behind [CLS] as its raw text has characters (quirks G18, G19 and G21).
    """

    single_softmax: bool
    words_only: bool
    word_mean: bool
    report_from_words: bool
    score_as_trained: bool
    score_words: bool


FIDELITY: Mapping[str, Fidelity] = types.MappingProxyType(
    {
        "paper": Fidelity(
            single_softmax=True,
            words_only=True,
            word_mean=True,
            report_from_words=True,
            score_as_trained=True,
            score_words=True,
        ),
        "release": Fidelity(
            single_softmax=False,
            words_only=False,
            word_mean=False,
            report_from_words=False,
            score_as_trained=False,
            score_words=False,
        ),
    }
)
"""The only place where the name of a fidelity is turned into choices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GloriaConfig:
    """GLoRIA, the section `config.model`.

    Words and reports are BERT's own vectors, without a projection (quirk G11): D is
    `text.hidden_size`.

    Attributes:
      fidelity: "paper", or "release" to load the authors' weights and repeat their numbers.
      dtype: of the computation; parameters, losses, softmax and normalisation stay float32.
      image: the image encoder; release ResNet-50 at 299 pixels, 3 channels.
      text: the text encoder; release Bio_ClinicalBERT.
      last_layers: how many of BERT's hidden states (the embeddings are the first) are pooled;
        release 4.
      layer_pool: how; release "sum".
      whole_words: whether pieces are summed into words; release True.
      unit_text: whether words and reports are scaled to unit norm; release False.
      unit_regions: whether regions are scaled to unit norm; release False. With `unit_text`,
        attention is one of cosines: no region draws every word by its length alone.
      attention_scale: inverse temperature of a word's attention over regions; release 4 (temp1).
      word_scale: that of the words in a caption's score; release 5 (temp2).
      contrast_scale: that of the contrasts; release 10 (temp3).
      caption_chunk: captions matched with all images at once; bounds the memory.
      weights: term -> weight; the release's are `RELEASE_WEIGHTS`.
      local_group: pairs that words are contrasted with regions among, a divisor of the batch;
        None for the whole batch, whose cost a pod cannot bear (`losses.word_region_groups`). The
        released batch is 48 (configs/chexpert_pretrain_config.yaml).
    """

    fidelity: FidelityName
    dtype: ComputeDtype
    image: RegionEncoderConfig
    text: BertConfig
    last_layers: int
    layer_pool: Pool
    whole_words: bool
    unit_text: bool
    unit_regions: bool
    attention_scale: float
    word_scale: float
    contrast_scale: float
    caption_chunk: int
    weights: Mapping[str, float]
    local_group: int | None = None

    def __post_init__(self):
        """Refuses values that do not fit together."""
        for name, choices in (
            ("fidelity", get_args(FidelityName)),
            ("dtype", get_args(ComputeDtype)),
            ("layer_pool", get_args(Pool)),
        ):
            _check(self, name, getattr(self, name) in choices, f"one of {choices}")
        states = self.text.layers + 1
        accepted = f"1 to config.model.text.layers + 1 = {states}"
        _check(self, "last_layers", 1 <= self.last_layers <= states, accepted)
        for name in ("attention_scale", "word_scale", "contrast_scale"):
            _check(self, name, getattr(self, name) > 0, "a positive number")
        group = self.local_group is None or self.local_group >= 1
        _check(self, "local_group", group, "a number of pairs, or None")
        _check(self, "caption_chunk", self.caption_chunk >= 1, "a positive integer")
        if set(self.weights) != set(TERMS):
            received = sorted(self.weights)
            raise ConfigError("config.model.weights", received=received, accepted=f"{TERMS}")

    @property
    def choices(self) -> Fidelity:
        """What the fidelity stands for."""
        return FIDELITY[self.fidelity]


def _check(config: Any, field: str, good: bool, accepted: str) -> None:
    if not good:
        received = getattr(config, field)
        raise ConfigError(f"config.model.{field}", received=received, accepted=accepted)
