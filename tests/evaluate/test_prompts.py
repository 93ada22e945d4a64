import numpy as np
import pytest

from prior_jax.errors import ConfigError
from prior_jax.evaluate import prompts

CHEXPERT = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
NIH = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)


@pytest.mark.parametrize("classes", [CHEXPERT, NIH], ids=["chexpert", "nih"])
@pytest.mark.parametrize(("name", "least"), [("single", 1), ("ensemble", 3)])
def test_every_class_of_the_data_sets_is_affirmed_and_denied(classes, name, least):
    table = prompts.prompt_table(name, classes=classes, negatives=True)
    for index in range(len(classes)):
        for affirms in (True, False):
            chosen = (table.owner == index) & (table.affirms == affirms)
            assert chosen.sum() >= least
    assert len(table.texts) == len(table.owner) == len(table.affirms)
    assert all(text.endswith(".") and text[0].isupper() for text in table.texts)


def test_no_sentence_of_a_class_occurs_twice():
    table = prompts.prompt_table("ensemble", classes=CHEXPERT, negatives=True)
    for index in range(len(CHEXPERT)):
        texts = [
            text for text, owner in zip(table.texts, table.owner, strict=True) if owner == index
        ]
        assert len(set(texts)) == len(texts)


def test_the_prompts_of_an_effusion():
    table = prompts.prompt_table("single", classes=("Pleural Effusion",), negatives=True)
    assert table.texts == ("There is a pleural effusion.", "No pleural effusion.")
    np.testing.assert_array_equal(table.affirms, [True, False])


def test_without_negatives_nothing_is_denied():
    assert prompts.prompt_table("ensemble", classes=NIH, negatives=False).affirms.all()


@pytest.mark.parametrize("name", ["Effusion", "pleural_effusion", "Pleural  Effusion"])
def test_other_spellings_are_the_same_class(name):
    assert prompts.canonical(name) == "pleural effusion"
    assert prompts.prompt_table("release", classes=(name,), negatives=False).texts == (
        "Pleural Effusion is observed",
    )


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("best", ("Edema",), False), r"task\.prompts\.set"),
        (("single", ("Gout",), False), r"task\.classes"),
        (("single", (), False), r"task\.classes"),
        (("release", ("Edema",), True), r"task\.prompts\.negatives"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(arguments, field):
    name, classes, negatives = arguments
    with pytest.raises(ConfigError, match=field):
        prompts.prompt_table(name, classes=classes, negatives=negatives)


@pytest.mark.parametrize("name", ["gloria", "gloria_release", "gloria_release_all"])
def test_the_classes_of_a_set_that_has_five_are_all_that_can_be_asked_for(name):
    known = prompts.known_classes(name)
    assert len(known) == 5 and "No Finding" not in known
    prompts.prompt_table(name, classes=known, negatives=False)
