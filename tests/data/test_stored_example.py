"""Records are read from their bytes as TFDS reads them, and only if they are whole."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from prior_jax.data import schema, stored_example
from tests import fixtures

SPEC = schema.features()


def stored(record):
    return schema.serialize(record, spec=SPEC)


def examples():
    plain = fixtures.draw_record(0)
    return [
        plain,
        fixtures.without_text(fixtures.draw_record(1)),
        dataclasses.replace(plain, findings="Café ≥ 5 mm\n", labels=(), sex="F", age=61.3),
        dataclasses.replace(
            plain,
            region_images=(0, 0),
            region_labels=("Edema", "Edema"),
            region_phrases=("", "at the base"),
            region_boxes=((0.1, 2.0, 3.0, 4.5), (math.nan,) * 4),
            region_masks=(b"", b"\x89PNG"),
        ),
    ]


def plainly(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


@pytest.mark.parametrize("number", range(4))
def test_a_record_is_read_as_tfds_reads_it(number):
    content = stored(examples()[number])
    found = stored_example.parser(SPEC)(content)
    peer = {name: plainly(value) for name, value in SPEC.deserialize_example_np(content).items()}
    assert found.keys() == peer.keys()
    for name, value in found.items():
        np.testing.assert_equal(value, peer[name], err_msg=name)  # NaN equals itself here


def test_features_that_the_set_does_not_have_are_left_out():
    earlier = {name: SPEC[name] for name in SPEC if name not in schema.ADDED_IN_1_1}
    parse = stored_example.parser(tfds.features.FeaturesDict(earlier))
    assert parse(stored(examples()[0])).keys() == earlier.keys()


def changed(change):
    example = tf_example_pb2.Example.FromString(stored(examples()[3]))
    change(example.features.feature)
    return example.SerializeToString()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.pop("sex"), KeyError, "'sex' is missing"),
        (lambda f: f["sex"].Clear(), ValueError, "'sex': it is stored as None"),
        (lambda f: f["sex"].int64_list.value.append(1), ValueError, "stored as int64_list"),
        (lambda f: f["sex"].bytes_list.value.append(b"M"), ValueError, "2 values in place of one"),
        (lambda f: f["labels"].int64_list.value.append(300), ValueError, "'labels'.*300"),
        (lambda f: f["region_boxes"].float_list.value.pop(), ValueError, "'region_boxes'"),
    ],
)
def test_a_record_that_is_not_whole_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        stored_example.parser(SPEC)(changed(change))


def test_other_bytes_are_refused():
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        stored_example.parser(SPEC)(b"\xff\xd8\xff\xe0 JFIF")
