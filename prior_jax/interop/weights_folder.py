"""Weights on disk in our own layout: `launch.import_weights` writes them and runs start from them.

A folder holds

    weights.json   description of the weights, and shape, dtype and sha256 of every array
    arrays/        the arrays, nested dictionaries by path: an orbax checkpoint of one PyTree
    kept/          flat dictionary of tensors without a place in our model; absent if there are none
    tokenizer/     the one file of the text encoder's tokenizer; absent if there is none

The arrays can be read without this package, with NumPy arrays as leaves:

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
from prior_jax.interop.torch.misfits import listed
from prior_jax.processes import interrupts

_IN_FLIGHT = 2**27
FORMAT = 1
DOCUMENT = "weights.json"
_ARRAYS, _KEPT, _TOKENIZER = "arrays", "kept", "tokenizer"

Part = Literal["image", "text", "model"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """Description of weights, without their arrays.

    All values are JSON: a tuple comes back from disk as a list.

    Attributes:
      part: "image" (an image encoder), "text" (a BERT) or "model" (an objective's whole model).
      objective: value of `config.objective` for a whole model; None for an encoder.
      model: sizes: the section `config.model` of a whole model, {"resnet": {...}, ...} of an
        image encoder, `config.model.text` with `vocab_size` of a text encoder.
      data: known properties of the input: image size, channels, mean, std; tokenizer, caption, ...
      origin: origin of the weights: source, file name, sha256, licence note, ...
    """

    part: Part
    objective: str | None
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    origin: Mapping[str, Any]

    def __post_init__(self):
        """Refuses an unknown part, an encoder with an objective, and a whole model without one."""
        if self.part not in get_args(Part):
            raise WeightsError.of_value("weights.part", self.part, f"one of {get_args(Part)}")
        if (self.objective is None) == (self.part == "model"):
            raise WeightsError.of_value(
                "weights.objective",
                self.objective,
                'the name of an objective for part "model", and None for an encoder',
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights(About):
    """Arrays of weights, with their description.

    Attributes:
      arrays: path -> parameter or batch statistic; paths are those of the NNX leaves, relative to
        the part and joined by "/": "resnet/stem_conv/kernel" of an image encoder,
        "layers/self_attention/query/kernel" of a text encoder, "image_encoder/resnet/..." of a
        whole model.
      kept: torch name -> tensor that has no place in our model, kept so that an export can write
        every imported tensor.
    """

    arrays: Mapping[str, np.ndarray]
    kept: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document(About):
    """Content of `weights.json`.

    Attributes:
      arrays: path -> [shape, dtype, sha256].
      kept: torch name -> [shape, dtype, sha256] of each tensor without a place in our model.
      tokenizer: file name -> sha256 of the text encoder's tokenizer; empty if there is none.
    """

    arrays: Mapping[str, list[Any]]
    kept: Mapping[str, list[Any]]
    tokenizer: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Returns the sha256 over the table of the arrays: equal only for equal weights."""
        return hashlib.sha256(json.dumps(self.arrays, sort_keys=True).encode()).hexdigest()


def is_weights_folder(folder: str | os.PathLike[str]) -> bool:
    """Returns whether `save_weights` wrote this folder, whether or not it is intact."""
    return (pathlib.Path(folder) / DOCUMENT).is_file()


def save_weights(
    folder: str | os.PathLike[str], weights: Weights, tokenizer: pathlib.Path | None = None
) -> None:
    """Writes a folder of weights under a temporary name and renames it: it is complete or absent.

    Beside the arrays themselves, this needs memory for one more copy of them at most.

    Args:
      folder: path of an absent or empty folder.
      weights: weights to write.
      tokenizer: the one file of the text encoder's tokenizer (`vocab.txt`, `tokenizer.json` or a
        sentencepiece model), to be copied into the folder, or None. Settings in files beside a BERT
        tokenizer are merged into the copy.

    Raises:
      ConfigError: for a path that orbax could not read again.
      WeightsError: if the folder is in use or cannot be written to, or names do not nest.
    """
    target = check_folder_name(folder, field="folder of weights")
    _check_free(target)
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
    """Reads a folder of weights and checks that every array equals the saved one.

    This needs less than three times the memory of the arrays.

    Args:
      folder: folder that `save_weights` wrote.

    Returns:
      The weights, with NumPy arrays.

    Raises:
      ConfigError: for a path that orbax cannot read.
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
    """Reads the description in a folder of weights, without reading any array.

    Raises:
      WeightsError: if the folder is absent, damaged or of another version.
    """
    path = pathlib.Path(folder) / DOCUMENT
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"The description of the weights cannot be read ({first_line(error)}).",
            "Give a folder that launch.import_weights or launch.export --format=nnx wrote.",
            where=str(path),
        ) from error
    version = content.pop("format", None) if isinstance(content, dict) else None
    if version != FORMAT:
        raise WeightsError(
            f"The weights have format {version}, and this version reads only format {FORMAT}.",
            "Import or export the weights again with this version.",
            where=str(path),
        )
    try:
        return Document(**content)
    except TypeError as error:
        raise WeightsError(
            f"The description of the weights has missing or unknown fields ({first_line(error)}).",
            "Import or export the weights again.",
            where=str(path),
        ) from error


def tokenizer_file(folder: str | os.PathLike[str]) -> pathlib.Path | None:
    """Returns the tokenizer file in a folder of weights, or None if there is none.

    Raises:
      WeightsError: if the tokenizer file or `weights.json` is absent or damaged.
    """
    for name, digest in read_document(folder).tokenizer.items():
        path = pathlib.Path(folder) / _TOKENIZER / name
        found = _file_digest(path)
        if found != digest:
            raise WeightsError(
                f"The file has changed: its sha256 is {found}, and {digest} was written.",
                "Copy the folder of weights again, or import the weights again.",
                where=str(path),
            )
        return path
    return None


def _check_free(target: pathlib.Path) -> None:
    """Refuses a path at which there is anything but an empty folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(
            "There is already something at this path.",
            "Give a folder that does not exist yet.",
            where=str(target),
        )


def _table(arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: _row(np.asarray(array)) for name, array in arrays.items()}


def _row(array: np.ndarray) -> list[Any]:
    """Returns [shape, dtype, sha256 over the elements in C order] of an array."""
    # The array is viewed as bytes, since NumPy's buffer protocol does not support bfloat16.
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return [list(array.shape), str(array.dtype), hashlib.sha256(content).hexdigest()]


def _tokenizer_copy(weights: Weights, path: pathlib.Path) -> tuple[str, bytes]:
    """Returns the name and content of the tokenizer's file within the folder."""
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
            f"The tokenizer of the weights cannot be read ({first_line(error)}).",
            "Copy the folder of weights again, or import the weights again.",
            where=str(path),
        ) from error


