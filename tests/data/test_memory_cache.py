"""What is kept in memory of a set changes no batch, and takes no more than it may."""

import dataclasses
import pickle

import pytest

from prior_jax.data import image, pipeline
from prior_jax.data.memory_cache import MemoryCache
from prior_jax.data.reader import RecordReader
from prior_jax.errors import ConfigError, DataError
from tests.data.batches import assert_same, take

STEPS = 14


@pytest.fixture
def counted(monkeypatch):
    """Numbers of the records that are read, and names of the images that are decoded."""
    records, images = [], []
    read, decode = RecordReader.read, image.placed_decode

    def counting_read(self, index):
        records.append(index)
        return read(self, index)

    def counting_decode(content, *, name, **options):
        images.append(name)
        return decode(content, name=name, **options)

    monkeypatch.setattr(RecordReader, "read", counting_read)
    monkeypatch.setattr(image, "placed_decode", counting_decode)
    return records, images


def opened(make_config, cache_dir, **changes):
    return pipeline.open_split(make_config(threads=1, **changes), "train", cache_dir=cache_dir)


def test_batches_of_later_epochs_are_read_from_memory_and_are_the_same(
    make_config, cache_dir, run, counted
):
    split = opened(make_config, cache_dir, memory_cache=1)
    for read in counted:
        read.clear()
    assert_same(take(split, STEPS), run)
    for read in counted:
        assert len(read) == len(set(read)) > 0
    before = [len(read) for read in counted]
    assert_same(take(split, STEPS), run)  # another iterator of the split
    # What was read ahead of the first run's last step may be new to it.
    assert len(counted[0]) == before[0]
    assert len(counted[1]) == len(set(counted[1]))


def test_what_does_not_fit_is_read_again(make_config, cache_dir, run, counted, monkeypatch):
    split = opened(make_config, cache_dir)
    monkeypatch.setattr(split, "_cache", MemoryCache(4000))
    counted[0].clear()
    assert_same(take(split, STEPS), run)
    assert 0 < split._cache.bytes <= 4000
    assert len(counted[0]) > len(set(counted[0]))


def test_another_size_of_image_is_decoded_anew(make_config, cache_dir):
    cropping = dataclasses.replace(make_config().augment, crop_from=24)
    other = opened(make_config, cache_dir, augment=cropping)
    cropped = opened(make_config, cache_dir, augment=cropping, memory_cache=1)
    with other.eval_batches(batch_size=4, require_text=False) as batches:
        wanted = list(batches)
    take(cropped, STEPS)
    with cropped.eval_batches(batch_size=4, require_text=False) as batches:
        assert_same(list(batches), wanted)


def test_workers_begin_with_empty_memories_and_give_the_same_batches(make_config, cache_dir, run):
    split = opened(make_config, cache_dir, memory_cache=1, workers=1)
    assert_same(take(split, STEPS), run)


def test_a_copy_in_another_process_is_empty():
    cache = MemoryCache(10)
    assert cache.get("a", lambda: "one", size=len) == "one"
    assert cache.get("a", lambda: "two", size=len) == "one"
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.bytes == 0
    assert copy.get("a", lambda: "two", size=len) == "two"


def test_an_error_is_raised_each_time_and_nothing_is_kept():
    cache = MemoryCache(10)

    def fail():
        raise DataError("The image cannot be used.", "Prepare the set again.")

    for _ in range(2):
        with pytest.raises(DataError):
            cache.get("a", fail, size=len)
    assert cache.bytes == 0


def test_less_than_nothing_is_refused(make_config):
    with pytest.raises(ConfigError, match="memory_cache"):
        make_config(memory_cache=-1)
