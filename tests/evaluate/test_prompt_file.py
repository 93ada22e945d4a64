import json

import numpy as np
import pytest

from prior_jax.errors import ConfigError, DataError
from prior_jax.evaluate import prompt_scores, prompts
from prior_jax.evaluate.prompt_file import is_path, read_prompts

CONTENT = {
    "Effusion": {"positive": ["Pleural fluid.", "An effusion."], "negative": ["No effusion."]},
    "Mass": ["A mass."],
}
TEXT = """\
# two classes
[Effusion]
Pleural fluid.
An effusion.
- No effusion.

[ Mass ]
A mass.
"""


def written(folder, content, name="mine.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_json_and_text_hold_the_same(tmp_path):
    first = read_prompts(written(tmp_path, CONTENT))
    assert first == read_prompts(written(tmp_path, TEXT, "mine.txt"))
    assert first["Effusion"].negative == ("No effusion.",) and first["Mass"].negative == ()


def test_a_file_takes_the_place_of_a_set_and_its_classes_are_found_by_synonyms(tmp_path):
    path = written(tmp_path, CONTENT)
    table = prompts.prompt_table(path, classes=("mass", "Pleural Effusion"), negatives=False)
    assert table.texts == ("A mass.", "Pleural fluid.", "An effusion.")
    assert table.owner.tolist() == [0, 1, 1] and table.affirms.all()
    denied = prompts.prompt_table(path, classes=("Effusion",), negatives=True)
    assert denied.affirms.tolist() == [True, True, False]
    assert prompts.known_classes(path) == ("Effusion", "Mass")
    assert "Edema" in prompts.known_classes("single")
    assert is_path("my/prompts.TXT") and not is_path("described")


def test_unknown_classes_and_absent_denials_are_refused(tmp_path):
    path = written(tmp_path, CONTENT)
    with pytest.raises(ConfigError, match=r"^task\.classes: .* has no class 'Edema'"):
        prompts.prompt_table(path, classes=("Edema",), negatives=False)
    with pytest.raises(ConfigError, match=r"^task\.prompts\.negatives"):
        prompts.prompt_table(path, classes=("Mass",), negatives=True)
    with pytest.raises(ConfigError, match=r"or the path of a \.json"):
        prompts.prompt_table("mine", classes=("Mass",), negatives=False)
    with pytest.raises(ConfigError, match="no file of prompts"):
        prompts.prompt_table(str(tmp_path / "absent.json"), classes=("Mass",), negatives=False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is no JSON"),
        ("[]", "holds a list"),
        ("{}", "names no class"),
        ({"A": []}, "'A' has no affirming sentence"),
        ({"A": {"negative": ["No A."]}}, "'A' has no affirming sentence"),
        ({"A": ["a", " "]}, "positive prompts of 'A'"),
        ({"A": ["a", 3]}, "positive prompts of 'A'"),
        ({"A": {"positive": ["a"], "negative": "no a"}}, "negative prompts of 'A'"),
        ({"A": {"positive": ["a"], "denials": ["no a"]}}, "'A' has neither"),
        ({"A": "a"}, "'A' has neither"),
        ({"": ["a"]}, "'' has no affirming"),
        ('{"A": ["a"], "A": ["b"]}', "'A' occurs twice"),
    ],
)
def test_damaged_json_is_refused_with_the_file_and_the_class(tmp_path, content, problem):
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=problem) as caught:
        read_prompts(path)
    assert caught.value.where == path


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "names no class"),
        ("a sentence", "Line 1 belongs to no class"),
        ("[A]\n- no a", "'A' has no affirming"),
        ("[A]\na\n[A]\nb", "'A' occurs twice"),
    ],
)
def test_damaged_text_is_refused(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem):
        read_prompts(written(tmp_path, content, "mine.txt"))


def test_what_is_not_text_or_names_a_class_in_two_spellings_is_refused(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(path)
    both = written(tmp_path, {"Effusion": ["a"], "pleural_effusion": ["b"]})
    with pytest.raises(DataError, match="are the same class"):
        prompts.prompt_table(both, classes=("Effusion",), negatives=False)


def scores(similarity, path, **changes):
    table = prompts.prompt_table(path, classes=("A", "B"), negatives=changes.pop("negatives", True))
    given = {"pool": "mean", "normalise": "none", "denial": "softmax", **changes}
    return prompt_scores.class_scores(np.asarray(similarity), table=table, **given)


def test_the_binary_score_of_cxr_clip_is_the_softmax_of_x_against_no_x(tmp_path):
    path = written(tmp_path, "[A]\nA\n- No A\n[B]\nB\nmuch B\n- No B\n", "mine.txt")
    rng = np.random.default_rng(0)
    similarity = rng.uniform(-1, 1, (30, 5))
    found = scores(similarity, path)
    pairs = np.exp(similarity[:, [0, 1]])
    np.testing.assert_allclose(found[:, 0], pairs[:, 0] / pairs.sum(axis=1), rtol=1e-5)
    # Several prompts are averaged before they are compared.
    pairs = np.exp(np.stack([similarity[:, [2, 3]].mean(axis=1), similarity[:, 4]], axis=1))
    np.testing.assert_allclose(found[:, 1], pairs[:, 0] / pairs.sum(axis=1), rtol=1e-5)
    difference = scores(similarity, path, denial="subtract")
    assert ((found > 0.5) == (difference > 0)).all()
    assert (found.argsort(axis=0) == difference.argsort(axis=0)).all()


def test_the_softmax_of_large_similarities_is_finite(tmp_path):
    path = written(tmp_path, "[A]\nA\n- No A\n[B]\nB\n- No B\n", "mine.txt")
    with np.errstate(over="raise", invalid="raise"):
        found = scores([[1e4, -1e4, -1e4, 1e4]], path)
    assert found.tolist() == [[1.0, 0.0]]


def test_a_class_without_denials_has_no_softmax(tmp_path):
    path = written(tmp_path, "[A]\nA\n- No A\n[B]\nB\n- No B\n", "mine.txt")
    with pytest.raises(ConfigError, match=r"^task\.zero_shot\.denial: .*A, B has none"):
        scores(np.zeros((2, 2)), path, negatives=False)


@pytest.mark.parametrize(
    "line",
    ["-No mass.", "\N{EN DASH} No mass.", "\N{BULLET} No mass.", "[Mass", "Mass]", "[Mass]:"],
)
def test_a_line_that_may_be_meant_otherwise_is_refused_by_its_number(tmp_path, line):
    path = written(tmp_path, f"[Effusion]\nPleural fluid.\n{line}\n", "mine.txt")
    with pytest.raises(DataError, match="Line 3"):
        read_prompts(path)


def test_brackets_within_a_sentence_and_any_blank_after_the_dash_are_read(tmp_path):
    path = written(tmp_path, "[Effusion]\nFluid [right].\nAs [seen]\n-\tNo fluid.\n", "mine.txt")
    found = read_prompts(path)["Effusion"]
    assert found.positive == ("Fluid [right].", "As [seen]") and found.negative == ("No fluid.",)


def test_a_template_is_refused(tmp_path):
    for sentence in ("There is {}.", "A photo of {label}."):
        with pytest.raises(DataError, match=r"'Mass' has a brace, and nothing is filled in"):
            read_prompts(written(tmp_path, {"Mass": [sentence]}))


def test_a_sentence_that_affirms_and_denies_is_refused(tmp_path):
    same = {"Mass": {"positive": ["A mass."], "negative": ["No mass.", "a  mass"]}}
    with pytest.raises(DataError, match=r"'A mass.' both affirms and denies 'Mass'"):
        read_prompts(written(tmp_path, same))
