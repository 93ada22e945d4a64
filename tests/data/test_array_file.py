"""Damage of NumPy's files is told as one kind of error, wherever it is."""

import numpy as np
import pytest

from prior_jax.data.array_file import read_array, read_arrays


def test_every_flipped_bit_is_refused_or_harmless(tmp_path):
    path = tmp_path / "arrays.npz"
    numbers = np.arange(40, dtype=np.float32)
    np.savez_compressed(path, names=np.array(["a", "é"]), numbers=numbers)
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_arrays(path)
        except ValueError as error:
            refused += 1
            assert str(error)
            continue
        if set(found) == {"names", "numbers"}:  # a bit of a name's copy, a date, a comment
            np.testing.assert_array_equal(found["numbers"], numbers)
    assert refused > len(content) / 2


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"no array at all"])
def test_what_is_no_file_of_numpy_is_refused(tmp_path, content):
    path = tmp_path / "found"
    path.write_bytes(content)
    for read in (read_array, read_arrays):
        with pytest.raises(ValueError, match=r"\w"):
            read(path)


def test_pickles_and_the_other_kind_of_file_are_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(2))
    np.savez(tmp_path / "named.npz", one=np.ones(2))
    np.savez(tmp_path / "objects.npz", one=np.array([{}], object))
    assert read_array(tmp_path / "one.npy").tolist() == [1, 1]
    assert read_arrays(tmp_path / "named.npz")["one"].tolist() == [1, 1]
    for name, read in (("one.npy", read_arrays), ("named.npz", read_array)):
        with pytest.raises(ValueError, match="it holds"):
            read(tmp_path / name)
    with pytest.raises(ValueError, match="pickle"):
        read_arrays(tmp_path / "objects.npz")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "absent.npz")
