"""Every quirk of a release that is spoken of is explained, and its switch is one that works."""

import ast
import functools
import pathlib
import re

import pytest
from ml_collections import ConfigDict

from configs.gloria import base as gloria_base
from configs.prior import base as prior_base

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "fidelity.md"
FOLDERS = ("configs", "data_prep", "docs", "launch", "prior_jax", "tests")
SUFFIXES = {".md", ".py", ".sh", ".toml", ".yaml"}

LETTERS = "PGLMCBX"  # in the order of the tables
ROW = re.compile(r"\| ([A-Z]\d+) \| (.+) \| (.+) \| (.+) \|")
CITED = re.compile(r"\bquirks? (\w*\d+(?:(?:, and |, | and )[A-Z]?\d+)*)", re.IGNORECASE)
# A citation may go on behind the end of a line, and behind the sign of a comment.
BREAK = re.compile(r"\s*\n\s*(?:#:?)?\s*")
NONE = {"none: always corrected", "none: kept in both"}
UNUSED = "Nothing in the code concerns it."

FIDELITIES = {"P": "objectives/prior_config.py", "G": "objectives/gloria_config.py"}
CONFIGS = {"P": prior_base.get_config, "G": gloria_base.get_config}
CALLED = re.compile(r"([\w.]+)\((\w*)\)")


def citations(text):
    return {name for found in CITED.findall(BREAK.sub(" ", text)) for name in named(found)}


def named(found):
    return re.findall(r"\w*\d+", found)


def sources():
    folders = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    for path in sorted([*ROOT.glob("*"), *folders]):
        if path.suffix in SUFFIXES and path != pathlib.Path(__file__):
            yield path


@functools.cache
def cited():
    return {path: citations(path.read_text()) for path in sources()}


def rows():
    return [match.groups() for line in PAGE.read_text().splitlines() if (match := ROW.match(line))]


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def in_package(package):
    return [tree(path) for path in sorted((ROOT / package).rglob("*.py"))]


def walked(nodes, *, definitions):
    """All nodes, less those in which a class checks its own fields, unless asked for."""
    nodes = list(nodes)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef) and node.name == "__post_init__" and not definitions:
            continue
        yield node
        nodes.extend(ast.iter_child_nodes(node))


@functools.cache
def attributes_read(package):
    """Names read as attributes, each with the last name of what it is read from."""
    found = set()
    for node in walked(in_package(package), definitions=False):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            last = getattr(owner, "attr", getattr(owner, "id", ""))
            found |= {(last, node.attr), ("", node.attr)}
    return found


@functools.cache
def fields(package):
    return {
        node.target.id
        for node in walked(in_package(package), definitions=True)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def definition(dotted):
    """The package and the class or function of a dotted name such as `nn.unet.UNet`."""
    parts = dotted.split(".")
    package = "data_prep" if parts[0] == "data_prep" else "prior_jax"
    place, parts = ROOT / package, parts[1:] if parts[0] == package else parts
    while parts and (place / parts[0]).is_dir():
        place, parts = place / parts[0], parts[1:]
    module, *names = parts
    node = tree(place / f"{module}.py")
    for name in names:
        (node,) = [
            child
            for child in node.body
            if isinstance(child, ast.ClassDef | ast.FunctionDef) and child.name == name
        ]
    return package, node


def fields_of(node):
    return [line.target.id for line in node.body if isinstance(line, ast.AnnAssign)]


def fidelity_fields(kind):
    (node,) = [
        node
        for node in tree(ROOT / "prior_jax" / FIDELITIES[kind]).body
        if isinstance(node, ast.ClassDef) and node.name == "Fidelity"
    ]
    return fields_of(node)


def check_argument(dotted, argument):
    _, node = definition(dotted)
    if isinstance(node, ast.ClassDef):
        _, node = definition(f"{dotted}.__init__")
    assert isinstance(node, ast.FunctionDef), dotted
    if not argument:
        return
    taken = {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)}
    assert argument in taken, f"{dotted} takes no {argument}"
    reads = {
        child.id
        for line in node.body
        for child in ast.walk(line)
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load)
    }
    assert argument in reads, f"{dotted} does not read {argument}"


