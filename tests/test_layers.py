"""The import rules of the house, held by reading every import with `ast`."""

import ast
import functools
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# layer -> what it may import of prior_jax, itself always included.
BASE = {"types", "errors", "folder_names", "near_names", "storage_errors", "vocabulary"}
PARTS = {"nn", "losses", "sharding", "processes", "data"}
ALLOWED = {
    "types": set(),
    "errors": set(),
    "folder_names": {"errors"},
    "near_names": {"errors"},
    "storage_errors": {"errors"},
    "vocabulary": set(),
    **{part: BASE for part in PARTS},
    "objectives": BASE | PARTS,
    "train": BASE | PARTS | {"objectives"},
    "interop": BASE | PARTS | {"strict", "objectives"},
    "evaluate": BASE | PARTS | {"objectives", "train", "interop"},
    "report": BASE | PARTS | {"objectives", "train", "interop", "evaluate"},
    "strict": {"errors"},
    "run_config": BASE | PARTS | {"strict", "objectives", "train", "interop", "evaluate"},
    "config": BASE | PARTS | {"strict", "objectives", "train", "interop", "evaluate", "run_config"},
    "assemble": BASE | PARTS | {"objectives", "train"},
    "interface": BASE
    | PARTS
    | {"strict", "objectives", "train", "interop", "evaluate", "config", "run_config", "assemble"},
}
# package -> the only places that may import it.
FENCES = {
    "orbax": (
        "prior_jax/train/checkpoint.py",
        "prior_jax/train/checkpoint_read.py",
        "prior_jax/train/checkpoint_s3.py",
        "prior_jax/interop/weights_folder.py",
    ),
    "grain": ("prior_jax/data", "data_prep"),
    "tensorflow_datasets": ("prior_jax/data", "data_prep"),
    "array_record": ("prior_jax/data", "data_prep"),
    "sentencepiece": ("prior_jax/data", "data_prep"),
    "pydicom": ("prior_jax/data", "data_prep"),
    "ml_collections": ("configs", "launch"),
    "matplotlib": ("prior_jax/report",),
    "torch": ("prior_jax/interop",),
    "onnx": ("prior_jax/interop",),
}
NEVER_IN_PRIOR_JAX = {"launch", "configs", "data_prep", "tests"}
# The train loop is handed its objective and its data.
LOOP_NEVER = {"prior_jax.objectives.prior", "prior_jax.data"}


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@functools.cache  # every rule looks at the same files
def imported_modules(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def layer_of(path):
    return path.relative_to(ROOT / "prior_jax").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources("prior_jax"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    layer = layer_of(path)
    if layer == "__init__":
        return
    for module in imported_modules(path):
        parts = module.split(".")
        assert parts[0] not in NEVER_IN_PRIOR_JAX, f"{path} imports {module}"
        if parts[0] == "prior_jax" and len(parts) > 1 and parts[1] != layer:
            assert parts[1] in ALLOWED[layer], f"{layer} may not import {module}"


@pytest.mark.parametrize("package", FENCES)
def test_a_fenced_package_stays_behind_its_fence(package):
    for path in sources("prior_jax", "configs", "launch", "data_prep"):
        place = str(path.relative_to(ROOT))
        inside = any(place == fence or place.startswith(fence + "/") for fence in FENCES[package])
        used = {module.split(".")[0] for module in imported_modules(path)}
        assert inside or package not in used, f"{place} imports {package}"


def test_the_fences_are_those_that_contributing_lists():
    rows = re.findall(r"^\| `(\w+)` \| ((?:`[\w./]+`(?:, )?)+) \|$", CONTRIBUTING.read_text(), re.M)
    listed = {package: tuple(re.findall(r"`([^`]+)`", places)) for package, places in rows}
    assert listed == FENCES


def test_the_loop_knows_neither_objective_nor_data():
    for path in sources("prior_jax/train"):
        for module in imported_modules(path):
            assert not any(module.startswith(never) for never in LOOP_NEVER), f"{path}: {module}"


def test_importing_the_package_starts_nothing():
    code = (
        "import sys, prior_jax.assemble, prior_jax.config; "
        "assert not any(m in sys.modules for m in ('torch', 'tensorflow', 'matplotlib'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
