"""The state of a run, explicit and sharded: a step maps it to a new one, a checkpoint holds it."""

import dataclasses
import functools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from prior_jax.errors import WeightsError
from prior_jax.sharding.mesh import replicated
from prior_jax.sharding.rules import Rule, optimizer_shardings, shardings_for

Arrays = dict[str, jax.Array]
Path = tuple[Any, ...]

_MANY = 2**25  # numbers from which on drawing them takes longer than compiling how they are drawn


@flax.struct.dataclass
class TrainState:
    """All values that a step changes, and the key from which its randomness is drawn.

    They are plain dictionaries keyed by path ("encoder/conv/kernel"): calling a jitted step over
    dictionaries takes a fraction of the time that calling one over module objects takes.

    Attributes:
      step: int32[], steps done; the index of the next one.
      params: path -> float32 parameter.
      rest: path -> other state of the model, such as batch statistics.
      optimizer: optimizer state of the last step's stage, over the parameters that it trains.
      key: uint32[2], raw key of the run; a step uses `fold_in(key, step)`.
    """

    step: jax.Array
    params: Arrays
    rest: Arrays
    optimizer: Any
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class ModelDefinition:
    """A model without its arrays: shapes, paths, and the structure to merge arrays into.

    Attributes:
      graphdef: the NNX structure.
      params: path -> shape and dtype of each parameter.
      rest: path -> shape and dtype of all other state.
      param_paths: path of a parameter -> the same path in NNX's form.
      rest_paths: path of other state -> the same path in NNX's form.
    """

    graphdef: Any
    params: Mapping[str, jax.ShapeDtypeStruct]
    rest: Mapping[str, jax.ShapeDtypeStruct]
    param_paths: Mapping[str, Path]
    rest_paths: Mapping[str, Path]

    def merge(self, params: Mapping[str, Any], rest: Mapping[str, Any]) -> nnx.Module:
        """Returns a module over these arrays; its structure is a copy, for use under jit."""
        # copy=True: without it NNX refuses to update batch statistics inside a trace.
        return nnx.merge(
            self.graphdef,
            _nest(params, self.param_paths),
            _nest(rest, self.rest_paths),
            copy=True,
        )

    def split(self, module: nnx.Module) -> tuple[Arrays, Arrays]:
        """Returns the module's parameters and the rest, as flat dictionaries."""
        _, params, rest = nnx.split(module, nnx.Param, ...)
        return _flatten(params), _flatten(rest)


def _nest(arrays: Mapping[str, Any], paths: Mapping[str, Path]) -> dict:
    return nnx.traversals.unflatten_mapping({paths[name]: value for name, value in arrays.items()})


def _flatten(state: Any) -> Arrays:
    return {_name(path): value for path, value in nnx.to_flat_state(nnx.as_pure(state))}


def values_of(module: nnx.Module) -> Iterator[tuple[Path, Any]]:
    """Yields the path and the array of every parameter and other state, in the order of paths."""
    yield from nnx.to_flat_state(nnx.as_pure(nnx.split(module)[1]))


def _name(path: Sequence[Any]) -> str:
    return "/".join(str(part) for part in path)


def define_model(init: Callable[[nnx.Rngs], nnx.Module]) -> ModelDefinition:
    """Traces the model's construction, without memory or time for its arrays.

    Args:
      init: function that builds the model, e.g. `objective.init`.

    Returns:
      The model's structure and shapes.

    Raises:
      ValueError: if the model keeps random state. Each step gets its randomness as a key instead,
        so that a resumed run draws the same numbers as an uninterrupted one.
    """
    module = nnx.eval_shape(lambda: init(nnx.Rngs(0)))
    graphdef, params, rest = nnx.split(module, nnx.Param, ...)
    random = [_name(path) for path, v in nnx.to_flat_state(rest) if isinstance(v, nnx.RngState)]
    if random:
        raise ValueError(
            f"The model keeps random state in {random}. Pass the keys to its calls instead."
        )
    kinds = []
    for part in (params, rest):
        flat = list(nnx.to_flat_state(nnx.as_pure(part)))
        kinds.append({_name(p): jax.ShapeDtypeStruct(v.shape, v.dtype) for p, v in flat})
        kinds.append({_name(path): path for path, _ in flat})
    return ModelDefinition(graphdef, kinds[0], kinds[2], kinds[1], kinds[3])


def trainable_names(
    model: ModelDefinition, trainable: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...]:
    """Returns the sorted paths of the parameters for which `trainable(path parts)` holds."""
    return tuple(sorted(name for name in model.params if trainable(tuple(name.split("/")))))


def fresh_optimizer(
    params: Mapping[str, Any],
    *,
    names: Sequence[str],
    transformation: optax.GradientTransformation,
) -> Any:
    """Returns the optimizer state at a stage's start, for the parameters that the stage trains."""
    return transformation.init({name: params[name] for name in names})


