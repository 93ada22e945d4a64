"""Computes the examples of a trained model that the page shows."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prior_jax.data.tokenizer import Tokenizer
from prior_jax.evaluate.embed import Encoder
from prior_jax.evaluate.features import Studies, to_host
from prior_jax.evaluate.retrieval import search
from prior_jax.objectives.base import Encodes, HasPrototypes, Reconstructs
from prior_jax.report.attention import attention_examples
from prior_jax.report.examples import (
    AttentionExample,
    BankUsage,
    Prototype,
    ReconstructionExample,
    RetrievalExample,
    RetrievedReport,
)
from prior_jax.types import Batch

LISTED_PROTOTYPES = 12
SENTENCES_A_PROTOTYPE = 3
POSITIVE = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyText:
    """The texts and ids of a record.

    Attributes:
      study_id: id of the study in the data set.
      subject_id: id of the patient.
      sentences: sentences of the report, in the order in which the model reads them.
    """

    study_id: str
    subject_id: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """Returns the report in one line."""
        return " ".join(self.sentences)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """All examples of the model on the page.

    Attributes:
      attention: examples of sentences or words over images; () where the model has none.
      retrieval: examples of reports that images retrieved.
      reconstructions: examples of images and their reconstructions; () where the model has none.
      bank: use of the prototypes; None where the model has none.
      missing: sentence that says why there is no example of any kind, "" where there are some.
    """

    attention: tuple[AttentionExample, ...] = ()
    retrieval: tuple[RetrievalExample, ...] = ()
    reconstructions: tuple[ReconstructionExample, ...] = ()
    bank: BankUsage | None = None
    missing: str = ""


def choose(labels: np.ndarray, *, count: int) -> list[int]:
    """Selects rows that show different findings.

    For each class in turn, it selects the first positive row not selected before.

    Args:
      labels: label states, int8[N, C].
      count: largest number of rows to select.

    Returns:
      Distinct row numbers, fewer than `count` only if there are fewer rows.
    """
    chosen: list[int] = []
    waiting = [list(np.flatnonzero(column == POSITIVE)) for column in labels.T]
    while len(chosen) < count and any(waiting):
        for rows in waiting:
            while rows and rows[0] in chosen:
                rows.pop(0)
            if rows and len(chosen) < count:
                chosen.append(int(rows.pop(0)))
    rest = (row for row in range(len(labels)) if row not in chosen)
    return chosen + [row for row, _ in zip(rest, range(count - len(chosen)), strict=False)]


def gather(
    objective: Encodes,
    *,
    encoder: Encoder,
    studies: Studies,
    batches: Callable[[], Iterable[Batch]],
    texts: Sequence[StudyText],
    label_names: Sequence[str],
    tokenizer: Tokenizer,
    count: int,
    block: int,
    located: Callable[[int], Mapping[str, np.ndarray]] = lambda _: {},
    lacking: Collection[str] = (),
) -> Examples:
    """Computes the examples of some studies, and the use of the bank over all studies.

    Args:
      objective: objective of the model.
      encoder: encoder of the trained model.
      studies: features from `encoder.studies(..., reports=True)`.
      batches: function that starts one pass over the split with reports, on the devices.
      texts: texts of the split, [records].
      label_names: names of the labels, in the order of `studies.labels`.
      tokenizer: tokenizer of the batches.
      count: number of studies to show.
      block: number of rows and columns of similarity computed at once.
      located: function from a record to the masks of its findings that are known, label ->
        bool[H, W], of the size of the model's images.
      lacking: names of the sections that the model cannot have, see `sections.lacking`; nothing is
        computed for them.

    Returns:
      The examples.
    """
    rows = choose(studies.labels, count=count)
    records = [int(studies.record[row]) for row in rows]
    batch = pick(batches(), records)
    pictures = np.asarray(to_host(batch.image), np.float32)[: len(rows)].mean(axis=-1)
    shown = [texts[record] for record in records]
    return Examples(
        attention=() if "attention" in lacking else attention_examples(
            objective, encoder, studies, batch, rows=rows, pictures=pictures,
            titles=[f"study {text.study_id}" for text in shown],
            sentences=[text.sentences for text in shown],
            masks=[located(record) for record in records],
            tokenizer=tokenizer,
        ),
        retrieval=_retrieval(
            encoder, studies, rows=rows, pictures=pictures, texts=texts,
            label_names=label_names, block=block,
        ),
        reconstructions=() if "reconstruction" in lacking else _reconstructions(
            objective, encoder, batch, pictures=pictures, shown=shown
        ),
        bank=None if "bank" in lacking else _bank(objective, encoder, batches(), texts=texts),
    )  # fmt: skip


def pick(batches: Iterable[Batch], records: Sequence[int]) -> Batch:
    """Returns the rows of some records, in their order, as one batch on the host."""
    rows: dict[int, Batch] = {}
    for batch in batches:
        host = to_host(batch)
        for row, record in enumerate(host.record.tolist()):
            if record in records:
                rows[record] = jax.tree.map(lambda x, row=row: x[row], host)
    longest = max(row.tokens.shape[0] for row in rows.values())
    return jax.tree.map(
        lambda *leaves: np.stack(leaves), *(_padded(rows[record], longest) for record in records)
    )


def _padded(row: Batch, length: int) -> Batch:
    """Pads one row's tokens to a length; no sentence owns the padding."""
    missing = length - row.tokens.shape[0]
    return dataclasses.replace(
        row,
        tokens=np.pad(row.tokens, (0, missing)),
        token_mask=np.pad(row.token_mask, (0, missing)),
        sentence_index=np.pad(row.sentence_index, (0, missing), constant_values=-1),
    )


