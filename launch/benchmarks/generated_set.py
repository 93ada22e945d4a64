"""Generated hospitals for the benchmarks of data: drawn, and prepared where that is not timed."""

import pathlib

from data_prep import train_tokenizer
from data_prep.phantom import hospital
from launch.start import prepare

SIZE = 256
"""Pixels of the shorter side of a stored image, as a real set is prepared by default."""
TINY_SIZE = 64


def settings_of(studies: int, *, tiny: bool) -> hospital.Settings:
    """Returns the settings of a hospital, nearly all of whose patients are for training."""
    return hospital.Settings(
        studies=studies,
        seed=0,
        size=TINY_SIZE if tiny else SIZE,
        train=0.9,
        validate=0.05,
        test=0.05,
        zip_reports=False,
    )


def prepared(folder: pathlib.Path, *, studies: int, tiny: bool) -> pathlib.Path:
    """Draws a hospital, prepares it and trains its tokenizer.

    Args:
      folder: folder for the raw data and the set.
      studies: number of studies to draw.
      tiny: whether images are small.

    Returns:
      The folder of the prepared set, with its tokenizer.model.
    """
    made = folder / "data" / "set"
    wanted = prepare.Missing(
        phantom=settings_of(studies, tiny=tiny),
        tokenizer=train_tokenizer.Settings(path=str(made), out=str(made / "tokenizer.model")),
    )
    prepare.make_absent(wanted, folder)
    return made
