"""Named adaptations that make weights fit an encoder of slightly different sizes.

A run names the adaptations it wants in `config.init.image.adapt` and `config.init.text.adapt`. No
adaptation is applied unasked: weights that do not fit are an error that names the adaptations that
would make them fit, and an adaptation that changes nothing is an error too.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from absl import logging

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.printable import printable

Encoder = Literal["image", "text"]

_STEM = "resnet/stem_conv/kernel"
_STAGES = "resnet/stages/"
_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """Weights on their way into an encoder; all paths are relative to the encoder.

    Attributes:
      arrays: path -> array of the weights.
      shapes: path -> shape of a leaf of the model that the weights must fill; a leaf that is absent
        here keeps its initial value.
      refused: path -> reason for which the array must not be used even if its shape fits.
    """

    arrays: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    refused: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """One way to make weights fit.

    Attributes:
      does: description in words, for documents and messages.
      apply: function that returns the adapted fit, or the same fit if there is nothing to adapt.
    """

    does: str
    apply: Callable[[Fit], Fit]


def sum_rgb(fit: Fit) -> Fit:
    """Sums the first convolution over its 3 input channels into 1.

    For a gray image that is repeated in 3 equally normalised channels, the summed kernel gives the
    same output as the 3-channel kernel.
    """
    kernel = fit.arrays.get(_STEM)
    if kernel is None or kernel.shape[2:3] != (3,):
        return fit
    return _with(fit, {_STEM: np.sum(kernel, axis=2, keepdims=True, dtype=kernel.dtype)})


def repeat_gray(fit: Fit) -> Fit:
    """Repeats the first convolution's 1 channel 3 times and divides by 3; `sum_rgb` reverses it."""
    kernel = fit.arrays.get(_STEM)
    if kernel is None or kernel.shape[2:3] != (1,):
        return fit
    return _with(fit, {_STEM: np.repeat(kernel / np.asarray(3, kernel.dtype), 3, axis=2)})


def first_stages(fit: Fit) -> Fit:
    """Leaves out the ResNet stages after the model's last stage."""

    def stages(names):
        return {name.split("/")[2] for name in names if name.startswith(_STAGES)}

    beyond = stages(fit.arrays) - stages(fit.shapes)
    return _without(fit, *(f"{_STAGES}{stage}" for stage in beyond))


def fewer_layers(fit: Fit) -> Fit:
    """Keeps the first n transformer layers, where n is the model's number of layers."""
    return _first_rows(fit, [name for name in fit.arrays if name.startswith("layers/")])


def fewer_positions(fit: Fit) -> Fit:
    """Keeps the first n position embeddings, where n is the model's number of positions."""
    return _first_rows(fit, ["position_embedding"])


def _first_rows(fit: Fit, names: Sequence[str]) -> Fit:
    """Cuts the named arrays to the model's number of rows where they have more."""
    shorter = {}
    for name in names:
        rows, array = fit.shapes.get(name, (0,))[0], fit.arrays.get(name)
        if array is not None and 0 < rows < len(array):
            shorter[name] = array[:rows]
    return _with(fit, shorter)


def _fresh(*parts: str) -> Callable[[Fit], Fit]:
    """Returns an adaptation after which the model's named parts keep their initial values."""

    def apply(fit: Fit) -> Fit:
        own = [name for name in fit.shapes if _is_below(name, parts)]
        if not own:
            return fit
        shapes = {name: shape for name, shape in fit.shapes.items() if name not in own}
        return dataclasses.replace(_without(fit, *parts), shapes=shapes)

    return apply


def _dropped(*parts: str) -> Callable[[Fit], Fit]:
    """Returns an adaptation that leaves out the named parts where the model has none of them."""

    def apply(fit: Fit) -> Fit:
        wanted = any(_is_below(name, parts) for name in fit.shapes)
        return fit if wanted else _without(fit, *parts)

    return apply


def _with(fit: Fit, arrays: Mapping[str, np.ndarray]) -> Fit:
    return dataclasses.replace(fit, arrays={**fit.arrays, **arrays})


def _without(fit: Fit, *parts: str) -> Fit:
    """Returns the fit without the arrays at these paths or below them."""
    arrays, refused = (
        {name: value for name, value in table.items() if not _is_below(name, parts)}
        for table in (fit.arrays, fit.refused)
    )
    return dataclasses.replace(fit, arrays=arrays, refused=refused)


def _is_below(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}/") for part in parts)


_EMBEDDERS = ("global_embedder", "local_embedder")

