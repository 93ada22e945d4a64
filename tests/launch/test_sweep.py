"""A sweep's trials, its table, and what becomes of trials that fail or are stopped."""

import dataclasses
import json
import math
import pathlib
import sys

import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs.sweeps import objectives, study
from launch import sweep
from launch.sweeps import table as sweep_table
from launch.sweeps.config import Choice, Space, sweep_of
from launch.sweeps.flat_settings import flat
from launch.sweeps.queue import Outcome
from launch.sweeps.trials import Measured, read_trial
from launch.sweeps.variants import variants
from prior_jax.errors import ConfigError
from prior_jax.evaluate import compare
from prior_jax.objectives.prior_config import Fidelity
from tests.launch.small_sweep import SHIFT, changed_debug, leave, settings

DATA = (("data.path", "/data/set"), ("data.tokenizer.path", "/data/tokenizer.model"))


def test_the_sweep_of_objectives_gives_all_the_same_budget():
    found = variants(sweep_of(objectives.get_config()))
    assert len({variant.name for variant in found}) == 8
    for variant in found:
        config = variant.resolved
        lengths = [v for k, v in config.items() if k.startswith("stages.") and "length" in k]
        assert sum(lengths) == objectives.STEPS and config["stage_unit"] == "steps"
        assert config["data.batch_size"] == 32
        assert config["after"] == ["configs/eval/" + n for n in
                                   ("zero_shot.py", "retrieval.py", "probe.py")]  # fmt: skip
    assert found[1].resolved["model.fidelity"] == "release"
    encoders = {
        json.dumps({k: v for k, v in variant.resolved.items() if k.startswith("model.text.")})
        for variant in found
    }
    assert len(encoders) == 1


def test_every_arm_of_the_study_differs_from_the_others_by_what_it_is_named_after():
    found = {variant.arm: variant.resolved for variant in variants(sweep_of(study.get_config()))}
    assert len({json.dumps(config, sort_keys=True) for config in found.values()}) == len(found)
    lengths = {
        sum(v for k, v in config.items() if k.startswith("stages.") and k.endswith(".length"))
        for config in found.values()
    }
    assert lengths == {study.STEPS}

    def differences(name, other):
        one, two = found[name], found[other]
        return {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}

    for name in (name for name in found if name.startswith("release_")):
        (key,) = differences(name, "release")
        assert key == "model.switched_choices" or name.removeprefix("release_") in (
            "no_flip", "text_mode", "decay_mask"
        )  # fmt: skip
    corrected = {v for c in found.values() for v in c.get("model.switched_choices") or ()}
    choices = {field.name for field in dataclasses.fields(Fidelity)}
    assert corrected == choices - set(study.IDLE)
    assert differences("learned_attention_scale", "improved") == {
        "model.sentence_region.learn_attention_scale"
    }
    assert differences("no_hidden_regions", "improved") == {
        "model.sentence_region.hidden_every",
        "model.sentence_region.hidden_share",
    }
    towers = {"model.image.resnet.depths", "model.image.resnet.width"}
    assert differences("contrast_alone", "improved") == towers
    assert differences("fine_map_alone", "paper") == towers
    for key in towers:
        assert found["contrast_alone"][key] == found["paper"][key]
        assert found["fine_map_alone"][key] == found["improved"][key]


def test_every_arm_of_the_study_is_compared_with_what_it_is_a_change_of():
    checked = sweep_of(study.get_config())
    others = {arm.name: arm.reference for arm in checked.arms if arm.reference is not None}
    assert {name for name, of in others.items() if of == "release"} == {
        arm.name for arm in checked.arms if arm.name.startswith("release_")
    }
    assert {name for name, of in others.items() if of == "improved"} == {
        *("with_local_text", "with_local_image", "no_hidden_regions", "small_hidden_squares"),
        *("with_coordinates", "attention_scale_10", "learned_attention_scale"),
    }
    assert {name: of for name, of in others.items() if of not in ("release", "improved")} == {
        "lovt_improved": "lovt",
        "mgca_improved": "mgca",
    }
    assert checked.reference == "paper"


