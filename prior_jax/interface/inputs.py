"""Converts the user's files, arrays and raw text to the input arrays of a model."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Literal, cast

import numpy as np
from PIL import Image

from prior_jax.data import image as image_lib
from prior_jax.data import regions
from prior_jax.data import text as text_lib
from prior_jax.data.sentences import SPLITTERS
from prior_jax.data.tokenizer import Tokenizer
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.features import ReportTokens

ImageSource = str | os.PathLike[str] | np.ndarray

_ARRAYS = (
    "Give an array of the shape [H, W], [H, W, 1] or [H, W, 3], of uint8 or of floats from 0 to 1."
)
# What Python goes through like a list, and is none: pieces of one value, or values in no order.
_NO_LIST = (bytes, bytearray, memoryview, Mapping, Set)
# Ranks of arrays and tables that are no list: there is nothing in a scalar to go through, and of a
# DataFrame Python goes through the names of the columns.
_NO_LIST_RANKS = (0, 2)
_LENGTH_STEP = 32  # report lengths are rounded up to a multiple; each length is compiled


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ProcessedImages:
    """Images in the form that an encoder takes.

    Attributes:
      pixels: normalised images, float32[N, H, W, C].
      names: names of the N images: the path, or the position of an image given as an array.
      places: change of each image from its own pixels to those of the encoder, N. The pixels of a
        file are those that it stores, before an EXIF orientation turns them.
    """

    pixels: np.ndarray
    names: tuple[str | int, ...]
    places: tuple[regions.Transform, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings:
    """The conversion of raw text to tokens.

    Attributes:
      split: function that splits a report into sentences, as for the training reports.
      mode: mode, "paper" or "release", see data/text.py.
      max_tokens: longest report in tokens, including [CLS] and [SEP].
      max_sentences: largest number S of sentences; the rest of a report is left out.
    """

    split: Callable[[str], Sequence[str]]
    mode: Literal["paper", "release"]
    max_tokens: int
    max_sentences: int

    @property
    def splitter(self) -> str:
        """Returns the name of `split` in `SPLITTERS`, or a function's own name if it has none."""
        for name, known in SPLITTERS.items():
            if known is self.split:
                return name
        return getattr(self.split, "__qualname__", type(self.split).__qualname__)


def sentence_splitter(name: str, *, field: str) -> Callable[[str], Sequence[str]]:
    """Returns the function that splits a report into sentences.

    Args:
      name: name of the function, one of `data.sentences.SPLITTERS`.
      field: field from which the name was read, for the error message.

    Raises:
      DataError: if the name is unknown.
    """
    if name not in SPLITTERS:
        raise DataError.of_value(field, name, f"one of {', '.join(SPLITTERS)}")
    return SPLITTERS[name]


def check_image_config(config: image_lib.ImageConfig) -> None:
    """Refuses settings without the mean and std that normalise images.

    Raises:
      ConfigError: if mean and std are None.
    """
    if config.mean is None or config.std is None:
        raise ConfigError(
            "The mean or std that normalises images is None.",
            "Use the numbers of the prepared set, see data.image.with_statistics.",
            where="image.mean",
        )


def process_images(
    images: ImageSource | Iterable[ImageSource], *, config: image_lib.ImageConfig
) -> ProcessedImages:
    """Reads, resizes and normalises images as evaluation does.

    Args:
      images: one image or several; see `listed`. Files of every kind that preparation accepts
        (JPEG, PNG, TIFF, DICOM and others) are read in the same way.
      config: settings of the images.

    Returns:
      The processed images in order.

    Raises:
      DataError: if there is no image, or an image cannot be read or has another shape or type;
        names the image.
    """
    check_image_config(config)
    mean, std = image_lib.statistics(config, mean=0.0, std=1.0)
    pixels: list[np.ndarray] = []
    names: list[str | int] = []
    places: list[regions.Transform] = []
    for position, source in enumerate(listed(images)):
        image, stored = open_image(source, config=config, name=f"images[{position}]")
        image, change = image_lib.placed_input(image, config=config)
        pixels.append(image_lib.normalise(image, mean=mean, std=std))
        names.append(position if isinstance(source, np.ndarray) else os.fspath(source))
        places.append(stored.then(change))
    return ProcessedImages(pixels=np.stack(pixels), names=tuple(names), places=tuple(places))


