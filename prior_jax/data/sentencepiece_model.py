"""The contents of a sentencepiece model, for conversion to the format of another library."""

import dataclasses
from typing import Any, Literal

from prior_jax.errors import DataError, first_line

Algorithm = Literal["unigram", "bpe"]

_FOLDS = {"nmt_nfkc_cf": True, "nmt_nfkc": False}  # normalisation -> whether it folds case


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """A model of `data_prep.train_tokenizer`.

    Attributes:
      algorithm: algorithm that chooses the pieces.
      pieces: pieces of the vocabulary in their written form, for ids 0, 1, ...
      scores: scores of the pieces; log-probabilities with "unigram", minus the rank with "bpe".
      folds: whether the normalisation folds case.
      charsmap: compiled normalisation table, which replaces characters by others, longest match
        first.
    """

    algorithm: Algorithm
    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    folds: bool
    charsmap: bytes


def read_sentencepiece(content: bytes, *, name: str) -> SentencePieceModel:
    """Reads the bytes of a model.

    Args:
      content: content of the file.
      name: name of the file, for error messages.

    Raises:
      DataError: if the bytes are not a model, or the model was trained with an option that
        `data_prep.train_tokenizer` never uses; names the field and the value.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    try:
        # The generated module has no types.
        model: Any = sentencepiece_model_pb2.ModelProto.FromString(content)  # type: ignore[attr-defined]
    except DecodeError as error:
        raise DataError(
            f"The file is not a sentencepiece model ({first_line(error)}).",
            "Give a model that data_prep.train_tokenizer wrote.",
            where=name,
        ) from error
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    algorithm = {trainer.UNIGRAM: "unigram", trainer.BPE: "bpe"}.get(trainer.model_type)
    _check_options(model, algorithm, name=name)
    return SentencePieceModel(
        algorithm=algorithm,  # type: ignore[arg-type]
        pieces=tuple(piece.piece for piece in model.pieces),
        scores=tuple(piece.score for piece in model.pieces),
        folds=_FOLDS[normalizer.name],
        charsmap=normalizer.precompiled_charsmap,
    )


def _check_options(model: Any, algorithm: str | None, *, name: str) -> None:
    """Refuses a model trained with an option that `data_prep.train_tokenizer` never uses."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    kinds = {piece.type for piece in model.pieces[5:]}
    for field, found, supported in (
        ("model_type", algorithm, ("unigram", "bpe")),
        ("byte_fallback", trainer.byte_fallback, (False,)),
        ("treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix, (False,)),
        ("normalization rule", normalizer.name, tuple(_FOLDS)),
        ("add_dummy_prefix", normalizer.add_dummy_prefix, (True,)),
        ("remove_extra_whitespaces", normalizer.remove_extra_whitespaces, (True,)),
        ("escape_whitespaces", normalizer.escape_whitespaces, (True,)),
        ("types of the pieces behind the special ones", kinds, ({1}, set())),  # NORMAL
    ):
        if found not in supported:
            raise DataError(
                f"The model was trained with the value {found!r}, which cannot be written for "
                "another library.",
                "Train the model with data_prep.train_tokenizer, so that the value is "
                f"{' or '.join(map(str, supported))}.",
                where=f"{name}: {field}",
            )
