"""The stored images of a split, for the pictures of the report."""

from collections.abc import Callable

import numpy as np

from launch.evaluation.subject import Opened
from prior_jax.data import image as image_lib
from prior_jax.evaluate.pictures import SIDE, Radiograph


def radiographs_of(opened: Opened) -> Callable[[int], Radiograph]:
    """Returns the function that reads the first image of a record, the one that is evaluated.

    Args:
      opened: split of the records.

    Returns:
      Function from the index of a record to its image in grey. A large JPEG is decoded at a
      fraction of its size, which is still larger than what the report shows.
    """

    def read(index: int) -> Radiograph:
        record = opened.record(index)
        name = f"study {record.study_id}"
        image = image_lib.decode(record.images[0], channels=1, size=SIDE, name=name)
        return Radiograph(title=name, pixels=np.asarray(image))

    return read
