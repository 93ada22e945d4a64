"""Zero-shot scores against those of the authors' code, noise and batch dependence included."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.interop.sources.prior_names import prior_table
from prior_jax.objectives import prior_inference
from tests.golden.prior_model import config_of, imported
from tests.golden.reader import assert_close, load
from tests.torch_models import dump_torch

pytestmark = pytest.mark.golden


class Setup:
    """The recorded model as it is imported, its encoded images and its encoded prompts."""

    def __init__(self, golden_dir, folder):
        self.golden = golden = load(golden_dir, "prior", "zero_shot")
        params = golden.prefix("param/")
        size = golden["in/image"].shape[-1]
        recorded = config_of(params, golden.prefix("in/config/"), image_size=size)
        self.objective, self.model = imported(params, recorded, folder)
        self.config = self.objective.config
        token_mask = jnp.asarray(golden["in/prompt_attention_mask"] > 0)
        self.tokens = (
            jnp.asarray(golden["in/prompt_input_ids"], jnp.int32),
            token_mask,
            prior_inference.prompt_sentence_index(token_mask, separator_in_prompt=True),
            jnp.ones((len(token_mask), 1), bool),
        )
        self.graph, self.state = nnx.split(self.model)
        self.noise = jnp.asarray(golden["in/gumbel"])
        self.temperature = jnp.asarray(golden["in/tau"])
        self.classes = int(golden["in/prompt_class"].max()) + 1

        @jax.jit
        def encode(state, image, noise):
            model = nnx.merge(self.graph, state)
            reports = prior_inference.encode_report(
                model, *self.tokens, temperature=self.temperature, noise=noise
            )
            return self.objective.encode_image(model, image), reports

        image = jnp.asarray(golden["in/image"].transpose(0, 2, 3, 1))
        self.images, self.reports = encode(self.state, image, self.noise)

    def scores(self, *, per_image: bool, images=None, reports=None):
        model = nnx.merge(self.graph, self.state)
        model.choices = dataclasses.replace(model.choices, local_score_per_image=per_image)
        return prior_inference.pair_scores(
            model,
            self.images if images is None else images,
            self.reports if reports is None else reports,
        )

    def probabilities(self, scores):
        return prior_inference.zero_shot_probabilities(
            scores, jnp.asarray(self.golden["in/prompt_class"]), num_classes=self.classes
        )


@pytest.fixture(scope="module")
def setup(golden_dir, tmp_path_factory):
    return Setup(golden_dir, tmp_path_factory.mktemp("imported"))


def test_the_import_knows_what_was_recorded(setup):
    assert setup.config.fidelity == "release"
    params = setup.golden.prefix("param/")
    table = prior_table(setup.config)
    state_dict = dump_torch(setup.model, table)
    for name, array in params.items():
        if not table.ignores(name):
            np.testing.assert_array_equal(state_dict[name], array, err_msg=name)


def test_features(setup):
    golden = setup.golden
    assert_close(setup.images.local, golden["out/local_image_embed"], rtol=1e-4)
    assert_close(setup.images.global_, golden["out/global_image_embed"], rtol=1e-4)
    local = golden["out/local_prompt"]
    assert_close(jnp.reshape(setup.reports.local, local.shape), local, rtol=1e-4)
    assert_close(setup.reports.global_, golden["out/global_prompt"], rtol=1e-4)


def test_one_image_at_a_time(setup):
    golden = setup.golden
    scores = setup.scores(per_image=True)
    owns = golden["in/prompt_class"][None] == np.arange(setup.classes)[:, None]
    best = np.where(owns[None], np.asarray(scores.global_)[:, None], -np.inf).max(-1)
    assert_close(best, golden["out/b1/global_logits"], rtol=1e-4)
    mean = np.asarray(scores.local) @ (owns / owns.sum(1, keepdims=True)).T
    assert_close(mean, golden["out/b1/local_logits"], rtol=1e-4)
    probabilities = setup.probabilities(scores)
    assert_close(probabilities, golden["out/b1/prob"], rtol=1e-4)
    np.testing.assert_array_equal(np.argmax(probabilities, axis=1), golden["out/b1/pred"])


def test_evaluation_scores_one_image_at_a_time(setup):
    """As the release's program does, whatever the size of a block."""
    model = nnx.merge(setup.graph, setup.state)
    assert not model.choices.local_score_per_image
    alone = setup.scores(per_image=True)
    parts = setup.objective.similarity_parts(model, setup.images, setup.reports)
    assert_close(parts[0], alone.global_, rtol=1e-6)
    assert_close(parts[1], alone.local, rtol=1e-6)
    both = setup.objective.similarity(model, setup.images, setup.reports)
    assert_close(both, alone.global_ + 0.5 * alone.local, rtol=1e-6)


def test_a_batch_shares_its_local_scores(setup):
    golden = setup.golden
    name = next(name for name in golden.cases("out/") if name != "b1")
    scores = setup.scores(per_image=False)
    probabilities = setup.probabilities(scores)
    assert_close(probabilities, golden[f"out/{name}/prob"], rtol=1e-4)
    np.testing.assert_array_equal(np.argmax(probabilities, axis=1), golden[f"out/{name}/pred"])


def test_noise_makes_answers_as_random_as_recorded(setup):
    recorded = next(v for k, v in setup.golden.items() if k.startswith("out/redraw_predictions"))

    @jax.jit
    def draw(state, key):
        model = nnx.merge(setup.graph, state)
        reports = prior_inference.encode_report(
            model, *setup.tokens, temperature=setup.temperature, key=key
        )
        model.choices = dataclasses.replace(model.choices, local_score_per_image=True)
        return setup.probabilities(prior_inference.pair_scores(model, setup.images, reports))

    keys = jax.random.split(jax.random.key(0), len(recorded))
    ours = np.stack([np.argmax(draw(setup.state, key), axis=1) for key in keys])

    def shares(predictions):
        return np.stack([(predictions == c).mean(axis=0) for c in range(setup.classes)])

    # Two samples of 60 from one distribution over a few classes lie 0.35 apart at most.
    distance = np.abs(shares(ours) - shares(recorded)).sum(axis=0) / 2
    assert distance.max() < 0.35 * np.sqrt(60 / len(recorded)), distance
