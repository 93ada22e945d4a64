"""The losses of PRIOR against numbers recorded from the authors' code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.losses import local_alignment, matching, reconstruction
from prior_jax.losses.contrastive import paired_contrastive
from prior_jax.losses.normalize import unit
from prior_jax.nn.cross_attention import LocalCrossAttention
from prior_jax.nn.heads import Predictor
from prior_jax.nn.sentence_gather import fit_sentences
from tests.golden.ragged import pad, unpad
from tests.golden.reader import assert_close, load
from tests.golden.test_prior_modules import bank_of, differentiate, linears_from

pytestmark = pytest.mark.golden


def ones(count: int) -> jax.Array:
    return jnp.ones((count,), jnp.float32)


def predictor_of(params) -> Predictor:
    width = params["predictor.0.weight"].shape[1]
    predictor = Predictor(width, dtype=jnp.float32, rngs=nnx.Rngs(0))
    names = {"hidden": "predictor.0", "output": "predictor.2"}
    return linears_from(predictor, params, names)


def assert_linear_grads(grads, golden, names, *, prefix="grad/param/"):
    for attribute, torch_name in names.items():
        assert_close(
            grads[attribute]["kernel"], golden[f"{prefix}{torch_name}.weight"].T, rtol=1e-3
        )
        assert_close(grads[attribute]["bias"], golden[f"{prefix}{torch_name}.bias"], rtol=1e-3)


PREDICTOR = {"hidden": "predictor.0", "output": "predictor.2"}
ATTENTION = {
    name: f"local_cross_attention.{name}"
    for name in ("query1", "key1", "value1", "query2", "key2", "value2")
}


def image_loss(predictor, patches, context, weight):
    return local_alignment.local_image(
        patches,
        context,
        predicted_patches=predictor(patches),
        predicted_context=predictor(context),
        weight=weight,
    )


def test_simsiam(golden_dir):
    golden = load(golden_dir, "prior", "simsiam")
    predictor = predictor_of(golden.prefix("param/"))

    def loss(predictor, x, y):
        return image_loss(predictor, x[None], y[None], ones(1))

    value, (params, x, y) = differentiate(loss, predictor, golden["in/x"], golden["in/y"])
    assert_close(value, golden["out/loss"], rtol=1e-4)
    assert_close(x, golden["grad/in/x"], rtol=1e-3)
    assert_close(y, golden["grad/in/y"], rtol=1e-3)
    assert_linear_grads(params, golden, PREDICTOR)


def test_text_local_loss(golden_dir):
    golden = load(golden_dir, "prior", "text_local_loss")
    for case in golden.cases("in/"):
        normalize = case.endswith("norm1")

        def loss(a, b, log_scale, normalize=normalize):
            return local_alignment.local_text(
                a[None],
                b[None],
                scale=jnp.exp(log_scale),
                mask=jnp.ones((1, a.shape[0]), bool),
                weight=ones(1),
                normalize=normalize,
            )

        arguments = golden[f"in/{case}/A"], golden[f"in/{case}/B"]
        log_scale = golden["param/local_logit_scale"]
        differentiated = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
        value, grads = differentiated(*map(jnp.asarray, arguments), jnp.asarray(log_scale))
        assert_close(value, golden[f"out/{case}/loss"], rtol=1e-4, name=case)
        names = "in/A", "in/B", "param/local_logit_scale"
        for name, grad in zip(names, grads, strict=True):
            assert_close(grad, golden[f"grad/{case}/{name}"], rtol=1e-3, name=f"{case} {name}")


def test_local_alignment_loss(golden_dir):
    golden = load(golden_dir, "prior", "local_alignment_loss")
    params = golden.prefix("param/")
    predictor = predictor_of(params)
    width = golden["in/image"].shape[-1]
    attention = LocalCrossAttention(width, dtype=jnp.float32, rngs=nnx.Rngs(0))
    attention = linears_from(attention, params, ATTENTION)
    lengths = golden["in/lengths"]
    text, mask = pad(golden["in/text_rows"], lengths, size=int(max(lengths)) + 2)
    weight = ones(len(lengths))

    def terms(attention, predictor, image, text, log_scale):
        see = jnp.asarray(mask)
        context = attention(image, text, image_mask=see[:, None, :], text_mask=see[:, :, None])
        in_image = image_loss(predictor, image, context.image, weight)
        in_text = local_alignment.local_text(
            text, context.text, scale=jnp.exp(log_scale), mask=see, weight=weight
        )
        return in_image, in_text, context.image

    arguments = golden["in/image"], text, params["local_logit_scale"]
    given = map(jnp.asarray, arguments)
    in_image, in_text, context = nnx.jit(terms)(attention, predictor, *given)
    assert_close(in_image, golden["out/local_image_loss"], rtol=1e-4)
    assert_close(in_text, golden["out/local_text_loss"], rtol=1e-4)
    assert_close(context, golden["out/text_to_local_image_embed_stacks"], rtol=1e-4)

    def loss(modules, *arrays):
        in_image, in_text, _ = terms(*modules, *arrays)
        return in_image + in_text

    _, grads = differentiate(loss, nnx.List([attention, predictor]), *arguments)
    modules, image, text_grad, log_scale = grads
    assert_close(image, golden["grad/in/image"], rtol=1e-3)
    assert_close(unpad(text_grad, mask), golden["grad/in/text_rows"], rtol=1e-3)
    assert not np.any(np.asarray(text_grad)[~mask])
    assert_close(log_scale, golden["grad/param/local_logit_scale"], rtol=1e-3)
    assert_linear_grads(modules[0], golden, ATTENTION)
    assert_linear_grads(modules[1], golden, PREDICTOR)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
def global_gradients(image, text, log_scale):
    return paired_contrastive(
        unit(image), unit(text), scale=jnp.exp(log_scale), weight=ones(image.shape[0])
    )


def test_global_alignment_loss(golden_dir):
    golden = load(golden_dir, "prior", "global_alignment_loss")
    names = "in/image", "in/text", "param/logit_scale"
    value, grads = global_gradients(*(jnp.asarray(golden[name]) for name in names))
    assert_close(value, golden["out/loss"], rtol=1e-4)
    for name, grad in zip(names, grads, strict=True):
        assert_close(grad, golden[f"grad/{name}"], rtol=1e-3, name=name)


def test_one_global_batch_equals_the_mean_over_ranks(golden_dir):
    golden = load(golden_dir, "prior", "global_alignment_loss")
    ranks = golden.scalar("in/world_size")
    names = "in/image", "in/text", "param/logit_scale"
    value, grads = global_gradients(*(jnp.asarray(golden[name]) for name in names))
    assert_close(value, golden["out/multi/loss_per_rank"].mean(), rtol=1e-4)
    for name, grad in zip(("image", "text"), grads[:2], strict=True):
        # Every rank's gradient is of the sum of all ranks' losses; DDP takes the mean.
        per_rank = golden[f"out/multi/grad_{name}_per_rank"]
        assert_close(grad, np.concatenate(list(per_rank)) / ranks, rtol=1e-3, name=name)
    assert_close(grads[2], golden["out/multi/grad_logit_scale_per_rank"].mean(), rtol=1e-3)


def test_matching_label(golden_dir):
    golden = load(golden_dir, "prior", "matching_label")
    for case in golden.cases("in/"):
        # "l2_norm" is the distance l2 of unit vectors.
        metric, *rest = case.split("_")
        normalize = "norm" in rest
        outputs = jnp.asarray(golden[f"in/{case}/outputs"])[None]
        targets = jnp.asarray(golden[f"in/{case}/targets"])[None]
        cost = matching.pairwise_cost(outputs, targets, metric=metric, normalize=normalize)
        assert_close(cost[0], golden[f"out/{case}/cost"], rtol=1e-4, name=case)
        col_ind = matching.assign(cost)
        rows = jnp.arange(cost.shape[1])
        assert sorted(np.asarray(col_ind[0])) == list(range(cost.shape[1]))
        total = jnp.sum(cost[0, rows, col_ind[0]])
        assert_close(total, golden[f"out/{case}/optimal_cost"], rtol=1e-4, name=case)
        recorded = jnp.asarray(golden[f"out/{case}/col_ind"], jnp.int32)[None]
        # Targets of padding are alike, and which of them is taken is a tie.
        if len(np.unique(targets[0], axis=0)) == targets.shape[1]:
            np.testing.assert_array_equal(np.asarray(col_ind), np.asarray(recorded))

        for inverse, name in ((False, "l1_as_original"), (True, "l1_inverse_permutation")):
            value = reconstruction.matched_l1(
                matching.arrange(outputs, recorded, inverse=inverse),
                targets,
                mask=jnp.ones(targets.shape[:2], bool),
                weight=ones(1),
                ignore_padding=False,
            )
            assert_close(value, golden[f"out/{case}/{name}"], rtol=1e-4, name=f"{case} {name}")


def test_spg_loss(golden_dir):
    golden = load(golden_dir, "prior", "spg_loss")
    queries = golden["in/logits"].shape[1]
    scale = golden.scalar("in/lambda_proto")
    features, mask = pad(golden["in/features_rows"], golden["in/lengths"], queries)
    noise, _ = pad(golden["in/gumbel"], golden["in/lengths"], queries)
    col_ind = jnp.asarray(golden["out/col_ind"], jnp.int32)
    see = jnp.asarray(mask)
    bank = bank_of(golden["param/sentence_bank.embed.weight"])

    def terms(bank, logits, features, *, inverse=False, added=None):
        temperature = jnp.asarray(golden["in/tau"])
        lookup = bank(features, see, temperature=temperature, noise=jnp.asarray(noise))
        prototypes = lookup.prototypes if added is None else lookup.prototypes + added
        predicted = matching.arrange(logits, col_ind, inverse=inverse)
        spg = reconstruction.matched_l1(
            predicted, prototypes, mask=see, weight=ones(len(see)), ignore_padding=False
        )
        kl = reconstruction.prototype_kl(
            lookup.logits,
            bank.logits(predicted),
            weight=see.astype(jnp.float32),
            stop_target_gradient=False,
        )
        return spg, kl, lookup.prototypes, predicted

    arguments = jnp.asarray(golden["in/logits"]), jnp.asarray(features)
    spg, kl, prototypes, predicted = nnx.jit(terms)(bank, *arguments)
    assert_close(spg * scale, golden["out/spg_loss"], rtol=1e-4)
    assert_close(kl, golden["out/kl_loss"], rtol=1e-4)
    assert_close(prototypes, golden["out/protos_padded"], rtol=1e-4)
    np.testing.assert_array_equal(mask, golden["out/mask"].astype(bool))
    assert_close(unpad(predicted, mask), golden["out/roi_logits_rows"], rtol=1e-4)
    inverse, _, _, _ = nnx.jit(functools.partial(terms, inverse=True))(bank, *arguments)
    assert_close(inverse * scale, golden["out/spg_loss_inverse_permutation"], rtol=1e-4)

    cost = matching.pairwise_cost(arguments[0], prototypes, metric="l1", normalize=False)
    ours = matching.assign(cost)
    recorded_total = jnp.take_along_axis(cost, col_ind[:, :, None], axis=2).sum(axis=(1, 2))
    total = jnp.take_along_axis(cost, ours[:, :, None], axis=2).sum(axis=(1, 2))
    assert_close(total, np.asarray(recorded_total), rtol=1e-5)

    def loss(bank, logits, features, added):
        spg, kl, _, _ = terms(bank, logits, features, added=added)
        return spg * scale + kl

    zeros = np.zeros(prototypes.shape, np.float32)
    _, grads = differentiate(loss, bank, golden["in/logits"], features, zeros)
    assert_close(grads[1], golden["grad/in/logits"], rtol=1e-3)
    assert_close(unpad(grads[2], mask), golden["grad/in/features_rows"], rtol=1e-3)
    assert_close(unpad(grads[3], mask), golden["grad/out/protos_rows"], rtol=1e-3)
    assert_close(grads[0]["embed"], golden["grad/param/sentence_bank.embed.weight"], rtol=1e-3)


def test_padding(golden_dir):
    golden = load(golden_dir, "prior", "padding")
    queries = golden.scalar("in/num_queries")
    rows, mask = pad(golden["in/rows"], golden["in/lengths"])
    padded, kept = fit_sentences(jnp.asarray(rows), jnp.asarray(mask), num_sentences=queries)
    assert_close(padded, golden["out/padded"], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(kept), golden["out/mask"].astype(bool))
    np.testing.assert_array_equal(np.asarray(kept).sum(1), golden["out/truncated_lengths"])
    index, _ = pad(golden["in/embed_ind"][:, None], golden["in/lengths"])
    index, kept = fit_sentences(jnp.asarray(index), jnp.asarray(mask), num_sentences=queries)
    padded_index = np.where(np.asarray(kept), np.asarray(index)[..., 0], -1)
    np.testing.assert_array_equal(padded_index, golden["out/padded_embed_ind"])
