"""Shared code of all preparing programs: flags, exit codes, workers and hashes."""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import errno
import hashlib
import importlib.metadata
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from absl import app, flags

from prior_jax.errors import ConfigError, DataError, PriorJaxError

T = TypeVar("T")
R = TypeVar("R")

EXIT_FAILED_CHECK = 1
EXIT_USER_ERROR = 2

_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
)

_REPORTED_VERSIONS = ("array-record", "numpy", "pillow", "pysbd", "tensorflow-datasets")


def setting(help_text: str, **kwargs: Any) -> Any:
    """Returns a dataclass field that `define_flags` turns into a flag with this help text."""
    return dataclasses.field(metadata={"help": help_text}, **kwargs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a program's run; none of them changes what the program writes."""

    out: str = setting("Directory of the prepared set; made if missing.")
    workers: int = setting(
        "Number of parallel processes; the output does not depend on it.",
        default=os.cpu_count() or 1,
    )
    overwrite: bool = setting(
        "Prepare the set again if `out` holds a complete one, and replace it if it was made with "
        "other settings or inputs. A killed run with this flag goes on with it.",
        default=False,
    )

    def __post_init__(self):
        """Refuses fewer than one worker."""
        if self.workers < 1:
            raise ConfigError.of_value("--workers", self.workers, "at least 1")


def define_flags(*kinds: type) -> None:
    """Defines one flag for each field of the given dataclasses.

    A program calls this when it is run, not when it is imported, so that several programs can be
    imported into one process.
    """
    define = {
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean,
        tuple[str, ...]: flags.DEFINE_list,
    }
    for field in (field for kind in kinds for field in dataclasses.fields(kind)):
        required = field.default is dataclasses.MISSING
        default = None if required else field.default
        if isinstance(default, tuple):
            default = list(default)
        # The module is the program's own name, so that --help shows the flag.
        define[field.type](
            field.name,
            default,
            field.metadata["help"],
            module_name=sys.argv[0],
            required=required,
        )


def from_flags(kind: type[T]) -> T:
    """Returns the dataclass, filled from the flags that `define_flags` made from its fields."""
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(kind)}
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )


def given_flags(*kinds: type) -> frozenset[str]:
    """Returns the flags, with their dashes, that were given on the command line."""
    names = (field.name for kind in kinds for field in dataclasses.fields(kind))
    return frozenset(f"--{name}" for name in names if flags.FLAGS[name].present)


def run(main: Callable[[], int | None], *kinds: type) -> None:
    """Runs a program: parses its flags, calls `main`, and exits with the exit code.

    A flag that is unknown, missing or has a wrong value, a PriorJaxError, and a full or read-only
    disk end the program with one line on stderr and exit code 2.

    Args:
      main: function that returns an exit code, or None for 0.
      *kinds: dataclasses whose fields are the program's flags.
    """
    define_flags(*kinds)
    app.run(lambda argv: guarded(main, argv), flags_parser=parse_flags)


def parse_flags(argv: list[str]) -> list[str]:
    """Returns the arguments that are no flags; a wrong flag ends the program with code 2."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(fail(f"{pathlib.Path(argv[0]).name}: {error}; run it with --help for its flags."))


def guarded(main: Callable[[], int | None], argv: list[str]) -> int | None:
    """Calls a program's `main` and turns errors that the user can correct into exit code 2.

    Args:
      main: function that returns an exit code, or None for 0.
      argv: arguments that are no flags; anything but the program's name is refused.

    Returns:
      The exit code.
    """
    if len(argv) > 1:
        return fail(f"The argument {argv[1]!r} is not a flag. Give settings as --name=value.")
    try:
        return main()
    except PriorJaxError as error:
        return fail(str(error))
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        return fail(f"{error.filename or 'disk'}: {error.strerror}")


def fail(message: str) -> int:
    """Prints one line on stderr and returns the exit code for errors of the user."""
    print(" ".join(message.split()), file=sys.stderr)
    return EXIT_USER_ERROR


def sha256_of(path: pathlib.Path) -> str:
    """Returns the sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(paths: Iterable[pathlib.Path]) -> str:
    """Returns one sha256 of the names and contents of many files, in the given order."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(f"{path.name}\0{sha256_of(path)}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def required_file(path: pathlib.Path, *, flag: str) -> pathlib.Path:
    """Returns the path, or raises a DataError that names the flag if there is no such file."""
    refuse_long_name(path, flag=flag)
    if not path.is_file():
        problem = f"{path} does not exist, or is not a file."
        raise DataError(problem, "Give the path of an existing file.", where=flag)
    return path


def refuse_long_name(path: pathlib.Path, *, flag: str) -> None:
    """Refuses a path that the file system cannot even look up.

    Raises:
      ConfigError: if the path is too long; the message names the flag.
    """
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(
                f"{path} has a name of more than 255 bytes, which file systems refuse.",
                "Give a path with shorter names.",
                where=flag,
            ) from error


def versions() -> Mapping[str, str]:
    """Returns the versions of the packages that the written set depends on."""
    return {name: importlib.metadata.version(name) for name in _REPORTED_VERSIONS}


def parallel(
    function: Callable[[T], R], items: Iterable[T], *, workers: int
) -> Iterator[tuple[T, R]]:
    """Yields pairs (item, function(item)) as they are done, in any order.

    Args:
      function: picklable function: a module's function or a dataclass with `__call__`.
      items: picklable items.
      workers: number of processes; with 1, or a single item, everything runs in this process, in
        order.

    Raises:
      ConfigError: if a worker was killed.
    """
    items = list(items)
    if workers == 1 or len(items) <= 1:
        for item in items:
            yield item, function(item)
        return
    others = set(multiprocessing.active_children())
    # Workers are spawned, not forked: a fork copies locks that threads of JAX and TFDS may hold.
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(items)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_end_with_parent,
    )
    started: set[multiprocessing.process.BaseProcess] = set()
    try:
        futures = {}
        for item in items:
            futures[pool.submit(function, item)] = item
            started |= set(multiprocessing.active_children()) - others
        for future in concurrent.futures.as_completed(futures):
            yield futures.pop(future), future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        pool.shutdown(wait=True)  # the exit codes are known only after this
        raise ConfigError(
            f"One of the {workers} workers {end_of(process.exitcode for process in started)}.",
            "Run the same command again to continue, with a lower --workers if memory was short.",
            where="--workers",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def end_of(codes: Iterable[int | None]) -> str:
    """Describes how the worker that broke a pool ended, from the exit codes of all workers.

    Args:
      codes: exit codes of all workers: that of the worker that died, and that of SIGTERM, which
        the pool sends to the others; None if a worker's exit code is not known.
    """
    told = [code for code in codes if code not in (None, 0, -signal.SIGTERM)]
    if not told:
        return "was ended by SIGTERM or for an unknown reason"
    if -signal.SIGKILL in told:
        return "was killed (SIGKILL), most likely because memory ran out"
    if told[0] > 0:
        return f"ended itself with exit code {told[0]}"
    try:
        name = signal.Signals(-told[0]).name
    except ValueError:
        name = f"signal {-told[0]}"
    return f"crashed ({name}), most likely because a library could not read one of the files"


def _end_with_parent() -> None:
    """Makes a worker end when its parent is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