def listed(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """Returns one image or several as a list.

    Args:
      images: one image or several: a path, an array of rank 2 or 3 (one image) or 4 (several), or
        any iterable of paths and arrays, e.g. a column of a DataFrame.

    Returns:
      The images.

    Raises:
      DataError: if there is no image, or the value has no images in an order.

    >>> listed("chest.jpg")
    ['chest.jpg']
    >>> [image.shape for image in listed(np.zeros((2, 48, 32, 1), np.uint8))]
    [(48, 32, 1), (48, 32, 1)]
    """
    images = _unwrapped(images)
    if isinstance(images, str | os.PathLike):
        return [images]
    if isinstance(images, np.ndarray):
        array = cast(np.ndarray, images)
        if array.dtype.kind not in "OU" and array.ndim != 4:
            return [array]
        found: list[ImageSource] = list(array)
    else:
        check_is_list(
            images,
            one="an image",
            remedy="Give a path, a numpy array such as np.asarray(image) of a Pillow image, or a "
            "list of them.",
            where="images",
        )
        found = list(images)
    if not found:
        raise DataError("There is no image.", "Give at least one image.", where="images")
    return found


def _unwrapped(value: Any) -> Any:
    """Returns the one value of an array of rank 0, such as a path; any other value as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def check_is_list(values: object, *, one: str, remedy: str, where: str) -> None:
    """Refuses what is no list; a user may give any value, whatever the type says.

    Args:
      values: the value.
      one: one element of the list in words, such as "an image".
      remedy: advice on what to give instead, one sentence.
      where: name of the value, which is also what its elements are called, such as "images".

    Raises:
      DataError: if the value has no elements, or none in an order.
    """
    kind, rank = type(values).__name__, getattr(values, "ndim", 1)
    if (
        isinstance(values, Iterable)
        and not isinstance(values, _NO_LIST)
        and rank not in _NO_LIST_RANKS
    ):
        return
    raise DataError(
        f"The value is of the type {kind}, which is neither {one} nor a list of {where}.",
        remedy,
        where=where,
    )


def open_image(
    source: ImageSource, *, config: image_lib.ImageConfig, name: str
) -> tuple[Image.Image, regions.Transform]:
    """Reads one image.

    Args:
      source: path of an image file, see `prior_jax.data.decode.decoded`, or an array.
      config: settings of the images: size and channels.
      name: name of an image that has no path, for error messages.

    Returns:
      8-bit image of mode "L" or "RGB", depending on the channels, of any size; and the change from
      the pixels of the file or array to those of the image.

    Raises:
      DataError: if the image cannot be read or has another shape or type; names the path, or
        `name`.
    """
    mode = image_lib.MODES[config.channels]
    if isinstance(source, np.ndarray):
        image = _of_array(source, name=name).convert(mode)
        return image, regions.unchanged(height=image.height, width=image.width)
    if not _is_path(source):
        raise DataError(
            f"The image is of the type {type(source).__name__}.",
            "Give a path or a numpy array.",
            where=name,
        )
    path = pathlib.Path(source)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"The file cannot be read ({error.strerror}).",
            "Give the path of a readable image file.",
            where=str(path),
        ) from error
    return image_lib.placed_decode(
        content,
        channels=config.channels,
        size=config.size,
        name=str(path),
        draft_margin=config.draft_margin,
    )


def _is_path(source: object) -> bool:
    """Returns whether a value is a path; a user may give any value, whatever the type says."""
    return isinstance(source, str | os.PathLike)


def _of_array(array: np.ndarray, *, name: str) -> Image.Image:
    plain = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    problem = f"The array is {array.dtype}{list(array.shape)}, which is not an image."
    if not (plain.ndim == 2 or (plain.ndim == 3 and plain.shape[2] == 3)) or not plain.size:
        raise DataError(problem, _ARRAYS, where=name)
    if plain.dtype.kind == "f":
        low, high = float(plain.min()), float(plain.max())
        if not 0 <= low <= high <= 1:  # also where one is NaN
            raise DataError(f"The array has floats from {low} to {high}.", _ARRAYS, where=name)
        plain = np.rint(plain * image_lib.PIXEL_MAXIMUM).astype(np.uint8)
    if plain.dtype != np.uint8:
        raise DataError(problem, _ARRAYS, where=name)
    return Image.fromarray(np.ascontiguousarray(plain))


def process_text(
    texts: str | Iterable[str], *, tokenizer: Tokenizer, settings: TextSettings
) -> ReportTokens:
    """Splits raw reports into sentences and tokenises them.

    Args:
      texts: text of one report, or of several.
      tokenizer: tokenizer of the model.
      settings: settings of the text processing.

    Returns:
      Arrays int32 and bool, [N, L] and [N, S]; L is the length of the longest report, rounded up.

    Raises:
      DataError: if there is no text, the value is no list of texts, or one is not a string or
        contains no word; names the text.
    """
    rows = [
        text_lib.encode_report(
            _split(text, settings=settings, name=f"texts[{position}]"),
            tokenizer=tokenizer,
            mode=settings.mode,
            max_tokens=settings.max_tokens,
            max_sentences=settings.max_sentences,
            name=f"texts[{position}] {text!r}",
        )
        for position, text in enumerate(checked_texts(texts))
    ]
    length = settings.max_tokens
    if settings.mode == "paper":  # in the release's mode a sentence can own padding
        longest = max(int(row.token_mask.sum()) for row in rows)
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, length)
    return as_tokens(text_lib.stack([text_lib.cut_to(row, length) for row in rows]))


def _split(text: str, *, settings: TextSettings, name: str) -> Sequence[str]:
    """Returns the sentences of a text, of which the splitter must leave at least one."""
    sentences = settings.split(text)
    if not any(sentences):
        raise DataError(
            f"The sentence splitter {settings.splitter} leaves nothing of {text!r}.",
            "Give a text with a sentence of several words; GLoRIA's code leaves out sentences of a "
            "single one (quirk G35).",
            where=name,
        )
    return sentences


def process_prompts(
    prompts: Sequence[str], *, tokenizer: Tokenizer, settings: TextSettings
) -> ReportTokens:
    """Tokenises prompts as evaluation does.

    Each prompt is one sentence, whatever full stops it contains, and is not split. The prompts of
    GLoRIA's release are, but for one, such bare words as its splitter makes.

    Args:
      prompts: N prompts.
      tokenizer: tokenizer of the model.
      settings: settings, of which the lengths are used.

    Raises:
      DataError: if a prompt is not a string or contains no word; names the prompt.
    """
    return as_tokens(
        text_lib.encode_prompts(
            checked_texts(prompts),
            tokenizer=tokenizer,
            max_tokens=settings.max_tokens,
            max_sentences=settings.max_sentences,
        )
    )


def checked_texts(texts: str | Iterable[str]) -> list[str]:
    """Returns one text or several as a list.

    Args:
      texts: one text, or any iterable of texts in an order, e.g. a column of a DataFrame.

    Raises:
      DataError: if there is no text, the value has no texts in an order, or one is not a string or
        is blank; names it by its position.

    >>> checked_texts("No effusion.")
    ['No effusion.']
    >>> checked_texts(["No effusion.", " "])
    Traceback (most recent call last):
    prior_jax.errors.DataError: texts[1]: The value is ' '. It must be a text with a word in it.
    """
    texts = _unwrapped(texts)
    if isinstance(texts, str):
        found = [texts]
    else:
        check_is_list(
            texts,
            one="a text",
            remedy="Give a text or a list of texts; of a mapping such as reports by their ids, "
            "list(reports.values()).",
            where="texts",
        )
        found = list(texts)
    if not found:
        raise DataError("There is no text.", "Give at least one text.", where="texts")
    for position, text in enumerate(found):
        if not _has_word(text):
            raise DataError.of_value(f"texts[{position}]", text, "a text with a word in it")
    return found


def _has_word(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip())


def as_tokens(encoded: text_lib.EncodedText) -> ReportTokens:
    """Converts a batch of texts to the input of an evaluation encoder."""
    return ReportTokens(**dataclasses.asdict(encoded))
