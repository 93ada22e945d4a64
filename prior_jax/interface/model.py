"""A trained model as its users see it: images and reports in, features and scores out."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast, get_args

import jax
import numpy as np
from flax import nnx

from prior_jax.data.image import ImageConfig
from prior_jax.data.tokenizer import Tokenizer, words_of
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import zero_shot
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens
from prior_jax.evaluate.prompts import PromptTable
from prior_jax.interface import inputs
from prior_jax.interface.frames import frame
from prior_jax.interface.inputs import ImageSource, ProcessedImages, TextSettings
from prior_jax.interface.prompts import ClassPrompts, as_table
from prior_jax.objectives.base import Objective, ShowsAttention, SimilarityKind, TextUnit
from prior_jax.types import ImageFeatures, ReportFeatures

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 64

Images = ImageSource | Iterable[ImageSource] | ProcessedImages | ImageFeatures
Texts = str | Iterable[str] | ReportTokens | ReportFeatures


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """Where a report looks in an image.

    Attributes:
      unit: what a row stands for, "word" or "sentence".
      texts: T words or sentences, in order.
      weights: float32[T, h, w], of each over the regions of the image.
      spacing: pixels of the processed image from one region's centre to the next; the first is
        centred on the first pixel.
    """

    unit: TextUnit
    texts: tuple[str, ...]
    weights: np.ndarray
    spacing: float


class Model:
    """An objective's model, ready to be asked, whatever the objective.

    Every method takes images and texts in any form they have on their way: as the user has them
    (see `inputs.listed`), processed, or encoded. Encode once what is asked for several times.

    Attributes:
      objective: whose model it is.
      tokenizer: of its reports.
      image: size, channels and normalisation of its images.
      text: how raw text becomes tokens.
      encoder: the compiled encoders and similarity.
      module: the parameters and batch statistics, for those who write them down.
    """

    def __init__(
        self,
        objective: Objective,
        module: nnx.Module,
        *,
        tokenizer: Tokenizer,
        image: ImageConfig,
        text: TextSettings,
        block: int = BLOCK,
    ):
        """Puts the parts together; nothing is compiled before it is used.

        Args:
          objective: what the model was trained with.
          module: what the objective's `init` gave, with trained values.
          tokenizer: that of the training reports.
          image: with mean and std.
          text: how raw text becomes tokens.
          block: images and reports that are encoded and compared at once, at most.

        Raises:
          ConfigError: if the image settings lack mean and std, or `block` is less than 1.
        """
        inputs.check_image_config(image)
        if block < 1:
            raise ConfigError("block", received=block, accepted="an integer >= 1")
        self.objective, self.tokenizer, self.image, self.text = objective, tokenizer, image, text
        self.encoder = Encoder(objective, module, place=jax.device_put)
        self.module, self._block = module, block

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 of weights, tokenizer and settings; two models that agree give one embedding."""
        digest = hashlib.sha256(f"{self.tokenizer.fingerprint} {self.image}".encode())
        settings = (self.text.mode, self.text.max_tokens, self.text.max_sentences)
        digest.update(f"{type(self.objective).__name__} {settings}".encode())
        for path, value in nnx.to_flat_state(nnx.as_pure(nnx.split(self.module)[1])):
            digest.update(f"{path}".encode())
            digest.update(np.asarray(value).tobytes())
        return digest.hexdigest()

    def process_images(self, images: ImageSource | Iterable[ImageSource]) -> ProcessedImages:
        """Reads, resizes and normalises images as evaluation does.

        Args:
          images: paths of JPEG, PNG or DICOM files, or arrays: see `inputs.listed`.

        Returns:
          float32[N, size, size, C] and the images' names.

        Raises:
          DataError: naming the image, if one cannot be read or is of another shape or type.
        """
        return inputs.process_images(images, config=self.image)

    def process_text(self, texts: str | Iterable[str]) -> ReportTokens:
        """Splits raw reports into sentences and tokenises them, as training did.

        Args:
          texts: one report or several.

        Returns:
          int32 and bool arrays [N, L] and [N, S].

        Raises:
          DataError: naming the text, if one holds no word.
        """
        return inputs.process_text(texts, tokenizer=self.tokenizer, settings=self.text)

    def ready(self, images: Images) -> ProcessedImages | ImageFeatures:
        """Processes images unless they are processed, or even encoded, already."""
        if isinstance(images, ProcessedImages | ImageFeatures):
            return images
        return self.process_images(images)

    def encode_images(self, images: Images) -> ImageFeatures:
        """Encodes images a block at a time.

        Args:
          images: in any form.

        Returns:
          float32 on the host: `local` [N, P, D], `global_` [N, D], `pooled` [N, F]. Baselines of
          whole images have P = 0.

        Raises:
          DataError: as `process_images`, or if a feature is not finite.
        """
        ready = self.ready(images)
        if isinstance(ready, ImageFeatures):
            return ready
        return self.encoder.images(ready.pixels, block=self._fitting(len(ready.pixels)))

    def encode_text(self, texts: Texts) -> ReportFeatures:
        """Encodes reports a block at a time.

        Args:
          texts: in any form.

        Returns:
          float32 on the host: `local` [N, T, D], a row a sentence or a word, `local_mask`
          bool[N, T], `global_` [N, D]. Baselines of whole reports have T = 0.

        Raises:
          DataError: as `process_text`, or if a feature is not finite.
        """
        if isinstance(texts, ReportFeatures):
            return texts
        tokens = texts if isinstance(texts, ReportTokens) else self.process_text(texts)
        return self.encoder.prompts(tokens, block=self._fitting(len(tokens.tokens)))

    def similarity(
        self, images: Images, texts: Texts, *, kind: SimilarityKind = "both"
    ) -> np.ndarray:
        """Scores every image against every report.

        Args:
          images: N, in any form.
          texts: M, in any form.
          kind: "both" for the score that the objective is evaluated by, in which its global and
            its local part, if it has two, are put together; "global" for that of whole images
            with whole reports; "local" for that of regions with words or sentences.

        Returns:
          float32[N, M], higher = closer; scales differ between objectives and kinds.

        Raises:
          ConfigError: for another kind, or "local" where the objective has no such score.
          DataError: as `encode_images` and `encode_text`.
        """
        image_features, report_features = self.encode_images(images), self.encode_text(texts)
        return self.encoder.similarity(
            image_features,
            report_features,
            block=self._fitting(len(image_features.global_)),
            columns=self._fitting(len(report_features.global_)),
            kind=kind,
        )

    def zero_shot_classification(
        self,
        images: Images,
        class_prompts: ClassPrompts | PromptTable,
        *,
        kind: SimilarityKind = "both",
        pool: zero_shot.Pool = "mean",
        normalise: zero_shot.Normalise = "none",
    ) -> "pd.DataFrame":
        """Scores every image for every class by the class's sentences.

        Args:
          images: N, in any form.
          class_prompts: class -> sentences, as `generate_class_prompts` gives them; or a table of
            `evaluate.prompts.prompt_table`, whose denials are subtracted.
          kind: see `similarity`.
          pool: "mean" over a class's sentences, or "max" as GLoRIA's release (quirk 23).
          normalise: "softmax" over an image's classes; "z-score" of a class over the images, as
            GLoRIA's release does, so that an image's scores depend on the others (quirk 24).

        Returns:
          float32, a row an image, named as in `ProcessedImages` (encoded images are numbered), a
          column a class.

        Raises:
          ConfigError: for a choice that does not exist, or without pandas.
          DataError: as `similarity`, or for a class without a sentence.
        """
        for name, value, choices in (
            ("pool", pool, get_args(zero_shot.Pool)),
            ("normalise", normalise, get_args(zero_shot.Normalise)),
        ):
            if value not in choices:
                raise ConfigError(name, received=value, accepted=" | ".join(choices))
        table = as_table(class_prompts)
        tokens = inputs.process_prompts(table.texts, tokenizer=self.tokenizer, settings=self.text)
        ready = self.ready(images)
        scores = zero_shot.class_scores(
            self.similarity(ready, tokens, kind=kind),
            table=table,
            pool=pool,
            normalise=normalise,
        )
        return frame(
            {name: scores[:, index] for index, name in enumerate(table.classes)},
            index=names_of(ready),
        )

    def attention(self, image: Images, text: str) -> Attention:
        """Where a report looks in an image.

        Args:
          image: one image, in any form.
          text: one raw report.

        Returns:
          A map for each word or sentence that the objective aligns.

        Raises:
          ConfigError: if the objective's text looks at no places.
          DataError: as `encode_images` and `encode_text`, or for more than one image.
        """
        tokens = self.process_text(text)
        images, reports = self.encode_images(image), self.encode_text(tokens)
        if len(images.global_) != 1 or len(reports.global_) != 1:
            received = f"{len(images.global_)} and {len(reports.global_)}"
            raise DataError("image and text", received=received, accepted="one of each")
        maps = self.encoder.attention(images, reports, block=1)[0]
        rows = np.flatnonzero(reports.local_mask[0])
        shows = cast(ShowsAttention, self.objective)
        unit = shows.text_unit
        if unit == "word":
            texts = words_of(tokens.tokens[0][tokens.token_mask[0]], tokenizer=self.tokenizer)
        else:
            texts = self._sentences(text)
        side = round(maps.shape[-1] ** 0.5)
        return Attention(
            unit=unit,
            texts=tuple(texts[row] for row in rows),
            weights=maps[rows].reshape(len(rows), side, side),
            spacing=shows.patch_spacing,
        )

    def _sentences(self, text: str) -> list[str]:
        """The sentences of a report by their number among the features."""
        sentences = list(self.text.split(text))
        if self.text.mode == "release":
            return sentences
        lengths = map(len, self.tokenizer.encode_ids(sentences))
        return [one for one, length in zip(sentences, lengths, strict=True) if length]

    def _fitting(self, count: int) -> int:
        """A block that wastes little on few rows, of one of few sizes."""
        return min(self._block, 1 << max(count - 1, 0).bit_length())


def names_of(images: ProcessedImages | ImageFeatures) -> list[str | int]:
    """What rows about these images are called."""
    if isinstance(images, ProcessedImages):
        return list(images.names)
    return list(range(len(images.global_)))
