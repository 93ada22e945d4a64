"""Imports weights of other code bases as our weights, and converts them back.

    weights = import_weights("gloria", "chexpert_resnet50.ckpt")
    weights.arrays["text_encoder/layers/self_attention/query/kernel"].shape
    state_dict = release_state_dict(weights)     # the file's tensors, bit for bit

Import is strict: every tensor is imported, or kept or left for a reason of the tables in
`sources.table`; a tensor that is missing, unknown or of another shape is an error that lists it.
No number is rounded: half precision becomes float32 and is converted back to its own dtype.
"""

import dataclasses
import mmap
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.huggingface.bert_directory import (
    BertDirectory,
    check_tokenizer,
    read_bert_directory,
)
from prior_jax.interop.printable import printable
from prior_jax.interop.sources import accounting
from prior_jax.interop.sources.accounting import Row
from prior_jax.interop.sources.chosen_names import Chosen, choose, naming_prefixes, refuse_dilated
from prior_jax.interop.sources.exported_settings import ExportedSettings, read_exported_settings
from prior_jax.interop.sources.fit import Fit
from prior_jax.interop.sources.infer import Layout, Shapes
from prior_jax.interop.sources.plans import Plan, Unseen, structure, without
from prior_jax.interop.sources.saved_entries import in_words
from prior_jax.interop.sources.table import SOURCES, Recipe, Source
from prior_jax.interop.sources.weight_files import read_weights
from prior_jax.interop.torch.misfits import restated
from prior_jax.interop.torch.names import to_torch
from prior_jax.interop.weights_folder import Part, Weights

