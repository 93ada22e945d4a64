"""The names that a checkpoint's pickle may use, and the value that we make for each.

None of the named objects is ever imported or called: a name is replaced by one of our own
functions, by a kind of storage, or by an inert placeholder. Placeholders are listed because real
checkpoints carry these objects beside their tensors: configs of omegaconf, callbacks and
enumerations of Lightning, numpy's scalars, paths. Any name that is absent here is refused.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from prior_jax.errors import WeightsError
from prior_jax.interop.printable import printable
from prior_jax.interop.torch.tensors import (
    MAX_ELEMENTS,
    SAVE_AGAIN,
    STORAGE_DTYPES,
    Storage,
    rebuild_parameter,
    rebuild_tensor,
)


class Inert:
    """Placeholder for an object that we do not use; it takes any state and ignores it."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Name:
    """A name of the table.

    Attributes:
      name: module and name, joined by a dot.
      build: function that makes the value when the pickle calls the name; None gives an `Inert`.
      dtype: dtype of a storage's numbers; None for a name that is not a storage.
    """

    name: str
    build: Callable[..., Any] | None = None
    dtype: np.dtype | None = None

    def call(self, arguments: tuple, *, field: str) -> Any:
        """Returns the value that the pickle gets for calling the name; runs our own code only."""
        return Inert() if self.build is None else self.build(arguments, field=field)


def find_name(module: str, name: str, *, field: str) -> Name:
    """Finds what stands in our reader for a class or function that a pickle names.

    Args:
      module: module that the pickle gives; Python 2's `__builtin__` and `copy_reg` are accepted.
      name: name of the class or function in that module.
      field: name of the file, for errors.

    Returns:
      The entry of the table of accepted names.

    Raises:
      WeightsError: naming the module or name that the table does not have.
    """
    full = f"{_MODULES_OF_PYTHON_2.get(module, module)}.{name}"
    if full not in _TABLE:
        raise WeightsError(
            f"The file has a pickle that asks for {printable(full)}; only tensors and plain data "
            "are read, no other classes or functions.",
            "If you trust the file, load it with torch and save its state dict alone.",
            where=field,
        )
    return _TABLE[full]


def find_storage(said: Any, *, field: str) -> Storage:
    """Reads a persistent id, by which torch's pickles refer to a storage.

    Args:
      said: ("storage", class, key, device, count), and None at the end in files before 1.6.
      field: the file's name for errors.

    Returns:
      the storage, whose bytes have not been read yet.

    Raises:
      WeightsError: if the persistent id is of any other form.
    """

    def refusal(what: str) -> WeightsError:
        return WeightsError(f"The file has {what}.", SAVE_AGAIN, where=field)

    parts = tuple(said) if isinstance(said, tuple) else ()
    if len(parts) == 6 and parts[5] is None:
        parts = parts[:5]
    if len(parts) != 5 or parts[0] != "storage":
        raise refusal("a pickle with a persistent id that is no storage")
    _, kind, key, device, count = parts
    if not isinstance(kind, Name) or kind.dtype is None:
        found = kind.name if isinstance(kind, Name) else type(kind).__name__
        raise refusal(f"a storage of class {found}, which is not read")
    if not (isinstance(key, str) and isinstance(device, str)):
        raise refusal("a storage whose key or device is no text")
    if type(count) is not int or not 0 <= count <= MAX_ELEMENTS:
        raise refusal("a storage whose size is negative, absurdly large or no whole number")
    return Storage(key=key, dtype=kind.dtype, count=count)


def _mapping(arguments: tuple, *, field: str) -> dict:
    """Builds an `OrderedDict` or `Counter`: empty, or filled with a dictionary or pairs."""
    if not arguments:
        return {}
    if len(arguments) == 1 and isinstance(arguments[0], dict):
        return dict(arguments[0])
    if len(arguments) == 1 and isinstance(arguments[0], list | tuple):
        pairs = arguments[0]
        if all(
            isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str | int)
            for pair in pairs
        ):
            return {key: value for key, value in pairs}
    raise WeightsError(
        "The file has a dictionary that is not made of pairs of key and value.",
        SAVE_AGAIN,
        where=field,
    )


def _default_mapping(arguments: tuple, *, field: str) -> dict:
    """Builds a `defaultdict` without its default factory; its items are set afterwards."""
    return {}


def _size(arguments: tuple, *, field: str) -> tuple:
    """Builds a `torch.Size` as a tuple."""
    if len(arguments) == 1 and isinstance(arguments[0], list | tuple):
        return tuple(arguments[0])
    raise WeightsError(
        "The file has a torch.Size that is not made of a tuple.", SAVE_AGAIN, where=field
    )


