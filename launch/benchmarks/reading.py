"""The input pipeline: batches of a prepared set, without training on them."""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

from launch.benchmarks import generated_set
from launch.benchmarks.repeated import Repeated
from launch.benchmarks.request import Request
from launch.benchmarks.step_configs import StepConfig, read
from prior_jax.data import pipeline

STUDIES = 1000
_TINY_STUDIES = 100


@contextlib.contextmanager
def batches(step: StepConfig, request: Request, folder: pathlib.Path) -> Iterator[Repeated]:
    """Opens the training batches of a config.

    Args:
      step: config whose images, text and batches are read.
      request: `data`, or a set is drawn; `batch` is the number of pairs of a batch.
      folder: folder for the drawn set and for measurements of the set.

    Yields:
      The reading of one batch; its unit is the pair.
    """
    given = request.data
    if given is None:
        studies = _TINY_STUDIES if request.tiny else STUDIES
        given = str(generated_set.prepared(folder, studies=studies, tiny=request.tiny))
    config = read(step, dataclasses.replace(request, data=given), folder)
    split = pipeline.open_split(config.data, "train", cache_dir=folder / "cache")
    with split.train_batches() as source:

        def run(count: int) -> None:
            for _ in itertools.islice(source, count):
                pass

        yield Repeated(
            run=run,
            unit="pairs",
            count=config.data.batch_size,
            batch=config.data.batch_size,
            steps=request.steps or (2 if request.tiny else 8),
            blocks=request.blocks or 8,
            facts={
                "workers": config.data.workers,
                "threads": config.data.threads,
                "text_mode": config.data.text_mode,
                "pixels": config.data.image.size,
            },
        )
