"""Config sections become dataclasses strictly."""

import dataclasses
from typing import Literal

import pytest
from ml_collections import ConfigDict

from prior_jax.errors import ConfigError, check_choice, check_field
from prior_jax.strict import build


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    width: int
    rate: float = 0.5

    def __post_init__(self):
        check_field(self, "width", self.width >= 1, "a positive integer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    kind: Literal["paper", "release"]
    depths: tuple[int, ...]
    limit: int | None

    def __post_init__(self):
        check_choice(self, "limit", (None, 8))
        if self.limit == 8 and self.inner.rate < 0.5:
            raise ConfigError("The rate is too low.", "Raise it.", where="inner.rate")


def section(**changes):
    base = ConfigDict(dict(inner=dict(width=3), kind="paper", depths=(1, 2), limit=None))
    base.update(changes)
    return base


def test_values_arrive_and_defaults_hold():
    assert build(Outer, section(), name="config.o") == Outer(
        inner=Inner(width=3, rate=0.5), kind="paper", depths=(1, 2), limit=None
    )


def test_an_int_is_accepted_for_a_float_and_a_list_for_a_tuple():
    built = build(Outer, section(inner=dict(width=3, rate=1), depths=[4]), name="config.o")
    assert built.inner.rate == 1.0 and isinstance(built.inner.rate, float)
    assert built.depths == (4,)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (dict(inner=dict(width=3, wdith=4)), r"config\.o\.inner\.wdith"),
        (dict(inner=dict(width=3.5)), r"config\.o\.inner\.width"),
        (dict(inner=dict(width=True)), r"config\.o\.inner\.width"),
        (dict(kind="papper"), r"config\.o\.kind.*'paper', 'release'"),
        (dict(depths=(1, "a")), r"config\.o\.depths\[1\]"),
        (dict(depths=3), r"config\.o\.depths"),
        (dict(limit="x"), r"config\.o\.limit"),
        (dict(inner=7), r"config\.o\.inner"),
        (dict(inner=dict(width=0)), r"^config\.o\.inner\.width: The value is 0\. It must be a pos"),
        (dict(limit=7), r"^config\.o\.limit: The value is 7\. It must be one of None, 8\.$"),
        (dict(limit=8, inner=dict(width=3, rate=0.1)), r"^config\.o\.inner\.rate: The rate"),
    ],
)
def test_what_does_not_fit_is_named(change, field):
    values = section().to_dict()
    values.update(change)
    with pytest.raises(ConfigError, match=field):
        build(Outer, values, name="config.o")


def test_a_missing_value_is_named():
    values = section()
    del values.limit
    with pytest.raises(ConfigError, match=r"config\.o\.limit: The setting is missing\. .* int"):
        build(Outer, values, name="config.o")