_UNKNOWN_STATISTICS = (
    "nothing tells the mean and standard deviation that its images are normalised by, without "
    "which these weights are not evaluated; give --mean and --std if you know them"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported:
    """Imported weights, with a record of the import.

    Attributes:
      weights: weights that `weights_folder.save_weights` can write.
      rows: rows that say how every tensor was handled.
      tokenizer: file of the text encoder's tokenizer, or None.
    """

    weights: Weights
    rows: tuple[Row, ...]
    tokenizer: pathlib.Path | None


def import_weights(
    source: str,
    path: str | os.PathLike[str],
    *,
    part: Part | None = None,
    unseen: Unseen | None = None,
) -> Weights:
    """Reads a checkpoint of another code base.

    Args:
      source: one of `SOURCES`.
      path: path of a checkpoint, or of a Hugging Face directory for "hf_bert".
      part: "model", "image" or "text"; by default the first part of the source's table that the
        file holds.
      unseen: settings that no array's shape shows.

    Returns:
      Weights; arrays may be views of the mapped file.

    Raises:
      WeightsError: if the file cannot be read, or listing every missing, extra and misshaped name.
      ConfigError: for an unknown source or part, or an impossible number of heads.
    """
    return open_checkpoint(source, path, part=part, unseen=unseen).weights


def open_checkpoint(
    source: str,
    path: str | os.PathLike[str],
    *,
    part: Part | None = None,
    unseen: Unseen | None = None,
    tokenizer: pathlib.Path | None = None,
    entry: str | None = None,
    prefix: str | None = None,
) -> Imported:
    """Reads a checkpoint like `import_weights`, and returns an account of every tensor as well.

    Args:
      source: source as in `import_weights`.
      path: path as in `import_weights`.
      part: part as in `import_weights`.
      unseen: settings as in `import_weights`.
      tokenizer: path of a vocab.txt or tokenizer.json, for a checkpoint without its own.
      entry: keys of the state dict within the file, joined by "/", for a file with several.
      prefix: prefix of the model's names, for a model that is part of a larger one.
    """
    kind = _source(source)
    directory = read_bert_directory(path) if kind.folder else None
    file = read_weights(path, entry=entry)
    try:
        imported = from_tensors(
            source, file.tensors, part=part, unseen=unseen, directory=directory,
            tokenizer=tokenizer, prefix=prefix, exported=read_exported_settings(file.path),
        )  # fmt: skip
    except WeightsError as error:
        if error.where != "state_dict":
            raise
        raise restated(error, where=str(file.path)) from error
    _give_back(file.tensors)
    found = {
        "file": file.path.name, "sha256": file.sha256, "format": file.format, "nested": file.nested
    }  # fmt: skip
    origin = imported.weights.origin
    notes = (*origin["notes"], *_left_notes(file.left, taken=file.nested))
    weights = dataclasses.replace(imported.weights, origin={**origin, **found, "notes": notes})
    return dataclasses.replace(imported, weights=weights)


def from_tensors(
    source: str,
    tensors: Mapping[str, np.ndarray],
    *,
    part: Part | None = None,
    unseen: Unseen | None = None,
    directory: BertDirectory | None = None,
    tokenizer: pathlib.Path | None = None,
    prefix: str | None = None,
    exported: ExportedSettings | None = None,
) -> Imported:
    """Imports tensors that are already in memory, like `open_checkpoint`.

    Args:
      source: source as in `import_weights`.
      tensors: torch name -> tensor.
      part: part as in `import_weights`.
      unseen: settings as in `import_weights`.
      directory: content of the Hugging Face directory besides the weights, for "hf_bert".
      tokenizer: path as in `open_checkpoint`.
      prefix: prefix of the model's names, or None.
      exported: settings that `launch.export` wrote beside a ResNet; None if there are none.
    """
    kind = _source(source)
    recipes = _recipes(source, kind, part)
    chosen = choose(tensors, prefix, recipes)
    refuse_dilated(tensors, prefix)
    named = {name: tensors[old] for name, old in chosen.names.items()}
    shapes = {name: tuple(array.shape) for name, array in named.items()}
    _refuse_hollow(shapes)
    with naming_prefixes(tensors, recipes):
        recipe, layout = _recognise(source, recipes, shapes)
    unseen = unseen or Unseen()
    _refuse_unread(recipe, unseen, tokenizer, source=source, directory=directory)
    if directory is not None:
        unseen, tokenizer = Unseen(heads=directory.sizes["heads"]), directory.tokenizer
    plan = recipe.plan(shapes, layout, unseen, recipe.known)
    if directory is not None:
        plan = _as_told(plan, directory)
    exported = exported if plan.part == "image" else None
    if exported is not None:
        plan = exported.told(plan, unseen)
    plan = _with_vocabulary(tokenizer, plan, own=directory is not None)
    fit = Fit(named, plan, unused=recipe.unused)
    with naming_prefixes(() if prefix is not None else tensors, recipes):
        fit.check()
    words = {} if plan.ids is None else {"vocab_size": plan.ids}
    weights = Weights(
        part=plan.part, objective=plan.objective, model={**plan.model, **words}, data=plan.data,
        origin=_origin(source, plan, chosen, fit, exported), arrays=fit.arrays(), kept=fit.kept(),
    )  # fmt: skip
    rows = accounting.account(named, fit.table, fit.rule_of)
    if chosen.outside:
        rows += accounting.outside(chosen.outside, f"outside --prefix={prefix}")
    return Imported(weights=weights, rows=rows, tokenizer=tokenizer)


def release_state_dict(weights: Weights) -> dict[str, np.ndarray]:
    """Returns the tensors of the imported file, without the parts that were left out.

    Args:
      weights: weights as imported, from memory or from a folder.

    Returns:
      torch name -> tensor, bit for bit and of the same dtype; arrays may be views.

    Raises:
      WeightsError: if the weights were not imported, or an array is missing or extra.
    """
    origin = weights.origin
    if "layout" not in origin:
        raise WeightsError(
            f"The weights were not imported, so they have no names of a release: they note only "
            f"{sorted(origin)}.",
            "Give weights that launch.import_weights wrote.",
            where="weights.origin",
        )
    words = [a for path, a in weights.arrays.items() if path.split("/")[-1] == "word_embedding"]
    plan = Plan(
        part=weights.part, objective=weights.objective, model=weights.model, data=weights.data,
        vocab_size=words[0].shape[0] if words else None, layout=Layout(**origin["layout"]),
        pooler=origin["pooler"],
    )  # fmt: skip
    table, _ = structure(plan)
    ours = {n: x for n, x in weights.arrays.items() if n.split("/")[0] not in without(plan)}
    named = to_torch(traverse_util.unflatten_dict(ours, sep="/"), table)
    for name, dtype in origin["dtypes"].items():
        named[name] = named[name].astype(dtype)
    outer, renamed = origin["outer"], origin["renamed"]
    return {
        renamed.get(name, outer + name): array for name, array in {**named, **weights.kept}.items()
    }


def _give_back(tensors: Mapping[str, np.ndarray]) -> None:
    """Releases the memory of mapped files; pages that are accessed again are read again.

    The import has read every tensor once, and by now has copied half of them.
    """
    mappings = {}
    for tensor in tensors.values():
        owner = _owner(tensor)
        mappings[id(owner)] = owner
    for mapping in mappings.values():
        if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def _owner(view: Any) -> Any:
    """Returns the object that owns the memory of an array, or of a view of a view."""
    while True:
        below = view.obj if isinstance(view, memoryview) else getattr(view, "base", None)
        if below is None:
            return view
        view = below


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise ConfigError.of_value("--source", name, f"one of {', '.join(SOURCES)}")
    return SOURCES[name]


def _recipes(name: str, source: Source, part: Part | None) -> Mapping[str, Recipe]:
    """Returns the recipes of the requested part, or of all parts of the source."""
    if part is not None and part not in source.recipes:
        raise ConfigError.of_value("--part", part, f"one of {', '.join(source.recipes)} for {name}")
    return source.recipes if part is None else {part: source.recipes[part]}


def _left_notes(left: Mapping[str, int], *, taken: str | None) -> tuple[str, ...]:
    """Returns notes for the user on entries that were not read."""
    if not left:
        return ()
    read = "the names at the top of the file" if taken is None else f"the entry {taken!r}"
    others = ", ".join(f"{key!r} ({in_words(count)})" for key, count in left.items())
    return (f"{read} was read and {others} left out; --entry=KEY reads another state dict",)


def _recognise(name: str, recipes: Mapping[str, Recipe], shapes: Shapes) -> tuple[Recipe, Layout]:
    """Returns the recipe of the part to import, and the layout of its names in this file."""
    for recipe in recipes.values():
        probes = [re.escape(layout.prefix) + recipe.probe(layout) for layout in recipe.layouts]
        counts = [sum(bool(re.match(probe, n)) for n in shapes) for probe in probes]
        if max(counts):
            layout = recipe.layouts[counts.index(max(counts))]
            old = any(n.startswith(layout.prefix) and n.endswith("LayerNorm.gamma") for n in shapes)
            return recipe, dataclasses.replace(layout, gamma_beta=old)
    beginnings = dict.fromkeys(
        repr(layout.prefix) if layout.prefix else "no prefix"
        for recipe in recipes.values()
        for layout in recipe.layouts
    )
    raise WeightsError(
        f"The file has {len(shapes)} names such as "
        f"{', '.join(map(printable, sorted(shapes)[:3]))}, none of which is a name of the source "
        f"{name}: it has names of its {' or '.join(recipes)} behind "
        f"{' or '.join(beginnings)}.",
        "Give the --source that the file comes from, or the --prefix of the model's names.",
        where="state_dict",
    )


def _refuse_hollow(shapes: Shapes) -> None:
    """Refuses a file whose tensors are mostly empty because their numbers are in other files."""
    hollow = [name for name, shape in shapes.items() if 0 in shape]
    if 2 * len(hollow) > len(shapes):
        raise WeightsError(
            f"The file has {len(hollow)} tensors without numbers, such as {printable(hollow[0])}; "
            "DeepSpeed's ZeRO keeps the weights in parts beside such a file.",
            "Put the parts together with DeepSpeed's zero_to_fp32.py and import the result.",
            where="state_dict",
        )


def _refuse_unread(
    recipe: Recipe,
    unseen: Unseen,
    tokenizer: pathlib.Path | None,
    *,
    source: str,
    directory: BertDirectory | None,
) -> None:
    """Refuses settings that are not read for this checkpoint."""
    read = () if directory is not None else recipe.reads
    given = {**dataclasses.asdict(unseen), "tokenizer": tokenizer}
    for name, value in given.items():
        if value is not None and name not in read:
            raise ConfigError(
                f"The value is {str(value)!r}, but source {source} does not read this flag for "
                "this checkpoint.",
                f"Leave out --{name}.",
                where=f"--{name}",
            )


def _as_told(plan: Plan, directory: BertDirectory) -> Plan:
    """Returns the plan with the sizes of config.json, which are compared with the shapes later."""
    return dataclasses.replace(
        plan,
        model={**plan.model, **directory.sizes},
        vocab_size=directory.sizes["vocab_size"],
        data={"tokenizer": {"kind": "wordpiece", "lower_case": directory.lower_case}},
    )


def _with_vocabulary(tokenizer: pathlib.Path | None, plan: Plan, *, own: bool) -> Plan:
    """Refuses a tokenizer that is not that of the planned text encoder.

    Args:
      tokenizer: path of the tokenizer's file, or None.
      plan: plan of the import.
      own: whether the tokenizer is from the directory of the weights. Such a one may have fewer ids
        than the embedding has rows, as some embeddings are made larger than they need be.

    Returns:
      The plan, by which the word embedding is cut to the tokenizer's ids.
    """
    if tokenizer is None or plan.vocab_size is None:
        return plan
    rows, lower_case = plan.vocab_size, plan.data["tokenizer"]["lower_case"]
    ids = check_tokenizer(tokenizer, lower_case=lower_case, vocab_size=rows, fewer=own)
    if ids == rows:
        return plan
    note = (
        f"the tokenizer has {ids} ids, and the word embedding {rows} rows: the first {ids} are "
        "imported, and the file's embedding is kept beside them"
    )
    return dataclasses.replace(plan, ids=ids, notes=(*plan.notes, note))


def _origin(
    source: str, plan: Plan, chosen: Chosen, fit: Fit, exported: ExportedSettings | None
) -> dict[str, Any]:
    """Returns what the weights note on their origin, with all that conversion back needs."""
    unknown = plan.data.get("image", {}).get("mean", ()) is None
    return {
        "source": source,
        "licence": SOURCES[source].licence if exported is None else exported.licence,
        "notes": plan.notes + chosen.notes + ((_UNKNOWN_STATISTICS,) if unknown else ()),
        "layout": dataclasses.asdict(plan.layout),
        "outer": chosen.outer,
        "renamed": chosen.renamed,
        "pooler": plan.pooler,
        "dtypes": {n: str(a.dtype) for n, a in fit.used.items() if a.dtype != np.float32},
    }
