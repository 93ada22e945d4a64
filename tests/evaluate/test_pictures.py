"""Which phrases are shown, and that image, map and region keep their places."""

import dataclasses

import numpy as np
import pytest

from prior_jax.errors import DataError
from prior_jax.evaluate import pictures

NAN = float("nan")


def chosen(values, second=None, **named):
    return [
        (one.kind, one.index, one.rank)
        for one in pictures.choose(np.array(values), np.array(second or values), **named)
    ]


def test_the_best_the_median_and_the_worst_are_chosen():
    values = [float(value) for value in np.random.default_rng(0).permutation(21)]
    found = chosen(values)
    ranks = [("best", 1), ("best", 2), ("best", 3), ("median", 10), ("median", 11), ("median", 12)]
    assert [(kind, rank) for kind, _, rank in found] == [
        *ranks, ("worst", 21), ("worst", 20), ("worst", 19)
    ]  # fmt: skip
    assert [values[index] for _, index, _ in found] == [20, 19, 18, 11, 10, 9, 0, 1, 2]
    assert values[found[4][1]] == np.median(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([NAN], []),
        ([0.3], [("best", 0, 1)]),
        ([0.3, NAN, 0.7], [("best", 2, 1), ("worst", 0, 2)]),
        ([0.3, 0.5, 0.7], [("best", 2, 1), ("median", 1, 2), ("worst", 0, 3)]),
    ],
)
def test_few_phrases_are_shown_once_each(values, expected):
    assert chosen(values) == expected


def test_phrases_of_one_value_are_ranked_by_the_second_and_then_by_their_order():
    found = chosen([0.0] * 4 + [1.0], [2.0, 3.0, NAN, 2.0, 0.0], each=9)
    assert found == [("best", 4, 1), ("median", 0, 3), ("worst", 2, 5)]


def shown(shape=(64, 48), heat=None, truth=None):
    mask = np.zeros(shape, bool)
    mask[10:20, 5:30] = True
    return pictures.picture(
        pictures.Choice(kind="best", index=0, rank=1, count=1),
        radiograph=pictures.Radiograph(title="study s", pixels=mask.astype(np.uint8) * 200),
        heat=np.where(mask, 3.0, -1.0) if heat is None else heat,
        truth=mask if truth is None else truth,
        text="A phrase.",
        label="Edema",
        values={"miou": 0.5, "cnr_signed": NAN},
    )


@pytest.mark.parametrize("shape", [(64, 48), (900, 1300), (1300, 257)])
def test_image_map_and_region_are_of_one_size_and_place(shape):
    one = shown(shape)
    assert max(one.image.shape) == min(max(shape), pictures.SIDE)
    assert one.image.shape[0] / one.image.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.01)
    if max(shape) <= pictures.SIDE:
        assert (one.truth == (one.image > 100)).all() and (one.heat[one.truth] == 1).all()
    assert one.truth.any() and {*np.unique(one.heat)} == {0, 1}


def test_a_map_of_another_size_covers_the_whole_image():
    heat = np.zeros((32, 32))
    heat[-1, -1] = 1.0
    one = shown((64, 48), heat=heat)
    assert one.heat[62:, 47:].all() and one.heat.sum() <= 4


def test_pictures_are_kept_and_read_again(tmp_path):
    path, heat = tmp_path / "t.pictures.npz", np.linspace(0, 1, 64 * 48).reshape(64, 48)
    heat[0] = NAN
    first = shown(heat=heat)
    pictures.save(path, [first, dataclasses.replace(first, text="É “ü”")])
    read = pictures.load(path)
    assert [one.text for one in read] == ["A phrase.", "É “ü”"]
    one = read[0]
    assert one.choice == first.choice and one.values["miou"] == 0.5
    assert np.isnan(one.values["cnr_signed"]) and np.isnan(one.heat[0]).all()
    assert np.nanmax(np.abs(one.heat - first.heat)) <= 0.5 / 254 + 1e-6
    assert (one.image == first.image).all() and (one.truth == first.truth).all()
    pictures.save(path, ())  # a task without pictures does not keep those of an older one
    assert pictures.load(path) == [] and not path.exists()


def test_damaged_pictures_are_named(tmp_path):
    path = tmp_path / "t.pictures.npz"
    pictures.save(path, [shown()])
    for content in (path.read_bytes()[:100], b"no archive", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t\.pictures\.npz"):
            pictures.load(path)
    np.savez(path, words=np.array('[{"kind": "best"}]'))
    with pytest.raises(DataError, match=r"t\.pictures\.npz"):
        pictures.load(path)


def test_arrays_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"PhrasePicture\.heat"):
        dataclasses.replace(shown(), heat=np.zeros((2, 2)))
