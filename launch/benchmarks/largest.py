"""The largest batch that a device holds: foretold from the compiler's plan, then tried."""

import dataclasses
from collections.abc import Callable, Sequence

from launch.benchmarks.child import ChildFailed
from launch.benchmarks.result import Report, Result

_SHARE = 0.97  # of the device's memory: what remains is for the allocator's gaps
_NEAR = 1.04  # a batch so much larger is not worth a trial
_MOST = 8  # times the first batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Largest:
    """The largest batch that was found.

    Attributes:
      report: report of the largest batch that ran; None if none larger than the first did.
      fits: the largest batch that ran.
      refused: batches for which the memory did not suffice.
      ended: why the search ended.
    """

    report: Report | None
    fits: int
    refused: tuple[int, ...]
    ended: str


def needed_bytes(result: Result) -> int:
    """Returns the bytes that the compiler plans on a device for a step of a result."""
    kinds = ("argument_bytes", "temporary_bytes", "new_result_bytes")
    return sum(int(result.facts[kind]) for kind in kinds)


def next_batch(
    known: Sequence[tuple[int, int]], *, limit: int, multiple: int, refused: Sequence[int] = ()
) -> int:
    """Returns the batch to try next.

    Args:
      known: batch and its needed bytes, of one or more batches that ran, ascending. The need grows
        with the batch along a line through the last two; of a single batch, in proportion, which
        asks for too little, as weights do not grow.
      limit: bytes of a device.
      multiple: the batch is a multiple of this number.
      refused: batches that did not fit; the next is half-way below the smallest.
    """
    batch, need = known[-1]
    slope, base = need / batch, 0.0
    if len(known) > 1:
        before, needed = known[-2]
        slope = max((need - needed) / (batch - before), 1.0)
        base = need - slope * batch
    wanted = (_SHARE * limit - base) / slope
    if refused:
        wanted = min(wanted, (batch + min(refused)) / 2)
    wanted = min(wanted, _MOST * known[0][0])
    return int(wanted) // multiple * multiple


def largest(
    first: Result,
    measure: Callable[[int], Report],
    *,
    limit: int,
    multiple: int,
    seconds_left: Callable[[], float],
    trial_seconds: float,
) -> Largest:
    """Searches the largest batch of a training step that runs.

    Args:
      first: result of a batch that ran.
      measure: measures a batch in a process of its own; raises ChildFailed.
      limit: bytes that a device offers.
      multiple: batches are multiples of this number.
      seconds_left: returns the seconds that remain.
      trial_seconds: seconds that a trial is expected to take; none begins with fewer left.
    """
    known, refused, report = [(first.batch, needed_bytes(first))], [], None
    while True:
        batch = next_batch(known, limit=limit, multiple=multiple, refused=refused)
        fits = known[-1][0]
        if batch <= fits or (batch < fits * _NEAR and batch - fits <= multiple):
            ended = "no larger batch is expected to fit"
            break
        if seconds_left() < trial_seconds:
            ended = f"the time was over before the trial of {batch}"
            break
        try:
            tried = measure(batch)
        except ChildFailed as error:
            if not (error.killed or "RESOURCE_EXHAUSTED" in error.tail):
                ended = f"the trial of {batch} failed: {error.problem}"
                break
            refused.append(batch)
            continue
        report = tried
        known.append((batch, needed_bytes(tried.results[0])))
        if batch == _MOST * first.batch // multiple * multiple:
            ended = f"no more than {_MOST} times the first batch is tried"
            break
    return Largest(report=report, fits=known[-1][0], refused=tuple(refused), ended=ended)
