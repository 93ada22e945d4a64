import doctest

import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import gloria_prompts
from prior_jax.evaluate.prompts import prompt_table
from prior_jax.interface import frames, inputs, model, prompts, retriever, trained


@pytest.mark.parametrize("module", [frames, inputs, model, prompts, retriever, trained])
def test_examples_in_docstrings_hold(module):
    assert not doctest.testmod(module).failed


def test_the_grammar_is_drawn_from_by_the_seed():
    found = prompts.generate_class_prompts("gloria", 7, seed=1)
    assert found == prompts.generate_class_prompts("gloria", 7, seed=1)
    assert found != prompts.generate_class_prompts("gloria", 7, seed=2)
    assert tuple(found) == prompts.CLASSES
    for name, sentences in found.items():
        assert len(set(sentences)) == 7 and set(sentences) <= set(gloria_prompts.sentences(name))


def test_the_release_s_draw_is_given_by_name():
    found = prompts.generate_class_prompts("gloria_release", classes=["edema"])
    assert found == {"edema": gloria_prompts.drawn_as_released()["Edema"]}


def test_a_class_that_is_not_asked_for_does_not_limit_the_number():
    few = prompts.generate_class_prompts("gloria", 15, classes=["Cardiomegaly"])
    many = prompts.generate_class_prompts("gloria", 20, classes=["Effusion", "atelectasis"])
    assert [len(texts) for texts in (*few.values(), *many.values())] == [15, 20, 20]
    short = r"n: The value is 20, .*: Cardiomegaly has 15"
    with pytest.raises(ConfigError, match=rf"{short}\. Ask"):
        prompts.generate_class_prompts("gloria", 20, classes=["Atelectasis", "Cardiomegaly"])
    with pytest.raises(ConfigError, match=f"{short}, and all its classes are drawn from one"):
        prompts.generate_class_prompts("gloria_release", 20, classes=["Atelectasis"])


def test_lists_are_given_whole_or_drawn_from():
    classes = ["Pneumothorax", "Fracture"]
    found = prompts.generate_class_prompts("ensemble", classes=classes)
    table = prompt_table("ensemble", classes=classes, negatives=False)
    assert [t for name in classes for t in found[name]] == list(table.texts)
    drawn = prompts.generate_class_prompts("ensemble", 2, classes=classes, seed=3)
    assert all(set(drawn[name]) < set(found[name]) and len(drawn[name]) == 2 for name in classes)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("glorias",), {}, "glorias"),
        (("gloria",), {"classes": ["Fracture"]}, "Fracture"),
        (("single",), {"classes": ["Fever"]}, "Fever"),
        (("gloria", 10_000), {}, "n: The value is 10000"),
        (("single", 2), {}, "n: The value is 2,"),
        (("gloria", 0), {}, "n: The value is 0"),
    ],
)
def test_what_no_set_has_is_refused_by_name(arguments, options, message):
    with pytest.raises(ConfigError, match=message):
        prompts.generate_class_prompts(*arguments, **options)


def test_a_table_of_prompts_is_taken_as_it_is():
    table = prompt_table("single", classes=["Edema"], negatives=True)
    assert prompts.as_table(table) is table
    assert np.all(prompts.as_table({"Edema": ["Edema."]}).affirms)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"Edema": []},
        {"Edema": "Edema."},
        {"Edema": {"Edema.", "Mild edema."}},
        {"Edema": {"Edema.": 0.5}},
    ],
)
def test_classes_without_a_list_of_sentences_are_refused(bad):
    with pytest.raises(DataError, match="class_prompts"):
        prompts.as_table(bad)
