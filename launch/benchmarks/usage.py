"""Processor time and peak memory of this process, of those it started, and of its devices."""

import os
import pathlib
import resource
import sys
import time

import jax

_PROC = pathlib.Path("/proc")
# Fields of /proc/PID/stat behind the name of the program, counted from the state.
_PARENT, _TIMES = 1, slice(11, 15)


def cpu_seconds() -> float:
    """Returns the processor seconds of this process and of all that it has started.

    Processes that still run are counted where the system has /proc; others once they have ended.
    """
    ended = os.times()
    living = sum(_ticks(fields) for fields in _descendants()) / os.sysconf("SC_CLK_TCK")
    return time.process_time() + ended.children_user + ended.children_system + living


def peak_bytes() -> int:
    """Returns the largest resident memory that this process has had, in bytes."""
    found = peak_of(os.getpid())
    if found is not None:
        return found
    # Where there is no /proc: kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_of(process: int) -> int | None:
    """Returns the largest resident memory of a running process so far, in bytes.

    `getrusage` would also count what the process that started it had at that time.

    Returns:
      The number of bytes; None if the process has ended or the system does not tell.
    """
    try:
        for line in (_PROC / str(process) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError):
        pass
    return None


def device_peak_bytes() -> int | None:
    """Returns the largest memory that a device of this process has had in use, in bytes.

    Returns:
      The number of bytes of the fullest device; None for devices that do not tell, as CPUs.
    """
    found = [_memory(device).get("peak_bytes_in_use") for device in jax.local_devices()]
    told = [int(value) for value in found if value is not None]
    return max(told) if told else None


def device_limit_bytes() -> int | None:
    """Returns the bytes that the smallest device offers to programs; None if it does not tell."""
    found = [_memory(device).get("bytes_limit") for device in jax.local_devices()]
    told = [int(value) for value in found if value is not None]
    return min(told) if told else None


def _memory(device: jax.Device) -> dict[str, int]:
    return device.memory_stats() or {}


def _descendants() -> list[list[str]]:
    """Returns the fields of /proc/PID/stat of every running process that this one has started."""
    children: dict[int, list[tuple[int, list[str]]]] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        children.setdefault(int(fields[_PARENT]), []).append((int(path.parent.name), fields))
    found, open_ = [], [os.getpid()]
    while open_:
        for process, fields in children.get(open_.pop(), ()):
            found.append(fields)
            open_.append(process)
    return found


def _ticks(fields: list[str]) -> int:
    return sum(int(value) for value in fields[_TIMES])
