"""The prompt set `release` against the prompts that the authors' code asks."""

import pytest

from prior_jax.evaluate import prompts
from tests.golden.reader import load_json

pytestmark = pytest.mark.golden


def test_the_release_set_is_the_authors_prompts(golden_dir):
    recorded = load_json(golden_dir, "prior", "zero_shot_prompts")["prompts"]
    table = prompts.prompt_table("release", classes=tuple(recorded), negatives=False)
    asked = [
        (table.classes[owner], text) for owner, text in zip(table.owner, table.texts, strict=True)
    ]
    assert asked == [(name, text) for name, texts in recorded.items() for text in texts]
