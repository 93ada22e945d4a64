"""Run-length masks against those the authors' code draws."""

import numpy as np
import pytest

from data_prep.kit import rle
from tests.golden.reader import load, load_json

pytestmark = pytest.mark.golden


def test_masks_equal_the_release(golden_dir):
    drawn = load(golden_dir, "gloria", "rle2mask")
    for number, case in enumerate(load_json(golden_dir, "gloria", "rle2mask")["cases"]):
        mask = rle.decode(
            case["rle"], height=case["height"], width=case["width"], mode="release", name="image"
        )
        assert mask.tolist() == np.array(case["rows"], bool).tolist()
        np.testing.assert_array_equal(mask, drawn[f"out/case{number}"])


def test_the_union_equals_the_release(golden_dir):
    expected = load(golden_dir, "gloria", "rle2mask")["out/union"]
    rles = load_json(golden_dir, "gloria", "rle2mask")["union_of"]
    height, width = expected.shape
    got = rle.union(rles, height=height, width=width, mode="release", name="image")
    np.testing.assert_array_equal(got, expected)
