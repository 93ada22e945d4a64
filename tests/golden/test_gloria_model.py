"""Whole-model losses, gradients and optimizer steps against those of the authors' code."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.torch.names import to_torch
from prior_jax.losses.word_region import word_region_attention
from prior_jax.objectives.base import weighted_sum
from prior_jax.objectives.gloria_config import TERMS
from prior_jax.objectives.gloria_model import CaptionFeatures, matched_words
from prior_jax.train.optimizer import OptimizerConfig, apply_updates, make_optimizer
from prior_jax.train.stages import Stage
from tests.golden.float64 import double_precision
from tests.golden.gloria_model import (
    Recorded,
    batch_of,
    channels_last,
    regions_map,
)
from tests.golden.reader import assert_close, is_key_bias, load, load_json
from tests.torch_models import dump_torch

pytestmark = pytest.mark.golden

#: Our terms in the order local0, local1, global0, global1 of the files.
PARTS = dict(zip(("global0", "global1", "local0", "local1"), TERMS, strict=True))


#: The arrays of a batch.
BATCH = ("in/imgs", "in/caption_ids", "in/attention_mask")


def weights_of(golden):
    local, whole = (float(weight) for weight in golden["in/loss_weights_local_global"])
    return {name: local if name.startswith("local") else whole for name in TERMS}


class Run:
    """One recorded batch, differentiated: everything the files speak of."""

    def __init__(self, golden_dir, golden, *, train, weights):
        self.batch = batch = batch_of(golden)
        size = batch.image.shape[1]
        self.made = made = Recorded(golden_dir, image_size=size, weights=weights)
        objective = made.objective
        self.places = objective.find_words(batch.tokens, batch.token_mask)
        graph, params, rest = nnx.split(made.model, nnx.Param, ...)
        self.graph, self.params = graph, nnx.as_pure(params)

        def loss(params, still, batch):
            model = nnx.merge(graph, params, rest, copy=True)
            places = objective.find_words(batch.tokens, batch.token_mask)
            images = model.encode_image(batch.image, train=train)
            captions = model.encode_text(batch.tokens, batch.token_mask, places, train=train)
            regions = images.local + still["img_emb_l"]
            images = dataclasses.replace(
                images, local=regions, global_=images.global_ + still["img_emb_g"]
            )
            captions = CaptionFeatures(
                words=captions.words + still["text_emb_l"],
                report=captions.report + still["text_emb_g"],
            )
            terms = objective.contrasts(images, captions, places, weight=batch.weight)
            total = weighted_sum(terms, objective.weights("pretrain"))
            after = nnx.as_pure(nnx.state(model, nnx.BatchStat))
            return total, (terms, images, captions, after)

        self.step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        width = made.config.text.hidden_size
        rows, length = batch.tokens.shape
        h, w = made.config.image.grid
        # Zeros added to the embeddings: their gradients are the embeddings'.
        self.still = {
            "img_emb_l": jnp.zeros((rows, h * w, width), jnp.float32),
            "img_emb_g": jnp.zeros((rows, width), jnp.float32),
            "text_emb_l": jnp.zeros((rows, length, width), jnp.float32),
            "text_emb_g": jnp.zeros((rows, width), jnp.float32),
        }
        (self.total, aux), (grads, self.embedding_grads) = self.step(self.params, self.still, batch)
        self.terms, self.images, self.captions, self.after = aux
        self.grads = to_torch(grads, made.table, partial=True)


def names_in(golden_dir):
    """The recorded batches: one set has a second one, with other weights."""
    folder = golden_dir / "gloria"
    return [n for n in ("calc_loss", "calc_loss_weighted") if (folder / f"{n}.npz").is_file()]


@pytest.fixture(scope="module")
def evaluated(golden_dir):
    runs = []
    for name in names_in(golden_dir) or ["calc_loss"]:
        golden = load(golden_dir, "gloria", name)
        runs.append((golden, Run(golden_dir, golden, train=False, weights=weights_of(golden))))
    return runs


@pytest.fixture(scope="module")
def trained(golden_dir):
    """In float64: float32 itself is off by some percent behind train-mode batch norm."""
    with double_precision():
        runs = []
        for name in names_in(golden_dir) or ["calc_loss"]:
            golden = load(golden_dir, "gloria", name)
            runs.append((golden, Run(golden_dir, golden, train=True, weights=weights_of(golden))))
    return runs


@pytest.fixture(params=("eval", pytest.param("train", marks=pytest.mark.golden_full)))
def runs(request):
    return request.param, request.getfixturevalue(
        {"eval": "evaluated", "train": "trained"}[request.param]
    )


def test_losses_and_embeddings(runs):
    mode, found = runs
    for golden, run in found:
        out = golden.prefix(f"out/{mode}/")
        for part, term in PARTS.items():
            assert_close(run.terms[term], out[part], rtol=1e-4, name=part)
        assert_close(run.total, out["loss"], rtol=1e-4, name="loss")
        words = channels_last(run.captions.words)
        assert_close(words, out["text_emb_l"], rtol=1e-4)
        assert_close(run.captions.report, out["text_emb_g"], rtol=1e-4)
        regions = regions_map(run.images.local, out["img_emb_l"])
        assert_close(regions, out["img_emb_l"], rtol=1e-4)
        assert_close(run.images.global_, out["img_emb_g"], rtol=1e-4)


def test_attention_maps(runs):
    mode, found = runs
    for golden, run in found:
        mask = np.asarray(matched_words(run.places, run.made.config.choices))
        np.testing.assert_array_equal(mask.sum(1), golden["out/cap_lens"])
        maps = np.asarray(
            word_region_attention(
                jnp.asarray(run.captions.words),
                jnp.asarray(run.images.local),
                word_mask=jnp.asarray(mask),
                temp1=run.made.config.attention_scale,
                softmax_over_words=True,
            )
        )
        for row, count in enumerate(golden["out/cap_lens"]):
            recorded = golden[f"out/{mode}/att_map{row}"]
            ours = maps[row, :count].reshape(recorded.shape)
            assert_close(ours, recorded, rtol=1e-4, name=f"map {row}")


def test_gradients_of_the_embeddings(runs):
    mode, found = runs
    for golden, run in found:
        grads = dict(run.embedding_grads)
        local = golden[f"grad/{mode}/img_emb_l"]
        grads["img_emb_l"] = regions_map(grads["img_emb_l"], local)
        grads["text_emb_l"] = channels_last(grads["text_emb_l"])
        for name, gradient in grads.items():
            assert_close(gradient, golden[f"grad/{mode}/{name}"], rtol=1e-3, name=name)


def assert_gradients(grads, recorded, *, rtol):
    for name, gradient in recorded.items():
        if not is_key_bias(name):
            assert_close(grads[name], gradient, rtol=rtol, name=name)


def test_gradients_in_evaluation_mode(evaluated):
    for golden, run in evaluated:
        assert_gradients(run.grads, golden.prefix("grad/eval/param/"), rtol=1e-3)


@pytest.mark.golden_full
def test_gradients_in_training_mode_in_float64(trained, golden_dir):
    golden, run = trained[0]
    exact = load(golden_dir, "gloria", "calc_loss_grads_float64")
    assert_close(run.total, exact["out/train/loss"], rtol=1e-6)
    assert_gradients(run.grads, exact.prefix("grad/train/param/"), rtol=1e-4)
    # What was recorded in float32 is as far from ours as from the release in float64.
    single = golden.prefix("grad/train/param/")
    assert_gradients(run.grads, single, rtol=7e-2)
    norms = [np.sum(np.square(single[n].astype(np.float64) - run.grads[n])) for n in single]
    total = sum(np.sum(np.square(run.grads[n])) for n in single)
    assert np.sqrt(sum(norms) / total) < 2e-3


@pytest.mark.golden_full
def test_float32_and_float64_agree_as_recorded(evaluated, trained, golden_dir):
    record = load_json(golden_dir, "gloria", "calc_loss_float32_vs_float64")
    exact = load(golden_dir, "gloria", "calc_loss_grads_float64")
    for mode, runs in (("eval", evaluated), ("train", trained)):
        golden, run = runs[0]
        for key in ("loss32", "loss64"):
            assert_close(run.total, np.asarray(record[mode][key]), rtol=1e-4)
        assert_close(exact[f"out/{mode}/loss"], np.asarray(record[mode]["loss64"]), rtol=1e-9)
        assert record[mode]["cap_lens"] == golden["out/cap_lens"].tolist()
        mask = np.asarray(matched_words(run.places, run.made.config.choices))
        assert record[mode]["cap_lens"] == mask.sum(1).tolist()
        local = [run.terms["local_image_to_text"], run.terms["local_text_to_image"]]
        np.testing.assert_allclose(local, record[mode]["local"], rtol=1e-4)
        whole = [run.terms["global_image_to_text"], run.terms["global_text_to_image"]]
        np.testing.assert_allclose(whole, record[mode]["glob"], rtol=1e-4)


def test_exactly_the_trainable_parameters_have_a_gradient(evaluated, golden_dir):
    record = load_json(golden_dir, "gloria", "calc_loss_float32_vs_float64")
    golden, run = evaluated[0]
    idle = set(record["eval"]["no_grad_params"])
    assert idle.isdisjoint(golden.prefix("grad/eval/param/"))
    for entry in run.made.table.entries:
        if entry.torch in run.grads:
            trained = run.made.objective.trainable("pretrain", entry.path)
            assert trained == (entry.torch not in idle), entry.torch
            assert trained or not np.any(run.grads[entry.torch]), entry.torch


def test_parameters_go_through_our_model_unchanged(golden_dir):
    made = Recorded(golden_dir, image_size=32)
    back = dump_torch(made.model, made.table)
    assert set(back) == set(made.params)
    for name, value in made.params.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def optimizer_of(golden, *, steps):
    beta1, beta2 = (float(beta) for beta in golden["out/betas"])
    config = OptimizerConfig(
        beta1=beta1,
        beta2=beta2,
        epsilon=golden.scalar("out/eps"),
        decay="coupled",
        decay_mask="all",
        clip_norm=golden.scalar("in/gradient_clip_val"),
        past_end="hold",
        accumulate_steps=1,
    )
    stage = Stage(
        name="pretrain",
        steps=steps,
        schedule="constant",
        plateau=None,
        learning_rate=golden.scalar("in/lr"),
        learning_rate_start=0.0,
        learning_rate_end=0.0,
        warmup_steps=0,
        schedule_steps=None,
        weight_decay=golden.scalar("out/weight_decay"),
    )
    return make_optimizer(config, stage)


@pytest.mark.golden_full
def test_steps_in_float64(golden_dir, trained):
    golden = load(golden_dir, "gloria", "train_steps")
    out = golden.prefix("out/float64/")
    with double_precision():
        reference, run = trained[0]
        weights = dict.fromkeys(TERMS, 1.0)
        if "in/loss_weights_local_global" in golden:
            weights = weights_of(golden)
        same = all(golden[name].shape == reference[name].shape for name in BATCH)
        if not same or weights_of(reference) != weights:
            run = Run(golden_dir, golden, train=True, weights=weights)
        batch, objective = batch_of(golden), run.made.objective
        steps = len(out["losses"])
        optimizer = optimizer_of(golden, steps=steps)
        params = dict(nnx.to_flat_state(run.params))
        moved = {"/".join(p): v for p, v in params.items() if objective.trainable("pretrain", p)}
        state = optimizer.init(moved)
        rate = jnp.asarray(golden.scalar("in/lr"), jnp.float32)

        @jax.jit
        def update(moved, state, grads):
            norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
            moved, state = apply_updates(
                optimizer, gradients=grads, state=state, parameters=moved, learning_rate=rate
            )
            return moved, state, norm

        losses, norms = [], []
        for _ in out["losses"]:
            (total, _), (grads, _) = run.step(nnx.from_flat_state(params), run.still, batch)
            grads = {"/".join(path): value for path, value in nnx.to_flat_state(grads)}
            moved, state, norm = update(moved, state, {path: grads[path] for path in moved})
            losses.append(float(total))
            norms.append(float(norm))
            params |= {tuple(path.split("/")): value for path, value in moved.items()}
        after = to_torch(nnx.from_flat_state(params), run.made.table, partial=True)
    np.testing.assert_allclose(losses, out["losses"], rtol=1e-4)
    np.testing.assert_allclose(norms, out["grad_norm_before_clip"], rtol=1e-4)
    before = run.made.params
    for name, value in out.prefix(f"after{steps}/param/").items():
        if name in after and not is_key_bias(name):
            moves = [array - before[name].astype(np.float64) for array in (after[name], value)]
            assert_close(*moves, rtol=1e-3, name=name)
