"""GLoRIA's grammar put right: nothing twice, nothing misspelled, draws that stay."""

import itertools
import random
import re

import pytest

from prior_jax.errors import ConfigError
from prior_jax.evaluate import gloria_prompts, prompts

CLASSES = tuple(gloria_prompts.GRAMMAR)


def test_the_global_random_numbers_are_left_alone():
    random.seed(1)
    wanted = random.random()
    random.seed(1)
    gloria_prompts.drawn()
    gloria_prompts.drawn_as_released()
    assert random.random() == wanted


def test_both_grammars_speak_of_the_same_classes():
    assert set(gloria_prompts.RELEASED) == set(CLASSES)
    sizes = {
        name: len(list(itertools.product(*form))) for name, form in gloria_prompts.RELEASED.items()
    }
    assert sum(sizes.values()) == 489  # what the release can draw


@pytest.mark.parametrize("name", CLASSES)
def test_no_sentence_of_the_corrected_grammar_occurs_twice_or_misspells(name):
    texts = gloria_prompts.sentences(name)
    assert len(set(texts)) == len(texts) >= 15
    for text in texts:
        assert re.fullmatch(r"[A-Z][a-z]+( [a-z]+[,.]?)*\.", text), text
        assert not re.search(r"apperance|presistent|uppper", text)
        assert not re.search(r"(left|right) bilateral|bilateral .*(left|right)", text)


def test_a_draw_is_the_same_again_and_another_with_another_seed():
    assert gloria_prompts.drawn(seed=3) == gloria_prompts.drawn(seed=3)
    assert gloria_prompts.drawn(seed=3) != gloria_prompts.drawn(seed=4)
    short, long = gloria_prompts.drawn(count=2), gloria_prompts.drawn(count=7)
    assert all(len(short[name]) == 2 and len(long[name]) == 7 for name in CLASSES)


@pytest.mark.parametrize("set_name", ["gloria", "gloria_release"])
def test_the_sets_give_five_prompts_a_class_by_any_spelling(set_name):
    table = prompts.prompt_table(set_name, classes=("Edema", "Effusion"), negatives=False)
    assert table.owner.tolist() == [0] * 5 + [1] * 5 and table.affirms.all()
    assert all("edema" in text for text in table.texts[:5])
    assert all("effusion" in text for text in table.texts[5:])
    with pytest.raises(ConfigError, match=r"task\.classes.*Fracture"):
        prompts.prompt_table(set_name, classes=("Fracture",), negatives=False)
    with pytest.raises(ConfigError, match=r"task\.prompts\.negatives"):
        prompts.prompt_table(set_name, classes=("Edema",), negatives=True)
