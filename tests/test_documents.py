"""What the documents name is there."""

import ast
import pathlib
import re

import pytest

from configs.baselines.objectives import OBJECTIVES
from prior_jax.errors import ConfigError
from prior_jax.evaluate import prompts
from prior_jax.evaluate.prompt_tables import SYNONYMS
from prior_jax.objectives.kinds import KINDS

ROOT = pathlib.Path(__file__).parents[1]
# The changelog names places that files have left.
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - {ROOT / "CHANGELOG.md"})
FOLDERS = "configs|data_prep|docs|launch|prior_jax|tests"
# From the root, wherever it stands; a sign behind it may make a pattern of it.
FULL = re.compile(rf"(?<![\w/.<-])((?:{FOLDERS})/[\w./-]*\w)(?![\w/]*[*<{{])")
# In backticks, also from the document's folder or, where modules are spoken of, from prior_jax.
QUOTED = re.compile(r"`([\w./-]+\.(?:py|md|sh|yaml|toml))`")
# Files of the authors' releases, those of a folder that a program makes, the built site, and what
# the reader of a tutorial writes.
FOREIGN = re.compile(
    r"codes/|gloria/|models/unet\.py|DIR/|docs/_build|data_prep/teaching\.py|"
    r"tests/data_prep/test_teaching\.py|prior_jax/objectives/even\.py|/tmp/|/runs/"
)


def named(document):
    text = document.read_text()
    for name in FULL.findall(text):
        yield name, (ROOT,)
    for name in QUOTED.findall(text):
        yield name, (ROOT, document.parent, ROOT / "prior_jax")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_is_there(document):
    absent = {
        name
        for name, folders in named(document)
        if not FOREIGN.match(name) and not any((folder / name).exists() for folder in folders)
    }
    assert not absent


def test_the_documents_are_read():
    found = {name for document in DOCUMENTS for name, _ in named(document)}
    assert {"data_prep/kit/splits.py", "configs/small.py", "run_config.py"} <= found


def test_every_label_that_has_prompts_is_listed():
    text = " ".join((ROOT / "docs" / "data.md").read_text().split()).lower()
    section = text.split("### labels that can be asked for")[1].split("## ")[0]
    for name in (*prompts.known_classes(), *SYNONYMS):
        assert name.lower() in section, name


def test_every_set_of_prompts_is_listed():
    text = (ROOT / "docs" / "evaluation.md").read_text().split("**Prompts.**")[1]
    table = text.split("\n\n")[1]
    with pytest.raises(ConfigError) as error:
        prompts.prompts_in("none")
    for name in re.search(r"one of (.+), or the path", str(error.value))[1].split(", "):
        assert f"`{name}`" in table, name


TRAINING = ROOT / "docs" / "how_training_works.md"
# A row of a table: what happens, the file, and the names in it.
STEP = re.compile(r"^\| [^|]+ \| `([\w/.]+)` \| ((?:`[\w.]+`(?:, )?)+) \|$", re.M)


def defined_in(tree, prefix=""):
    """The functions and classes of a module, methods with the name of their class in front."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from defined_in(node, f"{node.name}.")


def test_every_name_on_the_page_about_training_is_defined_in_its_file():
    text = TRAINING.read_text()
    steps = STEP.findall(text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(steps) == len(rows) - 2 * rows.count("| --- | --- | --- |") > 30
    for path, names in steps:
        found = set(defined_in(ast.parse((ROOT / path).read_text())))
        named = set(re.findall(r"`([^`]+)`", names))
        assert named <= found, f"{path}: {named - found}"


def rows_of(document, heading):
    """First cells of the table whose heading begins like this, each in backticks."""
    text = (ROOT / "docs" / document).read_text()
    (table,) = re.findall(rf"^{re.escape(heading)}.*\n\|[ |-]+\n((?:\|.*\n)+)", text, re.M)
    return {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }


def test_every_objective_has_its_row_and_its_config():
    assert rows_of("objectives.md", "| `config.objective` |") == set(KINDS)
    reading = {name for name, kind in KINDS.items() if kind.reads_reports}
    assert rows_of("pods.md", "| objective | terms |") == reading
    assert reading == {"prior", "gloria", *OBJECTIVES}
    for name in OBJECTIVES:
        assert (ROOT / "configs" / "baselines" / f"{name}.py").exists(), name
