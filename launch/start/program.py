"""The start and end of every program: flags, processes, devices and exit codes."""

import contextlib
import functools
import itertools
import logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from data_prep.kit import cli
from launch.start import config_keys, jax_settings, whole_settings
from prior_jax.errors import ConfigError, PriorJaxError
from prior_jax.near_names import no_config
from prior_jax.processes import distributed
from prior_jax.processes.peers import EXIT_LOST, LostProcess
from prior_jax.processes.preemption import EXIT_CODE as EXIT_PREEMPTED
from prior_jax.processes.preemption import Stopped

START_SECONDS = 300
_CONFIG_FLAGS: set[str] = set()  # names of the flags that `define_config_flag` has defined
_EXIT_FAULT = 1
_EXIT_INTERRUPTED = 130  # as a shell calls the end by SIGINT: 128 + 2
_TRACE = "Error whilst parsing config file:"


class OwnMessages(logging.Filter):
    """A filter that passes all messages of this project, and only warnings of the libraries."""

    _ROOT = pathlib.Path(__file__).parents[2]

    def filter(self, record: logging.LogRecord) -> bool:
        """Tells whether the record is shown."""
        own = self._ROOT in pathlib.Path(record.pathname).parents
        installed = "site-packages" in record.pathname and "prior_jax" not in record.pathname
        return record.levelno >= logging.WARNING or (own and not installed)


def define_config_flag(name: str, help_text: str, *, required: bool = True) -> None:
    """Defines `--name=FILE` with overrides such as `--name.data.batch_size=64`.

    `whole_settings` has the overrides that ml_collections refuses, such as `--name.section=None`.
    """
    config_flags.DEFINE_config_file(name, None, help_text, lock_config=True)
    _CONFIG_FLAGS.add(name)
    if required:
        flags.mark_flag_as_required(name)
    # ml_collections reports a file that it cannot read only when a value is requested.
    flags.register_validator(name, lambda config: config is None or bool(config.keys()))


def config_arguments(name: str) -> tuple[str, ...]:
    """Returns the arguments that repeat `--name` as it was given, with its overrides."""
    flag = flags.FLAGS[name]
    overrides = {
        key: value.to_dict() if isinstance(value, ConfigDict) else value
        for key, value in config_flags.get_override_values(flag).items()
    }
    return (
        f"--{name}={config_flags.get_config_filename(flag)}",
        *(f"--{name}.{key}={value}" for key, value in overrides.items()),
    )


def define_cluster_flags() -> None:
    """Defines the flags for the cluster to start a run on, and for the job's name."""
    define_config_flag(
        "cluster", "File of the cluster, e.g. configs/clusters/slurm_gpu.py.", required=False
    )
    flags.DEFINE_string(
        "name", None, "Name of the job; by default derived from the workdir's name."
    )
    flags.DEFINE_boolean("dry_run", False, "Print the commands that would run, and make nothing.")


def define_cache_flag() -> None:
    """Defines the flag for the cache that runs share: costly results that are equal for all."""
    flags.DEFINE_string(
        "cache_dir",
        None,
        "Folder for compiled programs and measurements of the data; runs may share a folder. By "
        "default cache/ in the workdir.",
    )


def define_device_flags() -> None:
    """Defines the flags for the devices and processes of a run."""
    flags.DEFINE_enum(
        "distributed",
        "off",
        distributed.MODES,
        "off: one process; auto: detect the cluster (Slurm, TPU pod, GKE, Open MPI); explicit: "
        "take --coordinator, --processes and --process.",
    )
    flags.DEFINE_string("coordinator", None, "host:port of process 0, with --distributed=explicit.")
    flags.DEFINE_integer("processes", None, "Number of processes, with --distributed=explicit.")
    flags.DEFINE_integer("process", None, "Index of this process, with --distributed=explicit.")
    flags.DEFINE_integer(
        "start_seconds", START_SECONDS, "Seconds to wait for the other processes to start.", 1
    )
    flags.DEFINE_integer(
        "heartbeat_seconds",
        distributed.HEARTBEAT_SECONDS,
        "Seconds of silence after which a process counts as lost, which ends the others.",
    )
    flags.DEFINE_integer(
        "cpu_devices", None, "Run on this many simulated CPU devices instead of the real devices."
    )


def start_devices() -> None:
    """Joins the other processes, before any device is initialised.

    Raises:
      ConfigError: if the flags do not fit together, or the other processes cannot be found.
    """
    values = flags.FLAGS
    if values.cpu_devices is not None:
        jax_settings.use_cpu(values.cpu_devices)
    else:
        jax_settings.leave_out_absent_tpu()
    jax_settings.keep_freed_memory()
    try:
        config = distributed.DistributedConfig(
            mode=values.distributed,
            coordinator=values.coordinator,
            processes=values.processes,
            process=values.process,
            timeout_seconds=values.start_seconds,
            heartbeat_seconds=values.heartbeat_seconds,
        )
    except ConfigError as error:
        flag = "distributed" if error.where == "mode" else error.where
        raise ConfigError(error.problem, error.remedy, where=f"--{flag}") from error
    distributed.start(config)


