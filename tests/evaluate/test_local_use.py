"""How much local losses depend on the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prior_jax.evaluate import local_use
from prior_jax.evaluate.validation import Validation
from prior_jax.train.state import define_model
from tests.train import toy


class Looking(toy.ToyObjective):
    """A toy whose contrast is called local."""

    def local_terms(self, stage):
        return ("contrast",)


class Idle(Looking):
    """A toy whose local contrast has no weight."""

    def weights(self, stage):
        return {**super().weights(stage), "contrast": 0.0}


class Blind(Looking):
    """A toy whose contrast does not see the image."""

    def loss_terms(self, model, batch, **options):
        return super().loss_terms(
            model, toy.replace(batch, image=jnp.ones_like(batch.image)), **options
        )


def validated(objective, batches):
    model = define_model(objective.init)
    draw = jax.jit(lambda key: model.split(objective.init(toy.nnx.Rngs(key))))
    validation = Validation(objective, model.merge)
    return validation(*draw(jax.random.key(0)), batches, stage="second", step=3)


def weighing(batch, pairs):
    weight = np.arange(len(batch.weight)) < pairs
    return toy.replace(batch, weight=weight.astype(np.float32))


@pytest.mark.parametrize("pairs", [16, 6, 5, 2])
def test_each_report_gets_the_image_half_of_the_real_rows_away(pairs):
    batch = toy.ToyData().batch(1)
    other = np.asarray(jax.jit(local_use.other_images)(weighing(batch, pairs)))[:pairs]
    expected = np.roll(np.asarray(batch.image)[:pairs], -(pairs // 2), axis=0)
    np.testing.assert_array_equal(other, expected)


def test_the_use_is_the_difference_of_the_terms():
    batch = toy.ToyData().batch(1)
    found = validated(Looking(), [batch])
    own = found["validation_contrast_loss"]
    other = validated(Looking(), [toy.replace(batch, image=np.roll(batch.image, 8, axis=0))])
    mirrored = validated(Looking(), [toy.replace(batch, image=batch.image[:, :, ::-1])])
    for name, changed in (("image", other), ("mirror", mirrored)):
        use = changed["validation_contrast_loss"] - own
        assert use != 0
        np.testing.assert_allclose(found[f"validation_local_{name}_use"], use, rtol=1e-4)
        share = use / changed["validation_contrast_loss"]
        np.testing.assert_allclose(found[f"validation_local_{name}_use_share"], share, rtol=1e-4)


def test_a_loss_that_does_not_look_has_no_use():
    found = validated(Blind(), [toy.ToyData().batch(1)])
    assert set(local_use.NAMES) <= found.keys()
    for name in local_use.NAMES:
        assert found[name] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("objective", [toy.ToyObjective(), Idle()])
def test_an_objective_without_trained_local_terms_has_no_such_number(objective):
    assert local_use.trained_terms(objective, "second") == ()
    assert local_use.trained_terms(Looking(), "second") == ("contrast",)
    found = validated(objective, [toy.ToyData().batch(1)])
    assert not set(local_use.NAMES) & found.keys()


def test_what_is_said_tells_higher_from_lower_and_names_the_terms():
    said = local_use.said(dict(zip(local_use.NAMES, (-0.32, -0.06, 1.25, 0.5), strict=True)), "ab")
    assert said.startswith(
        "Compared with the report's own image, the weighted sum of the local losses that are "
        "trained (a, b) is 0.32 nats lower (6 % of the losses' size there) with another study's "
        "image, and 1.25 nats higher (50 % of the losses' size there) with the mirrored image. "
        "They hardly look at the image"
    )
    said = local_use.said(dict(zip(local_use.NAMES, (3.0, 0.9, -0.001, 0.0), strict=True)), ())
    assert "that are trained is 3.00 nats higher (90 %" in said
    assert said.endswith("and the same with the mirrored image.")


def test_losses_that_are_0_with_one_of_the_images_have_no_share_of_their_size():
    sums = {"own": 0.0, "other": 2.0, "other_size": 2.0, "mirrored": 0.0, "mirrored_size": 0.0}
    found = local_use.use_of(sums)
    assert found == dict(zip(local_use.NAMES, (2.0, 1.0, 0.0, 0.0), strict=True))
    assert not local_use.looks_away(found)
    assert local_use.use_of({**sums, "other": 0.0, "other_size": 0.0}) == {}


def test_losses_that_prefer_another_image_do_look():
    assert not local_use.looks_away({local_use.SHARE: -0.6})
    assert local_use.looks_away({local_use.SHARE: -0.06})
    assert not local_use.looks_away({})


def test_a_batch_of_one_pair_is_not_compared():
    batch = toy.ToyData().batch(1)
    whole, both = (
        validated(Looking(), batches) for batches in ([batch], [batch, weighing(batch, 1)])
    )
    for name in local_use.NAMES:
        assert both[name] == pytest.approx(whole[name])
    assert not set(local_use.NAMES) & validated(Looking(), [weighing(batch, 1)]).keys()
