"""Each adaptation does what its name says where it is needed, and is refused where it is not."""

import numpy as np
import pytest

from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.adaptations import ADAPTATIONS, Fit, adapted, check_fits

# Shapes in the style of each encoder.
IMAGE = {
    "resnet/stem_conv/kernel": (7, 7, 1, 4),
    "resnet/stem_norm/mean": (4,),
    "resnet/stages/stage1/block0/conv1/kernel": (3, 3, 4, 4),
    "resnet/stages/stage2/block0/conv1/kernel": (3, 3, 4, 8),
}
POOL = {"pool/position_embedding": (5, 8), "pool/key/kernel": (8, 8)}
EMBEDDERS = {"global_embedder/kernel": (8, 3), "local_embedder/kernel": (1, 1, 4, 3)}
TEXT = {
    "word_embedding": (11, 4),
    "position_embedding": (6, 4),
    "layers/feed_forward/inner/kernel": (2, 4, 5),
    "layers/feed_forward/inner/bias": (2, 5),
}
POOLER = {"pooler/kernel": (4, 4), "pooler/bias": (4,)}


def drawn(shapes, **changes):
    rng = np.random.default_rng(0)
    shapes = {**shapes, **changes}
    return {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items() if s}


def adapt(encoder, arrays, shapes, *names, refused=None):
    fit = Fit(arrays=arrays, shapes=shapes, refused=refused or {})
    return adapted(fit, names, encoder=encoder, field=f"config.init.{encoder}")


# Name -> encoder, weights, shapes of the model.
NEEDED = {
    "sum_rgb": ("image", drawn(IMAGE, **{"resnet/stem_conv/kernel": (7, 7, 3, 4)}), IMAGE),
    "repeat_gray": ("image", drawn(IMAGE), IMAGE | {"resnet/stem_conv/kernel": (7, 7, 3, 4)}),
    "first_stages": (
        "image",
        drawn(IMAGE | {"resnet/stages/stage3/block0/conv1/kernel": (3, 3, 8, 16)}),
        IMAGE,
    ),
    "new_pool": ("image", drawn(IMAGE), IMAGE | POOL),
    "drop_pool": ("image", drawn(IMAGE | POOL), IMAGE),
    "new_embedders": ("image", drawn(IMAGE), IMAGE | EMBEDDERS),
    "drop_embedders": ("image", drawn(IMAGE | EMBEDDERS), IMAGE),
    "fewer_layers": (
        "text",
        drawn(
            TEXT,
            **{
                "layers/feed_forward/inner/kernel": (3, 4, 5),
                "layers/feed_forward/inner/bias": (3, 5),
            },
        ),
        TEXT,
    ),
    "fewer_positions": ("text", drawn(TEXT, position_embedding=(9, 4)), TEXT),
    "new_words": ("text", drawn(TEXT, word_embedding=(30, 4)), TEXT),
    "new_pooler": ("text", drawn(TEXT), TEXT | POOLER),
}
FRESH = {
    "new_pool": set(POOL),
    "new_embedders": set(EMBEDDERS),
    "new_words": {"word_embedding"},
    "new_pooler": set(POOLER),
}


def test_every_adaptation_is_tried():
    assert {(encoder, name) for encoder in ADAPTATIONS for name in ADAPTATIONS[encoder]} == {
        (encoder, name) for name, (encoder, _, _) in NEEDED.items()
    }


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_is_named_and_then_fits(name):
    encoder, arrays, shapes = NEEDED[name]
    hint = rf"config\.init\.{encoder}\.adapt; these help: '{name}'\.$"
    with pytest.raises(WeightsError, match=hint):
        adapt(encoder, arrays, shapes)
    found = adapt(encoder, arrays, shapes, name)
    assert {n: x.shape for n, x in found.items()} == {
        n: s for n, s in shapes.items() if n not in FRESH.get(name, ())
    }
    same = [n for n in found if found[n].shape == arrays[n].shape]
    assert all(found[n] is arrays[n] for n in same) and len(same) >= len(found) - 2