def run(main: Callable[[], int | None], *define: Callable[[], None]) -> None:
    """Runs a program and exits.

    The exit code is 0 after success, 2 after an error that the user can correct (one line on
    stderr), 75 after a stop on request with everything saved, 76 after another process was lost
    or ended with an error (one line that names the process), 77 after the watchdog found an
    activity that does not end, 130 after Ctrl-C where nothing waits to be saved (one line on
    stderr), and 1 with a trace after a fault of the program.

    Args:
      main: function that runs the program; it takes no arguments and returns an exit code, or
        None for 0.
      *define: functions that define the program's flags.
    """
    for step in define:
        step()
    app.run(lambda argv: guarded(main, argv), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    for name, path in _config_files(argv):
        path = path.partition(":")[0]
        if not os.path.isfile(path):
            sys.exit(cli.fail(f"--{name}: {no_config(path)} Give the file of a config."))
    try:
        kept, whole = whole_settings.take(argv, _CONFIG_FLAGS, lambda name: _config_of(name, argv))
        with _command_line(kept):
            left = flags.FLAGS(kept)
        for one in whole:
            flag = flags.FLAGS[one.flag]
            given = {} if flag.value is None else config_flags.get_override_values(flag)
            whole_settings.put(flag.value, one, given)
        return left
    except PriorJaxError as error:
        sys.exit(cli.fail(str(error)))
    except (flags.Error, LookupError, AttributeError, TypeError, ValueError, OSError) as error:
        unknown = (
            _unknown_setting(argv) or _neither_none_nor_section(error) or _no_whole_number(error)
        )
        sys.exit(cli.fail(str(unknown or f"{pathlib.Path(argv[0]).name}: {_words(error)}")))


@contextlib.contextmanager
def _command_line(argv: list[str]) -> Iterator[None]:
    """Makes `sys.argv`, in which ml_collections looks for overrides, the given arguments."""
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


def _config_of(name: str, argv: list[str]) -> Any:
    """Returns the config as the file of `--name` makes it; None if it cannot be had."""
    for found, path in _config_files(argv):
        if found == name:
            try:
                return flags.FLAGS[name].parser.parse(path)
            except Exception:  # reading the flags themselves reports it
                return None
    return None


def _config_files(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Yields flag and file of the configs, with ":" and an argument of the config, if given."""
    for argument, following in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if argument == "--":
            return
        name, equals, value = argument.partition("=")
        if name.startswith("-") and name.lstrip("-") in _CONFIG_FLAGS:
            yield name.lstrip("-"), (value if equals else following)


def _unknown_setting(argv: list[str]) -> ConfigError | None:
    """Returns the error of a setting that its config does not have; None if there is no such."""
    for name, _ in _config_files(argv):
        try:
            config = _config_of(name, argv)
            given = tuple(config_keys.overridden(name, argv))
            error = config_keys.unknown_setting(name, config, given) if config else None
        except Exception:  # the config itself cannot be read: this is what is reported then
            continue
        if error is not None:
            return error
    return None


def _neither_none_nor_section(error: BaseException) -> ConfigError | None:
    """Returns the error of a value for a setting that its file leaves at None; None for others."""
    found = re.search(r"Type <class 'NoneType'> of field (\S+) is not supported", str(error))
    if found is None:
        return None
    return ConfigError(
        "The file of the config leaves the setting at None, and the value given is neither None "
        "nor a section that can be read.",
        f"Give None, or a section in quotation marks: \"--{found[1]}={{'name': value}}\".",
        where=found[1],
    )


def _no_whole_number(error: BaseException) -> ConfigError | None:
    """Returns the error of a value that has to be a whole number; None for other errors."""
    found = re.search(r"flag --?(\S+?)=.*invalid literal for int\(\).*?: (.*)", str(error), re.S)
    if found is None:
        return None
    squares = ", the side of a square in pixels" if found[1].endswith("data.image.size") else ""
    return ConfigError(
        f"The value is {found[2]}.", f"It must be one whole number{squares}.", where=f"--{found[1]}"
    )


def _words(error: BaseException) -> str:
    """Returns an error's text without the extra quotes of a KeyError, also inside another error.

    Of the trace that ml_collections puts in front of an error of a config's file, the last line is
    kept.
    """
    if error.args and isinstance(error.args[0], BaseException):
        return _words(error.args[0])
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    before, trace, after = text.partition(_TRACE)
    return f"{before}{after.strip().splitlines()[-1]}" if trace and after.strip() else text


def guarded(main: Callable[[], int | None], argv: list[str]) -> int | None:
    """Runs a program's `main`, disconnects from the other processes, and returns the exit code.

    If one of several processes fails, it ends here: waiting for the others could take for ever.

    Args:
      main: function that runs the program; it takes no arguments and returns an exit code, or
        None for 0.
      argv: arguments that are no flags; anything but the program's name is refused.
    """
    absl_logging.set_verbosity(absl_logging.INFO)
    absl_logging.get_absl_handler().addFilter(OwnMessages())
    try:
        code = cli.guarded(functools.partial(_reported, main), argv)
    except Stopped as stop:
        print(f"{stop} Run the same command again to resume.", file=sys.stderr)
        code = EXIT_PREEMPTED
    except LostProcess as lost:
        print(lost, file=sys.stderr)
        code = EXIT_LOST
    except KeyboardInterrupt:
        print("The program was interrupted. Run the same command again to go on.", file=sys.stderr)
        code = _EXIT_INTERRUPTED
    except BaseException:
        if distributed.peers() is None:
            distributed.stop()
            raise
        traceback.print_exc()
        code = _EXIT_FAULT
    distributed.stop(code or 0, orderly=not code or code == EXIT_PREEMPTED)
    return code


def _reported(main: Callable[[], int | None]) -> int | None:
    """Runs `main`, and reports an error to the other processes before it ends this process."""
    try:
        return main()
    except Stopped:
        raise
    except BaseException as error:
        distributed.report(error)
        raise