ADAPTATIONS: Mapping[Encoder, Mapping[str, Adaptation]] = {
    "image": {
        "sum_rgb": Adaptation("first convolution summed over 3 channels into 1", sum_rgb),
        "repeat_gray": Adaptation("first convolution of 1 channel spread over 3", repeat_gray),
        "first_stages": Adaptation("stages behind the model's last left out", first_stages),
        "new_pool": Adaptation("attention pool fresh", _fresh("pool")),
        "drop_pool": Adaptation("attention pool left out", _dropped("pool")),
        "new_embedders": Adaptation("GLoRIA's two embedders fresh", _fresh(*_EMBEDDERS)),
        "drop_embedders": Adaptation("GLoRIA's two embedders left out", _dropped(*_EMBEDDERS)),
    },
    "text": {
        "fewer_layers": Adaptation("layers behind the model's last left out", fewer_layers),
        "fewer_positions": Adaptation(
            "positions behind the model's last left out", fewer_positions
        ),
        "new_words": Adaptation(
            "word embedding fresh, for another tokenizer", _fresh("word_embedding")
        ),
        "new_pooler": Adaptation("pooler fresh", _fresh("pooler")),
    },
}
"""Encoder -> name -> adaptation that `config.init.<encoder>.adapt` may name."""


def adapted(
    fit: Fit, names: Sequence[str], *, encoder: Encoder, field: str
) -> dict[str, np.ndarray]:
    """Applies the named adaptations in order, and checks that the resulting weights fit.

    Args:
      fit: weights and the encoder's shapes.
      names: keys of `ADAPTATIONS[encoder]`.
      encoder: "image" or "text".
      field: dotted name of the config's section, for messages.

    Returns:
      path -> array for every leaf that does not keep its initial value.

    Raises:
      ConfigError: for a name that is unknown or an adaptation that changes nothing.
      WeightsError: listing the arrays that do not fit, and the adaptations that would mend them.
    """
    table = ADAPTATIONS[encoder]
    check_names(names, encoder=encoder, field=field)
    for name in names:
        before, found = fit, table[name].apply(fit)
        old, new = problems(before), problems(found)
        if new == old or new.keys() - old.keys():
            raise ConfigError(
                f"The adaptation {name!r} ({table[name].does}) does not make these weights fit "
                "better.",
                f"Remove it from {field}.adapt.",
                where=f"{field}.adapt",
            )
        _tell(before, found, name=name, field=field)
        fit = found
    left = problems(fit)
    mend = [n for n in table if problems(table[n].apply(fit)).keys() < left.keys()]
    remedy = f"Give weights of the {encoder} encoder of config.model"
    helps = ", ".join(map(repr, mend))
    hint = f", or add adaptations to {field}.adapt; these help: {helps}" if mend else ""
    _refuse(left, field=field, remedy=f"{remedy}{hint}.")
    return dict(fit.arrays)


def check_fits(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, Any], *, field: str) -> None:
    """Refuses weights whose paths and shapes are not exactly those of a model.

    Args:
      arrays: path -> array.
      shapes: path -> anything with a shape, for every leaf of the model.
      field: source of the arrays, for the message.

    Raises:
      WeightsError: naming the arrays that do not fit, with both shapes.
    """
    wanted = {name: tuple(leaf.shape) for name, leaf in shapes.items()}
    left = problems(Fit(arrays=arrays, shapes=wanted, refused={}))
    _refuse(left, field=field, remedy="Give weights of exactly the arrays of the model.")


def _refuse(left: Mapping[str, str], *, field: str, remedy: str) -> None:
    if left:
        shown = "; ".join(f"{printable(name)}: {why}" for name, why in list(left.items())[:_SHOWN])
        more = f"; and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        raise WeightsError(
            f"Arrays of the weights do not fit the model ({shown}{more}).", remedy, where=field
        )


def check_names(names: Sequence[str], *, encoder: Encoder, field: str) -> None:
    """Refuses names of adaptations that do not exist."""
    for name in names:
        if name not in ADAPTATIONS[encoder]:
            known = ", ".join(ADAPTATIONS[encoder])
            raise ConfigError(
                f"There is no adaptation {name!r} of the {encoder} encoder.",
                f"Use some of {known}.",
                where=f"{field}.adapt",
            )


def problems(fit: Fit) -> dict[str, str]:
    """Returns path -> reason for which the array does not fit, sorted by path; empty if all fit."""
    found = {}
    for name in sorted(fit.shapes.keys() | fit.arrays.keys()):
        shape = fit.shapes.get(name)
        array = fit.arrays.get(name)
        if array is None:
            found[name] = f"not in the weights, the model has {shape}"
        elif shape is None:
            found[name] = f"not in the model, the weights have {array.shape}"
        elif array.shape != shape:
            found[name] = f"{array.shape} in the weights, {shape} in the model"
        elif name in fit.refused:
            found[name] = fit.refused[name]
    return found


def _tell(before: Fit, after: Fit, *, name: str, field: str) -> None:
    """Logs which arrays an adaptation changed, with counts."""
    shapes = {n: array.shape for n, array in before.arrays.items()}
    now = {n: array.shape for n, array in after.arrays.items()}
    changed = sorted(n for n in shapes.keys() | now if shapes.get(n) != now.get(n))
    fresh = sorted(before.shapes.keys() - after.shapes.keys())
    first = (changed or fresh)[0]
    logging.info(
        "%s: %s: %d arrays changed or left out, %d of the model fresh; the first is %s, %s -> %s",
        field, name, len(changed), len(fresh), first, shapes.get(first), now.get(first),
    )  # fmt: skip
