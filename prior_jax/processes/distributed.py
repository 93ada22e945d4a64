"""Starts the processes of a run, and checks that all were started with the same settings."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax._src import distributed as jax_distributed
from jax.experimental import multihost_utils

from prior_jax.errors import ConfigError, check_choice, check_field, check_least
from prior_jax.processes import activities, signals
from prior_jax.processes.cards import say
from prior_jax.processes.peers import Peers

HEARTBEAT_SECONDS = 100
"""Default of `DistributedConfig.heartbeat_seconds`, which is JAX's own."""
_CONNECT_SECONDS = 1.0
_GIVE_UP_SECONDS = 60

MODES = ("off", "auto", "explicit")
# host:port, where an IPv6 address is in brackets.
_ADDRESS = re.compile(r"(\[[^\s\[\]]+\]|[^\s:\[\]]+):(\d{1,5})", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How the processes of one run find each other.

    Attributes:
      mode: "off" for one process; "auto" to detect the cluster (Slurm, TPU pod, GKE, Open MPI)
        as `jax.distributed.initialize` does, which may also give each process one GPU of its host;
        "explicit" to take the fields below, and all the devices that the process sees.
      coordinator: host:port of process 0, or [address]:port of IPv6; explicit only.
      processes: number of processes; explicit only.
      process: index of this process, from 0; explicit only.
      timeout_seconds: time to wait for the other processes at start-up.
      heartbeat_seconds: time of silence after which a process counts as lost and ends the run.
    """

    mode: str
    coordinator: str | None
    processes: int | None
    process: int | None
    timeout_seconds: int
    heartbeat_seconds: int = HEARTBEAT_SECONDS

    def __post_init__(self):
        """Refuses an incomplete address, and values out of range."""
        check_choice(self, "mode", MODES)
        explicit = self.mode == "explicit"
        for name in ("coordinator", "processes", "process"):
            must_be = f"{'given' if explicit else 'left out'} with the mode {self.mode!r}"
            check_field(self, name, (getattr(self, name) is not None) == explicit, must_be)
        if explicit:
            address = _ADDRESS.fullmatch(self.coordinator or "")
            known = address is not None and 0 < int(address[2]) < 2**16
            must_be = "host:port with a port from 1 to 65535, such as node-1:1234 or [::1]:1234"
            check_field(self, "coordinator", known, must_be)
            known = 0 <= int(self.process or 0) < int(self.processes or 0)
            must_be = f"at least 0 and below the number of processes, {self.processes}"
            check_field(self, "process", known, must_be)
        check_least(self, heartbeat_seconds=1)


_peers: Peers | None = None


def peers() -> Peers | None:
    """Returns this process's view of the others; None if it is the only process."""
    return _peers


def start(config: DistributedConfig) -> None:
    """Joins this process to the run; call it before any code touches a device.

    Args:
      config: number and addresses of the processes.

    Raises:
      ConfigError: if no cluster is detected.

    If the other processes have not started in time, this process ends here, with the error's line
    and exit code 2, since jaxlib would otherwise abort it.
    """
    if config.mode == "off":
        return
    patience = threading.Timer(config.timeout_seconds, _give_up, [config])
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            coordinator_address=config.coordinator,
            num_processes=config.processes,
            process_id=config.process,
            # In a step of Slurm, JAX would otherwise hide all GPUs but one from the process.
            cluster_detection_method="deactivate" if config.mode == "explicit" else None,
            initialization_timeout=config.timeout_seconds + _GIVE_UP_SECONDS,
            # jaxlib ends the processes too, but without naming the lost one, so it gets more time.
            heartbeat_timeout_seconds=2 * config.heartbeat_seconds + 10,
        )
    except (RuntimeError, ValueError) as error:
        # jax raises ValueError where no cluster is found, RuntimeError (of XLA) on a timeout.
        raise ConfigError(
            f"No cluster was found in the mode {config.mode!r}: {str(error).splitlines()[0]}.",
            "Start the program by a cluster that JAX can detect, or give --distributed=explicit "
            "with --coordinator, --processes and --process.",
            where="--distributed",
        ) from error
    finally:
        patience.cancel()
    _join(config)


def _give_up(config: DistributedConfig) -> None:
    """Ends this process from a thread, since the main thread waits for the others inside jaxlib."""
    which = f" of {config.processes}" if config.processes else ""
    error = ConfigError(
        f"In the mode {config.mode!r} not all processes{which} have started within "
        f"{config.timeout_seconds} s.",
        "Read the logs of the other processes, or wait longer with --start_seconds.",
        where="--distributed",
    )
    say(str(error))
    os._exit(2)


