"""The labelled fractions of LoVT, GLoRIA and MGCA against lists drawn by their code."""

import numpy as np
import pytest

from prior_jax.data.fractions import FractionConfig, Identity, chosen_records, kept, rows
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def golden(golden_dir):
    return load_json(golden_dir, "downstream", "splits")


def tables(golden):
    """Names of the tables: "n0", "n1", ..."""
    return sorted({name.split("/")[1] for name in golden if name.startswith("out/n")})


@pytest.mark.parametrize(
    ("rule", "recorded"),
    [
        ("first_rounded", ["lovt_round"]),
        ("sample", ["pandas_sample"]),
        ("choice", ["gloria_int_n_times_frac", "mgca_int"]),
    ],
)
def test_every_rule_counts_as_its_code(golden, rule, recorded):
    asked = golden["in/counts/n_frac"]
    found = [kept(FractionConfig(share=share, rule=rule), count) for count, share in asked]
    for name in recorded:
        assert found == golden[f"out/counts/{name}"], name


def test_the_first_rows_are_lovts(golden):
    for table in tables(golden):
        count = len(golden[f"out/{table}/lovt/subset0_rows"])
        for number, share in enumerate(golden[f"in/config/{table}/lovt_subsets"]):
            share = 1.0 if share == "none" else share
            found = rows(FractionConfig(share=share, rule="first_rounded"), count)
            assert found.tolist() == golden[f"out/{table}/lovt/subset{number}_rows"]


def sampled(table, share, *, seed):
    """The entries of a table that a data frame's sample takes, in its order."""
    found = rows(FractionConfig(share=share, rule="sample", seed=seed), len(table))
    return [table[row] for row in found]


def test_samples_are_a_data_frames(golden):
    seeds = {"gloria": golden["in/config/numpy_seed"], "mgca": golden["in/config/mgca_seed"]}
    for table in tables(golden):
        train = golden[f"out/{table}/gloria_rsna/train"]
        for number, share in enumerate(golden["in/config/fracs"]):
            for paper, seed in seeds.items():
                wanted = golden[f"out/{table}/{paper}_rsna/frac{number}"]
                assert sampled(train, share, seed=seed) == wanted, (table, paper)


def test_mgca_samples_covidx_likewise(golden):
    seed, number_of_all = golden["in/config/mgca_seed"], 0
    for table in tables(golden):
        train = golden[f"out/{table}/mgca_covidx/train_rows"]
        for number, share in enumerate(golden["in/config/fracs"]):
            wanted = golden[f"out/{table}/mgca_covidx/frac{number}_rows"]
            assert sampled(train, share, seed=seed) == wanted
            number_of_all += len(wanted)
    assert number_of_all


def test_a_fraction_is_drawn_before_or_after_lateral_images_are_dropped(golden, tmp_path):
    """GLoRIA draws from all views; a set without laterals leaves those out that it drew."""
    shares = [1.0, *golden["in/config/fracs"]]
    for table in tables(golden):
        views = golden[f"in/{table}/chexpert/view_frontal"]
        frontal = [row for row, view in enumerate(views) if view in (True, 1, "Frontal")]
        everything = tmp_path / f"{table}.txt"
        everything.write_text("\n".join(f"row{row}" for row in range(len(views))))
        identities = [Identity(study=f"row{row}", subject="", images=()) for row in frontal]
        for number, share in enumerate(shares):
            before = FractionConfig(
                share=share, rule="sample", seed=golden["in/config/numpy_seed"],
                ids=str(everything), absent="leave_out",
            )  # fmt: skip
            after = FractionConfig(share=share, rule="sample", seed=golden["in/config/mgca_seed"])
            for paper, config in (("gloria", before), ("mgca", after)):
                found = [frontal[row] for row in chosen_records(config, identities)]
                wanted = golden[f"out/{table}/{paper}_chexpert/frac{number}_rows"]
                assert found == sorted(wanted), (table, paper, share)


def test_the_second_draw_is_what_mgca_trains_its_detector_on(golden):
    """The train set is made twice, once to count its steps (quirk M15)."""
    train = golden["out/mgca_detection/train"]
    for number, share in enumerate(golden["in/config/fracs"]):
        for draws in (1, 2):
            config = FractionConfig(
                share=share, rule="choice", seed=golden["in/config/mgca_seed"], draws=draws
            )
            found = [train[row] for row in rows(config, len(train))]
            for task in ("det", "seg"):
                name = f"out/mgca_detection/{task}_frac{number}_draw{draws}"
                assert found == golden[name], name
    assert len(np.unique(train)) == len(train)
