"""A section of examples that a model cannot have is left out, or says why it is empty."""

import dataclasses

import pytest

from prior_jax.objectives.prior import PriorObjective
from prior_jax.report import page, sections
from tests.objectives import baselines
from tests.objectives.tiny import tiny_config
from tests.report.pages import RUN, Reader


def prior(**changes):
    return PriorObjective(tiny_config(**changes))


def baseline(name):
    make, *_ = baselines.KINDS[name]
    return make(baselines.config_of(name), vocabulary=baselines.VOCABULARY)


@pytest.mark.parametrize(
    ("stages", "random"),
    [
        (None, {}),
        (("stage1", "stage2", "stage3"), {}),
        (("stage1", "stage2"), {"reconstruction": "trained in stage1 and stage2 alone"}),
        (("stage1",), dict.fromkeys(("reconstruction", "bank"), "trained in stage1 alone")),
        ((), dict.fromkeys(("reconstruction", "bank"), "not trained yet")),
    ],
)
def test_parts_of_prior_that_no_stage_has_trained_are_not_shown(stages, random):
    found = sections.lacking(prior(), stages=stages)
    assert found.keys() == random.keys()
    for name, words in random.items():
        assert words in found[name] and "is still random." in found[name]


def test_patches_of_the_release_are_not_drawn_as_places():
    found = sections.lacking(prior(fidelity="release"), stages=None)
    assert found.keys() == {"attention"} and "quirk P1" in found["attention"]


@pytest.mark.parametrize(
    ("name", "has"), [("clip", ()), ("convirt", ()), ("siglip", ()), ("mgca", ("attention",))]
)
def test_what_an_objective_never_has_is_no_section(name, has, tmp_path):
    lacking = sections.lacking(baseline(name), stages=None)
    assert lacking == {one: "" for one in ("attention", "reconstruction", "bank") if one not in has}
    run = dataclasses.replace(RUN, lacking=lacking)
    reader = Reader(page.write_report(tmp_path, run=run).read_text())
    ids = [name for name in sections.EXAMPLES if name in reader.ids]
    assert ids == [name for name in sections.EXAMPLES if name not in lacking]
    assert [address[1:] for address in reader.addresses if address.startswith("#")] == reader.ids
    assert "No image was reconstructed" not in reader.text


@pytest.mark.parametrize("alone", [False, True])
def test_a_reason_stands_in_place_of_the_examples(tmp_path, alone):
    if alone:  # a folder of results has none of the run's own files
        (tmp_path / "eval").mkdir()
        (tmp_path / "eval" / "suite.json").write_text('{"parts": [], "rows": []}')
    run = dataclasses.replace(RUN, lacking={"attention": "These are no places."})
    path = page.write_report(tmp_path, run=run, missing="The split test has no report.")
    reader = Reader(path.read_text())
    assert "These are no places." in reader.text and "attention" in reader.ids
    assert reader.text.count("The split test has no report.") == (0 if alone else 3)
    assert "No attention was drawn" not in reader.text
    assert "No report was retrieved" not in reader.text
