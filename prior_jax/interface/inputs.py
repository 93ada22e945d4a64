"""What a user has, files and arrays and raw text, as the arrays that a model takes."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from prior_jax.data import image as image_lib
from prior_jax.data import text as text_lib
from prior_jax.data.sentences import SPLITTERS
from prior_jax.data.tokenizer import Tokenizer
from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate.features import ReportTokens

ImageSource = str | os.PathLike[str] | np.ndarray

_ARRAYS = "uint8[H, W], uint8[H, W, 1] or uint8[H, W, 3], or floats from 0 to 1 so shaped"
_LENGTH_STEP = 32  # lengths of reports are rounded up to it: each one costs a compilation


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ProcessedImages:
    """Images as an encoder takes them.

    Attributes:
      pixels: float32[N, H, W, C], normalised.
      names: N names: the path, or the position of an image that was given as an array.
    """

    pixels: np.ndarray
    names: tuple[str | int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How raw text becomes tokens.

    Attributes:
      split: a report -> its sentences, as those of the training reports were found.
      mode: "paper" or "release", see data/text.py.
      max_tokens: longest report, [CLS] and [SEP] included.
      max_sentences: S; the rest of a report is left out.
    """

    split: Callable[[str], Sequence[str]]
    mode: Literal["paper", "release"]
    max_tokens: int
    max_sentences: int


def sentence_splitter(name: str, *, field: str) -> Callable[[str], Sequence[str]]:
    """What finds a report's sentences.

    Args:
      name: of `data.sentences.SPLITTERS`.
      field: where the name was read, for the message.

    Raises:
      DataError: for a name that is unknown.
    """
    if name not in SPLITTERS:
        raise DataError(field, received=name, accepted=" | ".join(SPLITTERS))
    return SPLITTERS[name]


def check_image_config(config: image_lib.ImageConfig) -> None:
    """Refuses settings without the numbers that images are normalised with.

    Raises:
      ConfigError: if mean and std are None.
    """
    if config.mean is None or config.std is None:
        raise ConfigError(
            "image.mean",
            received=None,
            accepted="the prepared set's own numbers, see data.image.statistics",
        )


def process_images(
    images: ImageSource | Iterable[ImageSource], *, config: image_lib.ImageConfig
) -> ProcessedImages:
    """Reads, resizes and normalises images as evaluation does.

    Args:
      images: one or several; see `listed`. Files are of every kind that preparation takes, JPEG,
        PNG, TIFF, DICOM and others, and are read in the same way.
      config: size, channels, mean and std.

    Returns:
      The images in order.

    Raises:
      DataError: naming the image, if there is none, or it cannot be read or is of another shape
        or type.
    """
    check_image_config(config)
    mean, std = image_lib.statistics(config, mean=0.0, std=1.0)
    pixels, names = [], []
    for position, source in enumerate(listed(images)):
        image = open_image(source, config=config, name=f"images[{position}]")
        image = image_lib.resize(image, size=config.size)
        pixels.append(image_lib.normalise(image, mean=mean, std=std))
        names.append(position if isinstance(source, np.ndarray) else os.fspath(source))
    return ProcessedImages(pixels=np.stack(pixels), names=tuple(names))


