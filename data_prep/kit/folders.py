"""Goes through folders of images, which may be links to folders on another disk."""

import os
import pathlib
from collections.abc import Iterator


def walked(folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder below a folder, itself among them, with the sorted names of its files.

    Links to folders are followed after everything else. A folder is visited once: by its own path
    if it lies below `folder`, else by that of the first link to it, so that a link to a folder
    above it does no harm.
    """
    waiting, visited = [os.fspath(folder)], set()
    while waiting:
        for root, names, files in os.walk(waiting.pop(0)):
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in visited:
                names.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            names.sort()
            yield root, sorted(files)
            paths = (os.path.join(root, name) for name in names)
            waiting += filter(os.path.islink, paths)
