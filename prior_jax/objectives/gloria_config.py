"""The configuration of GLoRIA, with every departure of the authors' release from the paper."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Literal, get_args

from prior_jax.errors import ConfigError, check_choice, check_field, check_least
from prior_jax.losses.limits import check_scales, check_weights
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
    """The choices in which the release and the paper differ; see docs/fidelity.md.

    Attributes:
      single_softmax: True computes a word's attention as one softmax over regions; the release
        first takes a softmax over the words (quirk G1).
      words_only: True matches only real words with regions; the release includes [CLS], leaves
        [SEP] out and loses one trailing word for every [UNK] (quirks G2 and G3).
      word_mean: True takes the log of the mean over a caption's words as its score; the release
        takes the log of the sum, which grows with the caption (quirk G4).
      report_from_words: True averages a report's embedding over its real words; the release
        averages over all positions, including [CLS], [SEP] and padding (quirk G8).
      score_as_trained: True uses the cosine of the training loss as the local similarity; the
        release uses the maximum over words, multiplied by 5 (quirk G22).
      score_words: True computes similarities from a caption's real words; the release uses as many
        positions after [CLS] as the raw text has characters (quirks G18, G19 and G21).
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
"""The only mapping from the name of a fidelity to its choices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GloriaConfig:
    """Configuration of GLoRIA, the section `config.model`.

    Word and report embeddings are BERT's own hidden states, without a projection (quirk G11): D is
    `text.hidden_size`.

    Attributes:
      fidelity: "paper", or "release" to load the authors' weights and reproduce their numbers.
      dtype: dtype of the computation; parameters, losses, softmax and normalisation stay float32.
      image: configuration of the image encoder; release ResNet-50 at 299 pixels, 3 channels.
      text: configuration of the text encoder; release Bio_ClinicalBERT.
      last_layers: number of BERT's last hidden states that are pooled (the embeddings count as the
        first state); release 4.
      layer_pool: pooling operation over these hidden states; release "sum".
      whole_words: whether word pieces are summed into words; release True.
      unit_text: whether word and report embeddings are scaled to unit norm; release False.
      unit_regions: whether region embeddings are scaled to unit norm; release False. With
        `unit_text`, attention is computed from cosines, so a region with a large norm does not
        attract every word.
      attention_scale: inverse temperature of a word's attention over regions; release 4 (temp1).
      word_scale: inverse temperature of the words in a caption's score; release 5 (temp2).
      contrast_scale: inverse temperature of the contrastive losses; release 10 (temp3).
      caption_chunk: number of captions matched with all images at once, which bounds the memory;
        with `local_group` the number of images matched with all captions of their group. Without a
        group, training on one CPU takes one image at a time, whatever the number.
      weights: weights of the terms, term -> weight; the release's are `RELEASE_WEIGHTS`.
      local_group: number of pairs among which words are contrasted with regions, 2 or more and a
        divisor of the batch size; None for the whole batch, whose cost is too high on a pod
        (`losses.word_region_groups`). The released batch is 48
        (configs/chexpert_pretrain_config.yaml).
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
        """Refuses configuration values that are inconsistent."""
        for name, choices in (
            ("fidelity", get_args(FidelityName)),
            ("dtype", get_args(ComputeDtype)),
            ("layer_pool", get_args(Pool)),
        ):
            check_choice(self, name, choices)
        states = self.text.layers + 1
        must_be = f"1 to {states}, the number of layers of the text encoder and one"
        check_field(self, "last_layers", 1 <= self.last_layers <= states, must_be)
        check_scales(self, "attention_scale", "word_scale", "contrast_scale")
        group = self.local_group is None or self.local_group >= 2
        check_field(self, "local_group", group, "2 or more pairs, as a loss of one is 0, or None")
        check_least(self, caption_chunk=1)
        if set(self.weights) != set(TERMS):
            raise ConfigError.of_value(
                "weights", sorted(self.weights), f"a weight for each of the terms {TERMS}"
            )
        check_weights(self.weights)

    @property
    def choices(self) -> Fidelity:
        """Returns what the setting `fidelity` stands for: a value of each switch of `Fidelity`."""
        return FIDELITY[self.fidelity]
