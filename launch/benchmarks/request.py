"""What the command line asks of a benchmark, and the same as arguments for a process of its own."""

import dataclasses
import pathlib

from absl import flags

from prior_jax.data.manifest import MANIFEST_NAME
from prior_jax.errors import ConfigError

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """How a benchmark is to be run; each attribute is a flag of launch.bench of the same name.

    Attributes:
      tiny: whether towers, images and sets are shrunk, to rehearse.
      batch: pairs of a batch, or studies of a set; None for the benchmark's own.
      dtype: dtype of the computation; None for bfloat16 on accelerators and float32 on a CPU.
      steps: units of work in a block; None for the benchmark's own.
      blocks: measured blocks; None for the benchmark's own.
      data: folder of a prepared set with its tokenizer.model; None for a drawn one.
      trace: folder for a profiler's trace; None for no trace.
      cache_dir: folder of compiled programs; None for none.
      cpu_devices: number of simulated CPU devices; None for the machine's own devices.
    """

    tiny: bool = False
    batch: int | None = None
    dtype: str | None = None
    steps: int | None = None
    blocks: int | None = None
    data: str | None = None
    trace: str | None = None
    cache_dir: str | None = None
    cpu_devices: int | None = None

    def arguments(self) -> tuple[str, ...]:
        """Returns the flags that repeat the request."""
        given = dataclasses.asdict(self)
        tiny = ("--tiny",) if given.pop("tiny") else ()
        return (*tiny, *(f"--{k}={v}" for k, v in given.items() if v is not None))


def define_flags() -> None:
    """Defines the flags of a request."""
    flags.DEFINE_boolean("tiny", False, "Shrink towers, images and sets, to rehearse a run.")
    flags.DEFINE_integer(
        "batch", None, "Pairs of a batch, or studies of a set; by default the benchmark's own.", 1
    )
    flags.DEFINE_enum(
        "dtype", None, DTYPES, "Dtype; by default bfloat16 on accelerators and float32 on a CPU."
    )
    flags.DEFINE_integer(
        "steps", None, "Units of work in a block; by default the benchmark's own.", 1
    )
    flags.DEFINE_integer("blocks", None, "Measured blocks; by default the benchmark's own.", 1)
    flags.DEFINE_string(
        "data",
        None,
        "Folder of a prepared set that holds its tokenizer.model. Training steps are then also "
        "timed with their input; the benchmarks of a set read it instead of drawing one.",
    )
    flags.DEFINE_string("trace", None, "Folder for a profiler's trace of a block of each step.")
    flags.DEFINE_string(
        "cache_dir", None, "Folder for compiled programs; by default nothing is kept."
    )
    flags.DEFINE_integer(
        "cpu_devices", None, "Run on this many simulated CPU devices, not the machine's own.", 1
    )


def from_flags() -> Request:
    """Returns the request of the command line.

    Raises:
      ConfigError: if the set of `--data` is no prepared set, or has no tokenizer.
    """
    names = [field.name for field in dataclasses.fields(Request)]
    request = Request(**{name: flags.FLAGS[name].value for name in names})
    if request.data is not None:
        check_set(pathlib.Path(request.data))
    return request


def check_set(folder: pathlib.Path) -> None:
    """Refuses a folder that is no prepared set with a tokenizer.

    Raises:
      ConfigError: naming what is absent.
    """
    if not (folder / MANIFEST_NAME).is_file():
        raise ConfigError(
            f"{folder} is not a prepared set: it holds no {MANIFEST_NAME}.",
            "Give the folder of a prepared set; docs/data.md says how to prepare one.",
            where="--data",
        )
    if not (folder / "tokenizer.model").is_file():
        raise ConfigError(
            f"The set {folder} has no tokenizer.model.",
            f"Make one: python -m data_prep.train_tokenizer --path={folder}",
            where="--data",
        )