def listed(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """One image or several as a list.

    Args:
      images: a path, an array of rank 2 or 3 (one image) or 4 (several), or any iterable of
        paths and arrays, e.g. a column of a DataFrame.

    Returns:
      The images.

    Raises:
      DataError: if there is none.

    >>> listed("chest.jpg")
    ['chest.jpg']
    >>> [image.shape for image in listed(np.zeros((2, 48, 32, 1), np.uint8))]
    [(48, 32, 1), (48, 32, 1)]
    """
    if isinstance(images, str | os.PathLike):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OU" and images.ndim != 4:
        return [images]
    found = list(images)
    if not found:
        raise DataError("images", received="none", accepted="at least one image")
    return found


def open_image(source: ImageSource, *, config: image_lib.ImageConfig, name: str) -> Image.Image:
    """Reads one image.

    Args:
      source: path of an image file, see `prior_jax.data.decode.decoded`, or an array.
      config: size and channels.
      name: of an image that has no path, for errors.

    Returns:
      8-bit, of mode "L" or "RGB" as the channels ask; of any size.

    Raises:
      DataError: naming the path, or `name`, if it cannot be read or is of another shape or type.
    """
    mode = image_lib.MODES[config.channels]
    if isinstance(source, np.ndarray):
        return _of_array(source, name=name).convert(mode)
    if not isinstance(source, str | os.PathLike):
        raise DataError(name, received=type(source).__name__, accepted="a path or a numpy array")
    path = pathlib.Path(source)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            str(path), received=error.strerror, accepted="a readable image file"
        ) from error
    return image_lib.decode(content, channels=config.channels, size=config.size, name=str(path))


def _of_array(array: np.ndarray, *, name: str) -> Image.Image:
    plain = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if not (plain.ndim == 2 or (plain.ndim == 3 and plain.shape[2] == 3)) or not plain.size:
        raise DataError(name, received=f"{array.dtype}{list(array.shape)}", accepted=_ARRAYS)
    if plain.dtype.kind == "f":
        low, high = float(plain.min()), float(plain.max())
        if not 0 <= low <= high <= 1:  # also where one is NaN
            raise DataError(name, received=f"floats from {low} to {high}", accepted=_ARRAYS)
        plain = np.rint(plain * image_lib.PIXEL_MAXIMUM).astype(np.uint8)
    if plain.dtype != np.uint8:
        raise DataError(name, received=f"{array.dtype}{list(array.shape)}", accepted=_ARRAYS)
    return Image.fromarray(np.ascontiguousarray(plain))


def process_text(
    texts: str | Iterable[str], *, tokenizer: Tokenizer, settings: TextSettings
) -> ReportTokens:
    """Splits raw reports into sentences and tokenises them.

    Args:
      texts: one or several.
      tokenizer: of the model.
      settings: how.

    Returns:
      int32 and bool arrays [N, L] and [N, S]; L is the longest report's, rounded up.

    Raises:
      DataError: naming the text, if there is none, it is no text, or it holds no word.
    """
    rows = [
        text_lib.encode_report(
            settings.split(text),
            tokenizer=tokenizer,
            mode=settings.mode,
            max_tokens=settings.max_tokens,
            max_sentences=settings.max_sentences,
            name=f"texts[{position}] {text!r}",
        )
        for position, text in enumerate(checked_texts(texts))
    ]
    length = settings.max_tokens
    if settings.mode == "paper":  # in the release's a sentence can own padding
        longest = max(int(row.token_mask.sum()) for row in rows)
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, length)
    return as_tokens(text_lib.stack([text_lib.cut_to(row, length) for row in rows]))


def process_prompts(
    prompts: Sequence[str], *, tokenizer: Tokenizer, settings: TextSettings
) -> ReportTokens:
    """Tokenises prompts as evaluation does, each as one sentence whatever stops are in it.

    Args:
      prompts: N texts.
      tokenizer: of the model.
      settings: lengths.

    Raises:
      DataError: naming the prompt, if it is no text or holds no word.
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
    """One text or several as a list.

    Raises:
      DataError: if there is none, or one is no text or blank, naming it by its position.

    >>> checked_texts("No effusion.")
    ['No effusion.']
    >>> checked_texts(["No effusion.", " "])
    Traceback (most recent call last):
    prior_jax.errors.DataError: texts[1]: received ' '; accepted: a text with a word in it
    """
    found = [texts] if isinstance(texts, str) else list(texts)
    if not found:
        raise DataError("texts", received="none", accepted="at least one text")
    for position, text in enumerate(found):
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"texts[{position}]", received=text, accepted="a text with a word in it"
            )
    return found


def as_tokens(encoded: text_lib.EncodedText) -> ReportTokens:
    """A batch of texts as the encoder of an evaluation takes it."""
    return ReportTokens(**dataclasses.asdict(encoded))
