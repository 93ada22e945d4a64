"""The prompt set `release` against the prompts that the authors' code asks."""

import json

import pytest

from prior_jax.evaluate import prompts

pytestmark = pytest.mark.golden


def test_the_release_set_is_the_authors_prompts(golden_dir):
    folder = golden_dir / "prior"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    recorded = json.loads((folder / "zero_shot_prompts.json").read_text())["prompts"]
    table = prompts.prompt_table("release", classes=tuple(recorded), negatives=False)
    asked = [
        (table.classes[owner], text) for owner, text in zip(table.owner, table.texts, strict=True)
    ]
    assert asked == [(name, text) for name, texts in recorded.items() for text in texts]