def abstract_state(
    model: ModelDefinition,
    *,
    names: Sequence[str],
    transformation: optax.GradientTransformation,
    rules: Sequence[Rule],
    mesh: Mesh,
) -> TrainState:
    """Returns shape, dtype and sharding of every array of the state in one stage.

    Args:
      model: definition from `define_model`.
      names: paths of the parameters that the stage trains.
      transformation: the stage's optimizer.
      rules: sharding rules of the arrays.
      mesh: mesh of the devices.

    Returns:
      A state whose leaves are `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      ConfigError: if the rules do not match every array.
    """
    everywhere = replicated(mesh)
    shardings = {
        "params": shardings_for(model.params, rules=rules, mesh=mesh),
        "rest": shardings_for(model.rest, rules=rules, mesh=mesh),
    }
    optimizer = jax.eval_shape(
        functools.partial(fresh_optimizer, names=names, transformation=transformation),
        dict(model.params),
    )
    places = optimizer_shardings(
        optimizer,
        shapes={name: value.shape for name, value in model.params.items()},
        parameters=shardings["params"],
        mesh=mesh,
    )
    return TrainState(
        step=_placed(jax.ShapeDtypeStruct((), jnp.int32), everywhere),
        params=jax.tree.map(_placed, dict(model.params), shardings["params"]),
        rest=jax.tree.map(_placed, dict(model.rest), shardings["rest"]),
        optimizer=jax.tree.map(_placed, optimizer, places),
        key=_placed(jax.ShapeDtypeStruct((2,), jnp.uint32), everywhere),
    )


def _placed(value: Any, sharding: NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)


def shardings_of(abstract: Any) -> Any:
    """Returns the tree of shardings of a tree of `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def initial_state(
    init: Callable[[nnx.Rngs], nnx.Module],
    *,
    model: ModelDefinition,
    abstract: TrainState,
    names: Sequence[str],
    transformation: optax.GradientTransformation,
    seed: int,
    values: Mapping[str, np.ndarray] | None = None,
) -> TrainState:
    """Initialises the parameters in their shardings: no device ever holds a whole sharded array.

    Args:
      init: function that builds the model.
      model: definition from `define_model(init)`.
      abstract: state from `abstract_state`, for the first stage.
      names: paths of the parameters that the first stage trains.
      transformation: the first stage's optimizer.
      seed: seed of the run; the parameters do not depend on the number of devices.
      values: path -> array, parameters or other state to start from, such as an encoder's imported
        weights; no initial values are drawn in their place.

    Returns:
      The state before step 0.

    Raises:
      WeightsError: if `values` names an array that the model lacks, or of another shape.
    """
    given = _given(values or {}, abstract)
    missing = _without(abstract, given)

    def draw(root):
        # The key is an argument, so that runs with different seeds share one compiled program.
        params, rest = model.split(init(nnx.Rngs(jax.random.fold_in(root, 0))))
        optimizer = fresh_optimizer(params, names=names, transformation=transformation)
        key, step = jax.random.key_data(jax.random.fold_in(root, 1)), jnp.zeros((), jnp.int32)
        state = TrainState(step=step, params=params, rest=rest, optimizer=optimizer, key=key)
        return _without(state, given)

    compiled = jax.jit(
        draw, out_shardings=shardings_of(missing), compiler_options=compile_quickly(missing)
    )
    state = compiled(jax.random.key(seed))
    return dataclasses.replace(
        state,
        params={name: given.get(name, state.params.get(name)) for name in abstract.params},
        rest={name: given.get(name, state.rest.get(name)) for name in abstract.rest},
    )


def _without(state: TrainState, names: Container[str]) -> TrainState:
    """Returns the state without the parameters and the other state of these paths."""
    kept = (
        {name: leaf for name, leaf in part.items() if name not in names}
        for part in (state.params, state.rest)
    )
    params, rest = kept
    return dataclasses.replace(state, params=params, rest=rest)


def _given(values: Mapping[str, np.ndarray], abstract: TrainState) -> dict[str, jax.Array]:
    """Returns arrays that were given, cast and placed as the model's arrays of the same paths.

    Raises:
      WeightsError: see `initial_state`.
    """
    found = {}
    for name, value in values.items():
        wanted = abstract.params.get(name, abstract.rest.get(name))
        if wanted is None or wanted.shape != value.shape:
            raise _misfit(name, value, wanted=wanted)
        found[name] = _place(value, like=wanted)
    return found


def _misfit(name: str, value: np.ndarray, *, wanted: Any) -> WeightsError:
    shape = tuple(value.shape)
    if wanted is None:
        return WeightsError(
            f"The model has no array of this name; the given one has shape {shape}.",
            "Remove it from the weights, or give it the name of an array of the model.",
            where=name,
        )
    return WeightsError(
        f"The given array has shape {shape}, and the model's has shape {wanted.shape}.",
        "Give weights of a model of the same size, or change config.model to theirs.",
        where=name,
    )


def compile_quickly(abstract: TrainState) -> dict[str, int] | None:
    """Returns options for a program that runs once, whose optimisation would not pay on a CPU.

    Level 1 draws seven times as fast as level 0, and takes half as long again to compile: at 257
    million numbers 22 + 4 CPU-seconds in place of 14 + 26, and 4 in place of 26 where the compiled
    program is found in a cache.
    """
    (device, *_) = abstract.step.sharding.device_set
    if device.platform != "cpu":
        return None
    drawn = sum(leaf.size for leaf in (*abstract.params.values(), *abstract.rest.values()))
    return {"xla_backend_optimization_level": int(drawn > _MANY)}


def _place(value: np.ndarray, *, like: jax.Array) -> jax.Array:
    value = np.asarray(value).astype(like.dtype)
    return jax.make_array_from_callback(value.shape, like.sharding, lambda index: value[index])
