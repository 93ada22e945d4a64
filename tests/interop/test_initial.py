"""The section `config.init`: which arrays it stands for, and what it refuses."""

import types

import numpy as np
import pytest

from prior_jax.data.tokenizer import TokenizerConfig, open_tokenizer
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.initial import InitConfig, identity, initial_values
from prior_jax.interop.weights_folder import Weights, save_weights
from prior_jax.strict import build
from tests import fixtures

WORDS = 12
IMAGE = {"resnet/stem_conv/kernel": (7, 7, 1, 4), "resnet/stem_norm/var": (4,)}
TEXT = {"word_embedding": (WORDS, 4), "layers/norm/scale": (2, 4)}
SHAPES = {
    **{f"image_encoder/{name}": shape for name, shape in IMAGE.items()},
    **{f"text_encoder/{name}": shape for name, shape in TEXT.items()},
    "head/kernel": (4, 4),
}
MODEL = {
    "image": {"resnet": {"stem_pool": True, "width": 4}, "pool": "mean", "pool_heads": 2},
    "text": {"heads": 2, "hidden_size": 4},
}


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def weights_of(part, *, seed=0, **changes):
    values = {
        "image": dict(objective=None, model=MODEL["image"], arrays=drawn(IMAGE, seed)),
        "text": dict(objective=None, model=MODEL["text"], arrays=drawn(TEXT, seed)),
        "model": dict(objective="clip", model=MODEL, arrays=drawn(SHAPES, seed)),
    }[part]
    data = {"tokenizer": {"kind": "wordpiece", "lower_case": True}}
    return Weights(
        **{**dict(part=part, data=data, origin={"source": "drawn"}), **values, **changes}
    )


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return fixtures.write_vocabulary(tmp_path_factory.mktemp("words") / "vocab.txt")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, vocabulary):
    root = tmp_path_factory.mktemp("weights")
    save_weights(root / "image", weights_of("image"))
    save_weights(root / "text", weights_of("text"), vocabulary)
    save_weights(root / "model", weights_of("model"), vocabulary)
    save_weights(root / "wordless", weights_of("text"))
    return root


@pytest.fixture(scope="module")
def fingerprint(vocabulary):
    config = TokenizerConfig(kind="wordpiece", path=str(vocabulary), lower_case=True)
    return open_tokenizer(config).fingerprint


def section(**given):
    """The section with a path, or (path, adaptations), for each encoder."""
    parts = {encoder: dict(path=None, adapt=()) for encoder in ("image", "text")}
    for name, value in given.items():
        path, adapt = value if isinstance(value, tuple) else (value, ())
        parts[name] = dict(path=str(path), adapt=adapt)
    return build(InitConfig, parts, name="config.init")


def values_of(config, *, tokenizer="", shapes=SHAPES, model=MODEL):
    leaves = {name: types.SimpleNamespace(shape=shape) for name, shape in shapes.items()}
    return initial_values(config.given(), shapes=leaves, model=model, tokenizer=tokenizer)


def identity_of(config):
    return identity(config.given())


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_nothing_is_given_by_default():
    assert values_of(section()) == {}
    none = build(InitConfig, dict(image=None, text=None), name="config.init")
    assert values_of(none) == {}
    assert (
        identity_of(section())
        == identity_of(none)
        == {
            "config.init.image": None,
            "config.init.text": None,
        }
    )


def test_an_encoder_starts_from_its_weights_statistics_included(folders, fingerprint):
    found = values_of(section(image=folders / "image"))
    assert_same(found, {f"image_encoder/{n}": x for n, x in drawn(IMAGE).items()})
    found = values_of(section(text=folders / "text"), tokenizer=fingerprint)
    assert_same(found, {f"text_encoder/{n}": x for n, x in drawn(TEXT).items()})


def test_a_whole_model_gives_its_encoders_alone(folders, fingerprint):
    both = section(image=folders / "model", text=folders / "model")
    found = values_of(both, tokenizer=fingerprint)
    expected = drawn(SHAPES)
    del expected["head/kernel"]
    assert_same(found, expected)


