"""A suite of few tasks with few resamples, and a run of it in the test's own process."""

import json

import jax

from configs.eval import suite as config_of_suite
from launch import evaluate
from launch.evaluation.tasks import task_of

TASKS = tuple(
    f"configs/eval/{name}.py"
    for name in ("zero_shot", "retrieval", "classification", "probe", "phrase_grounding")
)


def task(**changes):
    config = config_of_suite.get_config()
    config.tasks = TASKS
    config.batch_size = 16
    config.fractions = (0.5, 1.0)
    config.seeds = (0, 1)
    config.bootstrap.resamples = 5
    config.update(changes)
    return task_of(config)


def run(subject, given, out):
    with jax.set_mesh(subject.place.mesh):
        evaluate.evaluate(subject, [given], out=out)
    return json.loads((out / "eval" / "suite.json").read_text())
