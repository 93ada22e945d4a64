"""Weights on disk in our own layout: what `launch.import_weights` writes and runs start from.

A folder holds

    weights.json   what the weights are, and shape, dtype and sha256 of every array
    arrays/        the arrays, nested dictionaries by path: an orbax checkpoint of one PyTree
    kept/          the same, flat, for what our model has no place for; absent if there is none
    tokenizer/     the one file of the text encoder's tokenizer; absent if there is none

The arrays need nothing of this package to be read, with NumPy arrays as leaves:

    from orbax.checkpoint import v1 as ocp
    tree = ocp.load(folder / "arrays")         # tree["resnet"]["stem_conv"]["kernel"]
    nnx.update(model, tree)                    # into an NNX model of the same paths
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
from orbax.checkpoint import v1 as ocp

from prior_jax import storage_errors
from prior_jax.data.tokenizer import TokenizerConfig, portable_file
from prior_jax.data.wordpiece_settings import read_bytes
from prior_jax.errors import WeightsError, first_line
from prior_jax.folder_names import check_folder_name, temporary_beside
from prior_jax.interop.late_writes import removed_on_error

_IN_FLIGHT = 2**27
FORMAT = 1
DOCUMENT = "weights.json"
_ARRAYS, _KEPT, _TOKENIZER = "arrays", "kept", "tokenizer"

Part = Literal["image", "text", "model"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What weights are, without their arrays.

    Everything is JSON: a tuple comes back from disk as a list.

    Attributes:
      part: "image" (an image encoder), "text" (a BERT) or "model" (an objective's whole model).
      objective: name that `config.objective` takes, for a whole model; None for an encoder.
      model: sizes: the section `config.model` of a whole model, {"resnet": {...}, ...} of an
        image encoder, `config.model.text` with `vocab_size` of a text encoder.
      data: what is known of the input: image size, channels, mean, std; tokenizer, caption, ...
      origin: where they come from: source, file name, sha256, licence note, ...
    """

    part: Part
    objective: str | None
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    origin: Mapping[str, Any]

    def __post_init__(self):
        """Refuses a part that does not exist, and an objective of what has none."""
        if self.part not in get_args(Part):
            raise WeightsError(
                "weights.part", received=self.part, accepted=f"one of {get_args(Part)}"
            )
        if (self.objective is None) == (self.part == "model"):
            raise WeightsError(
                "weights.objective",
                received=self.objective,
                accepted='the name of an objective for part "model", None for an encoder',
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights(About):
    """Arrays, and what they are.

    Attributes:
      arrays: path -> parameter or batch statistic; paths are those of the NNX leaves, relative to
        the part and joined by "/": "resnet/stem_conv/kernel" of an image encoder,
        "layers/self_attention/query/kernel" of a text encoder, "image_encoder/resnet/..." of a
        whole model.
      kept: torch name -> tensor which our model has no place for, so that an export can give
        back all that was imported.
    """

    arrays: Mapping[str, np.ndarray]
    kept: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document(About):
    """What `weights.json` says.

    Attributes:
      arrays: path -> [shape, dtype, sha256].
      kept: the same of what our model has no place for.
      tokenizer: file name -> sha256 of the text encoder's tokenizer; empty if there is none.
    """

    arrays: Mapping[str, list[Any]]
    kept: Mapping[str, list[Any]]
    tokenizer: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """sha256 over the table of the arrays: equal only for equal weights."""
        return hashlib.sha256(json.dumps(self.arrays, sort_keys=True).encode()).hexdigest()


def is_weights_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that `save_weights` wrote, sound or not."""
    return (pathlib.Path(folder) / DOCUMENT).is_file()


def save_weights(
    folder: str | os.PathLike[str], weights: Weights, tokenizer: pathlib.Path | None = None
) -> None:
    """Writes a folder of weights; built aside and renamed, so that it is whole or absent.

    Needs no more memory than the arrays once again.

    Args:
      folder: absent or empty.
      weights: what to write.
      tokenizer: the one file of the text encoder's tokenizer (`vocab.txt`, `tokenizer.json` or a
        sentencepiece model), to be copied beside, or None. Settings that lie beside a BERT's are
        put into the copy.

    Raises:
      ConfigError: for a path that the library which stores arrays could not read again.
      WeightsError: if the folder is in use or cannot be written to, or names do not nest.
    """
    target = check_folder_name(folder, field="folder of weights")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(str(target), received="something is there", accepted="an absent folder")
    words = None if tokenizer is None else _tokenizer_copy(weights, tokenizer)
    document = Document(
        arrays=_table(weights.arrays),
        kept=_table(weights.kept),
        tokenizer={} if words is None else {words[0]: hashlib.sha256(words[1]).hexdigest()},
        **{field.name: getattr(weights, field.name) for field in dataclasses.fields(About)},
    )
    tree = _nested(weights.arrays)
    aside = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.mkdir()
        _write(aside / _ARRAYS, tree, target=target)
        if weights.kept:
            kept = {name: np.asarray(x) for name, x in weights.kept.items()}
            _write(aside / _KEPT, kept, target=target)
        if words is not None:
            (aside / _TOKENIZER).mkdir()
            (aside / _TOKENIZER / words[0]).write_bytes(words[1])
        content = {"format": FORMAT, **dataclasses.asdict(document)}
        (aside / DOCUMENT).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        os.replace(aside, target)
    except OSError as error:
        raise _unwritten(target, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_weights(folder: str | os.PathLike[str]) -> Weights:
    """Reads a folder of weights and proves every array equal to what was saved.

    Needs less than three times the memory of the arrays.

    Args:
      folder: written by `save_weights`.

    Returns:
      The weights, arrays as NumPy has them.

    Raises:
      ConfigError: for a path that the library which stores arrays cannot read.
      WeightsError: if the folder is absent, damaged or of another version, naming the array.
    """
    folder = check_folder_name(folder, field="folder of weights")
    document = read_document(folder)
    arrays = dict(_flat(_read(folder / _ARRAYS)))
    kept = dict(_read(folder / _KEPT)) if document.kept else {}
    _check(folder / _ARRAYS, arrays, document.arrays)
    _check(folder / _KEPT, kept, document.kept)
    about = {field.name: getattr(document, field.name) for field in dataclasses.fields(About)}
    return Weights(arrays=arrays, kept=kept, **about)


def read_document(folder: str | os.PathLike[str]) -> Document:
    """What a folder of weights says it holds; no array is read.

    Raises:
      WeightsError: if it is absent, damaged or of another version.
    """
    path = pathlib.Path(folder) / DOCUMENT
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            str(path),
            received=first_line(error),
            accepted="a folder that launch.import_weights or launch.export --format=nnx wrote",
        ) from error
    version = content.pop("format", None) if isinstance(content, dict) else None
    if version != FORMAT:
        raise WeightsError(str(path), received=f"format {version}", accepted=f"format {FORMAT}")
    try:
        return Document(**content)
    except TypeError as error:
        raise WeightsError(
            str(path), received=first_line(error), accepted="what save_weights wrote"
        ) from error


def tokenizer_file(folder: str | os.PathLike[str]) -> pathlib.Path | None:
    """The tokenizer that lies in a folder of weights, or None if it holds none.

    Raises:
      WeightsError: if it, or what tells of it, is absent or damaged.
    """
    for name, digest in read_document(folder).tokenizer.items():
        path = pathlib.Path(folder) / _TOKENIZER / name
        found = _file_digest(path)
        if found != digest:
            raise WeightsError(str(path), received=f"sha256 {found}", accepted=f"sha256 {digest}")
        return path
    return None


def _table(arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: _row(np.asarray(array)) for name, array in arrays.items()}


def _row(array: np.ndarray) -> list[Any]:
    """[shape, dtype, sha256 over the elements in C order] of an array."""
    # Viewed as bytes: NumPy's buffers know nothing of bfloat16.
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return [list(array.shape), str(array.dtype), hashlib.sha256(content).hexdigest()]


def _tokenizer_copy(weights: Weights, path: pathlib.Path) -> tuple[str, bytes]:
    """Name and content of the tokenizer's file within the folder."""
    section = weights.data.get("tokenizer", {})
    if section.get("kind") != "wordpiece":
        return path.name, read_bytes(path)
    lower_case = section.get("lower_case", True)
    return portable_file(TokenizerConfig(kind="wordpiece", path=str(path), lower_case=lower_case))


