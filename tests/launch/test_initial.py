"""A run that `config.init` starts from weights, before its first step."""

import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.baselines import phantom
from launch.start import run as run_lib
from prior_jax import assemble
from prior_jax.config import read_config, to_json
from prior_jax.data import tokenizer as tokenizer_lib
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.weights_folder import Weights, save_weights
from prior_jax.sharding.placement import placement
from prior_jax.train.program import Program
from tests import fixtures
from tests.objectives import tiny


def config_of(**init):
    """A baseline as small as can be."""
    config = phantom.get_config("clip")
    config.data.image.size = tiny.SIDE
    config.model.image.resnet.update(dict(depths=(1, 1), width=4))
    config.model.text.update(dict(hidden_size=16, layers=1, heads=2, intermediate_size=16))
    config.model.update(dict(embed_dim=8, hidden_dim=8))
    config.init.update_from_flattened_dict(init)
    return config


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = fixtures.write_vocabulary(tmp_path_factory.mktemp("words") / "vocab.txt")
    config = tokenizer_lib.TokenizerConfig(kind="wordpiece", path=str(path), lower_case=True)
    return tokenizer_lib.open_tokenizer(config), path


@pytest.fixture(scope="module")
def program(tokenizer):
    """On eight devices, over which the word embedding's columns are split."""
    config = config_of()
    rules = (("text_encoder/word_embedding", (None, "data")), (".*", ()))
    config.mesh.rules = rules
    config = read_config(config, workdir=pathlib.Path())
    place = placement(config.mesh)
    schedule = config.schedule(steps_per_epoch=1)
    objective = assemble.objective(
        config.objective,
        config.model,
        vocabulary=tokenizer_lib.vocabulary(tokenizer[0]),
        schedule=schedule,
        place=dataclasses.replace(place, data_axes=()),
    )
    return Program(
        objective=objective,
        stages=schedule,
        optimizer=config.optimizer,
        mesh=place.mesh,
        rules=place.rules,
        data_axes=place.data_axes,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, program):
    """The weights of a whole model like the run's, drawn otherwise."""
    rng, shapes = np.random.default_rng(5), {**program.model.params, **program.model.rest}
    arrays = {
        # Variances are above 0.
        name: np.abs(rng.normal(size=leaf.shape) / 4 + 1).astype(np.float32)
        for name, leaf in shapes.items()
    }
    path = tmp_path_factory.mktemp("weights") / "w"
    weights = Weights(
        part="model",
        objective="clip",
        model=to_json(config_of().model),
        data={"tokenizer": {"kind": "wordpiece", "lower_case": True}},
        origin={},
        arrays=arrays,
    )
    save_weights(path, weights, tokenizer[1])
    return path, arrays


def values_of(config, tokenizer, program):
    config = read_config(config, workdir=pathlib.Path())
    run = types.SimpleNamespace(config=config, data=types.SimpleNamespace(tokenizer=tokenizer[0]))
    return run_lib.initial_values(run)({**program.model.params, **program.model.rest})


@pytest.mark.slow  # draws the model's parameters twice, on eight devices
@pytest.mark.multidevice
def test_it_starts_from_the_folders_bits_and_draws_the_rest(folder, tokenizer, program):
    path, arrays = str(folder[0]), folder[1]
    started = config_of(**{"image.path": path, "text.path": path})
    assert values_of(config_of(), tokenizer, program) == {}
    values = values_of(started, tokenizer, program)
    drawn = program.initial(seed=0, values={})
    begun = program.initial(seed=0, values=values)
    for part in ("params", "rest"):
        one, other = getattr(drawn, part), getattr(begun, part)
        assert one.keys() == other.keys()
        for name, array in other.items():
            encoder = name.split("/")[0] in ("image_encoder", "text_encoder")
            expected = arrays[name] if encoder else np.asarray(one[name])
            np.testing.assert_array_equal(array, expected, err_msg=name)
            assert array.sharding == one[name].sharding
    assert any(name.endswith("/var") for name in values)
    words = begun.params["text_encoder/word_embedding"]
    assert words.addressable_shards[0].data.shape[1] * 8 == words.shape[1]
    loss = jax.jit(
        lambda params, rest: program.objective.loss_terms(
            program.model.merge(params, rest), tiny.tiny_batch(4), stage="pretrain",
            step=jnp.int32(0), key=None, train=False,
        ).terms["global_alignment"]
    )  # fmt: skip
    host = [jax.tree.map(np.asarray, (state.params, state.rest)) for state in (drawn, begun)]
    first, second = (float(loss(*arrays)) for arrays in host)
    assert np.isfinite([first, second]).all() and abs(first - second) > 1e-3


def check_weights(config):
    run_lib.identity_of_settings(read_config(config, workdir=pathlib.Path()))


def test_weights_are_looked_at_before_any_data_is(folder, tmp_path):
    check_weights(config_of(**{"text.path": str(folder[0])}))
    with pytest.raises(WeightsError, match=r"nothing/weights\.json"):
        check_weights(config_of(**{"text.path": f"{tmp_path}/nothing"}))
    with pytest.raises(ConfigError, match=r"config\.init\.image\.adapt: There is no .* 'sumrgb'"):
        check_weights(config_of(**{"image.adapt": ("sumrgb",)}))


def test_an_encoder_may_be_none():
    config = config_of()
    config.init.image = None
    check_weights(config)
    config.init.image = dict(path=None, adapt=())
    check_weights(config)