def _nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries of arrays from a flat dictionary with paths joined by "/"."""
    tree: dict[str, Any] = {}
    for name in sorted(arrays):  # "a" comes before "a/b", so a name clash is detected below
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise WeightsError(
                    f"The array {name!r} is below {parent!r}, which is an array itself.",
                    "Rename one of the two.",
                    where="weights.arrays",
                )
        node[last] = np.asarray(arrays[name])
    if not tree:
        raise WeightsError(
            "The weights have no array.", "Give at least one array.", where="weights.arrays"
        )
    return tree


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested dictionaries, with their paths joined by "/"."""
    for name, node in tree.items():
        if isinstance(node, Mapping):
            yield from _flat(node, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", node


def _unwritten(target: pathlib.Path, error: Exception) -> WeightsError:
    problem, remedy = storage_errors.meaning(error) or (
        f"The weights cannot be written there ({first_line(error)}).",
        "Choose a folder that can be written to.",
    )
    return WeightsError(problem, remedy, where=str(target))


def _write(path: pathlib.Path, tree: Mapping[str, Any], *, target: pathlib.Path) -> None:
    # The arrays do not change before this function returns, so orbax need not copy them first.
    context = ocp.Context()
    context.memory.deepcopy_host_arrays = False
    # Orbax holds a second copy of each array that is being written.
    largest = max((array.nbytes for _, array in _flat(tree)), default=0)
    context.memory.write_concurrent_bytes = max(2 * largest, _IN_FLIGHT)
    storage_errors.hide_traces()
    try:
        with interrupts.held(f"writing {target}"), removed_on_error(path.parent), context:
            ocp.save(str(path.resolve()), tree)
    except Exception as error:  # orbax passes on the errors of every library it uses
        raise _unwritten(target, error) from error


def _read(path: pathlib.Path) -> Any:
    try:
        with interrupts.held(f"reading {path}"):
            return ocp.load(str(path.resolve()))
    except Exception as error:  # a damaged file can raise any error of the reading libraries
        raise WeightsError(
            f"The arrays cannot be read ({first_line(error)}).",
            "Copy the folder of weights again, or import the weights again.",
            where=str(path),
        ) from error


def _check(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], table: Mapping[str, list[Any]]
) -> None:
    """Refuses arrays that differ from the table, naming all of them at once."""
    problems = {
        "missing": sorted(table.keys() - arrays.keys()),
        "extra": sorted(arrays.keys() - table.keys()),
        "changed": [n for n in sorted(arrays.keys() & table) if _row(arrays[n]) != table[n]],
    }
    problems = {kind: names for kind, names in problems.items() if names}
    if problems:
        raise WeightsError(
            f"The arrays are not those that {DOCUMENT} lists ({listed(problems)}).",
            "Copy the folder of weights again, or import the weights again.",
            where=str(path),
        )
