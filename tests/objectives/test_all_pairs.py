"""Every objective computes its losses over all pairs in the form that the run has chosen."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from configs import debug
from configs.baselines import phantom as baseline_phantom
from prior_jax import assemble
from prior_jax.config import read_config
from prior_jax.data.tokenizer import unknown_vocabulary
from prior_jax.errors import ConfigError
from prior_jax.losses import contrastive, ring_pairs, sigmoid, word_region
from prior_jax.objectives.all_pairs import PLAIN, AllPairs, AllPairsConfig
from prior_jax.objectives.gloria import GloriaObjective
from prior_jax.objectives.kinds import KINDS
from prior_jax.objectives.prior import PriorObjective
from prior_jax.sharding.placement import placement
from tests.objectives import baselines
from tests.objectives import test_gloria as gloria
from tests.objectives.tiny import tiny_config

BATCH = 13  # no other size of the models
RING = AllPairs(config=AllPairsConfig(form="ring", chunk=4), axis=None)


def shapes_in(jaxpr):
    """Shapes of all arrays of a program, its inner programs included."""
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from shapes_in(getattr(inner, "jaxpr", inner))


def objective_of(kind, all_pairs):
    if kind == "prior":
        return PriorObjective(tiny_config(), all_pairs=all_pairs)
    if kind == "gloria":
        config = gloria.config_of(caption_chunk=2)
        return GloriaObjective(config, vocabulary=gloria.VOCABULARY, all_pairs=all_pairs)
    objective, config = baselines.KINDS[kind][0], baselines.config_of(kind)
    return objective(config, vocabulary=baselines.VOCABULARY, all_pairs=all_pairs)


def arrays_of_pairs(kind, all_pairs):
    """How many arrays of a loss have an entry for every pair of the batch."""
    objective = objective_of(kind, all_pairs)
    stage = objective.stages[-1]
    model = nnx.eval_shape(lambda: objective.init(nnx.Rngs(0)))
    graph, state = nnx.split(model)
    batch = (gloria if kind == "gloria" else baselines).batch_of(BATCH)

    def loss(state, batch):
        found = objective.loss_terms(
            nnx.merge(graph, state, copy=True), batch, stage=stage, step=jnp.int32(0),
            key=jax.random.key(0), train=True,
        )  # fmt: skip
        return dict(found.terms)

    program = jax.make_jaxpr(loss)(nnx.as_pure(state), batch)
    return sum(shape[:2] == (BATCH, BATCH) for shape in shapes_in(program.jaxpr))


# A kind whose losses over pairs have no ring form is refused with it, and holds what it holds.
RINGS = [name for name in KINDS if "ring" in KINDS[name].pair_forms and KINDS[name].reads_reports]


@pytest.mark.parametrize("kind", RINGS)
def test_no_objective_holds_all_pairs_in_the_ring(kind):
    assert arrays_of_pairs(kind, RING) == 0


def test_every_baseline_is_asked_for_its_forms():
    assert {"prior", "gloria", *baselines.KINDS} == {
        name for name, kind in KINDS.items() if kind.reads_reports
    }
    for kind, (objective, _, _) in baselines.KINDS.items():
        assert KINDS[kind].pair_forms == objective.pair_forms


def test_a_loss_without_a_ring_form_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(KINDS, "clip", dataclasses.replace(KINDS["clip"], pair_forms=("gathered",)))
    config = baseline_phantom.get_config("clip")
    read_config(config, workdir=pathlib.Path())
    config.mesh.all_pairs.form = "ring"
    with pytest.raises(
        ConfigError,
        match=r"^config\.mesh\.all_pairs\.form: The value is 'ring'\. .* one of 'gathered'\.",
    ):
        read_config(config, workdir=pathlib.Path())


@pytest.mark.parametrize("kind", ["gloria", "clip"])
def test_objectives_hold_all_pairs_where_they_are_gathered(kind):
    assert arrays_of_pairs(kind, PLAIN) > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("paired_contrastive", {"image_share": 0.75}),
        ("cosine_contrastive", {}),
        ("paired_sigmoid", {"bias": 3.0}),
        ("word_region_contrast", {"chunk": 2, "temp1": 5.0, "aggregate": "mean"}),
    ],
)
def test_both_forms_are_given_the_same(name, options, monkeypatch):
    calls = {}

    def recorder(form):
        return lambda *arrays, **options: calls.update({form: (arrays, options)})

    home = {"paired_sigmoid": sigmoid, "word_region_contrast": word_region}.get(name, contrastive)
    monkeypatch.setattr(home, name, recorder("gathered"))
    monkeypatch.setattr(ring_pairs, f"ring_{name}", recorder("ring"))
    for pairs in (PLAIN, RING):
        getattr(pairs, name)("images", "texts", weight=1.0, **({"scale": 2.0} | options))
    (arrays, gathered), (same, ring) = calls["gathered"], calls["ring"]
    assert arrays == same == ("images", "texts")
    plan = ring.pop("plan")
    assert (plan.rows, plan.columns, plan.axis) == (4, gathered.pop("chunk", 4), None)
    assert gathered.pop("walk", "captions") == "captions"  # a ring walks over blocks of both
    assert ring == gathered
    assert set(options) - {"chunk"} < set(ring)


@pytest.mark.multidevice
def test_a_run_takes_the_form_from_its_mesh():
    def pairs_of(config, devices=None):
        read = read_config(config, workdir=pathlib.Path())
        objective = assemble.objective(
            read.objective,
            read.model,
            vocabulary=unknown_vocabulary(30),
            schedule=(),
            place=placement(read.mesh, devices=devices),
            all_pairs=read.mesh.all_pairs,
        )
        return objective.all_pairs

    config = debug.get_config()
    assert pairs_of(config).config.form == "gathered"
    config.mesh.all_pairs.update(dict(form="ring", chunk=7))
    assert (pairs_of(config).config.chunk, pairs_of(config).axis) == (7, ("data",))
    assert pairs_of(config, jax.devices()[:1]).axis is None
    for field, wrong in (("form", "gather"), ("chunk", 0)):
        config = debug.get_config()
        config.mesh.all_pairs[field] = wrong
        with pytest.raises(
            ConfigError, match=rf"config\.mesh\.all_pairs\.{field}: The value is .?{wrong}"
        ):
            pairs_of(config)
