"""One step of each head with Adam, against torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prior_jax.losses.classification import binary_losses, exclusive_loss
from prior_jax.nn.classification_head import ClassificationHead, HeadConfig
from prior_jax.train.optimizer import OptimizerConfig, apply_updates, make_optimizer
from prior_jax.train.state import define_model, fresh_optimizer
from tests.train import toy

pytestmark = pytest.mark.parity

ROWS, FEATURES, CLASSES, HIDDEN = 7, 12, 3, 10
RATE, DECAY, EPSILON = 1e-2, 1e-3, 1e-6
OURS = {
    "linear": {"0.weight": "classifier/kernel", "0.bias": "classifier/bias"},
    "layer_norm": {
        "0.weight": "norm/scale",
        "0.bias": "norm/bias",
        "1.weight": "classifier/kernel",
        "1.bias": "classifier/bias",
    },
    "mlp": {
        "0.weight": "hidden/kernel",
        "1.weight": "norm/scale",
        "1.bias": "norm/bias",
        "3.weight": "classifier/kernel",
        "3.bias": "classifier/bias",
    },
}


def torch_head(kind):
    torch = pytest.importorskip("torch")
    layers = {
        "linear": lambda: [torch.nn.Linear(FEATURES, CLASSES)],
        "layer_norm": lambda: [
            torch.nn.LayerNorm(FEATURES, eps=EPSILON),
            torch.nn.Linear(FEATURES, CLASSES),
        ],
        "mlp": lambda: [
            torch.nn.Linear(FEATURES, HIDDEN, bias=False),
            torch.nn.BatchNorm1d(HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, CLASSES),
        ],
    }
    torch.manual_seed(0)
    return torch.nn.Sequential(*layers[kind]())


def arrays_of(head, kind):
    """Our paths -> torch's values, in our layout."""
    named = dict(head.named_parameters())
    assert set(named) == set(OURS[kind])
    values = {OURS[kind][n]: p.detach().numpy().copy() for n, p in named.items()}
    return {path: v.T if path.endswith("kernel") else v for path, v in values.items()}


@pytest.mark.parametrize("loss", ["binary", "exclusive"])
@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
@pytest.mark.parametrize("kind", OURS)
def test_a_step_with_a_rate_of_its_own_for_the_classifier(kind, decay, loss):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    target = rng.integers(0, 2, (ROWS, CLASSES)).astype(np.float32)
    index = rng.integers(0, CLASSES, ROWS)

    theirs = torch_head(kind)
    before = arrays_of(theirs, kind)
    last = f"{len(theirs) - 1}."
    groups = [
        {"params": [p for n, p in theirs.named_parameters() if n.startswith(last)], "lr": RATE},
        {
            "params": [p for n, p in theirs.named_parameters() if not n.startswith(last)],
            "lr": RATE / 10,
        },
    ]
    kinds = {"coupled": torch.optim.Adam, "decoupled": torch.optim.AdamW}
    groups = [group for group in groups if group["params"]]
    optimizer = kinds[decay](groups, betas=(0.5, 0.999), weight_decay=DECAY)
    logits = theirs(torch.from_numpy(features))
    if loss == "binary":
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(target)
        )
    else:
        wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(index))
    wanted.backward()
    optimizer.step()
    after = arrays_of(theirs, kind)

    hidden = HIDDEN if kind == "mlp" else None
    config = HeadConfig(kind=kind, hidden=hidden, dropout=0.0)
    definition = define_model(
        lambda rngs: ClassificationHead(config, features=FEATURES, logits=CLASSES, rngs=rngs)
    )
    head = ClassificationHead(config, features=FEATURES, logits=CLASSES, rngs=nnx.Rngs(0))
    _, rest = definition.split(head)
    params = {path: jnp.asarray(value) for path, value in before.items()}
    one = jnp.ones(ROWS, jnp.float32)

    def value(params):
        logits = definition.merge(params, rest)(jnp.asarray(features), train=True)
        if loss == "binary":
            known = jnp.ones((ROWS, CLASSES), jnp.float32)
            return binary_losses(logits, jnp.asarray(target), known=known, weight=one)
        return exclusive_loss(logits, jnp.asarray(index, jnp.int32), known=one, weight=one)

    found, gradients = jax.value_and_grad(value)(params)
    np.testing.assert_allclose(found, wanted.item(), rtol=1e-5)
    settings = OptimizerConfig(
        beta1=0.5, beta2=0.999, epsilon=1e-8, decay=decay, decay_mask="all", clip_norm=None,
        past_end="hold", accumulate_steps=1,
    )  # fmt: skip
    transformation = make_optimizer(
        settings, toy.stage("frozen", 1, weight_decay=DECAY, warmup_steps=0)
    )
    state = fresh_optimizer(params, names=tuple(params), transformation=transformation)
    own = {path: 0.1 for path in params if not path.startswith("classifier/")}
    stepped, _ = apply_updates(
        transformation, gradients=gradients, state=state, parameters=params,
        learning_rate=jnp.float32(RATE), factors=own,
    )  # fmt: skip
    for path, value_after in after.items():
        np.testing.assert_allclose(stepped[path], value_after, rtol=1e-5, atol=2e-6, err_msg=path)
        way = value_after - before[path]
        np.testing.assert_allclose(stepped[path] - before[path], way, rtol=2e-2, atol=3e-6)