def check_switch(kind, switch):
    """Raises unless the switch exists and is read outside of its definition."""
    called = CALLED.fullmatch(switch)
    first, _, rest = switch.partition(".")
    if called:
        check_argument(*called.groups())
    elif first == "Fidelity":
        assert rest in fidelity_fields(kind), f"no field {rest} of Fidelity"
        assert ("choices", rest) in attributes_read("prior_jax"), f"nothing reads {rest}"
    elif first == "config":
        config = CONFIGS[kind]("release")
        *sections, name = rest.split(".")
        for section in sections:
            config = config[section]
        assert isinstance(config, ConfigDict)
        assert name in config, switch
        assert name in fields("prior_jax"), f"no field {name}"
        assert ("", name) in attributes_read("prior_jax"), f"nothing reads {switch}"
    else:
        owner, _, name = switch.rpartition(".")
        package, node = definition(owner)
        assert isinstance(node, ast.ClassDef), owner
        assert name in fields_of(node), f"{owner} has no field {name}"
        assert ("", name) in attributes_read(package), f"nothing reads {switch}"


def test_every_quirk_that_is_cited_has_a_row():
    known = {name for name, *_ in rows()}
    absent = {
        str(path.relative_to(ROOT)): sorted(names - known)
        for path, names in cited().items()
        if names - known
    }
    assert not absent


def test_every_row_is_of_a_quirk_that_code_cites():
    spoken_of = {name for path, names in cited().items() if path.suffix == ".py" for name in names}
    idle = {name for name, _, right, _ in rows() if UNUSED not in right} - spoken_of
    assert not idle


def test_ids_are_unique_and_in_order():
    names = [name for name, *_ in rows()]
    assert names == sorted(set(names), key=lambda name: (LETTERS.index(name[0]), int(name[1:])))
    assert {"P1", "G1"} <= set(names)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_names_a_switch_that_is_read_or_says_that_there_is_none(row):
    name, _, _, switch = row
    switches = re.findall(r"`([^`]+)`", switch)
    assert (switch in NONE) != bool(switches), switch
    assert switch in NONE or switch == ", ".join(f"`{found}`" for found in switches)
    for found in switches:
        check_switch(name[0], found)


@pytest.mark.parametrize("kind", FIDELITIES)
def test_every_field_of_fidelity_is_read_and_described(kind):
    text = PAGE.read_text()
    assert fidelity_fields(kind)
    for name in fidelity_fields(kind):
        assert ("choices", name) in attributes_read("prior_jax"), f"nothing reads {name}"
        assert f"`{name}`" in text, name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as the release does (quirk P7).", {"P7"}),
        ("(quirks G18, G19 and\n    G21)", {"G18", "G19", "G21"}),
        ("# the wrong way (quirk\n#: P3)", {"P3"}),
        ("Quirk 7 has no letter", {"7"}),
        ("(quirks P3, 4)", {"P3", "4"}),
        ("quirk by quirk, 086bf2e", set()),
    ],
)
def test_citations_are_found_across_lines_and_without_a_letter(text, found):
    assert citations(text) == found


@pytest.mark.parametrize(
    ("kind", "switch"),
    [
        ("P", "Fidelity.separator_in_prompt"),
        ("G", "Fidelity.clamp_scale"),
        ("P", "config.optimizer.absent"),
        ("G", "nn.unet.UNetDecoderConfig.absent"),
        ("G", "losses.segmentation.dice_loss(absent)"),
        # Taken, and deleted unread: words say where sentences end.
        ("G", "objectives.gloria.GloriaObjective.encode_report(sentence_mask)"),
    ],
)
def test_a_switch_that_does_not_exist_is_noticed(kind, switch):
    with pytest.raises((AssertionError, KeyError)):
        check_switch(kind, switch)
