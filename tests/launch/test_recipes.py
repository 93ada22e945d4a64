"""Every config builds what it says, for all its stages, and says nothing that nobody reads."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs import debug, phantom, small
from configs.baselines import clip, convirt, lovt, mgca, siglip
from configs.baselines import phantom as baseline
from configs.baselines.objectives import OBJECTIVES
from configs.eval import grounding, retrieval, zero_shot
from configs.finetune import (
    any_set,
    any_set_detection,
    any_set_segmentation,
    benchx_nih,
    benchx_rsna,
    benchx_segmentation,
    classification,
    detection,
    gloria_chexpert,
    gloria_segmentation,
    lovt_detection,
    lovt_segmentation,
    mgca_chexpert,
    mgca_detection,
    mgca_segmentation,
    segmentation,
)
from configs.finetune import debug as finetune_debug
from configs.gloria import paper as gloria_paper
from configs.gloria import phantom as gloria_phantom
from configs.gloria import pod as gloria_pod
from configs.gloria import release as gloria_release
from configs.prior import improved, paper, release
from launch.evaluation.tasks import task_of
from launch.start import run as run_lib
from prior_jax import assemble
from prior_jax.config import read_config, to_json
from prior_jax.data.tokenizer import unknown_vocabulary
from prior_jax.errors import ConfigError
from prior_jax.objectives.base import weighted_sum
from prior_jax.sharding.placement import placement
from prior_jax.train.program import Program
from prior_jax.types import Batch, Boxes

RECIPES = pathlib.Path(__file__).parent / "recipes"
CONFIGS = {
    "debug": debug.get_config,
    "phantom": phantom.get_config,
    "phantom_paper": functools.partial(phantom.get_config, "paper"),
    "small": small.get_config,
    "prior_paper": paper.get_config,
    "prior_release": release.get_config,
    "gloria_paper": gloria_paper.get_config,
    "gloria_release": gloria_release.get_config,
    "gloria_phantom": gloria_phantom.get_config,
    "clip": clip.get_config,
    "convirt": convirt.get_config,
    "lovt": lovt.get_config,
    "mgca": mgca.get_config,
    "siglip": siglip.get_config,
    "finetune_classification": classification.get_config,
    "finetune_gloria_chexpert": gloria_chexpert.get_config,
    "finetune_mgca_chexpert": mgca_chexpert.get_config,
    "finetune_benchx_nih": benchx_nih.get_config,
    "finetune_detection": detection.get_config,
    "finetune_lovt_detection": lovt_detection.get_config,
    "finetune_mgca_detection": mgca_detection.get_config,
    "finetune_segmentation": segmentation.get_config,
    "finetune_gloria_segmentation": gloria_segmentation.get_config,
    "finetune_lovt_segmentation": lovt_segmentation.get_config,
    "finetune_mgca_segmentation": mgca_segmentation.get_config,
    "finetune_benchx_segmentation": benchx_segmentation.get_config,
}
# These follow from others: their recipes are not recorded.
BASELINES = (*OBJECTIVES, *baseline.IMPROVED)
DERIVED = {f"phantom_{name}": functools.partial(baseline.get_config, name) for name in BASELINES}
DEBUGGED = ("gloria", *BASELINES)
DERIVED |= {f"debug_{name}": functools.partial(debug.get_config, name) for name in DEBUGGED}
DERIVED["gloria_pod"] = gloria_pod.get_config
DERIVED["prior_improved"] = improved.get_config
DERIVED["lovt_improved"] = functools.partial(lovt.get_config, "improved")
DERIVED["mgca_improved"] = functools.partial(mgca.get_config, "improved")
DERIVED["finetune_benchx_rsna"] = benchx_rsna.get_config
DERIVED["finetune_debug"] = finetune_debug.get_config
DERIVED |= {f"any_set_{w}": functools.partial(any_set.get_config, w) for w in any_set.STAGES}
DERIVED |= {
    f"any_set_detection_{w}": functools.partial(any_set_detection.get_config, w)
    for w in any_set_detection.RATES
}
for released in ("rsna_1_finetune", "rsna_1_finetune_release", "object_cxr_100_release"):
    make = functools.partial(lovt_detection.get_config, released)
    DERIVED[f"finetune_lovt_detection_{released}"] = make
DERIVED["finetune_mgca_detection_release"] = functools.partial(
    mgca_detection.get_config, "object_cxr_10_release"
)
DERIVED |= {
    f"any_set_segmentation_{w}": functools.partial(any_set_segmentation.get_config, w)
    for w in any_set_segmentation.RATES
}
for released in ("siim_10_finetune", "siim_10_finetune_release", "nih_100_linear"):
    make = functools.partial(lovt_segmentation.get_config, released)
    DERIVED[f"finetune_lovt_segmentation_{released}"] = make
TASKS = {
    "zero_shot": zero_shot.get_config,
    "retrieval": retrieval.get_config,
    "grounding": grounding.get_config,
}
LABELS = 14
BOXES = 5  # the most that an image of a set that is not there has
STEPS_PER_EPOCH = 300  # of a set that is not there
WORDS = 28996  # pieces of the tokenizer that is not there


def flat(config, name=""):
    """Dotted name -> value."""
    if not isinstance(config, dict):
        return {name: config}
    parts = [flat(value, f"{name}.{key}" if name else key) for key, value in config.items()]
    return {key: value for part in parts for key, value in part.items()}


def read(config):
    return read_config(config, workdir=pathlib.Path())


def program_of(config, *, vocab_size):
    place = placement(config.mesh, devices=jax.devices()[:1])
    schedule = config.schedule(steps_per_epoch=STEPS_PER_EPOCH)
    objective = assemble.objective(
        config.objective,
        config.model,
        vocabulary=unknown_vocabulary(vocab_size),
        schedule=schedule,
        place=place,
        labels=getattr(config.model, "classes", ()),
    )
    return Program(
        objective=objective,
        stages=schedule,
        optimizer=config.optimizer,
        mesh=place.mesh,
        rules=place.rules,
        data_axes=place.data_axes,
    )


def batch_of(data):
    rows, length, sentences = data.batch_size, data.buckets[-1], data.max_sentences
    array = jax.ShapeDtypeStruct
    boxes = None
    if data.regions is not None and data.regions.kind == "boxes":
        boxes = Boxes(
            corners=array((rows, BOXES, 4), jnp.float32),
            classes=array((rows, BOXES), jnp.int32),
            real=array((rows, BOXES), jnp.bool_),
        )
    masks, side = None, data.image.size
    if data.regions is not None and data.regions.kind == "masks":
        masks = array((rows, side, side, len(data.regions.classes)), jnp.bool_)
    return Batch(
        image=array((rows, data.image.size, data.image.size, data.image.channels), jnp.float32),
        tokens=array((rows, length), jnp.int32),
        token_mask=array((rows, length), jnp.bool_),
        sentence_index=array((rows, length), jnp.int32),
        sentence_mask=array((rows, sentences), jnp.bool_),
        labels=array((rows, LABELS), jnp.int8),
        weight=array((rows,), jnp.float32),
        record=array((rows,), jnp.int32),
        boxes=boxes,
        masks=masks,
    )


def traced_terms(program, stage, batch):
    """Names of the terms and metrics of a stage, found by tracing its loss."""
    state = program.abstract(stage)

    def loss(params, rest, batch):
        found = program.objective.loss_terms(
            program.model.merge(params, rest), batch,
            stage=stage.name, step=jnp.int32(0), key=jax.random.key(0), train=True,
        )  # fmt: skip
        return weighted_sum(found.terms, program.objective.weights(stage.name)), found

    total, found = jax.eval_shape(loss, state.params, state.rest, batch)
    assert (total.shape, total.dtype) == ((), jnp.float32)
    return {"terms": sorted(found.terms), "metrics": sorted(found.metrics)}


def recipe_of(config):
    config = read(config)
    program = program_of(config, vocab_size=WORDS)
    params = program.abstract(program.schedule.stages[0]).params
    stages = {}
    for stage in program.schedule.stages:
        stages[stage.name] = {
            **dataclasses.asdict(stage),
            **traced_terms(program, stage, batch_of(config.data)),
            "trained_parameters": sum(params[name].size for name in program.names(stage)),
        }
    best = config.train.checkpoint.best_metric
    if best is not None and best.endswith("_loss"):
        names = {name for stage in stages.values() for name in (*stage["terms"], "total")}
        assert best in {f"validation_{name}_loss" for name in names}
    return {
        "config": flat(config.given),
        "stages": stages,
        "parameters": {name: list(value.shape) for name, value in sorted(params.items())},
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_the_recipe_is_the_recorded_one(name, request):
    found = json.loads(json.dumps(recipe_of(CONFIGS[name]())))
    path = RECIPES / f"{name}.json"
    if request.config.getoption("--regenerate-recipes"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    recorded = json.loads(path.read_text())
    for part in ("config", "stages", "parameters"):
        assert found[part] == recorded[part], (
            f"{part}: if meant, pytest --regenerate-recipes -k {name}"
        )


@pytest.mark.parametrize("name", CONFIGS | DERIVED)
def test_every_config_is_accepted_before_there_is_data(name):
    config = without_data((CONFIGS | DERIVED)[name]())
    for path in config.after:
        assert pathlib.Path(path.partition(":")[0]).stem in TASKS


@pytest.mark.parametrize("name", DEBUGGED)
def test_every_objective_has_a_debug_size(name):
    config, main = debug.get_config(name), debug.get_config()
    for part in ("prepare", "data", "stage_unit", "quick_compile"):
        assert flat({"x": config[part]}) == flat({"x": main[part]}), part
    assert config.model.image.resnet.to_dict() == main.model.image.resnet.to_dict()
    assert config.model.text.to_dict() == main.model.text.to_dict()
    (stage,) = recipe_of(config)["stages"].values()
    assert stage["steps"] == 8


def test_the_main_job_has_two_forms():
    with pytest.raises(ConfigError, match=r"'release'.*improved, paper"):
        phantom.get_config("release")


def test_baselines_share_data_towers_and_steps_with_the_main_job_of_the_paper():
    main = phantom.get_config("paper")
    for name in OBJECTIVES:
        config = baseline.get_config(name)
        assert config.data.to_dict() == main.data.to_dict()
        assert config.optimizer.to_dict() == main.optimizer.to_dict()
        for part in ("image", "text", "embed_dim", "dtype"):
            assert flat({"x": config.model[part]}) == flat({"x": main.model[part]}), part
        steps = sum(stage.length for stage in main.stages.values())
        assert config.stages.pretrain.length == steps
    with pytest.raises(ConfigError, match="'prior'"):
        baseline.get_config("prior")


def sections(config, name="config"):
    """Dotted names of all sections."""
    found = [name]
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            found += sections(value, f"{name}.{key}")
    return found


def without_data(config):
    """The config, read and held against one device."""
    config = read(config)
    run_lib.check_fits(config, placement(config.mesh, devices=jax.devices()[:1]))
    return config


# Names of axes are free; a stray one changes the mesh, which then does not fit.
FREE = {"config.mesh.axes"}


@pytest.mark.parametrize("section", sorted(set(sections(debug.get_config())) - FREE))
def test_a_stray_key_is_refused_by_name(section):
    config = debug.get_config()
    part = config
    for key in section.split(".")[1:]:
        part = part[key]
    with part.unlocked():
        part.stray = 1
    with pytest.raises(ConfigError, match=rf"{section}\.stray|{section}.*stray"):
        without_data(config)


# The launcher fills in paths that are not given, and takes the newest checkpoint without a step.
# Configs of earlier versions say nothing of the last four lines'.
FILLED = {
    *("data.path", "data.tokenizer.path", "mesh.axes.data"),
    *("init.image.step", "init.text.step", "evaluate_every", "model.sentence_region"),
    *("model.switched_choices", "model.sentence_region.hidden_every"),
    *(f"model.sentence_region.{name}" for name in ("hidden_share", "hidden_side", "coordinates")),
    "data.memory_cache",
    *("data.image.fit", "data.image.equalize", "data.image.to_white", "data.image.draft_margin"),
}


@pytest.mark.parametrize("name", sorted(set(flat(to_json(debug.get_config()))) - FILLED))
def test_a_missing_value_is_refused_by_name(name):
    config = debug.get_config()
    *above, last = name.split(".")
    part = config
    for key in above:
        part = part[key]
    with part.unlocked():
        del part[last]
    with pytest.raises(ConfigError, match=last):
        without_data(config)


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_read_strictly(name):
    config = TASKS[name]()
    assert task_of(config).task == name
    for section in sections(config, "task"):
        wrong = TASKS[name]()
        part = wrong
        for key in section.split(".")[1:]:
            part = part[key]
        with part.unlocked():
            part.stray = 1
        if section.startswith("task.retrieval"):
            continue  # built when the classes are known
        with pytest.raises(ConfigError, match=rf"{section}\.stray"):
            task_of(wrong)
