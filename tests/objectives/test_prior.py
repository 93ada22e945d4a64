import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from prior_jax.errors import ConfigError
from prior_jax.objectives.base import weighted_sum
from prior_jax.objectives.prior_config import FIDELITY, RELEASE_WEIGHTS, STAGES, TERMS
from tests.objectives.tiny import tiny_batch, tiny_config, tiny_model

STEP = jnp.full((), 15, jnp.int32)


@functools.cache
def made(**changes):
    return tiny_model(tiny_config(**changes))


def step_of(objective, graph, *, stage, train=True, with_gradient=True):
    """A jitted (params, rest, batch, key) -> (total, terms, metrics), gradients."""

    def loss(params, rest, batch, key):
        model = nnx.merge(graph, params, rest, copy=True)
        found = objective.loss_terms(model, batch, stage=stage, step=STEP, key=key, train=train)
        total = weighted_sum(found.terms, objective.weights(stage))
        return total, (dict(found.terms), dict(found.metrics))

    function = jax.value_and_grad(loss, has_aux=True) if with_gradient else loss
    # Nearly all the time goes into compiling: spend less of it.
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def compiled(stage, *, train=True, with_gradient=True, **changes):
    """The step with the model's own parameters: (batch, key) -> results. Compiled once."""
    objective, (graph, params, rest) = made(**changes)
    step = step_of(objective, graph, stage=stage, train=train, with_gradient=with_gradient)
    return functools.partial(step, params, rest)


@functools.cache
def ran(stage, **changes):
    return compiled(stage, **changes)(tiny_batch(), jax.random.key(0))


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_its_terms_and_their_weighted_sum(stage):
    (total, (terms, metrics)), _ = ran(stage)
    assert set(terms) == set(TERMS[stage]) == set(made()[0].weights(stage))
    expected = sum(RELEASE_WEIGHTS[stage][name] * float(value) for name, value in terms.items())
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert all(np.isfinite(value) and value.dtype == jnp.float32 for value in terms.values())
    assert ("bank_perplexity" in metrics) == (stage != "stage1")


@pytest.mark.parametrize("stage", STAGES)
def test_exactly_the_trainable_parameters_get_a_gradient(stage):
    _, grads = ran(stage)
    objective, _ = made()
    for path, grad in jax.tree_util.tree_flatten_with_path(grads)[0]:
        names = tuple(str(part.key) for part in path)
        assert np.all(np.isfinite(grad)), names
        if not objective.trainable(stage, names):
            assert not np.any(grad), names
        elif names[-2:] != ("key", "bias") and "position_embedding" not in names:
            assert np.any(grad), names


def test_padded_rows_tokens_and_sentences_change_neither_value_nor_gradient():
    # Batch norm sees every row of a batch, real or not: compare with its running statistics.
    step = compiled("stage3", train=False)
    key = jax.random.key(0)
    (total, (terms, _)), grads = step(tiny_batch(5), key)
    padded = tiny_batch(5, tokens=30, sentences=7, fill=3)
    (other, (other_terms, _)), other_grads = step(padded, key)
    for name, value in terms.items():
        np.testing.assert_allclose(other_terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(other, total, rtol=1e-5)
    for grad, other_grad in zip(jax.tree.leaves(grads), jax.tree.leaves(other_grads), strict=True):
        np.testing.assert_allclose(other_grad, grad, atol=1e-4 * max(1, np.abs(grad).max()))


def test_a_report_without_a_sentence_counts_in_no_term():
    step = compiled("stage3", train=False)
    batch = tiny_batch(4, fill=1)
    empty = batch.replace(
        weight=jnp.ones((5,), jnp.float32),
        sentence_mask=batch.sentence_mask.at[4].set(False),
    )
    key = jax.random.key(0)
    (total, _), _ = step(batch, key)
    (other, _), _ = step(empty, key)
    np.testing.assert_allclose(other, total, rtol=1e-5)


def test_noise_is_drawn_in_training_and_in_paper_mode_nowhere_else():
    for fidelity, still in (("paper", True), ("release", False)):
        quiet = compiled("stage2", train=False, with_gradient=False, fidelity=fidelity)
        totals = [float(quiet(tiny_batch(), jax.random.key(k))[0]) for k in (0, 1)]
        assert (totals[0] == totals[1]) == still
    (first, _), _ = ran("stage2")
    (second, _), _ = compiled("stage2")(tiny_batch(), jax.random.key(1))
    assert float(first) != float(second)


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    (_, (exact, _)), _ = ran("stage3")
    (_, (near, _)), grads = ran("stage3", dtype="bfloat16")
    for name, value in exact.items():
        assert near[name].dtype == jnp.float32
        np.testing.assert_allclose(near[name], value, rtol=0.1, atol=0.1, err_msg=name)
    assert all(np.all(np.isfinite(grad)) for grad in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "changes"),
    [("stage3", {"fidelity": "release"}), ("stage1", {"sentence_pool": "attention"})],
)
def test_every_choice_runs(stage, changes):
    (total, _), grads = ran(stage, **changes)
    assert np.isfinite(total)
    assert all(np.all(np.isfinite(grad)) for grad in jax.tree.leaves(grads))