def _file_digest(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(
            str(path), received=first_line(error), accepted="the file of a tokenizer"
        ) from error


def _nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries of arrays keyed by paths that are joined by "/"."""
    tree: dict[str, Any] = {}
    for name in sorted(arrays):  # "a" comes before "a/b", so a clash is met below
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise WeightsError(
                    "weights.arrays", received=name, accepted=f"a name that is not below {parent!r}"
                )
        node[last] = np.asarray(arrays[name])
    if not tree:
        raise WeightsError("weights.arrays", received="no array", accepted="at least one")
    return tree


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries, by path joined by "/"."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from _flat(node, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", node


def _unwritten(target: pathlib.Path, error: Exception) -> WeightsError:
    known = storage_errors.meaning(error)
    received, accepted = known or (first_line(error), "a folder to write to")
    return WeightsError(str(target), received=received, accepted=accepted)


def _write(path: pathlib.Path, tree: Mapping[str, Any], *, target: pathlib.Path) -> None:
    # Nobody changes the arrays before this returns, so orbax need not copy them all first.
    context = ocp.Context()
    context.memory.deepcopy_host_arrays = False
    # Each array in flight is held a second time.
    largest = max((array.nbytes for _, array in _flat(tree)), default=0)
    context.memory.write_concurrent_bytes = max(2 * largest, _IN_FLIGHT)
    storage_errors.hide_traces()
    try:
        with removed_on_error(path.parent), context:
            ocp.save(str(path.resolve()), tree)
    except Exception as error:  # the library passes on whatever its parts raise
        raise _unwritten(target, error) from error


def _read(path: pathlib.Path) -> Any:
    try:
        return ocp.load(str(path.resolve()))
    except Exception as error:  # damage can surface as any error of the libraries that read
        raise WeightsError(
            str(path), received=first_line(error), accepted="a sound orbax checkpoint"
        ) from error


def _check(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], table: Mapping[str, list[Any]]
) -> None:
    """Refuses arrays that are not those of the table, all named at once."""
    problems = {
        "missing": sorted(table.keys() - arrays.keys()),
        "extra": sorted(arrays.keys() - table.keys()),
        "changed": [n for n in sorted(arrays.keys() & table) if _row(arrays[n]) != table[n]],
    }
    problems = {kind: names for kind, names in problems.items() if names}
    if problems:
        raise WeightsError(
            str(path), received=problems, accepted=f"the arrays that {DOCUMENT} lists, unchanged"
        )
