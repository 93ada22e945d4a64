"""The prompt set `gloria_release` against what the authors' code draws."""

import re

import pytest

from prior_jax.evaluate import gloria_prompts, prompts
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def recorded(golden_dir):
    return load_json(golden_dir, "gloria", "text_preprocessing")


def test_the_set_is_the_first_draw_after_the_import(recorded):
    expected = recorded["class_prompts_first_call_after_import_seed6"]
    table = prompts.prompt_table("gloria_release", classes=tuple(expected), negatives=False)
    asked = [
        (table.classes[owner], text) for owner, text in zip(table.owner, table.texts, strict=True)
    ]
    assert asked == [(name, text) for name, texts in expected.items() for text in texts]


def test_another_count_and_seed_draw_as_the_release(recorded):
    (key,) = (key for key in recorded if re.fullmatch(r"class_prompts_n\d+", key))
    expected, count = recorded[key], int(key.removeprefix("class_prompts_n"))
    assert {len(texts) for texts in expected.values()} == {count}
    found = gloria_prompts.drawn_as_released(
        count=count, seed=recorded[f"{key}_python_random_seed"]
    )
    assert {name: list(texts) for name, texts in found.items()} == expected