def _join(config: DistributedConfig) -> None:
    """Registers this process with the others."""
    global _peers
    state: Any = jax_distributed.global_state  # jax has no public name for the store
    if state.num_processes > 1:
        signals.delay_aborts()
        _peers = Peers(
            state.client,
            process=state.process_id,
            processes=state.num_processes,
            heartbeat_seconds=config.heartbeat_seconds,
            reachable=functools.partial(_takes_connections, state.coordinator_address),
        )
        _peers.start()
        logging.info("%s has joined the %d of the run", _peers.own().name, state.num_processes)


def _takes_connections(address: str) -> bool:
    """Returns whether a server listens at host:port; True also where that cannot be determined."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # an overloaded machine or network; the heartbeat decides
    return True


def stop(code: int = 0, *, orderly: bool = True) -> None:
    """Leaves the run, waiting for the others; after a fault it ends this process at once.

    Args:
      code: exit code, used only if `orderly` is False.
      orderly: whether all processes end in the same way, so that they can wait for each other.
    """
    global _peers
    if _peers is not None:
        if not orderly:
            _peers.depart()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # a normal exit would wait for threads that wait for a lost process
        with activities.doing(activities.COLLECTIVE):
            _peers.finish()
        _peers = None
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def report(error: BaseException) -> None:
    """Tells the other processes the error with which this one ends.

    Args:
      error: error that the program is about to end with.

    Raises:
      LostProcess: if another process caused the error, naming that process.
    """
    if _peers is not None:
        _peers.report(error)


def is_primary() -> bool:
    """Returns True in the one process that writes logs and files."""
    return jax.process_index() == 0


def agree(flag: bool) -> bool:
    """Returns True if the flag is True in every process.

    Every process has to call it at the same point.

    Args:
      flag: flag of this process.

    Returns:
      The same answer in all processes.
    """
    if jax.process_count() == 1:
        return flag
    with activities.doing(activities.COLLECTIVE):
        return bool(np.all(multihost_utils.process_allgather(np.array([flag], np.int32))))


def barrier(name: str) -> None:
    """Waits until every process has reached the barrier of this name."""
    if jax.process_count() > 1:
        with activities.doing(activities.COLLECTIVE):
            multihost_utils.sync_global_devices(name)


def code_fingerprint(package: pathlib.Path | None = None) -> str:
    """Returns the sha256 over the names and contents of the package's Python files.

    Args:
      package: folder of the package; by default that of `prior_jax`.

    Returns:
      64 hexadecimal digits.
    """
    root = pathlib.Path(__file__).parent.parent if package is None else package
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def check_agreement(values: Mapping[str, str], *, clock_tolerance_seconds: float) -> None:
    """Refuses a run whose processes were started with different settings.

    Every process has to call it, right after `start`. Processes that differ would otherwise
    train on different batches, or wait for each other's collectives forever.

    Args:
      values: name -> text that must be the same everywhere, e.g. the code's fingerprint, the seed,
        the config as JSON. The names and their order must be the same in every process; the first
        that differs is named.
      clock_tolerance_seconds: largest difference between the processes' clocks; logs of clocks that
        disagree cannot be read together.

    Raises:
      ConfigError: naming the value and the processes that differ from process 0.
    """
    if jax.process_count() == 1:
        return
    names = list(values)
    digests = [hashlib.sha256(values[name].encode()).digest() for name in names]
    # The names are compared first, so that a missing name is reported before the processes enter
    # collectives of different shapes.
    together = hashlib.sha256("\0".join(names).encode()).digest()
    _compare("names", together, text=", ".join(names))
    for name, digest in zip(names, digests, strict=True):
        _compare(name, digest, text=values[name])
    now = time.time()
    parts = np.array([int(now // 1e6), int(now % 1e6), int(now % 1 * 1e6)], np.int32)
    clocks = np.asarray(multihost_utils.process_allgather(parts)).astype(np.float64)
    clocks = clocks @ np.array([1e6, 1.0, 1e-6])
    spread = float(clocks.max() - clocks.min())
    if spread > clock_tolerance_seconds:
        raise ConfigError(
            f"The clocks of the processes are {spread:.1f} s apart, and that of process "
            f"{int(clocks.argmin())} is the last; at most {clock_tolerance_seconds} s are allowed.",
            "Synchronise the clocks of the hosts.",
        )


def _compare(name: str, digest: bytes, *, text: str) -> None:
    """Raises in every process if the hash of a value differs in any of them."""
    rows = np.asarray(multihost_utils.process_allgather(np.frombuffer(digest, np.uint8)))
    differ = [i for i in range(len(rows)) if not np.array_equal(rows[i], rows[0])]
    if differ:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise ConfigError(
            f"The {name} of the processes {differ} differs from that of process 0; in this process "
            f"it is {shown}.",
            "Start every process from the same code with the same arguments.",
        )
