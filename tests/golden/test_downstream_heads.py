"""Classification heads of GLoRIA, MGCA and BenchX: losses, gradients, updates and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from prior_jax.losses.classification import binary_losses, exclusive_loss
from prior_jax.nn.classification_head import LAYER_NORM_EPSILON, ClassificationHead, HeadConfig
from prior_jax.nn.layers import LayerNorm
from prior_jax.objectives.label_targets import one_class
from prior_jax.train.optimizer import OptimizerConfig, apply_updates, make_optimizer
from prior_jax.train.patience import Patience
from prior_jax.train.stages import PlateauConfig, Stage, learning_rate
from prior_jax.train.state import fresh_optimizer
from tests.golden.float64 import double_precision
from tests.golden.reader import assert_close, load

pytestmark = pytest.mark.golden

VALUE_RTOL, GRADIENT_RTOL = 1e-4, 1e-3
# case -> name of its linear map, name of its labels, whether its classes exclude each other
CASES = {
    "gloria_chexpert": ("multi", "labels_multi", False),
    "gloria_rsna": ("binary", "labels_binary", False),
    "mgca_chexpert": ("multi", "labels_multi", False),
    "mgca_rsna": ("binary", "labels_binary", False),
    "mgca_covidx": ("three", "labels_three", True),
    "benchx_nih": ("multi", "labels_multi", False),
    "benchx_rsna": ("two", "labels_two_onehot", True),
}
# Of torch's Adam, which BenchX leaves as they are: its recordings name no settings.
ADAM = {"betas": np.array([0.9, 0.999]), "eps": np.array(1e-8), "weight_decay": np.array(0.0)}


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load(golden_dir, "downstream", "classification_heads")


def settings(golden, case):
    return ADAM | {name: golden[f"in/config/{case}/{name}"] for name in names(golden, case)}


def names(golden, case):
    start = f"in/config/{case}/"
    return [name.removeprefix(start) for name in golden if name.startswith(start)]


def head_of(golden, case):
    """The head with its first parameters, and torch name -> path of each parameter."""
    linear, _, _ = CASES[case]
    weight = golden[f"param/{linear}/weight"]
    normed = case.startswith("benchx")
    config = HeadConfig(kind="layer_norm" if normed else "linear", hidden=None, dropout=0.0)
    head = ClassificationHead(
        config, features=weight.shape[1], logits=weight.shape[0], rngs=nnx.Rngs(0)
    )
    start = "classifier." if normed else ""
    paths = {f"{start}weight": "classifier/kernel", f"{start}bias": "classifier/bias"}
    if normed:
        assert isinstance(head.norm, LayerNorm)
        head.norm.epsilon = golden.scalar(f"in/config/{case}/layernorm_eps")
        paths |= {"fc_norm.weight": "norm/scale", "fc_norm.bias": "norm/bias"}
    sources = {"weight": f"param/{linear}/weight", "bias": f"param/{linear}/bias"}
    values = {}
    for name, path in paths.items():
        own = name.startswith("fc_norm")
        key = f"param/{name.replace('.', '/')}" if own else sources[name.removeprefix(start)]
        values[path] = jnp.asarray(ours(name, golden[key]), jnp.float32)
    return head, paths, values


def ours(name, value):
    """A torch tensor in our layout."""
    return value.T if value.ndim == 2 and name.endswith("weight") else value


def loss_function(head, *, exclusive, label):
    graph, _, rest = nnx.split(head, nnx.Param, ...)
    label = jnp.asarray(label, jnp.float32)

    def loss(values, features):
        tree = {}
        for path, value in values.items():
            part, leaf = path.split("/")
            tree.setdefault(part, {})[leaf] = value
        logits = nnx.merge(graph, tree, rest, copy=True)(features, train=True)
        weight = jnp.ones(len(features), jnp.float32)
        if not exclusive:
            known = jnp.ones_like(label)
            return binary_losses(logits, label, known=known, weight=weight), logits
        if label.shape[1] == logits.shape[1]:
            index, known = one_class(label, jnp.ones_like(label))
        else:
            index, known = label[:, 0].astype(jnp.int32), weight
        return exclusive_loss(logits, index, known=known, weight=weight), logits

    return loss


def optimizer_of(given):
    clip = float(given.get("clip", 0.0))
    # GLoRIA's Adam couples its decay; MGCA's AdamW does not; BenchX's Adam has none.
    config = OptimizerConfig(
        beta1=float(given["betas"][0]), beta2=float(given["betas"][1]),
        epsilon=float(given["eps"]), decay="coupled" if "clip" in given else "decoupled",
        decay_mask="all", clip_norm=clip or None, past_end="hold", accumulate_steps=1,
    )  # fmt: skip
    return make_optimizer(config, stage_of(weight_decay=float(given["weight_decay"])))


def stage_of(**changes):
    fields = dict(name="frozen", steps=10**6, schedule="constant", plateau=None)
    fields |= dict(learning_rate=1.0, learning_rate_start=1.0, learning_rate_end=0.0)
    return Stage(**(fields | dict(warmup_steps=0, schedule_steps=None, weight_decay=0.0) | changes))


@pytest.mark.parametrize("case", CASES)
def test_steps_of_each_paper(golden, case):
    with double_precision():
        check_steps(golden, case)


def check_steps(golden, case):
    _, labels, exclusive = CASES[case]
    head, paths, values = head_of(golden, case)
    given = settings(golden, case)
    transformation = optimizer_of(given)
    state = fresh_optimizer(values, names=tuple(values), transformation=transformation)
    for step, features in enumerate(golden["in/features"]):
        loss = loss_function(head, exclusive=exclusive, label=golden[f"in/{labels}"][step])
        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        features = jnp.asarray(features, jnp.float32)
        (value, logits), (gradients, of_features) = gradient(values, features)
        assert_close(logits, golden[f"out/{case}/step{step}/logits"], rtol=VALUE_RTOL)
        assert_close(value, golden[f"out64/{case}/step{step}/loss"], rtol=VALUE_RTOL)
        norm = f"out64/{case}/step{step}/grad_norm_before_clip"
        if norm in golden:
            assert_close(optax.tree.norm(gradients), golden[norm], rtol=GRADIENT_RTOL)
        recorded = f"grad64/{case}/in/features_step{step}"
        if recorded in golden:
            assert_close(of_features, golden[recorded], rtol=GRADIENT_RTOL, name=recorded)
        before = values
        values, state = apply_updates(
            transformation, gradients=gradients, state=state, parameters=values,
            learning_rate=jnp.float32(golden[f"out/{case}/step{step}/lr"][0]),
        )  # fmt: skip
        for name, path in paths.items():
            where = f"{case}/step{step}/{name}"
            wanted = ours(name, golden[f"grad64/{where}"])
            assert_close(gradients[path], wanted, rtol=GRADIENT_RTOL, name=where)
            after = ours(name, golden[f"state_after64/{where}"])
            assert_close(values[path], after, rtol=1e-7, name=where)
            if step:  # the way gone is small beside the parameters
                previous = f"state_after64/{case}/step{step - 1}/{name}"
                way = after - ours(name, golden[previous])
                assert_close(values[path] - before[path], way, rtol=GRADIENT_RTOL, name=where)


def test_the_layer_norm_is_benchxs(golden):
    found = {float(golden[name]) for name in golden if name.endswith("layernorm_eps")}
    assert found == {LAYER_NORM_EPSILON}


@pytest.mark.parametrize("name", ["gloria", "gloria_every_epoch", "lovt"])
def test_the_plateau_lowers_the_rate_when_the_papers_do(golden, name):
    given = golden.prefix(f"in/config/plateau/{name}/")
    plateau = PlateauConfig(
        metric="loss",
        factor=given.scalar("factor"),
        patience=int(given.scalar("patience")),
        threshold=given.scalar("threshold") if "threshold" in given else 1e-4,  # torch's
        min_learning_rate=0.0,
        every=int(given.scalar("frequency")) if "frequency" in given else 1,
    )
    rate = given.scalar("lr")
    stage = stage_of(schedule="plateau", plateau=plateau, learning_rate=rate)
    patience, used = Patience(), []
    for value in golden["in/plateau/val_loss"]:
        used.append(rate * patience.factor)
        patience = patience.after({"loss": float(value)}, stage=stage, stopping=None)
    recorded = "lovt_frozen" if name == "lovt" else name
    wanted = golden[f"out/plateau/{recorded}/lr_used_in_epoch"]
    np.testing.assert_allclose(used, wanted, rtol=1e-6)
    final = f"out/plateau/{recorded}/lr_final"
    if final in golden:
        np.testing.assert_allclose(rate * patience.factor, golden[final], rtol=1e-6)


def test_lovts_fine_tuning_has_a_constant_rate(golden):
    """It sets the rate at each batch, so that its plateau has no effect (quirk L8)."""
    wanted = golden["out/plateau/lovt_finetuned/lr_used_in_epoch"]
    rate = golden.scalar("in/config/plateau/lovt/lr")
    stage = stage_of(learning_rate=rate, learning_rate_start=rate)
    found = [float(learning_rate(stage, step, past_end="hold")) for step in range(len(wanted))]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def cosines(golden):
    return golden.cases("in/config/warmup_cosine/")


def cosine_rates(golden, case, *, past_end, start):
    given = golden.prefix(f"in/config/warmup_cosine/{case}/")
    stage = stage_of(
        schedule="cosine_late_peak",
        warmup_steps=int(given.scalar("warmup")),
        schedule_steps=int(given.scalar("total")),
        learning_rate=given.scalar("lr"),
        learning_rate_start=start,
    )
    iterations = golden[f"in/warmup_cosine/{case}/iterations"]
    found = [float(learning_rate(stage, int(i), past_end=past_end)) for i in iterations]
    return np.array(found), iterations, given


def test_the_release_repeats_benchxs_cosine(golden):
    for case in cosines(golden):
        found, _, given = cosine_rates(golden, case, past_end="rise", start=0.0)
        wanted = golden[f"out/warmup_cosine/{case}/lr_head"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * wanted.max())
        encoder = found * given.scalar("encoder_multiplier")
        wanted = golden[f"out/warmup_cosine/{case}/lr_encoder"]
        np.testing.assert_allclose(encoder, wanted, rtol=1e-4, atol=1e-6 * wanted.max())


def test_by_default_the_cosine_ends_and_its_first_step_counts(golden):
    for case in cosines(golden):
        given = golden.prefix(f"in/config/warmup_cosine/{case}/")
        start = given.scalar("lr") / given.scalar("warmup")
        found, iterations, _ = cosine_rates(golden, case, past_end="hold", start=start)
        wanted = golden[f"out/warmup_cosine/{case}/lr_head"]
        assert found[0] > 0 == wanted[0]
        inside = (iterations >= given.scalar("warmup")) & (iterations <= given.scalar("total"))
        np.testing.assert_allclose(
            found[inside], wanted[inside], rtol=1e-4, atol=1e-6 * wanted.max()
        )
        assert not found[iterations >= given.scalar("total")].any()
