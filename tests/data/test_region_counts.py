"""Findings of each record are counted once for a set and its labels."""

import numpy as np
import pytest

from prior_jax.data import reader, region_counts
from prior_jax.errors import DataError
from tests.data.region_sets import targets


def test_findings_are_counted_once_and_kept(prepared_regions, tmp_path, monkeypatch):
    opened = reader.RecordReader(prepared_regions, "train")
    chosen = targets("boxes", ("A", "B"))
    counts = region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=2)
    assert counts.tolist() == [1, 1, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0] and counts.dtype == np.int32
    (kept,) = tmp_path.glob("findings-*.npy")
    monkeypatch.setattr(reader.RecordReader, "read", None)  # nothing is read a second time
    again = region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=2)
    np.testing.assert_array_equal(again, counts)
    # Masks, and classes in another order, have the same findings; other labels have others.
    same = targets("masks", ("B", "A"))
    region_counts.measure(opened, same, cache_dir=tmp_path, threads=2)
    assert list(tmp_path.glob("findings-*.npy")) == [kept]
    monkeypatch.undo()
    other = region_counts.measure(opened, targets("boxes", ("C",)), cache_dir=tmp_path, threads=2)
    assert other.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert len(list(tmp_path.glob("findings-*.npy"))) == 2


@pytest.mark.parametrize("damage", ["cut off", "empty", "another length", "another type"])
def test_damaged_counts_are_refused_by_name(prepared_regions, tmp_path, damage):
    opened, chosen = reader.RecordReader(prepared_regions, "train"), targets("boxes", ("A", "B"))
    region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=1)
    (kept,) = tmp_path.glob("findings-*.npy")
    if damage == "cut off":
        kept.write_bytes(kept.read_bytes()[:-9])
    elif damage == "empty":
        kept.write_bytes(b"")
    else:
        wrong = np.zeros(5, np.int32) if damage == "another length" else np.zeros(12)
        np.save(kept, wrong)
    with pytest.raises(DataError) as error:
        region_counts.measure(opened, chosen, cache_dir=tmp_path, threads=1)
    assert error.value.where == str(kept) and "Delete the file" in str(error.value)
