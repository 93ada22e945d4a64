"""A small objective and its data, to train in tests."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.processes.watchdog import WatchdogConfig
from prior_jax.sharding.mesh import make_mesh
from prior_jax.sharding.rules import Rule
from prior_jax.train.checkpoint_table import CheckpointConfig
from prior_jax.train.loop import train
from prior_jax.train.metrics import LogConfig
from prior_jax.train.optimizer import OptimizerConfig
from prior_jax.train.options import TrainOptions
from prior_jax.train.stages import Stage
from prior_jax.types import Batch, LossTerms

WIDTH = 8


class ToyModel(nnx.Module):
    """A convolution with batch norm, word vectors, a sharded bank and a head of stage two."""

    def __init__(self, rngs: nnx.Rngs, *, width: int = WIDTH):
        self.conv = nnx.Conv(1, width, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.words = nnx.Embed(32, width, rngs=rngs)
        self.bank = nnx.Param(jax.random.normal(rngs.params(), (16, width)))
        self.head = nnx.Linear(width, width, rngs=rngs)


class ToyObjective:
    stages = ("first", "second")

    def __init__(self, *, width: int = WIDTH, poison_at: int | None = None):
        self.width, self.poison_at = width, poison_at

    def init(self, rngs):
        return ToyModel(rngs, width=self.width)

    def weights(self, stage):
        return {"contrast": 1.0} if stage == "first" else {"contrast": 1.0, "bank": 0.5}

    def trainable(self, stage, path):
        return stage == "second" or path[0] not in ("head", "bank")

    def loss_terms(self, model, batch, *, stage, step, key, train=True):
        x = model.norm(model.conv(batch.image), use_running_average=not train)
        image = jnp.mean(jax.nn.relu(x), axis=(1, 2))
        mask = batch.token_mask.astype(jnp.float32)[..., None]
        text = jnp.sum(model.words(batch.tokens) * mask, axis=1) / jnp.sum(mask, axis=1)
        image = image + jnp.float32(0.1) * jax.random.normal(key, image.shape)
        logits = image @ text.T
        contrast = -jnp.mean(jnp.diag(jax.nn.log_softmax(logits, axis=-1)))
        if self.poison_at is not None:
            contrast = jnp.where(step == self.poison_at, jnp.float32(jnp.nan), contrast)
        terms = {"contrast": contrast}
        if stage == "second":
            seen = jax.nn.softmax(model.head(image) @ model.bank[...].T) @ model.bank[...]
            terms["bank"] = jnp.mean(jnp.abs(seen - text))
        return LossTerms(terms=terms, metrics={"spread": jnp.std(image)})


class ToyData:
    """Batches that are a function of the step; every third is longer, if asked."""

    def __init__(self, *, batch_size: int = 16, long: int = 6):
        self.batch_size, self.long = batch_size, long
        self.opened: list[tuple[int, int, int]] = []

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng([7, step])
        n, length = self.batch_size, 6 if step % 3 else self.long
        tokens = rng.integers(0, 32, (n, length)).astype(np.int32)
        return Batch(
            image=rng.normal(size=(n, 8, 8, 1)).astype(np.float32),
            tokens=tokens,
            token_mask=np.arange(length) < rng.integers(1, length + 1, (n, 1)),
            sentence_index=np.zeros((n, length), np.int32),
            sentence_mask=np.ones((n, 1), bool),
            labels=np.zeros((n, 2), np.int8),
            weight=np.ones(n, np.float32),
            record=(np.arange(n) + step * n).astype(np.int32),
        )

    def train_batches(self, *, start_step, part):
        self.opened.append((start_step, part.blocks[0], part.count))
        rows = part.rows(self.batch_size)
        step = start_step
        while True:
            yield step, jax.tree.map(lambda x: x[rows], self.batch(step))
            step += 1

    def record_id(self, index):
        return f"study-{index}"


class Died(Exception):
    """Ends a run like an error of the program, after which a save in progress still ends."""


class StopAt(ToyData):
    """Raises in place of the batch of one step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def batch(self, step):
        if step == self.step:
            raise Died
        return super().batch(step)


OPTIMIZER = OptimizerConfig(
    beta1=0.9,
    beta2=0.999,
    epsilon=1e-8,
    decay="decoupled",
    decay_mask="all",
    clip_norm=None,
    past_end="hold",
    accumulate_steps=1,
)
RULES = (Rule("bank", ("data",)), Rule(".*", ()))
LOG = LogConfig(every_steps=1, tensorboard=False, wandb_project=None, progress=False)
WATCHDOG = WatchdogConfig(warn_seconds=300.0, end_seconds=None, compile_seconds=300.0)
CHECKPOINT = CheckpointConfig(
    every_steps=4, keep_last=3, keep_best=0, best_metric=None, best_is="lowest", directory=None
)


def stage(name, steps, **changes):
    fields = dict(
        learning_rate=1e-2, learning_rate_start=1e-3, learning_rate_end=0.0, warmup_steps=2
    )
    fields |= dict(schedule="cosine", plateau=None, schedule_steps=None, weight_decay=1e-2)
    fields |= changes
    return Stage(name=name, steps=steps, **fields)


STAGES = (stage("first", 6), stage("second", 6))


def options(**changes):
    fields = dict(seed=3, validate_every=0, early_stopping=None, identity={})
    fields |= dict(log=LOG, checkpoint=CHECKPOINT, watchdog=WATCHDOG)
    return TrainOptions(**(fields | changes))


def mesh_of(count=1):
    return make_mesh({"data": -1}, devices=jax.devices()[:count])


def run(workdir, *, devices=1, mesh=None, **changes):
    fields = dict(objective=ToyObjective(), data=ToyData(), stages=STAGES, optimizer=OPTIMIZER)
    fields |= dict(options=options(), rules=RULES) | changes
    mesh = mesh_of(devices) if mesh is None else mesh
    return train(mesh=mesh, data_axes=("data",), workdir=workdir, **fields)


def lines(workdir):
    text = (pathlib.Path(workdir) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


TIMINGS = ("pairs_per_second", "input_wait")


def losses(workdir):
    """The lines without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines(workdir)]


def arrays(snapshot):
    """Every array of the model, on the host."""
    parts = {**dict(snapshot.params), **dict(snapshot.rest)}
    return {name: np.asarray(value) for name, value in parts.items()}


def assert_same_bits(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].tobytes() == two[name].tobytes(), name


replace = dataclasses.replace
