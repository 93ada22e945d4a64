"""Start-up of several processes, and the check that they were started alike."""

import dataclasses
import functools
import hashlib
import os
import pathlib
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

from prior_jax.errors import ConfigError
from prior_jax.processes import activities, signals
from prior_jax.processes.cards import say
from prior_jax.processes.peers import Peers

HEARTBEAT_SECONDS = 100
"""JAX's own default."""
_CONNECT_SECONDS = 1.0
_GIVE_UP_SECONDS = 60

MODES = ("off", "auto", "explicit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """How the processes of one run find each other.

    Attributes:
      mode: "off" for one process; "auto" to detect the cluster (Slurm, TPU pod, GKE, Open MPI)
        as `jax.distributed.initialize` does; "explicit" to take the fields below.
      coordinator: host:port of process 0; explicit only.
      processes: how many there are; explicit only.
      process: index of this one, from 0; explicit only.
      timeout_seconds: how long to wait for the others.
      heartbeat_seconds: a process that was silent for so long is lost, and ends the run.
    """

    mode: str
    coordinator: str | None
    processes: int | None
    process: int | None
    timeout_seconds: int
    heartbeat_seconds: int = HEARTBEAT_SECONDS

    def __post_init__(self):
        """Refuses half an address."""
        if self.mode not in MODES:
            raise ConfigError("distributed.mode", received=self.mode, accepted=f"one of {MODES}")
        given = {"coordinator": self.coordinator, "processes": self.processes}
        given["process"] = self.process
        for name, value in given.items():
            if (value is not None) != (self.mode == "explicit"):
                wanted = "a value" if self.mode == "explicit" else "None"
                raise ConfigError(
                    f"distributed.{name}",
                    received=value,
                    accepted=f"{wanted} with mode {self.mode!r}",
                )
        if self.mode == "explicit" and not 0 <= int(self.process or 0) < int(self.processes or 0):
            raise ConfigError(
                "distributed.process", received=self.process, accepted=f"0..{self.processes} - 1"
            )
        if self.heartbeat_seconds < 1:
            raise ConfigError(
                "distributed.heartbeat_seconds", received=self.heartbeat_seconds, accepted=">= 1"
            )


_peers: Peers | None = None


def peers() -> Peers | None:
    """This process among the others; None where it is alone."""
    return _peers


def start(config: DistributedConfig) -> None:
    """Joins this process to the run; call it before anything touches a device.

    Args:
      config: who the others are.

    Raises:
      ConfigError: if no cluster is detected.

    If the others have not come in time this process ends here, with the error's line and code 2:
    jaxlib would abort it.
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
            initialization_timeout=config.timeout_seconds + _GIVE_UP_SECONDS,
            # jaxlib ends the processes too, but without a name: it comes second.
            heartbeat_timeout_seconds=2 * config.heartbeat_seconds + 10,
        )
    except (RuntimeError, ValueError) as error:
        # jax raises ValueError where no cluster is found, RuntimeError (of XLA) on a timeout.
        raise ConfigError(
            "distributed",
            received=f"{config.mode}: {str(error).splitlines()[0]}",
            accepted="a cluster that can be detected, or coordinator, processes and process",
        ) from error
    finally:
        patience.cancel()
    _join(config)


def _give_up(config: DistributedConfig) -> None:
    """Ends this process, from a thread: the main thread is in jaxlib and waits for the others."""
    which = f" of {config.processes}" if config.processes else ""
    error = ConfigError(
        "distributed",
        received=f"{config.mode}: not all processes{which} within {config.timeout_seconds} s",
        accepted="every process started; see --start_seconds and the others' logs",
    )
    say(str(error))
    os._exit(2)


def _join(config: DistributedConfig) -> None:
    """Makes this process known to the others."""
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
    """Whether somebody listens at host:port; True also where that cannot be found out."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True  # an overloaded machine or network; the heartbeat has the last word
    return True


def stop(code: int = 0, *, orderly: bool = True) -> None:
    """Leaves the run, waiting for the others; after a fault it ends this process at once.

    Args:
      code: exit code, of which the second way makes use.
      orderly: whether all processes end in the same way, so that they can wait for each other.
    """
    global _peers
    if _peers is not None:
        if not orderly:
            _peers.depart()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # other ends wait for threads, which wait for what is lost
        with activities.doing(activities.COLLECTIVE):
            _peers.finish()
        _peers = None
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def report(error: BaseException) -> None:
    """Tells the other processes what this one ends with; they could only guess.

    Args:
      error: what the program is about to end with.

    Raises:
      LostProcess: if another process is behind it, naming that process.
    """
    if _peers is not None:
        _peers.report(error)


def is_primary() -> bool:
    """True in the one process that writes logs and files."""
    return jax.process_index() == 0


def agree(flag: bool) -> bool:
    """True if the flag is True in every process.

    Every process has to call it at the same point.

    Args:
      flag: this process's.

    Returns:
      The same answer in all processes.
    """
    if jax.process_count() == 1:
        return flag
    with activities.doing(activities.COLLECTIVE):
        return bool(np.all(multihost_utils.process_allgather(np.array([flag], np.int32))))


def barrier(name: str) -> None:
    """Waits until every process has come to the point of this name."""
    if jax.process_count() > 1:
        with activities.doing(activities.COLLECTIVE):
            multihost_utils.sync_global_devices(name)


def code_fingerprint(package: pathlib.Path | None = None) -> str:
    """sha256 over the names and contents of the package's Python files.

    Args:
      package: the folder; by default that of `prior_jax`.

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
    train on different batches, or wait for each other's collectives for ever.

    Args:
      values: name -> text that must be the same everywhere, e.g. the code's fingerprint, the seed,
        the config as JSON. The names and their order must be the same in every process; the first
        that differs is named.
      clock_tolerance_seconds: how far the clocks may be apart; logs of clocks that disagree
        cannot be read together.

    Raises:
      ConfigError: naming the value and the processes that differ from process 0.
    """
    if jax.process_count() == 1:
        return
    names = list(values)
    digests = [hashlib.sha256(values[name].encode()).digest() for name in names]
    # The names go first, so that a missing one is told apart before shapes could disagree.
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
            "distributed.clock",
            received=f"clocks {spread:.1f} s apart (process {int(clocks.argmin())} is behind)",
            accepted=f"at most {clock_tolerance_seconds} s",
        )


def _compare(name: str, digest: bytes, *, text: str) -> None:
    """Raises in every process if any of them hashes this value differently."""
    rows = np.asarray(multihost_utils.process_allgather(np.frombuffer(digest, np.uint8)))
    differ = [i for i in range(len(rows)) if not np.array_equal(rows[i], rows[0])]
    if differ:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise ConfigError(
            f"distributed.{name}",
            received=f"processes {differ} differ from process 0 (here: {shown})",
            accepted="the same value in every process",
        )
