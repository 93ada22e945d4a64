"""Threads and worker processes: they change no batch, end quietly and name what went wrong."""

import dataclasses
import multiprocessing
import os
import pathlib
import subprocess
import sys

import pytest

from prior_jax.data import pipeline
from prior_jax.errors import DataError
from tests import fixtures
from tests.data.batches import assert_same, take

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_worker_processes_give_the_same_batches_and_leave_nothing(
    make_config, cache_dir, run, workers
):
    config = make_config(workers=workers, threads=1, prefetch=1)
    split = pipeline.open_split(config, "train", cache_dir=cache_dir)
    assert_same(take(split, 9, start_step=2), run[2:11])
    assert not multiprocessing.active_children()


def test_threads_and_prefetching_change_nothing(make_config, cache_dir, run):
    config = make_config(threads=5, prefetch=1)
    assert_same(take(pipeline.open_split(config, "train", cache_dir=cache_dir), 14), run)


def test_a_program_with_workers_ends_quietly(prepared, vocabulary, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        f"""
from prior_jax.data import image, pipeline, tokenizer

def main():
    config = pipeline.DataConfig(
        path={str(prepared)!r},
        image=image.ImageConfig(size=64, channels=3, mean=None, std=None),
        augment=image.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0),
        tokenizer=tokenizer.TokenizerConfig(
            kind="wordpiece", path={str(vocabulary)!r}, lower_case=True),
        caption="report", text_mode="release", text_sources=("report",),
        shuffle_sentences=True, max_tokens=64, max_sentences=4, buckets=(64,), bucket_window=1,
        batch_size=4, seed=0, workers=2, threads=1, prefetch=2)
    split = pipeline.open_split(config, "train", cache_dir={str(tmp_path)!r})
    with split.train_batches() as batches:
        kept = [next(batches) for _ in range(3)]
    print(kept[2][0], kept[2][1].image.shape)

if __name__ == "__main__":
    main()
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "2 (4, 64, 64, 3)"
    assert done.stderr == ""


def test_what_runs_in_workers_imports_no_model_library():
    code = (
        "import sys, prior_jax.data.loader, prior_jax.data.set_statistics;"
        "assert 'flax' not in sys.modules and 'prior_jax.types' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_with_its_study_and_shard(tmp_path, make_config, workers):
    records = [fixtures.draw_record(i) for i in range(12)]
    broken = tuple(image[: len(image) // 2] for image in records[9].images)
    records[9] = dataclasses.replace(records[9], images=broken)
    fixtures.write_prepared(tmp_path / "set", records=records)
    config = make_config(path=str(tmp_path / "set"), workers=workers, threads=1, prefetch=1)
    split = pipeline.open_split(config, "train", cache_dir=tmp_path)
    with pytest.raises(DataError) as caught:
        take(split, 3)
    assert "study 's00009'" in caught.value.where
    assert "prior_set-train.array_record-00001-of-00002" in caught.value.where
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_named(make_config, cache_dir):
    config = make_config(workers=1, threads=1, prefetch=1)
    split = pipeline.open_split(config, "train", cache_dir=cache_dir)
    with split.train_batches() as batches:
        next(batches)
        for worker in multiprocessing.active_children():
            worker.kill()
        with pytest.raises(DataError, match=r"worker was killed.*Lower config\.data\.workers"):
            for _ in range(10_000):
                next(batches)
