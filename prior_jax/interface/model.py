"""A trained model for its users: takes images and reports, gives features and scores."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from flax import nnx

from prior_jax.data.image import ImageConfig
from prior_jax.data.tokenizer import Tokenizer, words_of
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import prompt_scores
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import ReportTokens, fitting
from prior_jax.evaluate.prompts import PromptTable
from prior_jax.interface import inputs
from prior_jax.interface.frames import frame
from prior_jax.interface.inputs import ImageSource, ProcessedImages, TextSettings
from prior_jax.interface.prompts import ClassPrompts, as_table
from prior_jax.objectives.base import Objective, ShowsAttention, SimilarityKind, TextUnit
from prior_jax.objectives.kinds import KINDS
from prior_jax.sharding.placement import to_device
from prior_jax.train.state import values_of
from prior_jax.types import ImageFeatures, ReportFeatures

if TYPE_CHECKING:
    from prior_jax.interface.frames import DataFrame

BLOCK = 64

Images = ImageSource | Iterable[ImageSource] | ProcessedImages | ImageFeatures
Texts = str | Iterable[str] | ReportTokens | ReportFeatures


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """The attention of a report over an image.

    Attributes:
      unit: unit of text that a row represents, "word" or "sentence".
      texts: texts of the T words or sentences, in order.
      weights: attention of each text over the regions of the image, float32[T, h, w]. Of PRIOR with
        fidelity "release" and without `sentence_region` they are over patches that are no places of
        the image (quirk P1), so that its maps do not show where a finding is.
      spacing: distance in pixels of the processed image from one region centre to the next; the
        first region is centred on the first pixel.
    """

    unit: TextUnit
    texts: tuple[str, ...]
    weights: np.ndarray
    spacing: float


class Model:
    """A trained model with one interface for every objective.

    Every method accepts images and texts in any form: raw (see `inputs.listed`), processed, or
    encoded. Inputs of several calls should be encoded once.

    Attributes:
      objective: objective that the model was trained with.
      tokenizer: tokenizer of the reports.
      image: settings of the images: size, channels and normalisation.
      text: settings of the conversion of raw text to tokens.
      encoder: compiled encoders and similarity.
      module: parameters and batch statistics, for callers that save them.
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
        """Combines the parts; nothing is compiled before its first use.

        Args:
          objective: objective that the model was trained with.
          module: module that the objective's `init` built, with trained values.
          tokenizer: tokenizer of the training reports.
          image: settings of the images, with mean and std.
          text: settings of the conversion of raw text to tokens.
          block: largest number of images or reports encoded and compared at once.

        Raises:
          ConfigError: if the image settings lack mean and std, or `block` is less than 1.
        """
        inputs.check_image_config(image)
        if block < 1:
            raise ConfigError.of_value("block", block, "an integer of 1 or more")
        self.objective, self.tokenizer, self.image, self.text = objective, tokenizer, image, text
        self.encoder = Encoder(objective, module, place=to_device)
        self.module, self._block = module, block

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns the sha256 of weights, tokenizer and settings.

        Models with equal fingerprints compute the same embeddings. A sentence splitter that is not
        one of `data.sentences.SPLITTERS` counts by the name of its function alone.
        """
        digest = hashlib.sha256(f"{self.tokenizer.fingerprint} {self.image}".encode())
        text = (self.text.splitter, self.text.mode, self.text.max_tokens, self.text.max_sentences)
        digest.update(f"{type(self.objective).__name__} {text}".encode())
        digest.update(_settings_of(self.objective).encode())
        for path, value in values_of(self.module):
            digest.update(f"{path}".encode())
            digest.update(np.asarray(value).tobytes())
        return digest.hexdigest()

    def process_images(self, images: ImageSource | Iterable[ImageSource]) -> ProcessedImages:
        """Reads, resizes and normalises images as evaluation does.

        Args:
          images: paths of JPEG, PNG or DICOM files, or arrays: see `inputs.listed`.

        Returns:
          Images, float32[N, size, size, C], and their names.

        Raises:
          DataError: if an image cannot be read or has another shape or type; names the image.
        """
        return inputs.process_images(images, config=self.image)

    def process_text(self, texts: str | Iterable[str]) -> ReportTokens:
        """Splits raw reports into sentences and tokenises them, as in training.

        Args:
          texts: text of one report, or of several.

        Returns:
          Arrays int32 and bool, [N, L] and [N, S].

        Raises:
          DataError: if a text contains no word; names the text.
        """
        return inputs.process_text(texts, tokenizer=self.tokenizer, settings=self.text)

    def ready(self, images: Images) -> ProcessedImages | ImageFeatures:
        """Processes images, unless they are already processed or encoded."""
        if isinstance(images, ProcessedImages | ImageFeatures):
            return images
        return self.process_images(images)

    def encode_images(self, images: Images) -> ImageFeatures:
        """Encodes images a block at a time.

        Args:
          images: images in any form.

        Returns:
          Features, float32, on the host: `local` [N, P, D], `global_` [N, D], `pooled` [N, F].
          Baselines that use whole images have P = 0.

        Raises:
          DataError: for the reasons that `process_images` lists, or if a feature is not finite.
        """
        ready = self.ready(images)
        if isinstance(ready, ImageFeatures):
            return ready
        return self.encoder.images(ready.pixels, block=fitting(self._block, len(ready.pixels)))

    def encode_text(self, texts: Texts) -> ReportFeatures:
        """Encodes reports a block at a time.

        Args:
          texts: texts in any form.

        Returns:
          Features, float32, on the host: `local` [N, T, D], one row per sentence or word,
          `local_mask` bool[N, T], `global_` [N, D]. Baselines that use whole reports have T = 0.

        Raises:
          DataError: for the reasons that `process_text` lists, or if a feature is not finite.
        """
        if isinstance(texts, ReportFeatures):
            return texts
        tokens = texts if isinstance(texts, ReportTokens) else self.process_text(texts)
        return self.encoder.prompts(tokens, block=fitting(self._block, len(tokens.tokens)))

    def similarity(
        self, images: Images, texts: Texts, *, kind: SimilarityKind = "both"
    ) -> np.ndarray:
        """Scores every image against every report.

        Args:
          images: N images in any form.
          texts: M texts in any form.
          kind: part of the similarity: "both" for the score that the objective is evaluated by,
            which combines its global and local parts if it has two; "global" for the score of whole
            images and whole reports; "local" for the score of regions and words or sentences.

        Returns:
          Scores, float32[N, M]; higher = closer. Scales differ between objectives and kinds.

        Raises:
          ConfigError: for an unknown kind, or "local" where the objective has no local score.
          DataError: for the reasons that `encode_images` and `encode_text` list.
        """
        image_features, report_features = self.encode_images(images), self.encode_text(texts)
        return self.encoder.similarity(
            image_features,
            report_features,
            block=fitting(self._block, len(image_features.global_)),
            columns=fitting(self._block, len(report_features.global_)),
            kind=kind,
        )

    def zero_shot_classification(
        self,
        images: Images,
        class_prompts: ClassPrompts | PromptTable,
        *,
        kind: SimilarityKind = "both",
        pool: prompt_scores.Pool = "mean",
        normalise: prompt_scores.Normalise = "none",
    ) -> "DataFrame":
        """Scores every image for every class from the class's sentences.

        Args:
          images: N images in any form.
          class_prompts: sentences by class, class -> sentences, as `generate_class_prompts` returns
            them; or a table of `evaluate.prompts.prompt_table`, whose denials are subtracted.
          kind: part of the similarity, see `similarity`.
          pool: pooling over a class's sentences: "mean", or "max" as in GLoRIA's release (quirk
            G23).
          normalise: normalisation: "softmax" over an image's classes; "z-score" of a class over the
            images, as in GLoRIA's release, so that an image's scores depend on the other images
            (quirk G24).

        Returns:
          Scores, float32, one row per image, named as in `ProcessedImages` (encoded images are
          numbered), one column per class.

        Raises:
          ConfigError: for an unknown choice, or if pandas is missing.
          DataError: for the reasons that `similarity` lists, or if a class has no sentence.
        """
        for name, value, choices in (
            ("pool", pool, get_args(prompt_scores.Pool)),
            ("normalise", normalise, get_args(prompt_scores.Normalise)),
        ):
            if value not in choices:
                raise ConfigError.of_value(name, value, f"one of {', '.join(choices)}")
        table = as_table(class_prompts)
        tokens = inputs.process_prompts(table.texts, tokenizer=self.tokenizer, settings=self.text)
        ready = self.ready(images)
        scores = prompt_scores.class_scores(
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
        """Computes the attention of a report over an image.

        Args:
          image: image in any form, exactly one.
          text: raw text of one report.

        Returns:
          One map for each word or sentence that the objective aligns.

        Raises:
          ConfigError: if the objective has no text attention.
          DataError: for the reasons that `encode_images` and `encode_text` list, or for more than
            one image.
        """
        tokens = self.process_text(text)
        images, reports = self.encode_images(image), self.encode_text(tokens)
        if len(images.global_) != 1 or len(reports.global_) != 1:
            raise DataError(
                "Attention is computed for one image and one text, but the numbers are "
                f"{len(images.global_)} and {len(reports.global_)}.",
                "Give one of each.",
            )
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
        """Returns the sentences of a report in the order of the features' rows."""
        sentences = list(self.text.split(text))
        if self.text.mode == "release":
            return sentences
        lengths = map(len, self.tokenizer.encode_ids(sentences))
        return [one for one, length in zip(sentences, lengths, strict=True) if length]


def _settings_of(objective: Objective) -> str:
    """Returns the settings of an objective as JSON, but for those that follow from its stages.

    The latter change no embedding, and weights that are exported from a run do not have them.
    """
    config = getattr(objective, "config", None)
    settings = _plain(config)
    for kind in KINDS.values():
        if type(config) is kind.settings:
            for part, derived in kind.derived.items():
                values = _plain(settings[part])
                settings[part] = {name: values[name] for name in values.keys() - derived.keys()}
    return json.dumps(settings, default=_plain, sort_keys=True)


def _plain(value: Any) -> Any:
    """Returns a dataclass or a mapping as a dictionary, and what JSON lacks otherwise as text."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else repr(value)


def names_of(images: ProcessedImages | ImageFeatures) -> list[str | int]:
    """Returns the names of the rows of a result about these images."""
    if isinstance(images, ProcessedImages):
        return list(images.names)
    return list(range(len(images.global_)))