def test_adaptations_reach_the_arrays(folders, fingerprint):
    wide = SHAPES | {"image_encoder/resnet/stem_conv/kernel": (7, 7, 3, 4)}
    with pytest.raises(WeightsError, match="these help: 'repeat_gray'"):
        values_of(section(image=folders / "image"), shapes=wide)
    found = values_of(section(image=(folders / "image", ("repeat_gray",))), shapes=wide)
    assert found["image_encoder/resnet/stem_conv/kernel"].shape == (7, 7, 3, 4)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("text", r"another tokenizer than config\.data\.tokenizer.*vocab\.txt.*'new_words'"),
        ("wordless", r"unknown tokenizer; import the weights again with --tokenizer.*'new_words'"),
    ],
)
def test_words_need_the_weights_own_tokenizer(folders, folder, message):
    with pytest.raises(WeightsError, match=message):
        values_of(section(text=folders / folder), tokenizer="another")
    found = values_of(section(text=(folders / folder, ("new_words",))), tokenizer="another")
    assert list(found) == ["text_encoder/layers/norm/scale"]


def test_identity_is_of_arrays_and_adaptations(folders, tmp_path):
    first = identity_of(section(image=folders / "image"))
    save_weights(tmp_path / "copy", weights_of("image", origin={"source": "copy"}))
    save_weights(tmp_path / "other", weights_of("image", seed=1))
    assert identity_of(section(image=tmp_path / "copy")) == first
    assert identity_of(section(image=tmp_path / "other")) != first
    assert identity_of(section(image=(folders / "image", ("sum_rgb",)))) != first
    assert first["config.init.text"] is None


@pytest.mark.parametrize(
    ("encoder", "changes", "message"),
    [
        ("text", {"text": {"heads": 4}}, r"config\.model\.text\.heads: .* 4, .* with 2\."),
        (
            "image",
            {"image": {"resnet": {"stem_pool": False}}},
            r"config\.model\.image\.resnet\.stem_pool: .* False, .* with True\.",
        ),
    ],
)
def test_what_shapes_do_not_tell_must_agree(folders, fingerprint, encoder, changes, message):
    config = section(**{encoder: folders / "model"})
    with pytest.raises(ConfigError, match=message):
        values_of(config, model=MODEL | changes, tokenizer=fingerprint)
    # Without a pool its number of heads is of no matter.
    other = {**MODEL, "image": {**MODEL["image"], "pool_heads": 8}}
    values_of(config, model=other, tokenizer=fingerprint)


def test_a_pool_must_have_as_many_heads(tmp_path):
    pool = {"pool/key/kernel": (4, 4)}
    save_weights(tmp_path / "w", weights_of("image", arrays=drawn(IMAGE | pool)))
    shapes = SHAPES | {"image_encoder/pool/key/kernel": (4, 4)}
    config = section(image=tmp_path / "w")
    assert "image_encoder/pool/key/kernel" in values_of(config, shapes=shapes)
    other = {**MODEL, "image": {**MODEL["image"], "pool_heads": 4}}
    with pytest.raises(ConfigError, match=r"image\.pool_heads: .* 4, .* with 2\."):
        values_of(config, shapes=shapes, model=other)


def test_the_wrong_part_is_refused(folders):
    for check in (identity_of, values_of):
        with pytest.raises(WeightsError, match=r"config\.init\.text\.path.*part 'image'"):
            check(section(text=folders / "image"))
    with pytest.raises(WeightsError, match=r"nothing/weights\.json"):
        identity_of(section(image=folders / "nothing"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            dict(path=None, adapt=("sum_rgb",)),
            r"init\.image\.adapt: .*\('sum_rgb',\).*no path",
        ),
        (
            dict(path="x", adapt=("sum",)),
            r"config\.init\.image\.adapt: There is no .* 'sum'",
        ),
        (dict(path="x"), r"config\.init\.image\.adapt: The setting is missing"),
        (dict(path="x", adapt=(), strict=False), r"config\.init\.image\.strict"),
    ],
)
def test_sections_that_mean_nothing_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        build(InitConfig, dict(image=given, text=None), name="config.init")
