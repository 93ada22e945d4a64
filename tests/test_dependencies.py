"""What the code imports is what pyproject.toml declares, no more and no fewer."""

import ast
import functools
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
OWN = ("prior_jax", "launch", "configs", "data_prep")
# Imported name -> distribution, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "google": "protobuf",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
}
# Used without an import of our own -> the place that says so.
USED_BY_NAME = {
    "flatbuffers": "prior_jax/interop/export/stablehlo.py",
    "gcsfs": "prior_jax/train/checkpoint_storage.py",
    "s3fs": "prior_jax/train/checkpoint_storage.py",
}
# Decoders that pydicom finds by itself, and the runtime that exported ONNX files are read with.
PLUGINS = {"pyjpegls", "pylibjpeg", "pylibjpeg-openjpeg", "python-gdcm", "onnxruntime"}
# What only some users need, by the extra that brings it.
OPTIONAL = ("coco", "dicom", "export", "gcs", "interface", "probe", "s3", "tpu", "wandb")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path):
    """Top-level names of the packages that a file imports, by statement or by name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value.split(".")[0]


@functools.cache
def used():
    """Distributions that the code uses."""
    names = {
        name for folder in OWN for path in (ROOT / folder).rglob("*.py") for name in imported(path)
    }
    names -= {*OWN, *sys.stdlib_module_names}
    return {normal(DISTRIBUTIONS.get(name, name)) for name in names}


def declared():
    """(distributions of the project itself, those of each optional extra)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {normal(re.match(r"[A-Za-z0-9_.-]+", line)[0]) for line in requirements}

    extras = project["optional-dependencies"]
    return names(project["dependencies"]), {name: names(extras[name]) for name in OPTIONAL}


def test_everything_imported_is_declared():
    always, extras = declared()
    available = always.union(*extras.values()) | {"libtpu"}  # jax[tpu] brings it
    assert used() - available == set()


def test_everything_declared_is_used():
    always, extras = declared()
    for name, place in USED_BY_NAME.items():
        assert name in (ROOT / place).read_text(), f"{name} is no longer used in {place}"
    assert always - used() - set(USED_BY_NAME) == set()
    for extra, names in extras.items():
        assert names - used() - set(USED_BY_NAME) - PLUGINS - {"jax"} == set(), extra
