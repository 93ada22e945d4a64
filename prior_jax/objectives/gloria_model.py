"""The GLoRIA model: both encoders and the selection of a caption's words, without any loss."""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.losses.normalize import unit
from prior_jax.nn.bert import Bert
from prior_jax.nn.region_encoder import RegionEncoder
from prior_jax.nn.word_aggregate import WordPlaces, leading_words, sum_pieces
from prior_jax.objectives.gloria_config import Fidelity, GloriaConfig
from prior_jax.types import ImageFeatures


@flax.struct.dataclass
class CaptionFeatures:
    """Output of the text encoder.

    Attributes:
      words: word embeddings, [B, W, D], one row per word, with [CLS] first and [SEP] after the last
        word; W = L.
      report: caption embedding, [B, D].
    """

    words: jax.Array
    report: jax.Array


class GloriaModel(nnx.Module):
    """The two encoders of GLoRIA.

    Source: GLoRIA, ICCV 2021, section 3; release, gloria/models/gloria_model.py. BERT's pooler is
    kept because the released weights contain one, although nothing uses its output (quirk G11).
    """

    def __init__(self, config: GloriaConfig, *, rngs: nnx.Rngs):
        """Creates both encoders.

        Args:
          config: configuration with sizes and fidelity choices.
          rngs: source of the initial parameters.
        """
        dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.dtype]
        self.image_encoder = RegionEncoder(
            config.image, config.text.hidden_size, dtype=dtype, rngs=rngs
        )
        self.text_encoder = Bert(config.text, dtype=dtype, rngs=rngs)
        self.last_layers = config.last_layers
        self.layer_pool = config.layer_pool
        self.whole_words = config.whole_words
        self.unit_text, self.unit_regions = config.unit_text, config.unit_regions
        self.choices = config.choices

    def encode_image(self, image: jax.Array, *, train: bool) -> ImageFeatures:
        """Encodes images as region embeddings and one global embedding per image.

        Args:
          image: normalised images, float32[B, H, W, C].
          train: whether batch normalisation uses the batch's statistics and updates the running
            ones. The release scores images with True, because nothing calls `eval()` on a loaded
            model (quirk G25).

        Returns:
          Features [B, P, D] and [B, D] in the compute dtype.
        """
        found = self.image_encoder(image, train=train)
        regions = found.regions
        if self.unit_regions:
            regions = unit(regions).astype(regions.dtype)
        return ImageFeatures(local=regions, global_=found.global_, pooled=found.pooled)

    def encode_text(
        self,
        tokens: jax.Array,
        token_mask: jax.Array,
        places: WordPlaces,
        *,
        train: bool,
        key: jax.Array | None = None,
    ) -> CaptionFeatures:
        """Encodes captions as word embeddings and one global embedding per caption.

        Args:
          tokens: token ids, int32[B, L].
          token_mask: mask of the real tokens, bool[B, L].
          places: positions of the words among the tokens.
          train: whether dropout is applied.
          key: random key of the dropout; required in training unless the dropout rate is 0.

        Returns:
          Features in the compute dtype. Layers are pooled before word pieces are summed: both
          operations are linear, so the words of single layers need not be kept.

        Source: release, gloria/models/text_model.py, `forward`.
        """
        found = self.text_encoder(tokens, token_mask, train=train, key=key, hidden_states=True)
        pool = {"sum": jnp.sum, "mean": jnp.mean}[self.layer_pool]
        last = jnp.asarray(found.hidden_states)[-self.last_layers :]
        pieces = pool(last, axis=0, dtype=jnp.float32).astype(last.dtype)
        words = sum_pieces(pieces, places) if self.whole_words else pieces
        report = _mean(words, places.real if self.choices.report_from_words else None)
        if self.unit_text:
            words, report = (unit(x).astype(words.dtype) for x in (words, report))
        return CaptionFeatures(words=words, report=report)


def matched_words(places: WordPlaces, choices: Fidelity) -> jax.Array:
    """Returns the mask of words that the training loss matches with regions: bool[B, L].

    These are the real words. In the release they are [CLS] and as many words after it as there are
    words without a bracket (quirks G2 and G3).
    """
    if choices.words_only:
        return places.real
    return leading_words(places.unbracketed + 1, length=places.real.shape[1], first=0)


def _mean(words: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Averages over the words of `mask`, or over all positions: [B, D], 0 without a word."""
    if mask is None:
        return jnp.mean(words, axis=1, dtype=jnp.float32).astype(words.dtype)
    kept = jnp.where(mask[:, :, None], words.astype(jnp.float32), jnp.float32(0))
    count = jnp.sum(mask, axis=1, dtype=jnp.float32)[:, None]
    return (jnp.sum(kept, axis=1) / jnp.maximum(count, jnp.float32(1))).astype(words.dtype)