@pytest.mark.multidevice
def test_sharding_batch_and_bank_does_not_change_stage_3():
    (total, (terms, metrics)), grads = ran("stage3")
    objective, (graph, params, rest) = tiny_model(
        tiny_config(), bank_axis="data", batch_axis="data"
    )
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    places = jax.tree.map(lambda _: whole, params)
    places["sentence_bank"]["embed"] = split
    arguments = (
        jax.device_put(params, places),
        jax.device_put(rest, whole),
        jax.device_put(tiny_batch(), split),
        jax.device_put(jax.random.key(0), whole),
    )
    with jax.set_mesh(mesh):
        step = step_of(objective, graph, stage="stage3")
        found = jax.block_until_ready(step(*arguments))
    (other, (other_terms, other_metrics)), other_grads = found
    np.testing.assert_allclose(other, total, rtol=1e-5)
    for name, value in terms.items():
        np.testing.assert_allclose(other_terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for name, value in metrics.items():
        np.testing.assert_allclose(other_metrics[name], value, rtol=1e-4, err_msg=name)
    for path, grad in jax.tree_util.tree_flatten_with_path(grads)[0]:
        other_grad = functools.reduce(lambda tree, part: tree[part.key], path, other_grads)
        # The L1 of the image has kinks: rounding flips the signs of a few pixels' gradients.
        rtol = 2e-2 if path[0].key == "image_decoder" else 2e-3
        error = np.linalg.norm(np.asarray(other_grad) - np.asarray(grad))
        assert error <= rtol * max(0.01, float(np.linalg.norm(grad))), (path, error)
    assert other_grads["sentence_bank"]["embed"].addressable_shards[0].data.shape == (3, 16)


def test_temperature_falls_from_the_first_step_with_the_bank():
    objective, _ = made()
    found = [float(objective.temperature(jnp.int32(step))) for step in (0, 10, 20, 30, 90)]
    np.testing.assert_allclose(found, [0.9, 0.9, 0.495, 0.09, 0.09], rtol=1e-5)


def test_an_unknown_stage_is_refused_by_name():
    objective, _ = made()
    for call in (objective.weights, lambda s: objective.trainable(s, ("predictor",))):
        with pytest.raises(ConfigError, match="stage4"):
            call("stage4")


def test_terms_and_weights_must_have_the_same_names():
    one = jnp.ones((), jnp.float32)
    assert float(weighted_sum({"a": one, "b": one}, {"a": 2.0, "b": 3.0})) == 5
    with pytest.raises(ValueError, match="'b'"):
        weighted_sum({"a": one, "b": one}, {"a": 2.0})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fidelity", "faithful"),
        ("dtype", "float16"),
        ("temperature", 0.0),
        ("temperature", 0.005),  # its learned inverse is at most 100
        ("local_temperature", float("inf")),
        ("num_queries", 9),
        ("sentence_heads", 3),
        ("embed_dim", 0),
        ("sentence_pool", "max"),
        ("switched_choices", ("spatial",)),
        ("switched_choices", ("clamp_scale", "clamp_scale")),
    ],
)
def test_wrong_values_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"^{field}: The value is "):
        tiny_config(**{field: value})


def test_wrong_weights_and_sections_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"^weights\.stage"):
        tiny_config(weights={"stage1": RELEASE_WEIGHTS["stage1"]})
    missing = {**RELEASE_WEIGHTS, "stage2": {"global_alignment": 1.0}}
    with pytest.raises(ConfigError, match=r"^weights\.stage2: "):
        tiny_config(weights=missing)
    for weight in (-1.0, float("nan"), float("inf")):
        wrong = {**RELEASE_WEIGHTS["stage2"], "prototype": weight}
        with pytest.raises(ConfigError, match=r"^weights\.stage2\.prototype: The value is "):
            tiny_config(weights={**RELEASE_WEIGHTS, "stage2": wrong})
    config = tiny_config()
    with pytest.raises(ConfigError, match=r"^schedule: The value is 'cosine'"):
        dataclasses.replace(config.bank, schedule="cosine")
    with pytest.raises(ConfigError, match=r"^temperature: The value is inf"):
        dataclasses.replace(config.bank, temperature=float("inf"))
    tiny_config(fidelity="release", temperature=0.005)  # its scales are not clamped
    with pytest.raises(ConfigError, match=r"^sentence_decoder\.heads: "):
        decoder = dataclasses.replace(config.sentence_decoder, heads=3)
        dataclasses.replace(config, sentence_decoder=decoder)


@pytest.mark.parametrize("fidelity", FIDELITY)
def test_a_switched_choice_is_the_other_fidelity_s(fidelity):
    names = tuple(field.name for field in dataclasses.fields(FIDELITY[fidelity]))
    (other,) = FIDELITY.keys() - {fidelity}
    assert tiny_config(fidelity=fidelity).choices == FIDELITY[fidelity]
    assert tiny_config(fidelity=fidelity, switched_choices=names).choices == FIDELITY[other]
    one = tiny_config(fidelity=fidelity, switched_choices=("clamp_scale",)).choices
    assert [name for name in names if getattr(one, name) != getattr(FIDELITY[fidelity], name)] == [
        "clamp_scale"
    ]


def test_the_two_fidelities_differ_in_every_choice():
    paper, release = FIDELITY["paper"], FIDELITY["release"]
    for field in dataclasses.fields(paper):
        assert getattr(paper, field.name) != getattr(release, field.name), field.name
