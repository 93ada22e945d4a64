import numpy as np
import pytest

from prior_jax.evaluate import fixed_points
from prior_jax.evaluate.bootstrap import Interval

LUNGS = {"left": (0.25, 0.75), "right": (0.5, 0.25)}


def test_the_middle_lies_between_the_lungs():
    assert fixed_points.points_of(LUNGS) == {**LUNGS, "middle": (0.375, 0.5)}


@pytest.mark.parametrize(("point", "hit"), [((0.5, 0.25), 1.0), ((0.25, 0.5), 0.0)])
def test_a_point_is_looked_up_by_row_and_column(point, hit):
    mask = np.zeros((4, 8), np.int64)
    mask[2, 2] = 3  # three regions at one pixel are one hit
    assert fixed_points.at(mask, point) == hit


def test_a_point_on_the_lower_edge_is_in_the_last_row():
    mask = np.zeros((4, 8), bool)
    mask[3, 7] = True
    assert fixed_points.at(mask, (1.0, 1.0)) == 1.0


def test_the_lung_that_is_hit_more_often_is_the_better_one():
    hits = {"left": np.array([1.0, 1.0]), "right": np.array([1.0, 0.0]), "middle": np.ones(2)}
    assert fixed_points.better_side(hits) == "left"
    assert fixed_points.better_side({**hits, "left": hits["right"]}) == "right"


def test_the_random_pixel_is_the_chance_of_the_pointing_game():
    names = {"macro_random": 0.2, "random_edema": np.nan, "pointing_edema": 0.9}
    found = {name: Interval(value=one, low=np.nan, high=np.nan) for name, one in names.items()}
    assert fixed_points.chance_of(found) == {"macro_pointing": 0.2}