def test_stages_share_the_budget_in_proportion():
    found = variants(sweep_of(settings()))[0].resolved
    lengths = [found[f"stages.stage{n}.length"] for n in (1, 2, 3)]
    assert sum(lengths) == 10 and max(lengths) - min(lengths) == 1
    assert found["stages.stage1.warmup"] < lengths[0]
    without = variants(sweep_of(settings(budget=None)))[0].resolved
    assert [without[f"stages.stage{n}.length"] for n in (1, 2, 3)] == [8, 8, 8]


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections' own
def test_the_command_line_makes_the_config_that_was_checked(monkeypatch):
    checked = sweep_of(settings())
    found = variants(checked)
    jobs = sweep.jobs_of(checked, found, pathlib.Path("/w"), data=DATA)
    job = jobs[3]
    assert job.name == "quick, seed 1"
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values, lock_config=True)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "", flag_values=values)
    flags.DEFINE_boolean("untrained", True, "", flag_values=values)
    monkeypatch.setattr(sys, "argv", ["launch.train", *job.command[3:]])
    values(sys.argv)
    expected = dict(found[1].resolved) | {"seed": 1} | dict(DATA)
    assert flat(values.config) == expected
    assert not values.untrained
    beside = [("--nountrained" not in job.command) for job in jobs]
    assert beside == [True, True, False, False, False, False]
    assert (values.workdir, values.cache_dir) == ("/w/trials/quick/seed_1", "/w/cache")


def test_the_first_seed_of_all_comes_before_the_second_of_any():
    checked = sweep_of(settings())
    jobs = sweep.jobs_of(checked, variants(checked), pathlib.Path("/w"), data=DATA)
    assert [job.name for job in jobs][:3] == ["plain, seed 0", "quick, seed 0", "plain, seed 1"]
    assert len({job.folder for job in jobs}) == len(jobs) == 6


def test_each_trial_has_a_folder_of_its_own_in_the_bucket_of_the_sweep():
    shared = (("validate_every", 10), ("checkpoint.directory", "gs://bucket/sweep"))
    checked = sweep_of(settings(shared=shared))
    jobs = sweep.jobs_of(checked, variants(checked), pathlib.Path("/w"), data=DATA)
    places = [a for job in jobs for a in job.command if "checkpoint.directory" in a]
    assert places[1] == "--config.checkpoint.directory=gs://bucket/sweep/quick/seed_0"
    assert len(set(places)) == len(jobs)


