"""The whole pipeline: what batches hold, and that they are the same from any step on."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from prior_jax.data import fitting, pipeline
from prior_jax.data import image as image_lib
from prior_jax.errors import ConfigError, DataError
from prior_jax.types import BatchPart
from tests import fixtures
from tests.data.batches import assert_same, assert_shares, take


def test_a_batch_has_the_shapes_and_types_it_promises(train, run):
    assert train.steps_per_epoch() == 6
    for step, batch in run:
        length = batch.tokens.shape[1]
        assert length in (32, 64, 96)
        shapes = {
            "image": ((4, 16, 16, 1), np.float32),
            "tokens": ((4, length), np.int32),
            "token_mask": ((4, length), np.bool_),
            "sentence_index": ((4, length), np.int32),
            "sentence_mask": ((4, 6), np.bool_),
            "labels": ((4, 3), np.int8),
            "weight": ((4,), np.float32),
            "record": ((4,), np.int32),
        }
        for field, (shape, dtype) in shapes.items():
            value = getattr(batch, field)
            assert type(value) is np.ndarray
            assert (value.shape, value.dtype) == (shape, dtype), (step, field)
        assert (batch.weight == 1).all()
        assert batch.token_mask.sum(axis=1).max() > length - 32


def test_rows_hold_what_the_record_holds(train, run):
    _, batch = run[0]
    for row, index in enumerate(batch.record):
        record = fixtures.draw_record(int(index))
        assert train.record_id(index) == record.study_id
        assert batch.labels[row].tolist() == list(record.labels)
        owned = batch.tokens[row][batch.sentence_index[row] >= 0]
        if batch.sentence_mask[row].sum() == len(record.sentences):
            apart = train.tokenizer.encode_ids(record.sentences)
            assert sorted(owned.tolist()) == sorted(np.concatenate(apart).tolist())


def test_every_record_is_met_at_most_once_an_epoch(run):
    for epoch in (run[:6], run[6:12]):
        met = np.concatenate([batch.record for _, batch in epoch])
        assert len(set(met.tolist())) == 24


def test_another_epoch_draws_other_images_orders_and_augmentations(run):
    def rows(part):
        return {
            int(r): (b.image[i], b.tokens[i][b.token_mask[i]])
            for _, b in part
            for i, r in enumerate(b.record)
        }

    first, second = rows(run[:6]), rows(run[6:12])
    both = first.keys() & second.keys()
    assert sum((first[r][0] != second[r][0]).any() for r in both) > len(both) // 2
    texts = [(first[r][1], second[r][1]) for r in both]
    assert sum(len(a) != len(b) or (a != b).any() for a, b in texts) > len(both) // 2


def test_every_image_of_a_study_is_drawn_sooner_or_later(tmp_path, make_config):
    def plain(level):
        content = io.BytesIO()
        Image.new("L", (16, 16), level).save(content, "PNG")
        return content.getvalue()

    record = dataclasses.replace(
        fixtures.draw_record(0),
        images=(plain(10), plain(110), plain(210)),
        image_ids=("a", "b", "c"),
        views=("PA", "PA", "AP"),
    )
    fixtures.write_prepared(tmp_path / "set", records=[record])
    config = make_config(
        path=str(tmp_path / "set"),
        batch_size=1,
        image=image_lib.ImageConfig(size=16, channels=1, mean=(0.0,), std=(1.0,)),
        augment=image_lib.AugmentConfig(rotation_degrees=0.0, flip_probability=0.0),
    )
    split = pipeline.open_split(config, "train", cache_dir=tmp_path)
    levels = [round(float(batch.image.max()) * 255) for _, batch in take(split, 60)]
    assert all(levels.count(level) > 8 for level in (10, 110, 210))


@pytest.mark.parametrize("start", [1, 5, 6, 13])
def test_going_on_at_a_step_equals_running_through(train, run, start):
    assert_same(take(train, 14 - start, start_step=start), run[start:])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_together_load_the_same_global_batches(train, run, count):
    parts = [take(train, 7, part=BatchPart(blocks=(i,), count=count)) for i in range(count)]
    assert_shares(parts, run[:7])


def test_evaluation_reads_in_order_and_fills_up_the_last_batch(make_config, cache_dir):
    split = pipeline.open_split(make_config(), "validate", cache_dir=cache_dir)
    with split.eval_batches(batch_size=3, require_text=True) as batches:
        got = list(batches)
    assert [step for step, _ in got] == [0, 1]
    assert np.concatenate([b.record for _, b in got]).tolist() == [0, 1, 2, 3, 4, -1]
    assert np.concatenate([b.weight for _, b in got]).tolist() == [1, 1, 1, 1, 1, 0]
    last = got[1][1]
    assert last.labels[2].tolist() == [-2, -2, -2] and not last.image[2].any()
    assert not last.sentence_mask[2].any() and last.token_mask[2].sum() == 2
    assert [split.record_id(r) for r in last.record] == ["s00029", "s00030", ""]
    # No chance in it: sentences as reported, the first image as it is.
    record = fixtures.draw_record(26)
    first = split.tokenizer.encode_ids(record.sentences)[0]
    np.testing.assert_array_equal(got[0][1].tokens[0][1 : 1 + len(first)], first)
    mean, std = split.statistics()
    image = image_lib.decode(record.images[0], channels=1, size=16, name="")
    plain = image_lib.normalise(fitting.resize(image, size=16), mean=mean, std=std)
    np.testing.assert_array_equal(got[0][1].image[0], plain)
    with split.eval_batches(batch_size=3, require_text=True) as again:
        assert_same(list(again), got)


def test_records_without_text_are_evaluated_but_never_trained_on(tmp_path, make_config):
    records = [fixtures.draw_record(i) for i in range(10)]
    records[3] = fixtures.without_text(records[3])
    records[6] = dataclasses.replace(records[6], text_source="labels")
    fixtures.write_prepared(tmp_path / "set", records=records)
    config = make_config(path=str(tmp_path / "set"), batch_size=2)
    split = pipeline.open_split(config, "train", cache_dir=tmp_path)
    assert (len(split), split.pairs) == (10, 8)
    met = {int(r) for _, b in take(split, 12) for r in b.record}
    assert met == set(range(10)) - {3, 6}
    with split.eval_batches(batch_size=5, require_text=False) as batches:
        everything = [batch for _, batch in batches]
    assert np.concatenate([b.record for b in everything]).tolist() == list(range(10))
    assert not everything[0].sentence_mask[3].any() and everything[0].weight[3] == 1
    # Text of a source that is not configured is read all the same.
    assert everything[1].sentence_mask[1].any()
    both = make_config(path=str(tmp_path / "set"), batch_size=2, text_sources=("report", "labels"))
    assert pipeline.open_split(both, "train", cache_dir=tmp_path).pairs == 9


def test_buckets_follow_the_reports(make_config, cache_dir):
    def cost(buckets, window):
        config = make_config(max_tokens=256, buckets=buckets, bucket_window=window)
        split = pipeline.open_split(config, "train", cache_dir=cache_dir)
        return sum(batch.tokens.size for _, batch in take(split, 6))

    fixed = cost((256,), 1)
    assert fixed == 6 * 4 * 256
    bucketed = cost((32, 64, 96, 128, 160, 256), 1)
    assert bucketed < 0.9 * fixed
    assert cost((32, 64, 96, 128, 160, 256), 6) < 0.8 * bucketed


def test_a_caption_of_one_sentence_is_one_of_the_report_and_another_each_epoch(
    make_config, cache_dir
):
    config = make_config(caption="sentence", shuffle_sentences=False, buckets=(16, 32, 64, 96))
    split = pipeline.open_split(config, "train", cache_dir=cache_dir)
    steps = 3 * split.steps_per_epoch()
    run = take(split, steps)
    read = {}
    for _, batch in run:
        assert (batch.sentence_mask.sum(axis=1) == 1).all() and batch.sentence_mask[:, 0].all()
        longest = 0
        for row, index in enumerate(batch.record):
            words = batch.tokens[row][batch.sentence_index[row] == 0].tolist()
            record = fixtures.draw_record(int(index))
            whole = [ids.tolist() for ids in split.tokenizer.encode_ids(record.sentences)]
            read.setdefault(int(index), []).append(whole.index(words))
            longest = max(longest, 2 + max(map(len, whole)))
        # The bucket of the longest sentence, not of the longest report.
        assert batch.tokens.shape[1] == min(b for b in config.buckets if b >= longest)
    many = {i: n for i, n in read.items() if len(fixtures.draw_record(i).sentences) > 2}
    assert sum(len(set(numbers)) > 1 for numbers in many.values()) > len(many) / 2
    assert_same(take(split, steps - 8, start_step=8), run[8:])
    with split.eval_batches(batch_size=4, require_text=True) as batches:
        _, first = next(batches)
    assert first.sentence_mask.sum() > 4  # evaluation reads whole reports


def test_reports_are_measured_once_for_a_set_and_tokenizer(
    make_config, tmp_path, sentencepiece_model, monkeypatch
):
    pipeline.open_split(make_config(), "train", cache_dir=tmp_path)
    (kept,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.measure_lib, "_measure_all", None)  # to call it would fail
        pipeline.open_split(make_config(max_tokens=40, buckets=(40,)), "train", cache_dir=tmp_path)
    tokenizer = dataclasses.replace(
        make_config().tokenizer, kind="sentencepiece", path=str(sentencepiece_model)
    )
    pipeline.open_split(make_config(tokenizer=tokenizer), "train", cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(DataError, match=kept.name):
        pipeline.open_split(make_config(), "train", cache_dir=tmp_path)


def test_both_tokenizers_and_modes_run(make_config, cache_dir, sentencepiece_model):
    tokenizer = dataclasses.replace(
        make_config().tokenizer, kind="sentencepiece", path=str(sentencepiece_model)
    )
    for changes in ({"tokenizer": tokenizer}, {"text_mode": "release", "buckets": (96,)}):
        split = pipeline.open_split(make_config(**changes), "train", cache_dir=cache_dir)
        for _, batch in take(split, 2):
            assert batch.sentence_mask.any(axis=1).all()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"max_tokens": 2, "buckets": (2,)}, "max_tokens"),
        ({"max_sentences": 0}, "max_sentences"),
        ({"threads": 0}, "threads"),
        ({"workers": -1}, "workers"),
        ({"prefetch": 0}, "prefetch"),
        ({"text_mode": "fast"}, "text_mode"),
        ({"caption": "word"}, "caption"),
        ({"caption": "sentence"}, "shuffle_sentences"),
        ({"text_sources": ("none",)}, "text_sources"),
        ({"text_sources": ()}, "text_sources"),
        ({"buckets": (32, 64)}, "buckets"),
        ({"text_mode": "release"}, "buckets"),
    ],
)
def test_wrong_settings_are_refused_by_name(make_config, changes, field):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        make_config(**changes)


def test_a_batch_larger_than_the_split_is_refused(make_config, cache_dir):
    split = pipeline.open_split(make_config(batch_size=27), "train", cache_dir=cache_dir)
    with pytest.raises(ConfigError, match=r"config\.data\.batch_size.*26 usable"):
        split.train_batches()


def test_a_set_that_is_not_there_is_one_clear_error(make_config, tmp_path):
    with pytest.raises(DataError, match=r"is not a prepared set: manifest\.json is missing"):
        pipeline.open_split(make_config(path=str(tmp_path)), "train", cache_dir=tmp_path)
