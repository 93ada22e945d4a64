"""UPerNet beside a plain torch implementation with the same weights, and its pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.nn.upernet import POOLS, UPerNetConfig, UPerNetDecoder, adaptive_mean
from tests.nn import small

SIZE = (40, 56)
WIDTHS = (4, 8, 16, 32)


def decoder(**changes):
    config = UPerNetConfig(**({"channels": 6, "auxiliary": 5, "dropout": 0.0} | changes))
    resnet = small.resnet_config(depths=(1, 1, 1, 1), width=4, block="basic")
    return UPerNetDecoder(config, resnet=resnet, classes=3, dtype=jnp.float32, rngs=nnx.Rngs(0))


def maps_of(rows=2):
    """Maps of a ResNet of stride 32, the stem's first."""
    rng = np.random.default_rng(0)
    sides = [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2)]
    return tuple(
        jnp.asarray(rng.normal(size=(rows, *side, width)), jnp.float32)
        for side, width in zip(sides, (4, *WIDTHS), strict=True)
    )


def in_torch(model, maps):
    """The same network in torch, as the paper describes it."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def tensor(x):
        return torch.from_numpy(np.array(x))

    def conv(x, layer, bias=None):
        kernel = tensor(layer.kernel[...]).permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)

    def block(x, layer):
        norm = layer.norm
        parts = [tensor(part[...]) for part in (norm.mean, norm.var, norm.scale, norm.bias)]
        return functional.relu(functional.batch_norm(conv(x, layer.conv), *parts, eps=1e-5))

    def resized(x, size):
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)

    def logits(x, layer):
        found = conv(x, layer.output, tensor(layer.output.bias[...]))
        return resized(found, SIZE).permute(0, 2, 3, 1).numpy()

    stages = [tensor(each).permute(0, 3, 1, 2) for each in maps[1:]]
    last = stages[-1]
    parts = [last]
    for side in POOLS:
        pooled = block(functional.adaptive_avg_pool2d(last, side), model.pools[f"pool{side}"])
        parts.append(resized(pooled, last.shape[2:]))
    levels = [block(x, model.laterals[f"stage{n}"]) for n, x in enumerate(stages[:-1], start=1)]
    levels.append(block(torch.cat(parts, dim=1), model.bottleneck))
    for index in (2, 1, 0):
        levels[index] = levels[index] + resized(levels[index + 1], levels[index].shape[2:])
    every = [block(x, model.smooth[f"stage{n}"]) for n, x in enumerate(levels[:-1], start=1)]
    every.append(levels[-1])
    joined = torch.cat([resized(x, levels[0].shape[2:]) for x in every], dim=1)
    main = logits(block(joined, model.fusion), model.classifier)
    return main, logits(block(stages[-2], model.auxiliary), model.auxiliary_classifier)


def test_it_computes_what_a_plain_torch_implementation_does():
    model, maps = small.filled(decoder), maps_of()
    found = jax.jit(lambda maps: model(maps, size=SIZE, train=False))(maps)
    wanted = in_torch(model, maps)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (2, *SIZE, 3)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("size", [(7, 7), (16, 16), (5, 9), (2, 3)])
@pytest.mark.parametrize("side", POOLS)
def test_means_over_a_grid_are_torch_s(size, side):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    wanted = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), side)
    found = adaptive_mean(jnp.asarray(x), side=side)
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_a_resnet_50_s_has_as_many_parameters_as_in_mmsegmentation():
    """UPerHead and FCNHead of configs/_base_/models/upernet_r50.py with two classes."""
    config = UPerNetConfig(channels=512, auxiliary=256, dropout=0.1)
    resnet = small.resnet_config(depths=(3, 4, 6, 3), width=64, in_channels=3, block="bottleneck")
    model = nnx.eval_shape(
        lambda: UPerNetDecoder(
            config, resnet=resnet, classes=2, dtype=jnp.float32, rngs=nnx.Rngs(0)
        )
    )

    def layer(inputs, outputs, size):
        return inputs * outputs * size**2 + 2 * outputs

    head = 4 * layer(2048, 512, 1) + layer(4096, 512, 3) + layer(2048, 512, 3) + 512 * 2 + 2
    head += sum(layer(width, 512, 1) + layer(512, 512, 3) for width in (256, 512, 1024))
    beside = layer(1024, 256, 3) + 256 * 2 + 2
    assert small.count(model) == head + beside


def test_channels_are_dropped_in_training_alone_and_need_a_key():
    model, maps = small.filled(lambda: decoder(dropout=0.5)), maps_of()
    plain = model(maps, size=SIZE, train=False)
    again = model(maps, size=SIZE, train=False, key=jax.random.key(0))
    np.testing.assert_array_equal(plain[0], again[0])
    one, other = (model(maps, size=SIZE, train=True, key=jax.random.key(k))[0] for k in (0, 1))
    assert np.abs(one - other).max() > 1e-3
    with pytest.raises(ValueError, match="needs a key"):
        model(maps, size=SIZE, train=True)


def test_the_auxiliary_head_may_be_left_out():
    model = decoder(auxiliary=None)
    assert model(maps_of(), size=SIZE, train=False)[1] is None
    for wrong in ({"channels": 0}, {"auxiliary": 0}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            decoder(**wrong)