def _reconstructions(objective, encoder, batch, *, pictures, shown):
    if not isinstance(objective, Reconstructs):
        return ()
    redrawn = to_host(encoder.compiled(objective.reconstruct)(batch))
    redrawn = np.asarray(redrawn, np.float32).mean(axis=-1)
    if redrawn.shape[1:] != pictures.shape[1:]:
        redrawn = np.asarray(
            jax.image.resize(redrawn, (len(redrawn), *pictures.shape[1:]), "linear")
        )
    return tuple(
        ReconstructionExample(
            title=f"study {text.study_id}", image=pictures[row], shown=None,
            reconstruction=redrawn[row],
        )
        for row, text in enumerate(shown)
    )  # fmt: skip


def _retrieval(encoder, studies, *, rows, pictures, texts, label_names, block):
    ranks = min(5, len(studies.record))
    top = search(encoder, studies, ranks=ranks, block=block)
    positive = studies.labels == POSITIVE
    found = []
    for picture, row in zip(pictures, rows, strict=True):
        own = texts[int(studies.record[row])]
        retrieved = []
        for score, other in zip(top.score_of_image[row], top.report_of_image[row], strict=True):
            text = texts[int(studies.record[other])].text
            kind = "class" if (positive[other] & positive[row]).any() else "none"
            kind = "pair" if other == row or text == own.text else kind
            retrieved.append(RetrievedReport(text=text, score=float(score), match=kind))
        found.append(
            RetrievalExample(
                title=f"study {own.study_id}",
                image=picture,
                report=own.text,
                classes=tuple(n for n, p in zip(label_names, positive[row], strict=True) if p),
                retrieved=tuple(retrieved),
            )
        )
    return tuple(found)


def _bank(objective: Any, encoder: Encoder, batches: Iterable[Batch], *, texts) -> BankUsage | None:
    if not isinstance(objective, HasPrototypes):
        return None

    compute = encoder.compiled(objective.prototype_choice)
    counts = np.zeros(objective.num_prototypes, np.float64)
    best: dict[int, list[tuple[float, str]]] = {}
    for batch in batches:
        choice, share = to_host(
            compute(batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask)
        )
        for row, record in enumerate(to_host(batch.record)):
            if record < 0:
                continue
            sentences = texts[int(record)].sentences
            for place, sentence in enumerate(sentences[: choice.shape[1]]):
                index = int(choice[row, place])
                if index < 0:
                    continue
                counts[index] += 1
                best.setdefault(index, []).append((float(share[row, place]), sentence))
    listed = [int(index) for index in np.argsort(-counts, kind="stable")[:LISTED_PROTOTYPES]]
    return BankUsage(
        counts=counts,
        prototypes=tuple(
            Prototype(index=index, sentences=_distinct(best[index]))
            for index in listed
            if counts[index]
        ),
    )


def _distinct(found: list[tuple[float, str]]) -> tuple[str, ...]:
    """Returns the strongest distinct sentences."""
    ordered = sorted(found, key=lambda pair: (-pair[0], pair[1]))
    return tuple(dict.fromkeys(sentence for _, sentence in ordered))[:SENTENCES_A_PROTOTYPE]