def test_a_grid_is_every_combination_and_a_random_space_is_drawn_once_for_all():
    grid = dict(
        sampler="grid",
        choices=(
            dict(key="optimizer.beta1", values=(0.8, 0.9)),
            dict(key="data.augment.rotation_degrees", values=(0.0, 5.0, 9.0)),
        ),
        count=None,
        seed=None,
    )
    found = variants(sweep_of(settings(space=ConfigDict(grid))))
    assert [variant.name for variant in found][::6] == ["plain_0", "quick_0"]
    assert len({variant.point for variant in found}) == 6 and len(found) == 12
    assert found[5].resolved["data.augment.rotation_degrees"] == 9.0
    choices = (
        Choice(key="optimizer.beta1", low=0.5, high=0.9),
        Choice(key="optimizer.epsilon", low=1e-9, high=1e-3, log=True),
        Choice(key="data.shuffle_sentences", values=(True, False)),
    )
    space = Space(sampler="random", choices=choices, count=200, seed=1)
    points = np.array([[float(value) for _, value in point] for point in space.points()])
    assert space.points() == space.points()
    assert 0.5 < points[:, 0].min() < 0.55 and 0.85 < points[:, 0].max() < 0.9
    assert np.median(points[:, 1]) == pytest.approx(1e-6, rel=1.0)
    assert 0.3 < points[:, 2].mean() < 0.7


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(reference="none"), r"sweep\.reference"),
        (dict(arms=(dict(name="plain", config="x", overrides=(), reference="none"),)),
         r"sweep\.arms\[0\]\.reference: The value is 'none'"),
        (dict(seeds=(1, 1)), r"sweep\.seeds"),
        (dict(metrics=("grounding.macro_pointing",)), r"sweep\.metrics.*grounding"),
        (dict(tasks=("configs/eval/none.py",)), r"sweep\.tasks\[0\]"),
        (dict(confidence=1.5), r"sweep\.confidence"),
        (dict(budget=dict(steps=2, batch_size=16)), r"sweep\.budget\.steps"),
        (dict(shared=(("optimizer.beta3", 1.0),)), r"sweep\.arms\.plain\.overrides\.optimizer"),
        (dict(shared=(("early_stopping", 3),)), r"plain\.overrides\.early_stopping.*command line"),
        (dict(shared=(("optimizer.beta2", "x"),)), r"sweep\.arms\.plain\.overrides\.optimizer"),
        (dict(arms=(dict(name="a/b", config="x", overrides=()),)), r"sweep\.arms\[0\]\.name"),
        (dict(space=dict(sampler="grid", choices=(), count=None, seed=None)), "choices"),
        (dict(shared=(("seed", 7),)), r"sweep\.shared\.seed: sweep\.seeds sets 'seed' in every"),
        (dict(arms=(dict(name="plain", config="configs/debug.py",
                         overrides=(("data.path", "/other"),)),)),
         r"sweep\.arms\.plain\.overrides\.data\.path: sweep\.data sets"),
        (dict(budget=dict(steps=20, batch_size=16),
              space=dict(sampler="grid", choices=(dict(key="data.batch_size", values=(8, 16)),),
                         count=None, seed=None)),
         r"sweep\.space\.choices\.data\.batch_size: sweep\.budget sets"),
        (dict(space=dict(sampler="grid", choices=(dict(key="optimizer.beta1", values=(0.8,)),) * 2,
                         count=None, seed=None)), r"choices: .*different settings"),
        (dict(space=dict(sampler="grid", choices=(dict(key="seed", low=0.0, high=1.0),),
                         count=None, seed=None)), r"sweep\.space\.sampler"),
        (dict(space=dict(sampler="random", choices=(dict(key="seed", values=(1,)),),
                         count=None, seed=0)), r"sweep\.space\.count"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        variants(sweep_of(settings(**changes)))


def test_a_stage_that_may_end_early_has_no_budget(tmp_path):
    stopping = dict(metric="validation_total_loss", patience=1, mode="min", min_delta=0.0)
    changed = changed_debug(tmp_path, f"config.early_stopping = {stopping}")
    arm = dict(name="plain", config=changed, overrides=())
    with pytest.raises(ConfigError, match=r"sweep\.arms\.plain\.early_stopping.*overrides"):
        variants(sweep_of(settings(arms=(arm,))))
    arm["overrides"] = (("early_stopping", None),)
    (found,) = variants(sweep_of(settings(arms=(arm,))))
    assert ("early_stopping", None) in found.overrides
    assert found.resolved["early_stopping"] is None


def table(tmp_path, *, seeds=(0, 1, 2), **options):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    trials = {}
    for arm in SHIFT:
        for seed in seeds:
            folder = tmp_path / arm / str(seed)
            leave(folder, arm=arm, seed=seed, **options.get(arm, {}))
            trials[arm, seed] = read_trial(folder, metrics=checked.metrics)
    found = variants(checked)
    rows = sweep_table.collect(checked, found, trials)
    return checked, found, {row.variant: row for row in rows}


def test_the_table_says_what_the_numbers_say(tmp_path):
    _, _, rows = table(tmp_path)
    plain, quick = rows["plain"], rows["quick"]
    assert plain.mean.value == pytest.approx(0.6) and plain.untrained == 0.5
    # s = 0.02, t(0.975; 2) = 4.30265.
    assert plain.mean.high - 0.6 == pytest.approx(4.30265 * 0.02 / 3**0.5, rel=1e-5)
    assert plain.difference is None and plain.verdict == ""
    steps = [0.1, 0.101, 0.102]
    assert quick.difference.seeds.value == pytest.approx(np.mean(steps))
    reach = 4.30265 * np.std(steps, ddof=1) / 3**0.5
    assert quick.difference.seeds.high - np.mean(steps) == pytest.approx(reach, rel=1e-5)
    # The luck of the patients is the same for both and cancels.
    low, high = quick.difference.patients.low, quick.difference.patients.high
    assert (low, high) == pytest.approx((np.mean(steps), np.mean(steps)))
    assert quick.verdict == "higher"


def test_each_arm_is_compared_with_its_own_reference_and_p_adjusted_among_its_family():
    debug = "configs/debug.py"
    names = {"a": None, "b": None, "c": None, "b1": "b", "b2": "b", "c1": "c"}
    arms = [dict(name=n, config=debug, overrides=(), reference=of) for n, of in names.items()]
    metric = "zero_shot.macro_auroc"
    checked = sweep_of(settings(metrics=(metric,), arms=tuple(arms), reference="a"))
    found = variants(checked)
    random = np.random.default_rng(0)
    trials = {
        (name, seed): {
            metric: Measured(
                value=0.6 + 0.05 * index + 0.01 * random.normal(),
                untrained=math.nan,
                settings={},
                draws=np.zeros(3),
            )
        }
        for index, name in enumerate(names)
        for seed in checked.seeds
    }
    rows = {row.variant: row for row in sweep_table.collect(checked, found, trials)}
    assert {name: row.reference for name, row in rows.items()} == {
        name: of or "a" for name, of in names.items()
    }
    assert rows["a"].difference is None
    for one in ("b", "c", "b1", "b2", "c1"):
        steps = np.subtract(rows[one].values, rows[names[one] or "a"].values)
        assert rows[one].difference.seeds.value == pytest.approx(steps.mean())
    for family in (("b", "c"), ("b1", "b2"), ("c1",)):
        ps = [rows[name].difference.p for name in family]
        assert [rows[name].adjusted_p for name in family] == compare.holm(ps)
    text = sweep_table.markdown(sweep=checked, found=found, rows=[*rows.values()], outcomes=[])
    assert f"| {metric} | b1 | b | +" in text and f"| {metric} | b | a | +" in text
    content = [sweep_table._plain(row)["reference"] for row in rows.values()]
    assert content == ["a", "a", "a", "b", "b", "c"]


def test_other_patients_are_not_compared(tmp_path):
    _, _, rows = table(tmp_path, quick=dict(patients=49))
    assert rows["quick"].difference.patients is None
    assert rows["quick"].verdict == "leans higher"


def test_two_seeds_have_no_interval_and_a_metric_that_is_missing_no_value(tmp_path):
    _, _, rows = table(tmp_path / "one", seeds=(1,))
    assert math.isnan(rows["plain"].mean.low) and math.isnan(rows["quick"].adjusted_p)
    assert rows["quick"].verdict == "leans higher"
    _, _, rows = table(tmp_path / "two", seeds=(0, 1))  # t = 12.7: wider than the metric's range
    assert rows["plain"].mean.value > 0.5 and math.isnan(rows["plain"].mean.low)
    _, _, rows = table(tmp_path / "none", quick=dict(missing=True))
    assert rows["quick"].values == () and rows["quick"].difference is None


def test_the_files_hold_the_same_table_and_name_what_failed(tmp_path):
    checked, found, rows = table(tmp_path / "trials")
    outcomes = [
        Outcome(name="plain, seed 0", status="done", message=""),
        Outcome(name="quick, seed 2", status="failed", message="exit code 2: too bad"),
    ]
    path = sweep_table.write(
        tmp_path, sweep=checked, found=found, rows=[*rows.values()], outcomes=outcomes
    )
    text = path.read_text()
    assert "| plain | 3 | 0.600 [0.550, 0.650] |" in text
    assert "| *untrained* | | 0.500 |" in text and "degrees of freedom: 2" in text
    assert "- quick, seed 2: failed exit code 2: too bad" in text and "plain, seed 0" not in text
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["rows"][1]["values"] == pytest.approx([0.72, 0.701, 0.682])
    assert content["rows"][0]["difference"] is None
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("variant,metric,seeds,values,mean,mean_low")


def test_trials_that_wait_are_counted_where_they_are_many(tmp_path):
    def troubles(waiting):
        outcomes = [Outcome(name="one", status="failed", message="bang")]
        outcomes += [
            Outcome(name=f"w{number}", status="waiting", message="") for number in range(waiting)
        ]
        text = sweep_table.markdown(sweep=checked, found=[], rows=[], outcomes=outcomes)
        return [line for line in text.splitlines() if line.startswith("- ")]

    checked = sweep_of(settings())
    assert troubles(2) == ["- one: failed bang", "- w0: waiting", "- w1: waiting"]
    assert troubles(159) == ["- one: failed bang", "- 159 of 160 trials wait"]


def test_finishing_tells_of_failures_by_name_and_exit_code(tmp_path, capsys):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    found = variants(checked)
    jobs = sweep.jobs_of(checked, found, tmp_path, data=())
    outcomes = []
    for job, seed in zip(jobs, (0, 0, 1, 1, 2, 2), strict=True):
        arm = job.name.split(",")[0]
        leave(job.folder, arm=arm, seed=seed)
        outcomes.append(Outcome(name=job.name, status="done", message=""))
    assert sweep.finish(tmp_path, checked, found, jobs, outcomes=outcomes) == 0
    outcomes[5] = dataclasses.replace(outcomes[5], status="failed", message="exit code 1: bang")
    assert sweep.finish(tmp_path, checked, found, jobs, outcomes=outcomes) == 1
    told = capsys.readouterr()
    assert told.err == "quick, seed 2: exit code 1: bang\n"
    assert "| quick | 2 |" in told.out


def test_what_trials_left_elsewhere_is_collected(tmp_path):
    checked = sweep_of(settings(metrics=("zero_shot.macro_auroc",)))
    jobs = sweep.jobs_of(checked, variants(checked), tmp_path, data=())
    leave(jobs[0].folder, arm="plain", seed=0)
    (jobs[0].folder / "trial.json").write_text("{}")
    jobs[1].folder.mkdir(parents=True)
    (jobs[1].folder / "failure.json").write_text(json.dumps({"message": "exit code 1: bang"}))
    standing = [job.standing for job in jobs]
    assert [one.status for one in standing] == ["done", "failed", *["waiting"] * 4]
    found = variants(checked)
    assert sweep.finish(tmp_path, checked, found, jobs, outcomes=standing) == 1
    text = (tmp_path / "table.md").read_text()
    assert "- quick, seed 0: failed exit code 1: bang" in text and "seed 1: waiting" in text
