"""Random access to the records of a prepared split, safe across threads and processes."""

import bisect
import itertools
import os
import pathlib
import threading
from typing import Any

from prior_jax.data import stored_example
from prior_jax.data.manifest import load_manifest
from prior_jax.data.schema import DATASET_NAME, Record
from prior_jax.errors import DataError, first_line


class RecordReader:
    """Reads records by index; opens files on first use, separately in each process."""

    def __init__(self, directory: str | os.PathLike[str], split: str):
        """Finds the split in the prepared set.

        Args:
          directory: directory of the prepared set.
          split: name of the split: "train", "validate" or "test".

        Raises:
          DataError: if the directory is not a prepared set, has no such split, or lacks a shard
            that the set lists.
        """
        self.directory = pathlib.Path(directory)
        self.split = split
        self.manifest = load_manifest(self.directory)
        builder = self._builder()
        if split not in builder.info.splits:
            raise DataError(
                f"The prepared set has no records in the split {split!r}.",
                f"Choose one of the splits {', '.join(sorted(builder.info.splits))}.",
                where=str(self.directory),
            )
        info = builder.info.splits[split]
        self.shards = tuple(sorted(os.path.basename(path) for path in info.filenames))
        self._ends = tuple(itertools.accumulate(info.shard_lengths))
        self._length = int(info.num_examples)
        for shard in self.shards:
            if not (self.directory / shard).is_file():
                raise DataError(
                    "The shard is missing, though the set's dataset_info.json lists it.",
                    "Copy the shard into the folder, or prepare the set again.",
                    where=str(self.directory / shard),
                )
        self._source: Any = None
        self._parse: Any = None
        self._lock = threading.Lock()

    def __getstate__(self):
        """Leaves out the open files."""
        return {**self.__dict__, "_source": None, "_parse": None, "_lock": None}

    def __setstate__(self, state):
        """Prepares the reader to open the files again when needed."""
        self.__dict__.update(state, _lock=threading.Lock())

    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            return tfds.builder_from_directory(self.directory)
        except Exception as error:  # TFDS and protobuf have no common exception class
            raise DataError(
                f"The folder is not a whole prepared set ({first_line(error)}).",
                "Give the --out folder of a data_prep program that has finished.",
                where=str(self.directory),
            ) from error

    def _open(self) -> tuple[Any, Any]:
        """Returns the stored bytes by index, and the function that reads them."""
        if self._source is None:
            import tensorflow_datasets as tfds

            stored = tfds.decode.DeserializeMethod.RAW_BYTES
            with self._lock:
                if self._source is None:
                    builder = self._builder()
                    self._parse = stored_example.parser(builder.info.features)
                    self._source = builder.as_data_source(self.split, deserialize_method=stored)
        return self._source, self._parse

    def __len__(self) -> int:
        """Returns the number of records of the split."""
        return self._length

    def shard_of(self, index: int) -> str:
        """Returns the file name of the shard that holds record `index`."""
        return self.shards[bisect.bisect_right(self._ends, index)]

    def where(self, index: int) -> str:
        """Returns split, index and shard of a record as text for error messages."""
        return f"{self.split} record {index} in {self.directory / self.shard_of(index)}"

    def read(self, index: int) -> Record:
        """Reads one record.

        Args:
          index: index of the record, 0 .. len - 1.

        Raises:
          DataError: if the record's bytes are damaged; names the record's index and shard.
        """
        if not 0 <= index < self._length:
            raise DataError.of_value(
                f"{self.directory}: {self.split} record", index, f"from 0 to {self._length - 1}"
            )
        stored, parse = self._open()
        try:
            return Record.from_example(parse(stored[index]))
        except DataError as error:
            raise DataError(
                error.problem, error.remedy, where=f"{self.where(index)}: {error.where}"
            ) from error
        except Exception as error:  # array_record, protobuf and TFDS have no common exception class
            raise DataError(
                f"The bytes are not a whole record of {DATASET_NAME} ({first_line(error)}).",
                "Copy the shard again, or prepare the set again.",
                where=self.where(index),
            ) from error
