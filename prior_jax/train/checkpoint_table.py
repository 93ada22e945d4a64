"""Content of a checkpoint: the table of its arrays, and its comparison with a model."""

import dataclasses
import json
import math
import os
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from prior_jax.errors import CheckpointError, ConfigError, check_choice, check_least
from prior_jax.train import checkpoint_storage
from prior_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save checkpoints and which to keep.

    Attributes:
      every_steps: steps between saves; every stage's end, the last step, and a step whose
        evaluation is one of the `keep_best` best so far are saved as well.
      keep_last: number of newest checkpoints to keep, at least 1; with 2 or more there is one to
        fall back to.
      keep_best: number of best checkpoints to keep in addition.
      best_metric: name of the evaluation's number that decides which is best, or None. All stages
        compete: a number whose meaning differs between stages, such as a total of other terms, is
        for runs of one stage. A value that is NaN or infinite is never the best. A run that is
        resumed with another one, or with other settings of the evaluations that it is a number of,
        begins anew to look for the best.
      best_is: "lowest" or "highest".
      directory: location of the checkpoints, which must hold no other files: a path,
        gs://BUCKET/FOLDER or s3://BUCKET/FOLDER, for this run alone; None for `checkpoints` in the
        workdir. Metrics, config and reports are in the workdir in any case. The location is no part
        of a run's identity.
    """

    every_steps: int
    keep_last: int
    keep_best: int
    best_metric: str | None
    best_is: str
    directory: str | None

    def __post_init__(self):
        """Refuses counts below their minimum, contradictions and locations of an unknown kind."""
        check_least(self, every_steps=1, keep_last=1, keep_best=0)
        check_choice(self, "best_is", ("lowest", "highest"))
        if self.keep_best and self.best_metric is None:
            raise ConfigError(
                f"The best {self.keep_best} checkpoints are to be kept, but no metric says which "
                "are best.",
                "Name a metric of the evaluation, or set keep_best to 0.",
                where="best_metric",
            )
        checkpoint_storage.check_directory(self.directory)

    def folder(self, workdir: str | os.PathLike[str]) -> epath.Path:
        """Returns the folder of the checkpoints of the run in `workdir`."""
        return checkpoint_storage.folder_of(self.directory, workdir=workdir)

    def better(self, new: float | None, old: float | None) -> bool:
        """Returns whether `new` is a finite score, and a better one than `old`."""
        if new is None or not math.isfinite(new):
            return False
        return old is None or (new < old if self.best_is == "lowest" else new > old)


def state_parts(state: TrainState) -> dict[str, Any]:
    """Returns the arrays to write, as dictionaries keyed by path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state.optimizer)
    optimizer = {jax.tree_util.keystr(path, simple=True, separator="."): v for path, v in leaves}
    return {
        "model": {"params": dict(state.params), "rest": dict(state.rest)},
        "optimizer": {"arrays": optimizer, "step": state.step, "key": state.key},
    }


def flat_names(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of nested dictionaries, keyed by their keys joined with ":"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(parts)
    return {jax.tree_util.keystr(path, simple=True, separator=":"): v for path, v in leaves}


def array_table(parts: Mapping[str, Any], *, sums: Mapping[str, str]) -> dict[str, list]:
    """Returns name -> [shape, dtype, checksum]."""
    return {
        name: [list(leaf.shape), str(jnp.dtype(leaf.dtype)), sums[name]]
        for name, leaf in flat_names(parts).items()
    }


def pack(document: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a JSON document as arrays to be stored, with a checksum of its own."""
    text = json.dumps(document, sort_keys=True, allow_nan=False).encode()
    return {
        "json": np.frombuffer(text, np.uint8).copy(),
        "crc32": np.array([zlib.crc32(text)], np.uint32),
    }


def unpack(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the document that `pack` stored.

    Raises:
      ValueError: if the checksum shows that the document differs from the stored one.
    """
    text = np.asarray(stored["json"]).tobytes()
    if zlib.crc32(text) != int(np.asarray(stored["crc32"])[0]):
        raise ValueError("the host values' checksum differs")
    return json.loads(text)


def check_fits(path: Any, table: Mapping[str, list], wanted: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of another model.

    Args:
      path: path of the checkpoint, for the message.
      table: name -> [shape, dtype, checksum], for the parts that are wanted.
      wanted: parts with the shapes to restore to.

    Raises:
      CheckpointError: naming up to five arrays that differ, with both shapes.
    """
    expected = {
        name: [list(leaf.shape), str(jnp.dtype(leaf.dtype))]
        for name, leaf in flat_names(wanted).items()
    }
    differ = sorted(n for n in expected.keys() | table if table.get(n, [])[:2] != expected.get(n))
    if not differ:
        return

    def show(rows):
        return ", ".join(
            f"{n} {rows[n][1]}{rows[n][0]}" if n in rows else f"{n} absent" for n in differ[:5]
        )

    more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
    raise CheckpointError(
        f"The checkpoint is of another model: it holds {show(table)}{more}, and the model of this "
        f"config has {show(expected)}{more}.",
        "Use the config that the checkpoint was trained with, or another --workdir.",
        where=str(path),
    )
