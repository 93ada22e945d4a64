"""The threads and worker processes of the input pipeline, by grain."""

from typing import Any

import grain
from absl import flags


def start(dataset: grain.MapDataset, *, workers: int, threads: int, prefetch: int) -> Any:
    """Starts reading a data set ahead; elements come in order, however many workers there are.

    Args:
      dataset: random access; its elements are computed in threads or worker processes.
      workers: processes, 0 for none; they are spawned and touch no device.
      threads: threads in this process, or in each worker.
      prefetch: elements computed ahead in this process, or in each worker.

    Returns:
      grain's iterator; call its `close()`.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    ahead = dataset.to_iter_dataset(options)
    if workers > 0:
        if not flags.FLAGS.is_parsed():
            # grain reads its debugging flags, which need absl's parsing, done only by absl mains.
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(ahead)
