"""The threads and worker processes of the input pipeline, run by grain."""

from typing import Any

import grain
from absl import flags


def start(dataset: grain.MapDataset, *, workers: int, threads: int, prefetch: int) -> Any:
    """Starts reading a data set ahead; elements are in order for any number of workers.

    Args:
      dataset: data set with random access; its elements are computed in threads or worker
        processes.
      workers: number of worker processes, 0 for none; they are spawned and use no device.
      threads: number of threads in this process, or in each worker.
      prefetch: number of elements computed ahead in this process, or in each worker.

    Returns:
      Iterator of grain; the caller must call its `close()`.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    ahead = dataset.to_iter_dataset(options)
    if workers > 0:
        if not flags.FLAGS.is_parsed():
            # grain reads its debugging flags, which absl must have parsed; only absl mains parse
            # them.
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(ahead)
