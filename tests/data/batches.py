"""Reads batches from a split, and compares them array by array."""

import dataclasses
import itertools

import numpy as np


def take(split, steps, **options):
    """The first steps of training, as (step, batch)."""
    with split.train_batches(**options) as batches:
        return list(itertools.islice(batches, steps))


def evaluated(split, batch_size=4):
    """Masks and boxes of one pass, by record; filling rows are under -1."""
    found = {}
    with split.eval_batches(batch_size=batch_size, require_text=False) as batches:
        for _, batch in batches:
            for row, number in enumerate(batch.record.tolist()):
                boxes = batch.boxes and {
                    name: getattr(batch.boxes, name)[row] for name in ("corners", "classes", "real")
                }
                found[number] = (batch.masks[row] if batch.masks is not None else None, boxes)
    return found


def arrays(batch):
    """The arrays of a batch by name, and those of its boxes beside them."""
    found = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    boxes = found.pop("boxes")
    if boxes is not None:
        found |= {name: getattr(boxes, name) for name in ("corners", "classes", "real")}
    return {name: value for name, value in found.items() if value is not None}


def assert_same(got, wanted):
    """Asserts that steps, and every array of their batches, are the same."""
    assert [step for step, _ in got] == [step for step, _ in wanted]
    for (step, one), (_, other) in zip(got, wanted, strict=True):
        one, other = arrays(one), arrays(other)
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], f"step {step}, {name}")


def assert_shares(parts, wanted):
    """Asserts that what several processes have taken is, one behind the other, what is wanted."""
    for index, (step, batch) in enumerate(wanted):
        for name, value in arrays(batch).items():
            together = np.concatenate([arrays(part[index][1])[name] for part in parts])
            np.testing.assert_array_equal(together, value, f"step {step}, {name}")
