"""Retrieves the reports that match an image, or the images that match a report, from a corpus."""

import io
import json
import numbers
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from prior_jax.data.array_file import read_arrays
from prior_jax.data.schema import write_atomically
from prior_jax.errors import ConfigError, DataError, first_line
from prior_jax.evaluate import prompt_scores
from prior_jax.evaluate.features import not_finite
from prior_jax.interface.frames import frame
from prior_jax.interface.inputs import check_is_list
from prior_jax.interface.model import Images, Model, Texts, names_of
from prior_jax.objectives.base import ComparesParts, SimilarityKind
from prior_jax.types import ImageFeatures, ReportFeatures

if TYPE_CHECKING:
    from prior_jax.interface.frames import DataFrame

_FORMAT = 2
_FEATURES = {"images": ImageFeatures, "reports": ReportFeatures}


class Retriever:
    """A corpus of images or reports, encoded once, and searched by queries of the other kind.

    Attributes:
      model: model that encoded the corpus.
      ids: ids of the corpus entries, which name the results.
      features: features of the corpus, float32 on the host.
    """

    def __init__(
        self,
        model: Model,
        *,
        images: Images | None = None,
        reports: Texts | None = None,
        ids: Iterable[str | int] | None = None,
    ):
        """Encodes the corpus.

        Args:
          model: model that encodes the corpus and the queries.
          images: images of the corpus, in any form that `Model` accepts; None for a corpus of
            reports.
          reports: reports of the corpus, in any form that `Model` accepts; None for a corpus of
            images.
          ids: ids of the corpus entries, texts or integers in order, e.g. a column of a DataFrame;
            None uses the names of images, and numbers otherwise.

        Raises:
          ConfigError: unless exactly one of images and reports is given.
          DataError: if an entry cannot be read, an id is neither a text nor an integer, or the
            number of ids differs from that of the entries.
        """
        given = None if ids is None else _checked_ids(ids)
        self.model = model
        self.features: ImageFeatures | ReportFeatures
        if images is not None and reports is None:
            ready = model.ready(images)
            self.features, names = model.encode_images(ready), names_of(ready)
        elif reports is not None and images is None:
            self.features = model.encode_text(reports)
            names = list(range(len(self.features.global_)))
        else:
            which = "Neither images nor reports are" if images is None else "Both are"
            raise ConfigError(
                f"{which} given, but a corpus consists of one of them.",
                "Give either images or reports.",
                where="images, reports",
            )
        self.ids = names if given is None else given
        if len(self.ids) != len(self.features.global_):
            raise DataError(
                f"The number of ids is {len(self.ids)}, but the corpus has "
                f"{len(self.features.global_)} entries.",
                "Give one id for each entry.",
                where="ids",
            )

    def search(
        self,
        queries: Images | Texts,
        k: int = 5,
        *,
        kind: SimilarityKind = "both",
        normalise: prompt_scores.Normalise = "none",
    ) -> "DataFrame":
        """Returns the best entries of the corpus for each query.

        Args:
          queries: images for a corpus of reports, reports for a corpus of images; one or several,
            in any form that `Model` accepts.
          k: number of results per query.
          kind: part of the similarity, see `Model.similarity`.
          normalise: normalisation: "softmax" or "z-score" of a query's scores over the corpus. A
            z-score of kind "both" is the mean of the z-scores of the two parts, if the objective
            has two, so that neither outweighs the other, as in GLoRIA's release (quirk G31).

        Returns:
          Columns "query" (name of an image, number of a report), "rank" (from 1), "id" and "score";
          k rows per query, best first, equal scores in the order of the corpus.

        Raises:
          ConfigError: for an unknown choice, or if more results are requested than the corpus
            holds.
          DataError: if a query cannot be read, or a score is not finite.
        """
        if not 1 <= k <= len(self.ids):
            raise ConfigError.of_value(
                "k", k, f"from 1 to {len(self.ids)}, the number of entries of the corpus"
            )
        choices = get_args(prompt_scores.Normalise)
        if normalise not in choices:
            raise ConfigError.of_value("normalise", normalise, f"one of {', '.join(choices)}")
        names, scores = self._compared(queries, kind=kind, how=normalise)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return frame(
            {
                "query": [name for name in names for _ in range(k)],
                "rank": np.tile(np.arange(1, k + 1), len(names)),
                "id": [self.ids[row] for row in order.reshape(-1)],
                "score": np.take_along_axis(scores, order, axis=1).reshape(-1),
            }
        )

    def _compared(
        self, queries: Images | Texts, *, kind: SimilarityKind, how: prompt_scores.Normalise
    ) -> tuple[list[str | int], np.ndarray]:
        """Returns the names of the queries, and their scores, float32[queries, corpus]."""
        if isinstance(self.features, ReportFeatures):
            ready = self.model.ready(cast(Images, queries))
            images = self.model.encode_images(ready)
            return names_of(ready), self._scores(images, self.features, kind=kind, how=how, axis=1)
        reports = self.model.encode_text(cast(Texts, queries))
        scores = self._scores(self.features, reports, kind=kind, how=how, axis=0)
        return list(range(len(reports.global_))), scores.T

    def _scores(
        self,
        images: ImageFeatures,
        reports: ReportFeatures,
        *,
        kind: SimilarityKind,
        how: prompt_scores.Normalise,
        axis: int,
    ) -> np.ndarray:
        """Computes scores, float32[images, reports], normalised over the corpus.

        The corpus lies along `axis`.
        """
        parts: tuple[SimilarityKind, ...] = (kind,)
        if kind == "both" and how == "z-score" and isinstance(self.model.objective, ComparesParts):
            parts = ("global", "local")
        found: list[np.ndarray] = []
        for part in parts:
            scores = self.model.similarity(images, reports, kind=part)
            if not np.isfinite(scores).all():
                raise not_finite("The similarities of images and reports")
            found.append(prompt_scores.normalised(scores, how=how, axis=axis))
        return np.mean(found, axis=0)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the encoded corpus as one .npz file, atomically."""
        about = {
            "format": _FORMAT,
            "side": "images" if isinstance(self.features, ImageFeatures) else "reports",
            "model": self.model.fingerprint,
            "ids": self.ids,
        }
        arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
        for name, value in vars(self.features).items():
            arrays[name] = np.asarray(value)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(pathlib.Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Model) -> "Retriever":
        """Reads a corpus that `save` wrote, without encoding it again.

        Args:
          path: path of the file.
          model: model that encoded the corpus.

        Raises:
          DataError: if the file is absent or damaged, or another model encoded it.
        """
        try:
            arrays: dict[str, Any] = {**read_arrays(path)}
            about = json.loads(str(arrays.pop("about")))
            found, ids = (about["format"], about["model"]), about["ids"]
            features = _FEATURES[about["side"]](**arrays)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"The file cannot be read as an encoded corpus ({first_line(error)}).",
                "Give a file that Retriever.save wrote.",
                where=str(path),
            ) from error
        if found != (_FORMAT, model.fingerprint):
            raise DataError(
                f"The corpus was encoded by the model {found[1]!r} in the format {found[0]!r}, but "
                f"this is the model {model.fingerprint}, and the format {_FORMAT} is read.",
                "Load the model that encoded the corpus, or encode the corpus again.",
                where=str(path),
            )
        return cls(
            model,
            images=features if isinstance(features, ImageFeatures) else None,
            reports=features if isinstance(features, ReportFeatures) else None,
            ids=ids,
        )


def _checked_ids(ids: Iterable[object]) -> list[str | int]:
    """Returns one id or several as a list of what JSON has, so that they can be saved.

    Raises:
      DataError: if the value is no list of ids, or one is neither a text nor an integer; names it
        by its position.
    """
    if isinstance(ids, str):
        return [ids]
    check_is_list(ids, one="a text", remedy="Give a list of ids, one for each entry.", where="ids")
    found: list[str | int] = []
    for position, one in enumerate(ids):
        if isinstance(one, str):
            found.append(str(one))
        elif isinstance(one, bool) or not isinstance(one, numbers.Integral):
            raise DataError.of_value(f"ids[{position}]", one, "a text or an integer")
        else:
            found.append(int(one))
    return found
