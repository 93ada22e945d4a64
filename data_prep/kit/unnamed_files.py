"""Finds image files that no row of a table names."""

import os
import pathlib
from collections.abc import Collection, Iterator

from data_prep.kit import folders
from data_prep.kit.outcomes import Rejection

NO_ROW = "file_without_row"


def files_without_row(
    folder: pathlib.Path, *, named: Collection[str], suffixes: Collection[str]
) -> Iterator[Rejection]:
    """Yields a rejection for each image of a folder, however deep it lies, that no row names.

    Args:
      folder: folder that the paths of the rows are relative to.
      named: paths as the rows write them, those of rejected rows among them.
      suffixes: suffixes of the images, in lower case, e.g. (".png",).
    """
    known = {os.path.normpath(path.strip()) for path in named}
    for root, files in folders.walked(folder):
        for file in files:
            path = os.path.relpath(os.path.join(root, file), folder)
            if os.path.splitext(file)[1].lower() in suffixes and path not in known:
                yield Rejection(id=path, reason=NO_ROW, detail="no row of the table names it")
