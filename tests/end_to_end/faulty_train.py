"""launch.train with a fault in one of its processes.

python -m tests.end_to_end.faulty_train FAULT PROCESS [flags of launch.train]
"""

import sys
import time

import numpy as np

from launch import train
from launch.start import program
from prior_jax.data import pipeline
from prior_jax.processes import distributed
from prior_jax.train import checkpoint

STEP = 12
"""Index of the step whose batch is touched."""


def poisoned_batch():
    _change_batch(lambda batch: batch.replace(image=np.full_like(batch.image, np.nan)))


def stalled_input():
    def stall(batch):
        time.sleep(10_000)

    _change_batch(stall)


def _change_batch(change):
    original = pipeline.Split.train_batches

    def changed(self, **options):
        for step, batch in original(self, **options):
            yield step, change(batch) if step == STEP else batch

    pipeline.Split.train_batches = changed


def stalled_save():
    original = checkpoint.ocp.save_checkpointables_async

    class Stalled:
        def __init__(self, response):
            self._response = response

        def result(self):
            time.sleep(10_000)

    checkpoint.ocp.save_checkpointables_async = lambda *a, **k: Stalled(original(*a, **k))


def late_clock():
    now = time.time
    time.time = lambda: now() - 3600.0


def other_code():
    distributed.code_fingerprint = lambda package=None: "0" * 64


def programming_error():
    def fail(batch):
        raise RuntimeError("a fault of the program")

    _change_batch(fail)


def main():
    fault, process, *flags = sys.argv[1:]
    if f"--process={process}" in flags:
        globals()[fault]()
    sys.argv = [sys.argv[0], *flags]
    program.run(train.main, train.define_flags)


if __name__ == "__main__":
    main()
