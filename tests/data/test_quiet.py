"""Warnings that are kept from being shown, in one thread and in several at once."""

import threading
import warnings

import pytest

from prior_jax.data import decode
from prior_jax.data.quiet import without_warnings
from tests.data.test_decode import GREY, saved


def test_warnings_are_ignored_inside_and_shown_behind():
    with without_warnings():
        with without_warnings():
            warnings.warn("inner", UserWarning, stacklevel=1)
        warnings.warn("outer", UserWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="behind"):
        warnings.warn("behind", UserWarning, stacklevel=1)


def test_an_error_inside_brings_the_filters_back():
    before = list(warnings.filters)
    with pytest.raises(ValueError), without_warnings():
        raise ValueError
    assert list(warnings.filters) == before


def test_threads_that_decode_at_once_leave_the_filters_as_they_were(monkeypatch):
    """The first to enter is the first to leave, where each alone would restore the other's."""
    content = saved(GREY, "JPEG")
    opened, entered, left = decode._opened, threading.Event(), threading.Event()

    def in_step(*arguments, **options):
        if threading.current_thread().name == "first":
            second.start()
            assert entered.wait(20)
        else:
            entered.set()
            assert left.wait(20)
        return opened(*arguments, **options)

    def run():
        decode.decoded(content, mode="L", name="x")
        if threading.current_thread().name == "first":
            left.set()

    monkeypatch.setattr(decode, "_opened", in_step)
    before = list(warnings.filters)
    first, second = (threading.Thread(target=run, name=name) for name in ("first", "second"))
    first.start()
    first.join(60)
    second.join(60)
    assert list(warnings.filters) == before
