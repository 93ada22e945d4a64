"""The order that a published split lists its studies in.

"The first 1 %" and a draw of positions mean the members of a paper only in the paper's own order,
which the shards do not keep. A set that follows a published split has it beside its manifest.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from prior_jax.data.schema import write_atomically
from prior_jax.errors import DataError

ORDER_NAME = "split_order.json"


def save(order: Mapping[str, Sequence[str]], directory: str | os.PathLike[str]) -> None:
    """Writes `split_order.json`: split -> ids of its studies, in the order of the paper's list."""
    text = json.dumps({split: list(ids) for split, ids in order.items()}, ensure_ascii=False)
    write_atomically(pathlib.Path(directory) / ORDER_NAME, (text + "\n").encode())


def load(directory: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Reads `split_order.json`.

    Args:
      directory: directory of the prepared set.

    Returns:
      Split -> ids of studies, in the order of the published split. It names every study of the
      split, also those whose images could not be kept, and a study twice that the paper's table
      holds twice. Empty for a set that follows no published split.

    Raises:
      DataError: if the file is damaged; the message names it.
    """
    path = pathlib.Path(directory) / ORDER_NAME
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {split: [str(name) for name in names] for split, names in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"It cannot be read: {error}.",
            "Prepare the set anew with --overwrite.",
            where=str(path),
        ) from error