def _rebuild_from_type(arguments: tuple, *, field: str) -> Any:
    """Calls `torch._tensor._rebuild_from_type_v2`: function, class, its arguments, attributes."""
    if len(arguments) == 4:
        function, kind, inner, _ = arguments
        known = isinstance(function, Name) and function.name in _REBUILD
        plain = isinstance(kind, Name) and kind.name in _TENSOR_CLASSES
        if known and plain and isinstance(inner, tuple):
            return function.call(inner, field=field)
    raise WeightsError(
        "The file has a tensor that is rebuilt in an unknown way; only tensors and parameters are "
        "read.",
        SAVE_AGAIN,
        where=field,
    )


_MODULES_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}

_REBUILD: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": rebuild_parameter,
}
_BUILT: dict[str, Callable[..., Any]] = {
    **_REBUILD,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": _default_mapping,
}
_TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

_TORCH_DTYPES = (
    "float16 float32 float64 half float double bfloat16 complex64 complex128 uint8 int8 int16 "
    "int32 int64 short int long bool"
).split()

# Module -> names that are replaced by an `Inert` placeholder.
_HARMLESS = {
    "builtins": "dict list tuple set frozenset int long float complex str unicode bytes bytearray "
    "bool object slice range",
    "copyreg": "_reconstructor",
    "_codecs": "encode",  # protocol 2's way to store bytes
    "typing": "Any Dict List Tuple Union Optional",
    "collections": "deque",
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "datetime": "date datetime time timedelta timezone",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "PosixPath WindowsPath PurePosixPath PureWindowsPath",
    "torch": "Tensor device",
    "torch.nn.parameter": "Parameter Buffer",
    "numpy": "ndarray dtype bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 "
    "uint32 uint64 str_ bytes_",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.dtypes": "Float16DType Float32DType Float64DType Int8DType Int16DType Int32DType "
    "Int64DType UInt8DType BoolDType",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.nodes": "AnyNode StringNode IntegerNode FloatNode BooleanNode EnumNode BytesNode "
    "PathNode InterpolationResultNode",
    "yacs.config": "CfgNode",
    "easydict": "EasyDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "lightning_fabric.utilities.enums": "LightningEnum _StrategyType AMPType PrecisionType",
    "lightning.fabric.utilities.data": "AttributeDict",
}
# Such names within `pytorch_lightning` and, since 2.0, `lightning.pytorch`.
_LIGHTNING = {
    "utilities.parsing": "AttributeDict",
    "utilities.enums": "AMPType DistributedType DeviceType ModelSummaryMode GradClipAlgorithmType",
    "utilities.types": "_METRIC_COLLECTION",
    "trainer.states": "TrainerFn TrainerStatus RunningStage",
    "callbacks.model_checkpoint": "ModelCheckpoint",
    "callbacks.early_stopping": "EarlyStopping",
    "callbacks.lr_monitor": "LearningRateMonitor",
    "callbacks.gpu_stats_monitor": "GPUStatsMonitor",
    "callbacks.device_stats_monitor": "DeviceStatsMonitor",
    "callbacks.xla_stats_monitor": "XLAStatsMonitor",
    "callbacks.progress": "ProgressBar ProgressBarBase",
    "callbacks.progress.base": "ProgressBarBase",
    "callbacks.progress.progress": "ProgressBar",
    "callbacks.progress.tqdm_progress": "TQDMProgressBar",
    "callbacks.progress.rich_progress": "RichProgressBar",
    "callbacks.model_summary": "ModelSummary",
    "callbacks.rich_model_summary": "RichModelSummary",
    "callbacks.gradient_accumulation_scheduler": "GradientAccumulationScheduler",
    "callbacks.stochastic_weight_avg": "StochasticWeightAveraging",
    "callbacks.lambda_function": "LambdaCallback",
    "callbacks.prediction_writer": "BasePredictionWriter",
    "callbacks.finetuning": "BaseFinetuning BackboneFinetuning",
    "callbacks.timer": "Timer",
    "callbacks.pruning": "ModelPruning",
    "callbacks.quantization": "QuantizationAwareTraining",
}


def _inert_names() -> Iterable[str]:
    for module, names in _HARMLESS.items():
        yield from (f"{module}.{name}" for name in names.split())
    for root in ("pytorch_lightning", "lightning.pytorch"):
        for module, names in _LIGHTNING.items():
            yield from (f"{root}.{module}.{name}" for name in names.split())
    yield from (f"torch.{dtype}" for dtype in _TORCH_DTYPES)


_TABLE: dict[str, Name] = {
    **{name: Name(name) for name in _inert_names()},
    **{name: Name(name, build=build) for name, build in _BUILT.items()},
    **{
        f"{module}.{kind}": Name(f"{module}.{kind}", dtype=dtype)
        for module in ("torch", "torch.cuda")
        for kind, dtype in STORAGE_DTYPES.items()
    },
}
