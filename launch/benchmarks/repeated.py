"""What a benchmark hands over to be timed: a unit of work that can be repeated."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
    """A unit of work, ready to be repeated: whatever is prepared once has been done.

    Attributes:
      run: does a number of units and returns when the last is done.
      unit: name of what is counted, e.g. "pairs".
      count: number of pairs, images or whatever `unit` names in one unit of work.
      batch: size that the benchmark was run at, as `Request.batch`.
      steps: units of work in a block.
      blocks: number of measured blocks.
      warm_up: blocks before the first that is measured.
      dtype: dtype of the computation; None where nothing is computed on a device.
      flops: operations of the matrix products and convolutions of a unit, on all devices; None
        where they are not counted.
      bytes_moved: bytes that a unit reads from and writes to main memory, on all devices, summed
        over single instructions and so at most; None where they are not counted.
      with_input: does a number of units of work with data that are read meanwhile, and returns the
        seconds waited for data; None where there is no such form.
      facts: name -> JSON value, to report as it is: sizes, seconds of compilation, memory by kind.
      after: measures further facts once the blocks are done.
      child_peak: returns the peak memory in bytes of the processes that do the work; None where
        this process does it.
      trace: whether a profiler can see the work.
    """

    run: Callable[[int], None]
    unit: str
    count: int
    batch: int
    steps: int
    blocks: int
    warm_up: int = 1
    dtype: str | None = None
    flops: float | None = None
    bytes_moved: float | None = None
    with_input: Callable[[int], float] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    after: Callable[[], Mapping[str, Any]] = dict
    child_peak: Callable[[], int] | None = None
    trace: bool = False