@pytest.mark.parametrize("name", NEEDED)
def test_what_mends_nothing_is_refused(name):
    encoder, *_ = NEEDED[name]
    shapes = IMAGE | POOL | EMBEDDERS if encoder == "image" else TEXT | POOLER
    whole = drawn(shapes)
    assert adapt(encoder, whole, shapes).keys() == shapes.keys()
    with pytest.raises(ConfigError, match=rf"adaptation '{name}' .*does not make .* fit better"):
        adapt(encoder, whole, shapes, name)
    encoder, arrays, shapes = NEEDED[name]
    with pytest.raises(ConfigError, match="does not make these weights fit better"):
        adapt(encoder, arrays, shapes, name, name)


def test_gray_images_give_the_same_sum_before_and_after():
    arrays = NEEDED["sum_rgb"][1]
    kernel = arrays["resnet/stem_conv/kernel"]
    summed = adapt("image", arrays, IMAGE, "sum_rgb")["resnet/stem_conv/kernel"]
    gray = np.random.default_rng(1).normal(size=(7, 7, 1))
    expected = np.einsum("hwc,hwcd->d", np.repeat(gray, 3, axis=2), kernel)
    np.testing.assert_allclose(np.einsum("hwc,hwcd->d", gray, summed), expected, rtol=1e-4)
    wide = IMAGE | {"resnet/stem_conv/kernel": (7, 7, 3, 4)}
    again = adapt("image", {**arrays, "resnet/stem_conv/kernel": summed}, wide, "repeat_gray")
    np.testing.assert_allclose(
        again["resnet/stem_conv/kernel"].sum(axis=2, keepdims=True), summed, rtol=1e-5, atol=1e-6
    )


def test_the_first_of_layers_and_positions_are_kept():
    _, arrays, shapes = NEEDED["fewer_layers"]
    found = adapt("text", arrays, shapes, "fewer_layers")
    name = "layers/feed_forward/inner/kernel"
    np.testing.assert_array_equal(found[name], arrays[name][:2])
    _, arrays, shapes = NEEDED["fewer_positions"]
    found = adapt("text", arrays, shapes, "fewer_positions")
    np.testing.assert_array_equal(found["position_embedding"], arrays["position_embedding"][:6])


def test_words_of_another_tokenizer_are_refused_even_where_they_fit():
    refused = {"word_embedding": "of another tokenizer"}
    with pytest.raises(WeightsError, match=r"of another tokenizer.*'new_words'"):
        adapt("text", drawn(TEXT), TEXT, refused=refused)
    found = adapt("text", drawn(TEXT), TEXT, "new_words", refused=refused)
    assert found.keys() == TEXT.keys() - {"word_embedding"}


def test_several_are_applied_together():
    arrays = drawn(IMAGE | POOL, **{"resnet/stem_conv/kernel": (7, 7, 3, 4)})
    shapes = IMAGE | {"pool/position_embedding": (10, 8), "pool/key/kernel": (8, 8)}
    with pytest.raises(WeightsError, match=r"these help: 'sum_rgb', 'new_pool'\.$"):
        adapt("image", arrays, shapes)
    assert adapt("image", arrays, shapes, "new_pool", "sum_rgb").keys() == IMAGE.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers/feed_forward/inner/bias": (1, 5)}, r"\(1, 5\) in the weights, \(2, 5\) in the m"),
        ({"position_embedding": (3, 4)}, r"\(3, 4\) in the weights, \(6, 4\) in the model"),
        ({"word_embedding": (11, 8)}, r"word_embedding.*\(11, 8\) in the weights"),
        ({"position_embedding": None}, r"not in the weights, the model has \(6, 4\)"),
        ({"extra": (1,)}, r"extra: not in the model, the weights have \(1,\)"),
        ({f"extra{i}": (1,) for i in range(7)}, r"; and 2 more\)"),
    ],
)
def test_what_nothing_mends_is_listed(changes, message):
    with pytest.raises(WeightsError, match=message):
        adapt("text", drawn(TEXT, **changes), TEXT)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"config\.init\.text\.adapt: There is no .* 'sum_rgb'"):
        adapt("text", drawn(TEXT), TEXT, "sum_rgb")


def test_a_whole_model_fits_exactly_or_not():
    leaves = {name: np.zeros(shape, np.float16) for name, shape in TEXT.items()}
    check_fits(drawn(TEXT), leaves, field="folder")
    with pytest.raises(WeightsError, match=r"folder.*pooler/bias"):
        check_fits(drawn(TEXT | POOLER), leaves, field="folder")
